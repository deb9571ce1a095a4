"""Models on the Hugging Face Hub: publish a folder that works, read what is published."""

import glob
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from peftune.errors import HubError, RecipeError
from peftune.export.hub_files import shortened
from peftune.export.hub_requests import SCHEME, asking, hub_api
from peftune.export.hub_upload import Upload


@dataclass(frozen=True)
class HubTarget:
    """A model on the Hub, and which revision of it."""

    repo_id: str
    """ORG/NAME."""
    revision: str | None
    """A branch, tag or commit; None is what `main` stands for."""


def parse_target(text: str) -> HubTarget | Path:
    """`hub:ORG/NAME` or `hub:ORG/NAME@REVISION`, or else the path of a folder.

    Raises RecipeError for what is neither.
    """
    if not text.startswith(SCHEME):
        if not text.strip() or "://" in text:
            raise RecipeError(
                f"{text!r} is neither a folder nor {SCHEME}ORG/NAME. Write one of them."
            )
        return Path(text)
    repo_id, at, revision = text.removeprefix(SCHEME).partition("@")
    if repo_id.count("/") != 1 or bool(at) != bool(revision):
        raise RecipeError(f"{text!r}: write {SCHEME}ORG/NAME or {SCHEME}ORG/NAME@REVISION.")
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise RecipeError(f"{text!r} cannot be a name on the Hub: {error}") from error
    return HubTarget(repo_id, revision or None)


def fetch(repo_id: str, revision: str | None, into: Path, names: list[str] | None = None) -> Path:
    """Download a model, or the named files of it, into a cache in `into`.

    Returns the folder with the files, whose name is the commit. Raises HubError.
    """
    target = f"{SCHEME}{repo_id}" + (f"@{revision}" if revision else "")
    api, chosen = hub_api(), None if names is None else [glob.escape(name) for name in names]
    with asking(lambda reason: HubError(f"{target} cannot be read: {reason}")):
        commit = api.model_info(repo_id, revision=revision).sha
        folder = Path(
            api.snapshot_download(repo_id, revision=commit, cache_dir=into, allow_patterns=chosen)
        )
    if missing := [name for name in names or [] if not (folder / name).is_file()]:
        raise HubError(
            f"{target} has no {shortened(missing)}. Give a model that peftune published."
        )
    return folder


def publish(
    folder: Path,
    repo_id: str,
    *,
    private: bool,
    message: str,
    accept: Callable[[Path], None],
    say: Callable[[str], None],
    resume_command: str,
) -> str:
    """Make the files of `folder` the main revision of a model on the Hub, in one commit.

    Hidden files and links are not sent; files that main has and the folder lacks leave the revision
    (they stay in its history). A model that does not exist is created. Nothing is made public
    unless `private` is False, and a public model is never written to when it is True.
    Main changes only after a download into a fresh cache has the same files and `accept`, which
    raises PeftuneError for a folder that does not work, has taken it. After any failure another
    call goes on: large files that the Hub has are not sent again, and there is one commit in the end.

    Returns the commit. Raises HubError, which names the failed step, what main lacks, and
    `resume_command`.
    """
    upload = Upload(hub_api(), folder, repo_id, say, resume_command)
    head = upload.repository(private)
    if upload.is_main(head):
        say(f"{SCHEME}{repo_id} already holds exactly these {len(upload.files)} files.")
        upload.remove_branches()
        return head
    staged = upload.stage(head, message)
    upload.verify(staged, accept)
    commit = upload.release(head, staged, message)
    upload.remove_branches()
    say(f"Published: {upload.api.endpoint}/{repo_id}/tree/{commit}")
    return commit
