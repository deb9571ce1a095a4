"""The requests that huggingface_hub makes, one function for each kind."""

import json
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, unquote

from tests.hub import xet
from tests.hub.messages import Answer, Request, ranged
from tests.hub.signing import signed
from tests.hub.storage import batch, complete, stored, upload, upload_part, verify
from tests.hub.store import Entry, Refused, Repository, check_card, is_large

LISTED_AT_ONCE = 3


def create(request: Request) -> Answer:
    asked = request.json
    repo_id = f"{asked['organization']}/{asked['name']}"
    request.store.check_token(request.token)
    if not request.store.may_write(repo_id, request.token):
        raise Refused(403, f"You don't have the rights to create a model under {repo_id}")
    url = {"url": f"{request.endpoint}/{repo_id}"}
    if repo_id in request.store.repositories:
        return Answer.of({"error": "You already created this model repo"} | url, 409)
    request.store.create(repo_id, private=asked["visibility"] == "private")
    return Answer.of(url)


def info(request: Request) -> Answer:
    repo_id, *revision = request.parts
    if repo_id in request.store.moved:
        path = request.path.replace(repo_id, request.store.moved[repo_id])
        return Answer(status=307, headers={"Location": path})
    repository = request.store.visible(repo_id, request.token)
    sha = repository.resolved(*revision or ["main"])
    siblings = [{"rfilename": path} for path in repository.files(sha)]
    known = {"id": repo_id, "sha": sha, "private": repository.private, "siblings": siblings}
    return Answer.of(known | {"gated": "manual" if repository.gated else False})


def refs(request: Request) -> Answer:
    repository = request.store.visible(*request.parts, request.token)
    branches = [
        {"name": name, "ref": f"refs/heads/{name}", "targetCommit": oid}
        for name, oid in repository.branches.items()
    ]
    return Answer.of({"branches": branches, "converts": [], "tags": []})


def make_branch(request: Request) -> Answer:
    repo_id, branch = request.parts
    repository = request.store.writable(repo_id, request.token)
    if branch in repository.branches:
        raise Refused(409, "Reference already exists")
    repository.branches[branch] = repository.resolved(request.json["startingPoint"])
    return Answer.of({})


def drop_branch(request: Request) -> Answer:
    repo_id, branch = request.parts
    repository = request.store.writable(repo_id, request.token)
    if branch == "main" or branch not in repository.branches:
        raise Refused(404, f"Branch {branch} cannot be deleted")
    del repository.branches[branch]
    return Answer.of({})


def tree(request: Request) -> Answer:
    repo_id, revision = request.parts
    files = request.store.visible(repo_id, request.token).files(revision)
    start = int(request.query.get("cursor", 0))
    listed = [entry.listed(path) for path, entry in sorted(files.items())]
    page, left = listed[start : start + LISTED_AT_ONCE], listed[start + LISTED_AT_ONCE :]
    following = f"{request.endpoint}{request.path}?recursive=true&cursor={start + len(page)}"
    return Answer.of(page, headers={"Link": f'<{following}>; rel="next"'} if left else {})


def paths(request: Request) -> Answer:
    repo_id, revision = request.parts
    files = request.store.visible(repo_id, request.token).files(revision)
    asked = parse_qs(request.body.decode())["paths"]
    return Answer.of([files[path].listed(path) for path in asked if path in files])


def validate(request: Request) -> Answer:
    check_card(request.json["content"])
    return Answer.of({"errors": [], "warnings": []})


def preupload(request: Request) -> Answer:
    repo_id, revision = request.parts
    files = request.store.writable(repo_id, request.token).files(revision)
    return Answer.of(
        {
            "files": [
                _upload_mode(file["path"], files.get(file["path"]))
                for file in request.json["files"]
            ]
        }
    )


def _upload_mode(path: str, held: Entry | None) -> dict[str, Any]:
    mode = {"path": path, "uploadMode": "lfs" if is_large(path) else "regular"}
    oid = {"oid": held.sha256 or held.blob} if held else {}
    return mode | {"shouldIgnore": False} | oid


def commit(request: Request) -> Answer:
    repo_id, branch = request.parts
    repository = request.store.writable(repo_id, request.token)
    lines = [json.loads(line) for line in request.body.splitlines()]
    oid = request.store.commit(repository, branch, lines)
    return Answer.of({"commitOid": oid, "commitUrl": f"{request.endpoint}/{repo_id}/commit/{oid}"})


def resolve(request: Request) -> Answer:
    repo_id, revision, path = request.parts
    repository = request.store.visible(repo_id, request.token)
    if repository.gated and not request.store.may_write(repo_id, request.token):
        raise Refused(403, "Ask for access first", "GatedRepo")
    sha = repository.resolved(revision)
    entry = _file(repository, sha, path)
    headers = {"X-Repo-Commit": sha, "ETag": f'"{entry.blob}"'}
    if entry.sha256 is None:
        return ranged(request, entry.content, headers)
    headers |= {"X-Linked-Etag": f'"{entry.sha256}"', "X-Linked-Size": str(len(entry.content))}
    if xet_name := request.store.xet_names.get(entry.sha256):
        refresh = f"{request.endpoint}/api/models/{repo_id}/xet-read-token/{sha}"
        headers |= {"X-Xet-Hash": xet_name, "Link": f'<{refresh}>; rel="xet-auth"'}
    location = signed(request, f"/storage/{entry.sha256}")
    return Answer(status=302, headers=headers | {"Location": location})


def _file(repository: Repository, sha: str, path: str) -> Entry:
    files = repository.files(sha)
    if path not in files:
        raise Refused(404, "Entry not found", "EntryNotFound")
    return files[path]


REPO = r"([\w.-]+/[\w.-]+)"
API = rf"/api/models/{REPO}"
ROUTES: list[tuple[str, str, str, Callable[[Request], Answer]]] = [
    ("POST", "create", r"/api/repos/create", create),
    ("POST", "validate", r"/api/validate-yaml", validate),
    ("GET", "info", API, info),
    ("GET", "info of a revision", rf"{API}/revision/([^/]+)", info),
    ("GET", "refs", rf"{API}/refs", refs),
    ("POST", "make branch", rf"{API}/branch/([^/]+)", make_branch),
    ("DELETE", "drop branch", rf"{API}/branch/([^/]+)", drop_branch),
    ("GET", "tree", rf"{API}/tree/([^/]+)", tree),
    ("POST", "paths", rf"{API}/paths-info/([^/]+)", paths),
    ("POST", "preupload", rf"{API}/preupload/([^/]+)", preupload),
    ("POST", "commit", rf"{API}/commit/([^/]+)", commit),
    ("POST", "lfs batch", rf"/{REPO}\.git/info/lfs/objects/batch", batch),
    ("POST", "lfs verify", rf"/{REPO}\.git/info/lfs/verify", verify),
    ("PUT", "lfs upload", r"/storage/(\w{64})/(\d+)", upload),
    ("PUT", "lfs part", r"/storage/(\w{64})/(\d+)/(\d+)", upload_part),
    ("POST", "lfs complete", r"/storage/(\w{64})/(\d+)/complete", complete),
    ("GET", "storage", r"/storage/(\w{64})", stored),
    ("GET", "xet token", rf"{API}/xet-write-token/([^/]+)", xet.write_token),
    ("GET", "xet token", rf"{API}/xet-read-token/([^/]+)", xet.read_token),
    ("GET", "xet chunk", r"/cas/v1/chunks/default(?:-merkledb)?/\w{64}", xet.known_chunk),
    ("POST", "xorb", r"/cas/v1/xorbs/default/(\w{64})", xet.put_xorb),
    ("POST", "shard", r"/cas/v2/shards", xet.put_shard),
    ("GET", "reconstruction", r"/cas/v1/reconstructions/(\w{64})", xet.reconstruction),
    ("GET", "xorb range", r"/storage/xorb/(\w{64})", xet.get_xorb),
    ("HEAD", "head", rf"/{REPO}/resolve/([^/]+)/(.+)", resolve),
    ("GET", "download", rf"/{REPO}/resolve/([^/]+)/(.+)", resolve),
]


def route_of(method: str, path: str) -> tuple[str, Callable[[Request], Answer], list[str]]:
    """The name of a kind of request, what answers it, and the variable parts of the path."""
    for verb, name, pattern, function in ROUTES:
        if verb == method and (found := re.fullmatch(pattern, path)):
            return name, function, [unquote(part) for part in found.groups()]
    return "unknown", unknown, []


def unknown(request: Request) -> Answer:
    raise Refused(404, f"There is no {request.path} here")
