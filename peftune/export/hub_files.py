"""Files as the Hub knows them: by name, and by the digests of their content."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.hf_api import RepoFile

READ_BYTES = 1 << 20
NAMES_SHOWN = 5


@dataclass(frozen=True)
class HubFile:
    """A file of a folder, and both digests that a listing of the Hub may give for its content."""

    path: Path
    sha256: str
    """Names the content of a file in large file storage (LFS, Xet)."""
    blob: str
    """Git's name of a small file's content: the SHA-1 of `blob SIZE`, a zero byte and the bytes."""

    def is_at(self, listed: RepoFile | None) -> bool:
        """Whether the listed file has this content."""
        if listed is None:
            return False
        return listed.lfs.sha256 == self.sha256 if listed.lfs else listed.blob_id == self.blob


def files_below(folder: Path, *, links: bool = False) -> dict[str, HubFile]:
    """The files of a folder by their names on the Hub, in order; nothing hidden, no links.

    `links` takes in links to files, which are all that a snapshot in a cache of the Hub has.
    """
    paths = (path for path in folder.rglob("*") if path.is_file())
    named = {path.relative_to(folder).as_posix(): path for path in paths}
    return {
        name: _digested(path)
        for name, path in sorted(named.items())
        if not _is_hidden(name) and (links or not path.is_symlink())
    }


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def _digested(path: Path) -> HubFile:
    sha256, blob = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % path.stat().st_size)
    for piece in _pieces(path):
        sha256.update(piece)
        blob.update(piece)
    return HubFile(path, sha256.hexdigest(), blob.hexdigest())


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(READ_BYTES):
            yield piece


def digest_of(files: Mapping[str, HubFile]) -> str:
    """One digest of all names and contents."""
    lines = (f"{file.sha256} {name}\n" for name, file in files.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def listed_files(api: HfApi, repo_id: str, revision: str) -> dict[str, RepoFile]:
    """The files of a revision by name, without hidden ones: `.gitattributes` is the Hub's own."""
    tree = api.list_repo_tree(repo_id, recursive=True, revision=revision)
    return {
        item.path: item for item in tree if isinstance(item, RepoFile) and not _is_hidden(item.path)
    }


def differing(files: Mapping[str, HubFile], listed: Mapping[str, RepoFile]) -> list[str]:
    """Names of files that a revision lacks or holds with another content."""
    return [name for name, file in files.items() if not file.is_at(listed.get(name))]


def shortened(names: list[str]) -> str:
    """The first names of a list, and how many more there are."""
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(names[:NAMES_SHOWN]) + more
