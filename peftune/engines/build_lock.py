"""The code that DeepSpeed compiles for ranks on a CPU, and the lock that a killed build leaves behind."""

import os
import time
from pathlib import Path

from peftune.errors import LaunchError

EXTENSION = "deepspeed_shm_comm"
LONGEST_BUILD_S = 600.0


def require_no_abandoned_build() -> None:
    """Raise LaunchError for a lock that nobody holds any more: torch would wait for it forever."""
    from torch.utils.cpp_extension import get_default_build_root

    root = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or get_default_build_root())
    for lock in root.glob(f"**/{EXTENSION}/lock"):
        age_s = time.time() - lock.stat().st_mtime
        if age_s > LONGEST_BUILD_S:
            raise LaunchError(
                f"{lock} is {age_s / 60:.0f} minutes old: a process that compiled for DeepSpeed was "
                "killed, and every other would wait for it; remove the file."
            )
