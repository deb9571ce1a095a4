"""Checkpoint folders: written aside and renamed when complete, checked by a manifest, the best and the
newest kept."""

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftune.errors import CheckpointError, UnsafeFileError
from peftune.fingerprints import file_sha256
from peftune.records import storing, sync_file, write_json, write_text
from peftune.untrusted.files import check_files, check_name
from peftune.untrusted.json_file import read_object
from peftune.untrusted.tensor_header import read_header

NAME = re.compile(r"checkpoint-(\d+)")
MANIFEST, LATEST = "manifest.json", "latest"
PARTIAL, SET_ASIDE = ".partial", ".set-aside"


def write_checkpoint(run_folder: Path, step: int, write: Callable[[Path], None]) -> Path:
    """Let `write` fill a folder, and give it its name only when all of it is on the disk."""
    final = run_folder / f"checkpoint-{step}"
    aside = run_folder / f"{final.name}{PARTIAL}"
    shutil.rmtree(aside, ignore_errors=True)
    with storing(aside, 0):
        aside.mkdir(parents=True)
    write(aside)
    seal(aside)
    with storing(final, 0):
        os.replace(aside, final)
    sync_file(run_folder)
    write_text(run_folder / LATEST, final.name + "\n")
    return final


def seal(folder: Path) -> None:
    """Sync every file of a folder without manifest, and write down how long it is and what is in it."""
    files = {}
    for path in sorted(folder.iterdir()):
        sync_file(path)
        files[path.name] = {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
    write_json(folder / MANIFEST, {"files": files})
    sync_file(folder)


def problem_with(folder: Path) -> str | None:
    """What is wrong with a checkpoint, by its manifest; None when it is as it was written."""
    if not folder.is_dir():
        return "is not there"
    if not (folder / MANIFEST).is_file():
        return f"has no {MANIFEST}"
    try:
        check_files(folder)
        files = listed_files(folder / MANIFEST)
        _refuse_unlisted(folder, files)
        problems = (_problem_with_file(folder, name, written) for name, written in files.items())
        problem = next(filter(None, problems), None)
    except UnsafeFileError as error:
        reason = str(error).replace(f"{folder}{os.sep}", "").rstrip(".")
        return f"is not safe to read: {reason}"
    return problem


def listed_files(manifest: Path) -> dict[str, dict[str, Any]]:
    """Bytes and SHA-256 of each file by its name. Raises UnsafeFileError for a list of anything else."""
    files = read_object(manifest).get("files")
    if not isinstance(files, dict) or not files:
        raise UnsafeFileError(f"{manifest} lists no files.")
    for name, written in files.items():
        check_name(name, manifest)
        described = written if isinstance(written, dict) else {}
        if {key: type(one) for key, one in described.items()} != {"bytes": int, "sha256": str}:
            raise UnsafeFileError(f"{manifest} has no bytes and sha256 of {name}.")
    return files


def _problem_with_file(folder: Path, name: str, written: dict[str, Any]) -> str | None:
    path = folder / name
    if not path.is_file():
        return f"lacks {name}"
    size = path.stat().st_size
    if size != written["bytes"]:
        return f"has {size:,} of {written['bytes']:,} bytes of {name}"
    if file_sha256(path) != written["sha256"]:
        return f"has another {name} than was written (its SHA-256 differs)"
    if path.suffix == ".safetensors":
        read_header(path)
    return None


def _refuse_unlisted(folder: Path, files: dict[str, dict[str, Any]]) -> None:
    """A file that would be read without having been compared with anything."""
    for path in sorted(folder.iterdir()):
        if path.suffix in (".safetensors", ".json") and path.name not in (*files, MANIFEST):
            raise UnsafeFileError(f"{path} is not listed in its {MANIFEST}.")


@dataclass(frozen=True)
class Found:
    """The checkpoint to go on from, and why newer ones are no good."""

    folder: Path | None
    notes: tuple[str, ...]

    @property
    def step(self) -> int:
        return 0 if self.folder is None else step_of(self.folder)


NOTHING = Found(None, ())


def find_checkpoint(run_folder: Path, wanted: str) -> Found:
    """The checkpoint of that name, or for `auto` the newest that is whole; none in a run without any.

    Raises CheckpointError where there are some and none can be used.
    """
    if wanted != "auto":
        problem = problem_with(run_folder / wanted)
        if problem:
            raise CheckpointError(
                f"resume.checkpoint: {wanted} in {run_folder} {problem}; choose another of "
                f"{_names(checkpoint_steps(run_folder))}, or resume: auto."
            )
        return Found(run_folder / wanted, ())
    notes = [f"{path.name} was still being written; passed over" for path in partial(run_folder)]
    steps = checkpoint_steps(run_folder)
    for step in reversed(steps):
        folder = run_folder / f"checkpoint-{step}"
        problem = problem_with(folder)
        if problem is None:
            return Found(folder, (*notes, *_stale(run_folder, folder)))
        notes.append(f"{folder.name} {problem}; passed over")
    if steps:
        raise CheckpointError(
            f"resume: auto: no checkpoint in {run_folder} can be used: {'; '.join(notes)}. Put one "
            "back, or start again from nothing with resume: null and overwrite_output_dir: true."
        )
    return Found(None, tuple(notes))


def _stale(run_folder: Path, taken: Path) -> tuple[str, ...]:
    file = run_folder / LATEST
    named = file.read_text(encoding="utf-8").strip() if file.is_file() else ""
    if named == taken.name:
        return ()
    return (f"{LATEST} names {named or 'nothing'}; {taken.name} is the newest that is whole",)


def _names(steps: list[int]) -> str:
    return ", ".join(f"checkpoint-{step}" for step in steps) or "none"


def step_of(folder: Path) -> int:
    """The step in a checkpoint's name."""
    return int(folder.name.removeprefix("checkpoint-"))


def partial(run_folder: Path) -> list[Path]:
    """What a killed run was writing."""
    return sorted(run_folder.glob(f"checkpoint-*{PARTIAL}"))


def checkpoint_steps(run_folder: Path) -> list[int]:
    """Steps of the folders that have a checkpoint's name, ascending."""
    matches = (NAME.fullmatch(entry.name) for entry in run_folder.iterdir() if entry.is_dir())
    return sorted(int(match[1]) for match in matches if match)


def set_aside_after(run_folder: Path, step: int) -> None:
    """Give every checkpoint after `step` a name under which none is looked for; drop half-written ones.

    The run that goes on from `step` writes them anew.
    """
    for later in checkpoint_steps(run_folder):
        if later > step:
            folder = run_folder / f"checkpoint-{later}"
            aside = run_folder / f"{folder.name}{SET_ASIDE}"
            shutil.rmtree(aside, ignore_errors=True)
            os.replace(folder, aside)
    for folder in partial(run_folder):
        shutil.rmtree(folder)


def prune_checkpoints(run_folder: Path, limit: int, best_step: int | None) -> None:
    """Delete the oldest checkpoints over `limit`; the newest and the best one always stay."""
    steps = checkpoint_steps(run_folder)
    removable = [step for step in steps[:-1] if step != best_step]
    for step in removable[: max(0, len(steps) - limit)]:
        shutil.rmtree(run_folder / f"checkpoint-{step}")
