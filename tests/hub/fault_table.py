"""What can go wrong between this machine and the Hub, one row for each.

A row goes wrong while a second version of a model is published, or a first one where there is no
repository yet.
"""

import errno
import json
import os
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from peftune.errors import ModelError
from tests.hub.conftest import MODEL, READER
from tests.hub.server import HubServer

WRONG = "hf_wrongTokenThatMustNotBeSeen"
STAGED, RELEASED = "/commit/peftune-upload", "/commit/main"
SIGNED = "X-Amz-Signature"
REFUSED_BY_STORAGE = (
    f"<Error><Code>SignatureDoesNotMatch</Code><Url>http://s/?{SIGNED}=1</Url></Error>"
)


NOT_KEPT = b'{"type": "error", "message": "no space"}\n'


@dataclass(frozen=True)
class Row:
    """A fault, and what the message says about it."""

    name: str
    says: str
    arrange: Callable[[HubServer, pytest.MonkeyPatch], None]
    lift: Callable[[HubServer], None] = HubServer.heal
    is_new: bool = False
    """Whether there is no repository yet."""
    accept: Callable[[HubServer], None] = lambda hub: None
    """What happens when the download is tried."""
    is_published: bool = False
    """Whether main has the new version in spite of the failure."""
    sent_again: bool | None = False
    """Whether the client sends content again that the server has taken; None where time decides."""


def fails(on: str, **how: object) -> Callable[[HubServer, pytest.MonkeyPatch], None]:
    return lambda hub, monkeypatch: hub.fails(on, **how)


def uses(token: str | None) -> Callable[[HubServer, pytest.MonkeyPatch], None]:
    def arrange(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("HF_TOKEN")
        if token is not None:
            monkeypatch.setenv("HF_TOKEN", token)

    return arrange


def hangs(on: str, **how: object) -> Callable[[HubServer, pytest.MonkeyPatch], None]:
    def arrange(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("peftune.export.hub_requests.ANSWER_S", 0.2)
        hub.fails(on, silent=True, **how)

    return arrange


def has_no_room(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**where: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("peftune.export.hub_upload.TemporaryDirectory", full)


def is_offline(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def is_gone(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.stop()


def is_public(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repository(MODEL).private = False


def becomes_private(hub: HubServer) -> None:
    hub.repository(MODEL).private = True


def is_renamed(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.store.create("me/renamed", private=True)
    hub.store.moved[MODEL] = "me/renamed"


def is_named_back(hub: HubServer) -> None:
    hub.store.moved.clear()


def does_not_work(hub: HubServer) -> None:
    if hub.faults.planned:
        raise ModelError("adapter.safetensors: two tensors are missing.")


def flipped(body: bytes) -> bytes:
    return body[:-1] + bytes([body[-1] ^ 1])


def refuses_objects(body: bytes) -> bytes:
    answer = json.loads(body)
    for each in answer["objects"]:
        each["error"] = {"code": 422, "message": "object too large"}
    return json.dumps(answer).encode()


def ignores_tokenizer(body: bytes) -> bytes:
    answer = json.loads(body)
    for each in answer["files"]:
        each["shouldIgnore"] = each["path"] == "tokenizer.json"
    return json.dumps(answer).encode()


ROWS = [
    # Who may what.
    Row("no token", "there is no token. Set HF_TOKEN", uses(None)),
    Row("wrong token", "answers 401: Invalid username or password: TOKEN", uses(WRONG)),
    Row("another person's token", "answers 403: You don't have the rights", uses(READER)),
    Row(
        "creating is forbidden",
        "answers 403: Ask",
        fails("create", status=403, text="Ask"),
        is_new=True,
    ),
    Row("no more models", "answers 402: Pay", fails("create", status=402, text="Pay"), is_new=True),
    Row("no more space", "answers 413: Full", fails("lfs batch", status=413, text="Full")),
    Row(
        "gated",
        "The Hub is gated",
        fails("info", status=403, headers={"X-Error-Code": "GatedRepo"}),
    ),
    Row("public, and private was asked for", "it is public", is_public, becomes_private),
    Row("renamed", "it is called 'me/renamed' now", is_renamed, is_named_back),
    Row("protected main", "answers 403: No", fails("commit", only=RELEASED, status=403, text="No")),
    # The Hub is in trouble.
    Row("down", "answers 503", fails("info", status=503)),
    Row("no branches", "answers 500", fails("refs", status=500)),
    Row("no new branch", "answers 500", fails("make branch", status=500)),
    Row(
        "card refused",
        "Invalid metadata in README.md. The Hub answers 400: Bad YAML",
        fails("validate", status=400, text="Bad YAML"),
    ),
    Row("preupload fails for good", "answers 500", fails("preupload", status=500)),
    Row(
        "too many requests",
        "answers 429",
        fails("preupload", status=429, headers={"Retry-After": "3"}),
    ),
    Row("an object is refused", "object too large", fails("lfs batch", change=refuses_objects)),
    Row("large file is not kept", "answers 404", fails("lfs verify", status=404)),
    Row("parts are not joined", "answers 500", fails("lfs complete", status=500)),
    Row(
        "storage refuses the signature",
        "Error while uploading 'adapter.safetensors' to the Hub. The Hub answers 403.",
        fails("lfs upload", status=403, text=REFUSED_BY_STORAGE),
    ),
    Row("another commit at work", "answers 409", fails("commit", only=STAGED, status=409)),
    Row("answer of another server", "looking for the repository: ", fails("info", change=flipped)),
    Row(
        "answer without a commit",
        "'commitUrl' is missing",
        fails("commit", change=lambda body: b"{}"),
    ),
    Row("copying fails", "answers 503", fails("paths", status=503)),
    # The network.
    Row("offline", "HF_HUB_OFFLINE is set", is_offline),
    Row("no server", "ConnectError", is_gone),
    Row("server goes while it is verified", "ConnectError", fails("none"), accept=HubServer.stop),
    Row("upload cut at once", "uploading", fails("lfs upload", cut=0)),
    Row("upload cut in the middle", "uploading", fails("lfs upload", cut=350)),
    Row("upload cut after the last byte", "uploading", fails("lfs upload", cut=700)),
    Row("part cut", "parts/model.safetensors", fails("lfs part", only="/2?", cut=100)),
    Row("commit cut", "uploading", fails("commit", only=STAGED, cut=40)),
    Row("no answer to an upload", "Timeout", hangs("lfs upload"), sent_again=None),
    Row("no answer to a commit", "Timeout", hangs("commit", only=RELEASED), sent_again=None),
    Row("download cut", "downloading", fails("storage", cut=0)),
    Row("no room for the download", "No space left on device.", has_no_room),
    # It was done, but this machine was not told.
    Row(
        "upload: done, and 500",
        "answers 500",
        fails("commit", only=STAGED, status=500, applied=True),
    ),
    Row(
        "main: done, and 500",
        "answers 500",
        fails("commit", only=RELEASED, status=500, applied=True),
        is_published=True,
    ),
    Row(
        "main: done, and no answer",
        "making ",
        fails("commit", only=RELEASED, applied=True),
        is_published=True,
    ),
    # What comes back is not what was sent.
    Row("large file has another bit", "adapter.safetensors, ", fails("storage", change=flipped)),
    Row("small file has another bit", "README.md", fails("download", change=flipped)),
    Row("download is short", "size 350", fails("storage", change=lambda body: body[:350])),
    Row("a file is missing", "answers 404", fails("head", only="tokenizer", status=404)),
    Row("a file is ignored", "tokenizer.json differ", fails("preupload", change=ignores_tokenizer)),
    Row(
        "it does not work",
        "does not work: adapter.safetensors: two",
        fails("none"),
        accept=does_not_work,
    ),
]


XET = [
    Row("no access", "403 Forbidden", fails("xet token", status=403)),
    Row("pieces are refused", "uploading: ", fails("xorb", status=403)),
    Row("pieces cut", "uploading: ", fails("xorb", cut=100)),
    Row("storage down", "uploading: ", fails("xorb", status=503)),
    Row("list refused", "uploading: ", fails("shard", status=400), sent_again=None),
    Row("list not kept", "no space", fails("shard", change=lambda body: NOT_KEPT), sent_again=None),
    Row("done, and 500", "answers 500", fails("commit", only=STAGED, status=500, applied=True)),
    Row("file unknown", "downloading ", fails("reconstruction", status=404)),
    Row("pieces do not come back", "downloading ", fails("xorb range", status=500)),
    Row("pieces have another bit", "download", fails("xorb range", change=flipped)),
    Row("pieces come back cut", "downloading ", fails("xorb range", cut=100)),
]
