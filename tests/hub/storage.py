"""Large files: the batch request of git-lfs, and a storage with signed addresses on another host."""

import hashlib
from typing import Any

from tests.hub.messages import Answer, Request, ranged
from tests.hub.signing import check_signed, signed
from tests.hub.store import Refused

PART_BYTES = 1024
"""Larger files are uploaded in parts of this size."""


def batch(request: Request) -> Answer:
    (repo_id,) = request.parts
    request.store.writable(repo_id, request.token)
    asked = request.json
    if asked["operation"] != "upload" or asked["hash_algo"] != "sha256":
        raise Refused(422, "Only uploads by SHA-256")
    objects = [_upload_actions(request, repo_id, **each) for each in asked["objects"]]
    return Answer.of({"transfer": "basic", "objects": objects})


def _upload_actions(request: Request, repo_id: str, oid: str, size: int) -> dict[str, Any]:
    if oid in request.store.objects:
        return {"oid": oid, "size": size}
    verify = {"href": f"{request.endpoint}/{repo_id}.git/info/lfs/verify"}
    path = f"/storage/{oid}/{size}"
    if size <= PART_BYTES:
        return {"oid": oid, "size": size} | {
            "actions": {"upload": {"href": signed(request, path)}, "verify": verify}
        }
    parts = {
        f"{part:05}": signed(request, f"{path}/{part}")
        for part in range(1, -(-size // PART_BYTES) + 1)
    }
    header = {"chunk_size": str(PART_BYTES)} | parts
    upload = {"href": signed(request, f"{path}/complete"), "header": header}
    return {"oid": oid, "size": size, "actions": {"upload": upload, "verify": verify}}


def upload(request: Request) -> Answer:
    check_signed(request)
    oid, size = request.parts
    request.store.keep(oid, int(size), request.body)
    request.store.received.append(oid)
    return Answer(headers={"ETag": f'"{hashlib.md5(request.body).hexdigest()}"'})


def upload_part(request: Request) -> Answer:
    check_signed(request)
    oid, _, part = request.parts
    request.store.objects[f"{oid}/{part}"] = request.body
    return Answer(headers={"ETag": f'"{hashlib.md5(request.body).hexdigest()}"'})


def complete(request: Request) -> Answer:
    check_signed(request)
    oid, size = request.parts
    content = b""
    for part in request.json["parts"]:
        piece = request.store.objects.pop(f"{oid}/{part['partNumber']}")
        if part["etag"] != f'"{hashlib.md5(piece).hexdigest()}"':
            raise Refused(400, "InvalidPart")
        content += piece
    request.store.keep(oid, int(size), content)
    request.store.received.append(oid)
    return Answer.of({})


def verify(request: Request) -> Answer:
    request.store.writable(*request.parts, request.token)
    content = request.store.objects.get(request.json["oid"])
    if content is None or len(content) != request.json["size"]:
        raise Refused(404, "There is no such object")
    return Answer.of({})


def stored(request: Request) -> Answer:
    check_signed(request)
    (oid,) = request.parts
    return ranged(request, request.store.objects[oid], {"ETag": f'"{oid}"'})
