"""Whatever goes wrong between this machine and the Hub: files whole, a message, a way to go on."""

import logging
import traceback

import pytest

from peftune.errors import HubError
from tests.hub.conftest import COMMAND, FILES, FIRST, MODEL, READER, TOKEN, digests, published
from tests.hub.fault_table import ROWS, SIGNED, WRONG, XET, Row
from tests.hub.server import HubServer


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_fault_leaves_everything_whole_and_can_be_continued(
    row: Row, hub, send, said, tmp_path, monkeypatch, caplog, capfd
):
    _check(row, hub, send, said, tmp_path, monkeypatch, caplog, capfd)


@pytest.mark.parametrize("row", XET, ids=lambda row: row.name)
def test_a_fault_of_xet_does_too(
    row: Row, hub, xet, send, said, tmp_path, monkeypatch, caplog, capfd
):
    _check(row, hub, send, said, tmp_path, monkeypatch, caplog, capfd)


def _check(row: Row, hub, send, said, tmp_path, monkeypatch, caplog, capfd) -> None:
    for logger in (None, "huggingface_hub", "httpx2", "httpcore2"):
        caplog.set_level(logging.DEBUG, logger)
    if not row.is_new:
        hub.store.create(MODEL, private=True, files=FIRST)
    files, main = digests(tmp_path), _main(hub)
    with monkeypatch.context() as during:
        row.arrange(hub, during)
        with pytest.raises(HubError) as raised:
            send(accept=lambda copy: row.accept(hub))
    _check_message(row, raised.value)
    texts = traceback.format_exception(raised.value)
    _check_secrets(caplog.text, *said, *capfd.readouterr(), *texts)
    assert digests(tmp_path) == files
    assert row.is_published or _main(hub) == main
    row.lift(hub)
    revision = send()
    _, history = main
    assert _main(hub) == (FILES, [*(history or ["initial commit"]), "A model"])
    assert hub.repository(MODEL).branches == {"main": revision}
    assert digests(tmp_path) == files
    received = hub.store.received
    assert row.sent_again in (None, len(received) > len(set(received)))


def _main(hub: HubServer) -> tuple[dict[str, bytes], list[str]]:
    """What main holds, and its history; nothing where there is no repository."""
    if MODEL not in hub.store.repositories:
        return {}, []
    return published(hub), hub.repository(MODEL).history()


def _check_message(row: Row, error: HubError) -> None:
    message = str(error)
    assert row.says in message
    assert "\n" not in message
    assert message.startswith(f"hub:{MODEL}: ")
    assert message.endswith(f" Continue with: {COMMAND}")
    assert "Missing on main: " in message
    assert "parts/model.safetensors" in message


def _check_secrets(*texts: str) -> None:
    for text in texts:
        for secret in (TOKEN, READER, WRONG, SIGNED):
            assert secret not in text


def test_another_commit_on_main_is_not_overwritten(hub, send):
    """Main moves while the upload is verified: its commit stays in the history."""
    repository = hub.store.create(MODEL, private=True, files=FIRST)

    def commit(copy):
        note = {"path": "note.txt", "content": "bm90ZQ=="}
        lines = [{"key": "header", "value": {"summary": "a note"}}, {"key": "file", "value": note}]
        hub.store.commit(repository, "main", lines)

    with pytest.raises(HubError, match="answers 412: A commit has happened since"):
        send(accept=commit)
    assert published(hub) == FIRST | {"note.txt": b"note"}
    send()
    assert published(hub) == FILES
    assert repository.history() == ["initial commit", "first version", "a note", "A model"]
    assert list(repository.branches) == ["main"]


def test_the_token_may_read_but_not_write(hub, send, monkeypatch):
    hub.store.create(MODEL, private=False, files=FIRST)
    with monkeypatch.context() as during:
        during.setenv("HF_TOKEN", READER)
        with pytest.raises(HubError, match="answers 403: You don't have write access to me/model"):
            send(private=False)
    assert published(hub) == FIRST
    send(private=False)
    assert published(hub) == FILES
