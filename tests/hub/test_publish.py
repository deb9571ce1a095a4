"""A folder becomes a model on the Hub: one commit, private, tried before it is there."""

from pathlib import Path

import pytest
from huggingface_hub import HfApi

from peftune.errors import HubError, RecipeError
from peftune.export.hub import HubTarget, fetch, parse_target, publish
from tests.hub.conftest import COMMAND, FILES, FIRST, MODEL, READER, TOKEN, digests, published


def test_a_folder_is_published_in_one_commit(hub, send, said, folder, tmp_path):
    before = digests(tmp_path)
    revision = send()
    repository = hub.repository(MODEL)
    assert published(hub) == FILES
    assert repository.private
    assert repository.history() == ["initial commit", "A model"]
    assert repository.branches == {"main": revision}
    assert said[-1] == f"Published: {hub.endpoint}/{MODEL}/tree/{revision}"
    assert digests(tmp_path) == before


def test_main_has_nothing_while_the_download_is_tried(hub, send, folder):
    seen = []

    def accept(copy: Path) -> None:
        assert folder not in copy.parents
        seen.append({name: (copy / name).read_bytes() for name in FILES})
        assert published(hub) == {}

    send(accept=accept)
    assert seen == [FILES]


def test_large_files_are_sent_once_and_checked_in_the_storage(hub, send):
    """The second commit, on main, copies them inside the Hub."""
    send()
    assert hub.count("lfs batch") == 1
    assert hub.count("lfs upload") == 1
    assert hub.count("lfs part") == 3
    assert hub.count("lfs verify") == 2
    assert hub.count("storage") == 2
    assert len(hub.store.received) == 2


def test_an_unchanged_folder_is_not_published_again(hub, send, said):
    revision = send()
    asked = len(hub.asked)
    assert send() == revision
    assert said[-1] == f"hub:{MODEL} already holds exactly these 5 files."
    assert {name for name, _ in hub.asked[asked:]} == {"info", "tree", "refs"}


def test_a_changed_folder_is_one_more_commit(hub, send, folder, said):
    send()
    sent = len(hub.store.received)
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.json").unlink()
    revision = send()
    files = {name: data for name, data in FILES.items() if name != "tokenizer.json"}
    assert published(hub) == files | {"config.json": b"{}"}
    assert hub.repository(MODEL).history() == ["initial commit", "A model", "A model"]
    assert hub.repository(MODEL).branches == {"main": revision}
    assert len(hub.store.received) == sent
    assert said.count("Leaving the revision main: tokenizer.json.") == 1


def test_a_model_is_public_only_where_that_is_asked_for(hub, send, said):
    send(private=False)
    assert not hub.repository(MODEL).private
    hub.repository(MODEL).private = True
    send(private=False)
    assert hub.repository(MODEL).private
    assert f"hub:{MODEL} is private and stays so; its settings can change that." in said


@pytest.mark.parametrize(
    ("on", "how"),
    [
        ("preupload", {"status": 500}),
        ("preupload", {"status": 429, "headers": {"Retry-After": "30"}}),
        ("tree", {"status": 502}),
        ("lfs batch", {"status": 503}),
        ("lfs upload", {"cut": 350}),
        ("lfs part", {"cut": 1}),
        ("lfs verify", {"status": 504}),
        ("head", {"status": 500}),
        ("storage", {"cut": 350}),
        ("download", {"cut": 2}),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_what_happens_once_is_tried_again_by_the_client(hub, send, on, how):
    hub.fails(on, times=1, **how)
    send()
    assert hub.faults.planned[0].times == 0
    assert published(hub) == FILES


def test_a_long_wait_of_the_client_is_told(hub, send, said):
    hub.fails("preupload", times=1, status=429, headers={"Retry-After": "3600"})
    send()
    assert any("Waiting 3601.0s before retry" in line for line in said)


def test_what_the_client_tells_has_no_signed_address(hub, send, said):
    hub.fails("lfs upload", times=1, cut=350)
    send()
    told = [line for line in said if "thrown while requesting PUT" in line]
    assert len(told) == 1
    assert f"{hub.storage}/storage/" in told[0]
    assert "X-Amz-Signature" not in told[0]


def test_a_branch_that_could_not_be_removed_goes_with_the_next_call(hub, send, said):
    hub.fails("drop branch", status=500)
    revision = send()
    assert said[-2].startswith(f"Published, but: hub:{MODEL}: removing the branch of the upload: ")
    assert len(hub.repository(MODEL).branches) == 2
    hub.heal()
    assert send() == revision
    assert hub.repository(MODEL).branches == {"main": revision}


def test_the_branch_of_an_upload_that_was_given_up_goes_too(hub, send, folder):
    hub.fails("storage", status=500)
    with pytest.raises(HubError):
        send()
    hub.heal()
    (folder / "config.json").write_text("{}")
    revision = send()
    assert hub.repository(MODEL).branches == {"main": revision}


def test_an_upload_that_is_whole_is_only_verified(hub, send, said):
    hub.fails("storage", status=500)
    with pytest.raises(HubError):
        send()
    hub.heal()
    asked = len(hub.asked)
    send()
    assert "All files are on the Hub from an earlier upload." in said
    assert "lfs batch" not in {name for name, _ in hub.asked[asked:]}


def test_large_files_go_to_and_come_from_xet_storage(hub, xet, send):
    """That is what the client does wherever hf_xet is installed."""
    send()
    assert published(hub) == FILES
    assert hub.repository(MODEL).history() == ["initial commit", "A model"]
    assert (hub.count("xorb"), hub.count("shard"), hub.count("lfs batch")) == (1, 1, 0)
    assert (hub.count("reconstruction"), hub.count("storage")) == (2, 0)


def test_an_empty_folder_is_refused(hub, tmp_path):
    (tmp_path / "export").mkdir()
    with pytest.raises(HubError, match="export' holds no files"):
        publish(
            tmp_path / "export",
            MODEL,
            private=True,
            message="A model",
            accept=lambda copy: None,
            say=print,
            resume_command=COMMAND,
        )
    assert hub.asked == []


def test_named_files_of_a_model_are_fetched(hub, tmp_path):
    repository = hub.store.create(MODEL, private=True, files=FIRST)
    folder = fetch(MODEL, None, tmp_path, ["README.md", "config.json"])
    assert folder.name == repository.branches["main"]
    assert (folder / "README.md").read_bytes() == FIRST["README.md"]
    assert not (folder / "adapter.safetensors").exists()
    whole = fetch(MODEL, folder.name, tmp_path / "whole")
    assert (whole / "adapter.safetensors").read_bytes() == FIRST["adapter.safetensors"]


@pytest.mark.parametrize(
    ("revision", "names", "token", "says"),
    [
        (None, ["recipe.yaml"], TOKEN, "hub:me/model has no recipe.yaml"),
        ("v2", None, TOKEN, "hub:me/model@v2 cannot be read: The Hub answers 404"),
        (
            None,
            None,
            READER,
            "hub:me/model cannot be read: The Hub answers 404: Repository not found",
        ),
        (None, None, None, "hub:me/model cannot be read: The Hub answers 401"),
        (None, None, "hf_wrong", "hub:me/model cannot be read: The Hub answers 401"),
    ],
)
def test_what_cannot_be_fetched_is_one_line(
    hub, tmp_path, monkeypatch, revision, names, token, says
):
    hub.store.create(MODEL, private=True, files=FIRST)
    monkeypatch.delenv("HF_TOKEN")
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(HubError) as raised:
        fetch(MODEL, revision, tmp_path, names)
    message = str(raised.value)
    assert message.startswith(says)
    assert "\n" not in message
    assert token is None or token not in message


def test_a_target_is_a_model_or_a_folder():
    assert parse_target("hub:me/model") == HubTarget("me/model", None)
    assert parse_target("hub:me/model@v1.0") == HubTarget("me/model", "v1.0")
    assert parse_target("out/model") == Path("out/model")


@pytest.mark.parametrize(
    "text",
    ["", "hub:", "hub:model", "hub:me/a/b", "hub:me/--", "hub:me/m@", "https://hub/me/model"],
)
def test_what_is_no_target_is_named(text):
    with pytest.raises(RecipeError) as raised:
        parse_target(text)
    assert str(raised.value).startswith(repr(text))
    assert "\n" not in str(raised.value)


def test_the_server_is_not_merely_permissive(hub, monkeypatch):
    """What the client cannot be made to send wrong, sent by hand."""
    from huggingface_hub import CommitOperationAdd
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import get_session

    hub.store.create(MODEL, private=True, files=FIRST)
    with pytest.raises(HfHubHTTPError, match="LFS pointer"):
        hub_add = CommitOperationAdd("x.safetensors", b"data")
        hub_add._upload_mode, hub_add._is_uploaded = "lfs", True
        HfApi(endpoint=hub.endpoint).create_commit(MODEL, [hub_add], commit_message="no content")
    unsigned = get_session().put(f"{hub.storage}/storage/{'0' * 64}/1", content=b"x")
    assert unsigned.status_code == 403
    assert published(hub) == FIRST
