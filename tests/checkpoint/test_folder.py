"""A folder named checkpoint-N is complete, and the best and the newest one stay."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from peftune.checkpoint.folder import (
    checkpoint_steps,
    find_checkpoint,
    problem_with,
    prune_checkpoints,
    set_aside_after,
    write_checkpoint,
)
from peftune.errors import CheckpointError


def writes(text: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "adapter.txt").write_text(text)

    return write


def save(run: Path, *steps: int) -> None:
    for step in steps:
        write_checkpoint(run, step, writes(str(step)))


def names(run: Path) -> list[str]:
    return sorted(entry.name for entry in run.iterdir())


def fail(folder: Path) -> None:
    (folder / "adapter.txt").write_text("half of it")
    raise OSError("no space left on device")


def test_a_checkpoint_holds_what_was_written_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, 7, writes("seven"))
    assert folder == tmp_path / "checkpoint-7"
    assert (folder / "adapter.txt").read_text() == "seven"
    assert names(tmp_path) == ["checkpoint-7", "latest"]
    assert (tmp_path / "latest").read_text() == "checkpoint-7\n"


def test_the_name_appears_only_when_all_is_written(tmp_path: Path) -> None:
    seen: list[list[int]] = []

    def write(folder: Path) -> None:
        (folder / "adapter.txt").write_text("4")
        seen.append(checkpoint_steps(tmp_path))

    write_checkpoint(tmp_path, 4, write)
    assert seen == [[]]
    assert checkpoint_steps(tmp_path) == [4]


def test_a_failed_write_leaves_no_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, 3)
    with pytest.raises(OSError, match="no space left"):
        write_checkpoint(tmp_path, 6, fail)
    assert not (tmp_path / "checkpoint-6").exists()
    assert checkpoint_steps(tmp_path) == [3]


def test_a_second_try_starts_from_nothing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no space left"):
        write_checkpoint(tmp_path, 6, fail)

    def write(folder: Path) -> None:
        assert list(folder.iterdir()) == []
        (folder / "weights.txt").write_text("whole")

    folder = write_checkpoint(tmp_path, 6, write)
    assert names(folder) == ["manifest.json", "weights.txt"]
    assert names(tmp_path) == ["checkpoint-6", "latest"]


def test_steps_are_numbers_and_other_entries_are_no_checkpoints(tmp_path: Path) -> None:
    save(tmp_path, 100, 9, 20)
    for other in ("checkpoint-30.partial", "checkpoint-", "checkpoint-x", "my-checkpoint-40"):
        (tmp_path / other).mkdir()
    (tmp_path / "checkpoint-50").write_text("a file")
    assert checkpoint_steps(tmp_path) == [9, 20, 100]


@pytest.mark.parametrize(
    ("steps", "limit", "best", "kept"),
    [
        ((2, 4, 6), 3, None, [2, 4, 6]),
        ((2, 4, 6), 2, None, [4, 6]),
        ((2, 4, 6), 2, 2, [2, 6]),
        ((2, 4, 6), 2, 4, [4, 6]),
        ((2, 4, 6), 2, 6, [4, 6]),
        ((2, 4, 6), 1, 6, [6]),
        ((2, 4, 6), 1, 2, [2, 6]),
        ((2, 4, 6), 1, 3, [6]),
        ((9, 10, 100), 2, None, [10, 100]),
        ((5,), 1, None, [5]),
        ((), 1, None, []),
    ],
)
def test_the_oldest_go_and_the_best_and_newest_stay(
    tmp_path: Path, steps: tuple[int, ...], limit: int, best: int | None, kept: list[int]
) -> None:
    save(tmp_path, *steps)
    prune_checkpoints(tmp_path, limit, best)
    assert checkpoint_steps(tmp_path) == kept
    assert all((tmp_path / f"checkpoint-{step}" / "adapter.txt").is_file() for step in kept)


def test_pruning_after_every_save_keeps_to_the_limit(tmp_path: Path) -> None:
    """The best moves twice; the one before it is then as old as any other."""
    for step, best in ((1, 1), (2, 1), (3, 1), (4, 4), (5, 4), (6, 4)):
        save(tmp_path, step)
        prune_checkpoints(tmp_path, 2, best)
        assert len(checkpoint_steps(tmp_path)) <= 2
        assert {step, best} <= set(checkpoint_steps(tmp_path))
    assert checkpoint_steps(tmp_path) == [4, 6]


def test_pruning_touches_nothing_else(tmp_path: Path) -> None:
    save(tmp_path, 1, 2, 3)
    (tmp_path / "merged").mkdir()
    (tmp_path / "metrics.jsonl").write_text("{}")
    prune_checkpoints(tmp_path, 1, None)
    assert names(tmp_path) == ["checkpoint-3", "latest", "merged", "metrics.jsonl"]


def truncate(folder: Path) -> None:
    os.truncate(folder / "adapter.txt", 1)


def flip(folder: Path) -> None:
    text = (folder / "adapter.txt").read_bytes()
    (folder / "adapter.txt").write_bytes(bytes([text[0] ^ 1]) + text[1:])


def lose(folder: Path) -> None:
    (folder / "adapter.txt").unlink()


def lose_the_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def break_the_manifest(folder: Path) -> None:
    os.truncate(folder / "manifest.json", 20)


DAMAGES = {
    truncate: "has 1 of 2 bytes of adapter.txt",
    flip: "has another adapter.txt than was written (its SHA-256 differs)",
    lose: "lacks adapter.txt",
    lose_the_manifest: "has no manifest.json",
    break_the_manifest: "is not safe to read: manifest.json is not JSON text: Unterminated string "
    "starting at: line 3 column 5 (char 19)",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_with_the_reason(
    damage: Callable[[Path], None], tmp_path: Path
) -> None:
    save(tmp_path, 10, 20)
    assert problem_with(tmp_path / "checkpoint-20") is None
    damage(tmp_path / "checkpoint-20")
    found = find_checkpoint(tmp_path, "auto")
    assert (found.folder, found.step) == (tmp_path / "checkpoint-10", 10)
    assert found.notes == (
        f"checkpoint-20 {DAMAGES[damage]}; passed over",
        "latest names checkpoint-20; checkpoint-10 is the newest that is whole",
    )


@pytest.mark.parametrize("damage", DAMAGES)
def test_where_none_is_whole_nothing_starts(damage: Callable[[Path], None], tmp_path: Path) -> None:
    save(tmp_path, 10, 20)
    for step in (10, 20):
        damage(tmp_path / f"checkpoint-{step}")
    with pytest.raises(CheckpointError, match=r"no checkpoint in .* can be used") as caught:
        find_checkpoint(tmp_path, "auto")
    assert str(caught.value).count(DAMAGES[damage]) == 2


def test_a_half_written_one_is_named(tmp_path: Path) -> None:
    save(tmp_path, 10)
    with pytest.raises(OSError, match="no space left"):
        write_checkpoint(tmp_path, 20, fail)
    found = find_checkpoint(tmp_path, "auto")
    assert found.step == 10
    assert found.notes == ("checkpoint-20.partial was still being written; passed over",)


@pytest.mark.parametrize("text", ["checkpoint-30\n", "", None])
def test_a_stale_latest_decides_nothing(text: str | None, tmp_path: Path) -> None:
    save(tmp_path, 10, 20)
    (tmp_path / "latest").unlink()
    if text is not None:
        (tmp_path / "latest").write_text(text)
    found = find_checkpoint(tmp_path, "auto")
    assert found.step == 20
    named = (text or "").strip() or "nothing"
    assert found.notes == (f"latest names {named}; checkpoint-20 is the newest that is whole",)


def test_one_that_is_named_is_taken_or_refused(tmp_path: Path) -> None:
    save(tmp_path, 10, 20)
    assert find_checkpoint(tmp_path, "checkpoint-10").step == 10
    flip(tmp_path / "checkpoint-10")
    with pytest.raises(CheckpointError, match=r"resume\.checkpoint: checkpoint-10 .* differs"):
        find_checkpoint(tmp_path, "checkpoint-10")
    with pytest.raises(CheckpointError, match="is not there; choose another of checkpoint-10"):
        find_checkpoint(tmp_path, "checkpoint-15")


def test_a_run_without_any_has_none(tmp_path: Path) -> None:
    assert find_checkpoint(tmp_path, "auto").folder is None


def test_later_ones_are_kept_under_a_name_that_is_not_looked_for(tmp_path: Path) -> None:
    save(tmp_path, 10, 20, 30)
    (tmp_path / "checkpoint-40.partial").mkdir()
    set_aside_after(tmp_path, 10)
    assert checkpoint_steps(tmp_path) == [10]
    kept = ["checkpoint-20.set-aside", "checkpoint-30.set-aside"]
    assert names(tmp_path) == ["checkpoint-10", *kept, "latest"]
    save(tmp_path, 20)
    set_aside_after(tmp_path, 10)
    assert (tmp_path / "checkpoint-20.set-aside" / "adapter.txt").read_text() == "20"
