"""The way of files to the main branch of a model on the Hub.

The Hub cannot move a branch to a commit. Its merge of a pull request would leave a discussion on the
model's page for each attempt, and can be switched off. So the files go to a branch of their own,
named by their content, and are downloaded from there and tried (who may see the model may see that).
Then one commit on main, which the Hub takes only if main has not moved since, has the large files
copied from the tried commit inside the Hub and the small ones sent again; the Hub's listing of main
must name the same content.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
    get_token,
)
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
from huggingface_hub.hf_api import ModelInfo

from peftune.errors import HubError, PeftuneError
from peftune.export.hub_files import (
    HubFile,
    differing,
    digest_of,
    files_below,
    listed_files,
    shortened,
)
from peftune.export.hub_requests import SCHEME, asking

BRANCHES = "peftune-upload-"
MAIN = "main"


@dataclass
class Upload:
    """The files on their way to a model's main branch."""

    api: HfApi
    folder: Path
    repo_id: str
    say: Callable[[str], None]
    resume_command: str
    files: dict[str, HubFile] = field(default_factory=dict, init=False)
    missing: list[str] = field(default_factory=list, init=False)
    """Names of files that main lacks or has otherwise, as far as is known."""

    def __post_init__(self) -> None:
        with self.step("reading the folder"):
            self.files = files_below(self.folder)
        self.missing = list(self.files)
        if not self.files:
            raise self.failed(f"{str(self.folder)!r} holds no files.")
        if get_token() is None:
            raise self.failed("there is no token. Set HF_TOKEN, or run `hf auth login`.")

    @property
    def branch(self) -> str:
        return BRANCHES + digest_of(self.files)[:16]

    def failed(self, what: str) -> HubError:
        missing = f"Missing on {MAIN}: {shortened(self.missing)}. " if self.missing else ""
        return HubError(
            f"{SCHEME}{self.repo_id}: {what} {missing}Continue with: {self.resume_command}"
        )

    def step(self, doing: str) -> AbstractContextManager[None]:
        return asking(lambda reason: self.failed(f"{doing}: {reason}"), self.say)

    def repository(self, private: bool) -> str:
        """The commit of main in the model's repository, which is created if there is none."""
        info = self._info()
        if info is None:
            with self.step("creating the repository"):
                self.api.create_repo(self.repo_id, private=private, exist_ok=True)
            info = self._info()
        if info is None or info.sha is None:
            raise self.failed("the repository has no commit that the token may see.")
        if info.id.lower() != self.repo_id.lower():
            raise self.failed(f"it is called {info.id!r} now. Publish to {SCHEME}{info.id}.")
        self._check_visibility(bool(info.private), private)
        return info.sha

    def _info(self) -> ModelInfo | None:
        with self.step("looking for the repository"):
            try:
                return self.api.model_info(self.repo_id)
            except GatedRepoError:
                raise
            except RepositoryNotFoundError:
                return None

    def _check_visibility(self, is_private: bool, private: bool) -> None:
        if private and not is_private:
            raise self.failed(
                "it is public, and a private model was asked for. "
                "Make it private on the Hub, choose another name, or ask for a public one."
            )
        if is_private and not private:
            self.say(
                f"{SCHEME}{self.repo_id} is private and stays so; its settings can change that."
            )

    def is_main(self, head: str) -> bool:
        """Whether main or its newest commit holds these files alone; notes what it lacks."""
        with self.step(f"listing {MAIN}"):
            listed = listed_files(self.api, self.repo_id, head)
        self.missing = differing(self.files, listed)
        return not self.missing and len(listed) == len(self.files)

    def stage(self, head: str, message: str) -> str:
        """The commit on the branch of these files: an earlier call's if it is whole, or a new one."""
        with self.step("looking for an earlier upload"):
            refs = self.api.list_repo_refs(self.repo_id)
            found = {ref.name: ref.target_commit for ref in refs.branches}.get(self.branch)
            listed = listed_files(self.api, self.repo_id, found or head)
        if found and not differing(self.files, listed) and len(listed) == len(self.files):
            self.say("All files are on the Hub from an earlier upload.")
            return found
        with self.step(f"making the branch {self.branch}"):
            if found:
                self.api.delete_branch(self.repo_id, branch=self.branch)
            self.api.create_branch(self.repo_id, branch=self.branch, revision=head)
        self.say(f"Uploading {len(self.files)} files to {SCHEME}{self.repo_id}.")
        with self.step("uploading"):
            added = [CommitOperationAdd(name, file.path) for name, file in self.files.items()]
            return self._commit(self.branch, head, message, list(added))

    def verify(self, commit: str, accept: Callable[[Path], None]) -> None:
        """Download the commit into a fresh cache beside the folder, compare it, and try it."""
        self.say(f"Downloading {commit[:8]} into a fresh cache to verify it.")
        with self.step("making room for the download"):
            room = TemporaryDirectory(prefix=".peftune-verify-", dir=self.folder.parent)
        with room as cache:
            with self.step(f"downloading {commit[:8]} again"):
                copy = Path(
                    self.api.snapshot_download(self.repo_id, revision=commit, cache_dir=cache)
                )
                found = files_below(copy, links=True)
            self._compare(commit, found)
            try:
                accept(copy)
            except PeftuneError as error:
                raise self.failed(f"the download of {commit[:8]} does not work: {error}") from error

    def _compare(self, commit: str, found: dict[str, HubFile]) -> None:
        names = sorted(self.files.keys() | found.keys())
        told = {name: file.sha256 for name, file in self.files.items()}
        got = {name: file.sha256 for name, file in found.items()}
        if wrong := [name for name in names if told.get(name) != got.get(name)]:
            raise self.failed(
                f"the download of {commit[:8]} is not what was sent: {shortened(wrong)} differ."
            )

    def release(self, head: str, staged: str, message: str) -> str:
        """Commit the verified files on main, and see that main has them."""
        with self.step(f"making {staged[:8]} the revision {MAIN}"):
            listed = listed_files(self.api, self.repo_id, staged)
            commit = self._commit(
                MAIN,
                head,
                message,
                [
                    CommitOperationCopy(name, name, src_revision=staged)
                    if listed[name].lfs
                    else CommitOperationAdd(name, file.path)
                    for name, file in self.files.items()
                ],
            )
        if not self.is_main(MAIN):
            raise self.failed(f"{MAIN} does not hold what was committed to it as {commit[:8]}.")
        return commit

    def _commit(
        self,
        branch: str,
        head: str,
        message: str,
        sent: list[CommitOperationAdd | CommitOperationCopy],
    ) -> str:
        """Commit on a branch whose newest commit is `head`; what else `head` has is removed."""
        surplus = listed_files(self.api, self.repo_id, head).keys() - self.files.keys()
        removed = [CommitOperationDelete(name, is_folder=False) for name in sorted(surplus)]
        if removed and branch == MAIN:
            self.say(f"Leaving the revision {MAIN}: {shortened(sorted(surplus))}.")
        return self.api.create_commit(
            self.repo_id,
            [*sent, *removed],
            commit_message=message,
            revision=branch,
            parent_commit=head,
        ).oid

    def remove_branches(self) -> None:
        """Remove what uploads have left behind; failing at that is told and is no failure."""
        try:
            with self.step("removing the branch of the upload"):
                for ref in self.api.list_repo_refs(self.repo_id).branches:
                    if ref.name.startswith(BRANCHES):
                        self.api.delete_branch(self.repo_id, branch=ref.name)
        except HubError as error:
            self.say(f"Published, but: {error}")
