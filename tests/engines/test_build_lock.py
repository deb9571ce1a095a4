"""A build that was killed is named, one that is going on is waited for."""

import os
import time
from pathlib import Path

import pytest

from peftune.engines.build_lock import require_no_abandoned_build
from peftune.errors import LaunchError


def locked(folder: Path, minutes: float) -> Path:
    lock = folder / "py311_cpu" / "deepspeed_shm_comm" / "lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    then = time.time() - 60 * minutes
    os.utime(lock, (then, then))
    return lock


def test_an_old_lock_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    lock = locked(tmp_path, 30)
    with pytest.raises(LaunchError) as caught:
        require_no_abandoned_build()
    assert str(caught.value).startswith(f"{lock} is 30 minutes old: ")
    assert str(caught.value).endswith("remove the file.")


def test_a_build_that_goes_on_is_no_reason_to_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    locked(tmp_path, 1)
    require_no_abandoned_build()


def test_a_machine_without_builds_has_no_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "none"))
    require_no_abandoned_build()
