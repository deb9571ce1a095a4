"""A folder named checkpoint-N is complete, and the best and the newest one stay."""

from collections.abc import Callable
from pathlib import Path

import pytest
from peftune.training.checkpoint import checkpoint_steps, prune_checkpoints, write_checkpoint


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
    assert names(tmp_path) == ["checkpoint-7"]


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
    assert names(folder) == ["weights.txt"]
    assert names(tmp_path) == ["checkpoint-6"]


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
    assert names(tmp_path) == ["checkpoint-3", "merged", "metrics.jsonl"]
