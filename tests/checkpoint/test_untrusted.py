"""Checkpoints that others could have changed: nothing outside of them is read, and each is refused."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from peftune.checkpoint.folder import MANIFEST, problem_with, seal
from peftune.errors import CheckpointError
from tests.checkpoint.conftest import Again
from tests.untrusted.guard import Trap, change_header, change_json, untouched

STATE, PROGRESS = "state.safetensors", "progress.json"
Change = Callable[[Path, Path], object]
"""Made in the newest checkpoint; also told a folder that is not the run's."""


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret.json").write_text('{"secret": 1}')
    return folder


def sealed(change: Change) -> Change:
    """With a manifest that fits what was changed."""

    def write(folder: Path, outside: Path) -> None:
        change(folder, outside)
        (folder / MANIFEST).unlink()
        seal(folder)

    return write


def progress(**keys: object) -> Change:
    return sealed(lambda folder, outside: change_json(folder / PROGRESS, **keys))


def listed(name: str) -> Change:
    """`name`, which may hold {outside}, among the files of the manifest."""

    def write(folder: Path, outside: Path) -> None:
        files = json.loads((folder / MANIFEST).read_text())["files"]
        entry = {"bytes": 13, "sha256": "0" * 64}
        change_json(folder / MANIFEST, files={**files, name.format(outside=outside): entry})

    return write


def link(folder: Path, outside: Path) -> None:
    (folder / "trainer_state.json").unlink()
    (folder / "trainer_state.json").symlink_to(outside / "secret.json")


def infinite(folder: Path, outside: Path) -> None:
    tensors = load_file(folder / STATE)
    name = next(name for name in tensors if name.startswith("parameter/"))
    tensors[name] = torch.full_like(tensors[name], torch.inf)
    save_file(tensors, folder / STATE)


def unlisted(folder: Path, outside: Path) -> None:
    save_file({"a": torch.ones(1)}, folder / "best.safetensors")


def gap(folder: Path, outside: Path) -> None:
    change_header(folder / STATE, lambda header, names: header.pop(names[1]))


def pickled(folder: Path, outside: Path) -> None:
    (folder / STATE).write_bytes(pickle.dumps(Trap(outside / "mark")))


UNSAFE = {
    "path that climbs": (
        listed("../../../outside/secret.json"),
        "manifest.json names '../../../outside/secret.json', which is not in its own folder",
    ),
    "absolute path": (listed("{outside}/secret.json"), "which is not in its own folder"),
    "link": (link, "trainer_state.json is a link that leaves its folder"),
    "file without a digest": (unlisted, "best.safetensors is not listed in its manifest.json"),
    "list of other things": (
        lambda folder, outside: change_json(folder / MANIFEST, files={PROGRESS: [1, 2]}),
        "manifest.json has no bytes and sha256 of progress.json",
    ),
    "no list": (
        lambda folder, outside: change_json(folder / MANIFEST, files=["state"]),
        "manifest.json lists no files",
    ),
    "pickle in disguise": (
        sealed(pickled),
        "state.safetensors is no sound safetensors file: it is a",
    ),
    "gap between tensors": (sealed(gap), "leaves a gap before it"),
}
WRONG = {
    "infinite parameters": (sealed(infinite), "holds NaN or infinite numbers"),
    "another step": (progress(step=10**9), r"progress\.json is of step 1,000,000,000, not of its"),
    "negative step": (progress(step=-4), r"progress\.json: step: Input should be greater than or"),
    "another kind of key": (progress(selection=[1]), r"progress\.json: selection: "),
    "negative length of the log": (
        progress(totals={"metrics_bytes": -1}),
        r"progress\.json: totals\.metrics_bytes",
    ),
    "totals that are missing": (
        progress(totals={}),
        r"progress\.json: totals\.nll_sum is no number",
    ),
    "configuration that is none": (
        sealed(lambda folder, outside: (folder / PROGRESS).write_text("[]")),
        r"progress\.json is not a JSON object",
    ),
}


@pytest.mark.parametrize("kind", UNSAFE)
def test_an_unsafe_checkpoint_is_passed_over(kind: str, killed: Path, outside: Path) -> None:
    change, reason = UNSAFE[kind]
    change(killed / "checkpoint-4", outside)
    with untouched(outside, killed.parent):
        problem = problem_with(killed / "checkpoint-4")
    assert problem is not None and problem.startswith("is not safe to read: ")
    assert reason in problem and "\n" not in problem


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_checkpoint_stops_the_run(
    kind: str, killed: Path, outside: Path, again: Again, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The self-test tries in a temporary folder whether an adapter can be written.
    monkeypatch.setattr("tempfile.tempdir", str(killed.parent))
    change, reason = WRONG[kind]
    change(killed / "checkpoint-4", outside)
    # The model is loaded and tried before the checkpoint's values are, which takes memory of its own.
    watched = untouched(outside, killed.parent, growth=2**20)
    with watched, pytest.raises(CheckpointError, match=reason) as caught:
        again("resume=checkpoint-4")
    assert "\n" not in str(caught.value)
