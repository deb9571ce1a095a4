"""What a run does that finds a checkpoint: it goes on exactly, or says why it does not."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from safetensors.torch import load_file, save_file

from peftune.checkpoint.folder import MANIFEST, problem_with, seal
from peftune.errors import CheckpointError, Interrupted, PeftuneError, RecipeError
from tests.checkpoint.conftest import Again, train
from tests.checkpoint.killing import differing
from tests.conftest import answered_otherwise
from tests.launching import metrics

MIXED = (("train", 3.0), ("validation", 1.0))
COLUMNS = {"prompt": "dialogue", "completion": "summary"}


def test_a_killed_run_goes_on_to_the_same_end(
    killed: Path, undisturbed: Path, again: Again, capsys: pytest.CaptureFixture[str]
) -> None:
    again()
    assert differing(undisturbed, killed) == []
    assert f"resuming from {killed}/checkpoint-4" in capsys.readouterr().err
    state, whole = (
        json.loads((one / "trainer_state.json").read_text()) for one in (killed, undisturbed)
    )
    assert state == whole
    assert (killed / "latest").read_text() == "checkpoint-6\n"
    assert problem_with(killed / "checkpoint-6") is None


def test_a_checkpoint_is_small_whole_and_free_of_pickle(undisturbed: Path) -> None:
    folder = undisturbed / "checkpoint-6"
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "state.safetensors",
        "progress.json",
        "trainer_state.json",
        "manifest.json",
    }
    state = load_file(folder / "state.safetensors")
    parameters = {name for name in state if name.startswith("parameter/")}
    moments = {name.rpartition(":")[2] for name in state if name.startswith("optimizer/")}
    assert moments == {"step", "exp_avg", "exp_avg_sq"}
    assert len(state) == 4 * len(parameters) > 0
    assert all(tensor.numel() for tensor in state.values())


@pytest.mark.parametrize("name", ["checkpoint-2", "checkpoint-4"])
def test_it_goes_on_from_the_one_that_is_named(
    name: str, killed: Path, undisturbed: Path, again: Again
) -> None:
    again(f"resume={name}")
    assert differing(undisturbed, killed) == []
    later = killed / "checkpoint-4.set-aside"
    assert later.is_dir() == (name == "checkpoint-2")


def test_without_a_word_it_asks_for_one_of_two_keys(killed: Path, again: Again) -> None:
    before = sorted(path.name for path in killed.iterdir())
    with pytest.raises(RecipeError) as caught:
        again("seed=3")
    assert str(caught.value).endswith(
        "holds a run that has not finished, its newest checkpoint is checkpoint-4. Go on with resume: "
        "auto, or start again with overwrite_output_dir: true."
    )
    assert sorted(path.name for path in killed.iterdir()) == before


def test_overwriting_starts_again(killed: Path, undisturbed: Path, again: Again) -> None:
    again("overwrite_output_dir=true")
    assert differing(undisturbed, killed) == []
    assert (killed / "checkpoint-2").is_dir()


def test_resuming_comes_before_overwriting(
    killed: Path, again: Again, capsys: pytest.CaptureFixture[str]
) -> None:
    again("resume=auto", "overwrite_output_dir=true")
    assert "resuming from" in capsys.readouterr().err


def test_a_finished_run_is_left_alone(
    undisturbed: Path, tmp_path: Path, again: Again, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(undisturbed, tmp_path / "run"))
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    again()
    assert capsys.readouterr().err.endswith("run is complete; there is nothing to do\n")
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    with pytest.raises(RecipeError, match="holds a finished run"):
        again("seed=3")


def test_a_finished_run_can_be_made_longer(undisturbed: Path, tmp_path: Path, again: Again) -> None:
    shutil.copytree(undisturbed, tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"train\.max_steps: 6 → 8"):
        again("resume=auto", "train.max_steps=8")
    folder = again("resume=auto", "train.max_steps=8", "resume.allow=[train.max_steps]")
    assert json.loads((folder / "train_results.json").read_text())["global_step"] == 8


def test_a_finished_run_without_checkpoints_is_not_wiped_for_another(
    undisturbed: Path, tmp_path: Path, again: Again
) -> None:
    folder = Path(shutil.copytree(undisturbed, tmp_path / "run"))
    for path in folder.glob("checkpoint-*"):
        shutil.rmtree(path)
    with pytest.raises(CheckpointError, match="finished run with other values and no checkpoint"):
        again("resume=auto", "train.max_steps=8", "resume.allow=[train.max_steps]")
    assert (folder / "adapter_model.safetensors").is_file()


def test_a_run_without_a_checkpoint_yet_says_that_it_starts_at_the_beginning(
    killed: Path, undisturbed: Path, again: Again, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in killed.glob("checkpoint-*"):
        shutil.rmtree(path)
    again()
    assert "has no checkpoint yet; training starts at step 0" in capsys.readouterr().err
    assert differing(undisturbed, killed) == []


def test_a_new_folder_needs_no_checkpoint(tree: Any, undisturbed: Path, tmp_path: Path) -> None:
    assert differing(undisturbed, train(tmp_path, tree, "resume=auto")) == []


def test_a_damaged_one_is_passed_over(
    killed: Path, undisturbed: Path, again: Again, capsys: pytest.CaptureFixture[str]
) -> None:
    with (killed / "checkpoint-4" / "state.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xff")
    again()
    said = capsys.readouterr().err
    assert "checkpoint-4 has another state.safetensors than was written" in said
    assert f"resuming from {killed}/checkpoint-2" in said
    assert differing(undisturbed, killed) == []


def test_where_all_are_damaged_nothing_starts(killed: Path, again: Again) -> None:
    for path in killed.glob("checkpoint-*"):
        (path / "progress.json").unlink()
    with pytest.raises(CheckpointError, match=r"no checkpoint in .* can be used"):
        again()
    assert (killed / "metrics.jsonl").is_file()


OTHER_VALUES = {
    "seed=4": "seed: 3 → 4",
    "train.learning_rate=0.02": "train.learning_rate: 0.01 → 0.02",
    "train.global_batch_size=4": "train.global_batch_size: 8 → 4",
    "train.max_steps=9": "train.max_steps: 6 → 9",
    "train.warmup_steps=2": "train.warmup_steps: 0 → 2",
    "adapter.r=8": "adapter.r: 4 → 8",
    "data.max_length=127": "data.max_length: 128 → 127",
    "train.eval_steps=3": "train.eval_steps: 2 → 3",
}


@pytest.mark.parametrize("override", OTHER_VALUES)
def test_another_recipe_is_refused_with_its_keys(override: str, killed: Path, again: Again) -> None:
    with pytest.raises(CheckpointError) as caught:
        again("resume=auto", override)
    assert caught.value.exit_code == 2
    assert OTHER_VALUES[override] in str(caught.value)
    assert f"accept them: resume.allow: [{override.split('=')[0]}" in str(caught.value) or (
        "data." in override
    )


def test_a_key_is_accepted_by_name(
    killed: Path, undisturbed: Path, again: Again, capsys: pytest.CaptureFixture[str]
) -> None:
    again("resume=auto", "train.learning_rate=0.02", "resume.allow=[train.learning_rate]")
    said = capsys.readouterr().err
    assert "train.learning_rate: 0.01 → 0.02, accepted by resume.allow" in said
    ours, theirs = (
        [line for line in metrics(run) if "loss" in line] for run in (killed, undisturbed)
    )
    assert ours[:4] == theirs[:4]
    assert ours[4]["loss"] == theirs[4]["loss"]
    assert ours[4]["learning_rate"] == 2 * theirs[4]["learning_rate"]
    assert ours[5]["loss"] != theirs[5]["loss"]


def test_a_shape_is_not_accepted(killed: Path, again: Again) -> None:
    with pytest.raises(CheckpointError, match="does not fit this adapter"):
        again("resume=auto", "adapter.r=8", "resume.allow=[adapter.r]")


@pytest.mark.parametrize(
    "override",
    [
        "train.per_device_train_batch_size=4",
        "train.per_device_eval_batch_size=3",
        "train.gradient_checkpointing=true",
        "train.logging_steps=1",
        "selftest.full=false",
        "train.save_steps=3",
    ],
)
def test_what_changes_no_number_may_change(override: str, killed: Path, again: Again) -> None:
    again("resume=auto", override)
    assert (killed / "all_results.json").is_file()


@contextmanager
def changed(path: Path, change: Callable[[Path], None]) -> Iterator[None]:
    """Inside, a file of all tests of this session is another."""
    before = path.read_bytes()
    change(path)
    try:
        yield
    finally:
        path.write_bytes(before)


def test_other_data_is_refused(killed: Path, again: Again, own_data: Path) -> None:
    def reword(path: Path) -> None:
        path.write_text(path.read_text().replace("ladder", "bucket"))

    with (
        changed(own_data / "train.jsonl", reword),
        pytest.raises(CheckpointError, match=r"other values: data\.train: [0-9a-f]{12}… → "),
    ):
        again()


def test_other_base_weights_are_refused(killed: Path, again: Again, own_model: Path) -> None:
    def nudge(path: Path) -> None:
        tensors = load_file(path)
        tensors["model.norm.weight"] += 0.001
        save_file(tensors, path, metadata={"format": "pt"})

    with (
        changed(own_model / "model.safetensors", nudge),
        pytest.raises(CheckpointError, match=r"other values: model\.weights: [0-9a-f]{12}… → "),
    ):
        again()


def test_an_adapter_of_another_run_is_noticed(
    killed: Path, again: Again, tree: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = train(make(tmp_path / "other"), tree, "seed=4")
    for name in ("adapter_model.safetensors", "state.safetensors"):
        shutil.copy(other / "checkpoint-4" / name, killed / "checkpoint-4" / name)
    again()
    assert "checkpoint-4 has another adapter_model.safetensors" in capsys.readouterr().err


def make(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_a_checkpoint_of_another_run_is_refused(
    killed: Path, again: Again, tree: Any, tmp_path: Path
) -> None:
    other = train(make(tmp_path / "other"), tree, "seed=4")
    shutil.rmtree(killed / "checkpoint-4")
    shutil.copytree(other / "checkpoint-4", killed / "checkpoint-4")
    with pytest.raises(CheckpointError, match="seed: 4 → 3"):
        again()


def reseal(folder: Path) -> None:
    """A manifest of what a checkpoint now holds."""
    (folder / MANIFEST).unlink()
    seal(folder)


def test_an_empty_tensor_is_no_state(killed: Path, again: Again) -> None:
    folder = killed / "checkpoint-4"
    tensors = load_file(folder / "state.safetensors")
    save_file({**tensors, next(iter(tensors)): torch.zeros(0)}, folder / "state.safetensors")
    reseal(folder)
    with pytest.raises(CheckpointError, match="has an empty tensor"):
        again()


def test_the_best_adapter_survives(tree: Any, own_data: Path, tmp_path: Path, capsys: Any) -> None:
    """The best validation was before the checkpoint; the run still ends with its adapter."""
    tree = answered_otherwise(tree, own_data, tmp_path)
    rates = ("train.learning_rate=0.01", "train.lr_scheduler_type=constant", "train.max_steps=12")
    whole = train(make(tmp_path / "whole"), tree, *rates)
    best = json.loads((whole / "trainer_state.json").read_text())["best_global_step"]
    last = max(int(path.name.split("-")[1]) for path in whole.glob("checkpoint-*"))
    assert best < last
    assert (whole / f"checkpoint-{last}" / "best.safetensors").is_file()
    part = Path(shutil.copytree(whole, make(tmp_path / "part") / "run"))
    (part / "all_results.json").unlink()
    (part / "adapter_model.safetensors").unlink()
    capsys.readouterr()
    train(tmp_path / "part", tree, *rates, "resume=auto")
    assert f"resuming from {part}/checkpoint-{last}" in capsys.readouterr().err
    assert differing(whole, part) == []


def test_a_run_of_other_versions_is_told(
    killed: Path, again: Again, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = killed / "checkpoint-4"
    progress = json.loads((folder / "progress.json").read_text())
    progress["versions"]["peft"] = "0.0.1"
    (folder / "progress.json").write_text(json.dumps(progress))
    reseal(folder)
    again()
    assert "saved with other versions: peft 0.0.1 → " in capsys.readouterr().err


def test_nothing_is_left_to_allow_without_a_checkpoint(tree: Any, tmp_path: Path) -> None:
    with pytest.raises(PeftuneError, match=r"resume\.allow"):
        train(tmp_path, tree, "resume.allow=[seed]")


def test_a_mixture_goes_on_exactly(tree: Any, own_data: Path, tmp_path: Path) -> None:
    """Its rows are in the store, in their order, as those of one file are."""
    entries = [
        {"train": str(own_data / f"{name}.jsonl"), "weight": weight, "columns": {**COLUMNS}}
        for name, weight in MIXED
    ]
    chosen = stopped_twice(tree, tmp_path / "part", {"mixture": entries})
    goes_on_exactly(chosen, tmp_path)


def test_a_stream_goes_on_exactly(tree: Any, own_data: Path, tmp_path: Path) -> None:
    """It is read into the store once, and other content of the same name is other data."""
    system, text = fsspec.filesystem("memory"), (own_data / "train.jsonl").read_bytes()
    system.pipe("/stream/train.jsonl", text)
    try:
        data = {"train": "memory://stream/train.jsonl", "streaming": True, "max_train_samples": 12}
        chosen = stopped_twice(tree, tmp_path / "part", {**data, "columns": COLUMNS})
        shutil.copytree(tmp_path / "part", tmp_path / "changed")
        goes_on_exactly(chosen, tmp_path)
        system.pipe("/stream/train.jsonl", text.replace(b"ladder", b"bucket"))
        with pytest.raises(CheckpointError, match=r"other values: data\.train: "):
            train(tmp_path / "changed", chosen, "resume=auto")
    finally:
        system.rm("/stream", recursive=True)


def stopped_twice(tree: dict[str, Any], folder: Path, data: dict[str, Any]) -> dict[str, Any]:
    """Start a run on `data` alone and stop it after a step, twice; answers with what was trained."""
    chosen = {**tree, "data": data}
    chosen["train"] = {**tree["train"], "eval_steps": None, "load_best_model_at_end": False}
    del chosen["evaluation"]
    make(folder)
    for limit in ("train.max_hours=1.0e-9", "train.max_hours=2.0e-9"):
        with pytest.raises(Interrupted, match="stopped after step"):
            train(folder, chosen, limit, "resume=auto")
    return chosen


def goes_on_exactly(tree: dict[str, Any], folder: Path) -> None:
    """The run in `folder/part` ends as one that nobody stopped."""
    whole, part = train(make(folder / "whole"), tree), train(folder / "part", tree, "resume=auto")
    for name in ("adapter_model.safetensors", "metrics.jsonl"):
        assert (part / name).read_bytes() == (whole / name).read_bytes()


def test_a_tracker_has_each_step_once(tree: Any, tmp_path: Path) -> None:
    """What the killed run has sent after its checkpoint is hidden by the run that goes on."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tracked = "train.report_to=[tensorboard]"
    run = train(tmp_path, tree, tracked)
    (run / "all_results.json").unlink()
    shutil.rmtree(run / "checkpoint-6")
    train(tmp_path, tree, tracked, "resume=auto")
    # Settings have a folder of their own below.
    folder = min((str(path.parent) for path in run.rglob("events.out.tfevents.*")), key=len)
    events = EventAccumulator(folder)
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3, 4, 5, 6]


def test_a_checkpoint_that_is_named_and_not_there_starts_nothing(tree: Any, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"resume\.checkpoint: checkpoint-9 is not in "):
        train(tmp_path, tree, "resume=checkpoint-9")
    assert not (tmp_path / "run").exists()
