"""Repositories of models in memory: commits, branches, large files by their SHA-256, and who may what."""

import base64
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

import yaml

INITIAL = {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"}
MAIN = "main"


class Refused(Exception):
    """The answer is an error: its status, words, and the code that the client looks at."""

    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


@dataclass(frozen=True)
class Entry:
    """A file of a commit; `sha256` of one in large file storage."""

    content: bytes
    sha256: str | None = None

    @property
    def pointer(self) -> bytes:
        lines = ("version https://git-lfs.github.com/spec/v1", f"oid sha256:{self.sha256}")
        return "\n".join([*lines, f"size {len(self.content)}", ""]).encode()

    @property
    def blob(self) -> str:
        data = self.content if self.sha256 is None else self.pointer
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()

    def listed(self, path: str) -> dict[str, Any]:
        found = {"type": "file", "oid": self.blob, "size": len(self.content), "path": path}
        if self.sha256 is None:
            return found
        size, pointer = len(self.content), len(self.pointer)
        return found | {"lfs": {"oid": self.sha256, "size": size, "pointerSize": pointer}}


@dataclass(frozen=True)
class Commit:
    parent: str | None
    summary: str
    files: dict[str, Entry]

    @property
    def oid(self) -> str:
        tree = {path: entry.blob for path, entry in sorted(self.files.items())}
        return hashlib.sha1(json.dumps([self.parent, self.summary, tree]).encode()).hexdigest()


@dataclass
class Repository:
    repo_id: str
    private: bool
    gated: bool = False
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def add(self, branch: str, commit: Commit) -> str:
        self.commits[commit.oid] = commit
        self.branches[branch] = commit.oid
        return commit.oid

    def resolved(self, revision: str) -> str:
        oid = self.branches.get(revision, revision)
        if oid not in self.commits:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return oid

    def files(self, revision: str = MAIN) -> dict[str, Entry]:
        return self.commits[self.resolved(revision)].files

    def history(self, branch: str = MAIN) -> list[str]:
        """The summaries of a branch's commits, the first one first."""
        found, oid = [], self.branches.get(branch)
        while oid is not None:
            found.append(self.commits[oid].summary)
            oid = self.commits[oid].parent
        return found[::-1]


@dataclass
class Store:
    """All repositories, all large files, and the tokens: for each its user's name spaces."""

    tokens: dict[str, set[str]] = field(default_factory=dict)
    repositories: dict[str, Repository] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    received: list[str] = field(default_factory=list)
    """Names of the large files, or of the xorbs, that came whole, in order."""

    xorbs: dict[str, bytes] = field(default_factory=dict)
    xet_files: dict[str, list[tuple[str, int, int, int]]] = field(default_factory=dict)
    """For each file in Xet storage: xorb, bytes, first piece and end of pieces of each term."""
    xet_names: dict[str, str] = field(default_factory=dict)
    """The name in Xet storage of a file with this SHA-256."""

    def create(
        self, repo_id: str, private: bool, files: dict[str, bytes] | None = None
    ) -> Repository:
        """A repository with the Hub's first commit, and one with `files` where given."""
        repository = self.repositories[repo_id] = Repository(repo_id, private)
        first = {path: Entry(content) for path, content in INITIAL.items()}
        head = repository.add(MAIN, Commit(None, "initial commit", first))
        if files:
            entries = {path: self._entry(path, content) for path, content in files.items()}
            repository.add(MAIN, Commit(head, "first version", first | entries))
        return repository

    def _entry(self, path: str, content: bytes) -> Entry:
        if not is_large(path):
            return Entry(content)
        sha256 = hashlib.sha256(content).hexdigest()
        self.objects[sha256] = content
        return Entry(content, sha256)

    def visible(self, repo_id: str, token: str | None) -> Repository:
        """The repository, for one who may see it; others are not told whether it exists."""
        self.check_token(token)
        repository = self.repositories.get(repo_id)
        may_see = repository and (not repository.private or self.may_write(repo_id, token))
        if repository is None or not may_see:
            status = 401 if token is None else 404
            raise Refused(status, "Repository not found", "RepoNotFound")
        return repository

    def writable(self, repo_id: str, token: str | None) -> Repository:
        repository = self.visible(repo_id, token)
        if not self.may_write(repo_id, token):
            raise Refused(403, f"You don't have write access to {repo_id}")
        return repository

    def may_write(self, repo_id: str, token: str | None) -> bool:
        return repo_id.split("/")[0] in self.tokens.get(token or "", set())

    def check_token(self, token: str | None) -> None:
        if token is not None and token not in self.tokens:
            # The Hub does not repeat the token; a server between may.
            raise Refused(401, f"Invalid username or password: {token}")

    def commit(self, repository: Repository, branch: str, lines: list[dict[str, Any]]) -> str:
        """Apply the lines of a commit request. Raises Refused, and then nothing has changed."""
        if branch not in repository.branches:
            raise Refused(404, f"Invalid rev id: {branch}", "RevisionNotFound")
        head = repository.branches[branch]
        header = next(line["value"] for line in lines if line["key"] == "header")
        if header.get("parentCommit", head) != head:
            raise Refused(412, "A commit has happened since. Please refresh and try again.")
        files, touched = dict(repository.files(head)), set()
        for line in lines:
            if line["key"] != "header":
                self._apply(files, line["key"], line["value"])
                touched.add(line["value"]["path"])
        if len(touched) != len(lines) - 1:
            raise Refused(400, "A file is named twice")
        return repository.add(branch, Commit(head, header["summary"], files))

    def _apply(self, files: dict[str, Entry], key: str, value: dict[str, Any]) -> None:
        path = value["path"]
        if key == "deletedFile":
            if path not in files:
                raise Refused(404, "A file with this name doesn't exist", "EntryNotFound")
            del files[path]
        elif key == "file":
            if is_large(path):
                raise Refused(400, f"{path} must be uploaded with LFS")
            files[path] = Entry(base64.b64decode(value["content"], validate=True))
        elif key == "lfsFile":
            files[path] = self._large(path, value)
        else:
            raise Refused(400, f"Unknown operation {key}")

    def _large(self, path: str, value: dict[str, Any]) -> Entry:
        content = self.objects.get(value["oid"])
        if content is None or value.get("size", len(content)) != len(content):
            raise Refused(400, f"LFS pointer of {path} points to a file that does not exist")
        return Entry(content, value["oid"])

    def keep(self, oid: str, size: int, content: bytes) -> None:
        """Take in a large file that is what was announced."""
        if len(content) != size or hashlib.sha256(content).hexdigest() != oid:
            raise Refused(400, "The content does not have the announced digest")
        self.objects[oid] = content


def is_large(path: str) -> bool:
    return path.endswith(".safetensors")


def check_card(content: str) -> None:
    """The YAML between the first two lines of dashes must be one. Raises Refused."""
    try:
        yaml.safe_load(content.split("---")[1] if content.startswith("---") else "")
    except yaml.YAMLError as error:
        raise Refused(400, "Invalid metadata") from error
