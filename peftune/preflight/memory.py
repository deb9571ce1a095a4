"""How much memory a process may still take: that of the machine, or of the control group it is in."""

from pathlib import Path

MEMINFO, GROUPS, OWN_GROUP = (
    Path("/proc/meminfo"),
    Path("/sys/fs/cgroup"),
    Path("/proc/self/cgroup"),
)


def free_memory() -> int | None:
    """Bytes; None where the system does not say."""
    found = [_of_machine(), *_of_groups()]
    known = [number for number in found if number is not None]
    return min(known) if known else None


def _of_machine() -> int | None:
    if not MEMINFO.is_file():
        return None
    lines = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
    return int(lines["MemAvailable"].split()[0]) * 1024


def _of_groups() -> list[int | None]:
    """Of the group of this process and of all groups around it (cgroup v2)."""
    if not OWN_GROUP.is_file():
        return []
    names = [line[3:] for line in OWN_GROUP.read_text().splitlines() if line.startswith("0::")]
    own = [GROUPS / name.lstrip("/") for name in names]
    return [_of_group(folder) for path in own for folder in (path, *path.parents)]


def _of_group(folder: Path) -> int | None:
    limit = folder / "memory.max"
    text = limit.read_text().strip() if limit.is_file() else "max"
    if text == "max":
        return None
    used = int((folder / "memory.current").read_text())
    statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    # Pages of files are given back when memory is short.
    return int(text) - used + int(statistics.get("inactive_file", 0))
