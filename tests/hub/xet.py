"""Xet storage as hf_xet speaks it: pieces of files in xorbs, lists of pieces in shards.

The formats are those of the Xet protocol's specification (huggingface.co/docs/xet). Pieces that are
compressed are refused: what the tests send cannot be compressed, so hf_xet sends it as it is.
"""

import re
import struct
import time
from collections.abc import Iterator
from typing import Any

from tests.hub.messages import Answer, Request
from tests.hub.signing import check_signed, signed
from tests.hub.store import Refused

ENTRY = struct.Struct("<32s4I")
HAS_CHECKS, HAS_SHA256 = 1 << 31, 1 << 30
END = b"\xff" * 32
SHARD_START = b"HFRepoMetaData\0"
HEADER_BYTES = 48
VALID_S = 3600


def write_token(request: Request) -> Answer:
    repo_id, _ = request.parts
    request.store.writable(repo_id, request.token)
    return _token(request, "write")


def read_token(request: Request) -> Answer:
    repo_id, _ = request.parts
    request.store.visible(repo_id, request.token)
    return _token(request, "read")


def _token(request: Request, scope: str) -> Answer:
    url, expiry = f"{request.storage}/cas", int(time.time()) + VALID_S
    token = f"xet-{scope}"
    headers = {"X-Xet-Cas-Url": url, "X-Xet-Access-Token": token}
    headers |= {"X-Xet-Token-Expiration": str(expiry)}
    return Answer.of({"casUrl": url, "accessToken": token, "exp": expiry}, headers=headers)


def _check(request: Request, *tokens: str) -> None:
    """The storage knows its own short-lived tokens; the user's must not come here."""
    if request.token not in tokens:
        raise Refused(401, "Not a token of the storage")


def known_chunk(request: Request) -> Answer:
    _check(request, "xet-write", "xet-read")
    raise Refused(404, "No other file has this piece")


def put_xorb(request: Request) -> Answer:
    _check(request, "xet-write")
    (name,) = request.parts
    list(_chunks(request.body))
    is_new = name not in request.store.xorbs
    request.store.xorbs[name] = request.body
    request.store.received.append(name)
    return Answer.of({"was_inserted": is_new})


def _chunks(xorb: bytes) -> Iterator[tuple[int, bytes]]:
    """Where each piece begins in a xorb, its header included, and its content."""
    at = 0
    while at < len(xorb):
        size, whole = int.from_bytes(xorb[at + 1 : at + 4], "little"), xorb[at + 5 : at + 8]
        if xorb[at] or xorb[at + 4] or size != int.from_bytes(whole, "little"):
            raise Refused(400, "Only pieces that are not compressed")
        content = xorb[at + 8 : at + 8 + size]
        if len(content) != size:
            raise Refused(400, "The last piece is cut")
        yield at, content
        at += 8 + size


def put_shard(request: Request) -> Answer:
    """Files are known from here on. Raises Refused where pieces do not make the announced file."""
    _check(request, "xet-write")
    shard, store = request.body, request.store
    if not shard.startswith(SHARD_START):
        raise Refused(400, "Not a shard")
    for name, terms, sha256 in _files(shard):
        content = b"".join(_content(store.xorbs, *term) for term in terms)
        store.keep(sha256, len(content), content)
        store.xet_files[name] = terms
        store.xet_names[sha256] = name
    return Answer(b'{"type": "result", "result": 1}\n')


def _files(shard: bytes) -> Iterator[tuple[str, list[tuple[str, int, int, int]], str]]:
    """Each file's name, its terms (xorb, bytes, first piece, end of pieces), and its SHA-256."""
    at = HEADER_BYTES
    while True:
        name, flags, count, *_ = ENTRY.unpack_from(shard, at)
        if name == END:
            return
        if not flags & HAS_SHA256:
            raise Refused(400, "A model's files need their SHA-256")
        entries = [
            ENTRY.unpack_from(shard, at + HEADER_BYTES * (1 + each)) for each in range(count)
        ]
        terms = [(_text(xorb), size, start, end) for xorb, _, size, start, end in entries]
        at += HEADER_BYTES * (1 + count * (2 if flags & HAS_CHECKS else 1))
        yield _text(name), terms, _text(shard[at : at + 32])
        at += HEADER_BYTES


def _text(digest: bytes) -> str:
    """A digest as addresses have it: four little-endian numbers of 8 bytes."""
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", digest))


def _content(xorbs: dict[str, bytes], xorb: str, size: int, start: int, end: int) -> bytes:
    if xorb not in xorbs:
        raise Refused(400, "A xorb is missing")
    content = b"".join(piece for _, piece in list(_chunks(xorbs[xorb]))[start:end])
    if len(content) != size:
        raise Refused(400, "A term has another length")
    return content


def reconstruction(request: Request) -> Answer:
    _check(request, "xet-read")
    (name,) = request.parts
    terms = request.store.xet_files.get(name)
    if terms is None:
        raise Refused(404, "There is no such file")
    wanted = re.fullmatch(r"bytes=(\d+)-\d*", request.headers.get("range", "bytes=0-"))
    if wanted is None or int(wanted[1]) > 0:
        raise Refused(416, "The tests' files are asked for at once")
    told = [
        {"hash": xorb, "unpacked_length": size, "range": {"start": start, "end": end}}
        for xorb, size, start, end in terms
    ]
    fetched: dict[str, list[Any]] = {}
    for xorb, _, start, end in terms:
        fetched.setdefault(xorb, []).append(_fetched(request, xorb, start, end))
    return Answer.of({"offset_into_first_range": 0, "terms": told, "fetch_info": fetched})


def _fetched(request: Request, xorb: str, start: int, end: int) -> dict[str, Any]:
    data = request.store.xorbs[xorb]
    begins = [at for at, _ in _chunks(data)] + [len(data)]
    return {
        "range": {"start": start, "end": end},
        "url": signed(request, f"/storage/xorb/{xorb}"),
        "url_range": {"start": begins[start], "end": begins[end] - 1},
    }


def get_xorb(request: Request) -> Answer:
    check_signed(request)
    (name,) = request.parts
    data = request.store.xorbs[name]
    wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("range", ""))
    if wanted is None:
        raise Refused(400, "The address is for a range")
    start, last = int(wanted[1]), int(wanted[2])
    told = {"Content-Range": f"bytes {start}-{last}/{len(data)}"}
    return Answer(data[start : last + 1], 206, told)
