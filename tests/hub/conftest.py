"""A server that speaks the Hub's protocol, a token for it, and a folder to publish."""

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from huggingface_hub.utils._xet import XetSessionHolder
from pytest import TempPathFactory

from peftune.export.hub import publish
from tests.hub.server import HubServer, hub_server

TOKEN = "hf_tokenThatMustNotBeSeen"
READER = "hf_tokenOfAnotherPerson"
MODEL = "me/model"
COMMAND = "peftune export runs/one --to hub:me/model"
CARD = b"---\nlicense: apache-2.0\n---\n# A model\n"


def content(name: str, size: int) -> bytes:
    """Bytes that repeat nothing, another for each name."""
    blocks = (
        hashlib.sha256(f"{name} {block}".encode()).digest() for block in range(size // 32 + 1)
    )
    return b"".join(blocks)[:size]


FIRST = {"README.md": CARD, "config.json": b'{"version": 1}\n'} | {
    "adapter.safetensors": content("first", 700)
}
FILES = {
    "README.md": CARD,
    "config.json": b'{"version": 2}\n',
    "adapter.safetensors": content("adapter", 700),
    "parts/model.safetensors": content("model", 3000),
    "tokenizer.json": b'{"tokens": ["a", "b"]}\n',
}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A server with one user, who writes to `me`, and another, who does not; no waiting for retries."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    # hf_xet is used wherever it is installed; the fixture `xet` has it do so.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", os.devnull)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    with hub_server() as server:
        server.store.tokens = {TOKEN: {"me"}, READER: {"another"}}
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        yield server


@pytest.fixture
def xet(hub: HubServer, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: TempPathFactory) -> None:
    """Large files go to and come from Xet storage, by a session without a past."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", False)
    monkeypatch.setattr("huggingface_hub.utils._xet._GLOBAL_XET_HOLDER", XetSessionHolder())
    monkeypatch.setenv("HF_XET_CACHE", str(tmp_path_factory.mktemp("xet")))
    monkeypatch.setenv("HF_XET_CLIENT_RETRY_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("HF_XET_CLIENT_RETRY_BASE_DELAY", "1ms")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What is to be published, beside hidden files and links, which are not."""
    made = tmp_path / "export"
    for name, data in FILES.items():
        path = made / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (made / ".secret").write_text("not to be sent")
    (made / ".cache").mkdir()
    (made / ".cache" / "file").write_text("not to be sent")
    (tmp_path / "elsewhere").write_text("not to be sent")
    os.symlink(tmp_path / "elsewhere", made / "link")
    return made


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def send(folder: Path, said: list[str]) -> Callable[..., str]:
    """Publish the folder as a private model, unless told otherwise."""

    def publish_folder(
        repo_id: str = MODEL,
        private: bool = True,
        accept: Callable[[Path], None] = lambda copy: None,
    ) -> str:
        return publish(
            folder,
            repo_id,
            private=private,
            message="A model",
            accept=accept,
            say=said.append,
            resume_command=COMMAND,
        )

    return publish_folder


def digests(folder: Path) -> dict[str, str]:
    """Every file below a folder by name, hidden ones too."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def published(hub: HubServer, repo_id: str = MODEL) -> dict[str, bytes]:
    """The files of main, without the Hub's own."""
    files = hub.repository(repo_id).files()
    return {path: entry.content for path, entry in files.items() if not path.startswith(".")}
