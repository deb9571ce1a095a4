"""What the recipe's paths stand for: files of this machine, globs, and addresses for fsspec."""

import glob
import os
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from peftune.data.files import read_files
from peftune.data.readers import File
from peftune.data.table import Table
from peftune.errors import DataError, did_you_mean

PROTOCOL_MARK = "://"
LOCAL_PROTOCOLS = ("file", "local")
NAMES_SHOWN = 8


def read_named(names: Sequence[str], key: str, streaming: bool = False) -> Table:
    """The rows of the files that paths, globs and addresses stand for, in this order.

    A glob's files are sorted by name. Remote files are copied to this machine once, unless
    `streaming`. Raises DataError, also for a name without a file.
    """
    files = [file for name in names for file in located(name, key, streaming)]
    return read_files(files, key, described([file.name for file in files]))


def described(names: Sequence[str]) -> str:
    """Files for messages: the name of the only one, or the first and how many there are more."""
    more = len(names) - 1
    return f"{names[0]} and {more} more file{'s' * (more > 1)}" if more else names[0]


def located(name: str, key: str, streaming: bool = False) -> list[File]:
    """The files that one name of the recipe stands for. Raises DataError."""
    if is_remote(name):
        return _remote_files(name, key, streaming)
    return [File(key, path, path) for path in _local_paths(_without_protocol(name), key)]


def is_remote(name: str) -> bool:
    """Whether a name is the address of something on another machine."""
    protocol, mark, _ = name.partition(PROTOCOL_MARK)
    return bool(mark) and protocol not in LOCAL_PROTOCOLS


def _without_protocol(name: str) -> str:
    return name.partition(PROTOCOL_MARK)[2] if PROTOCOL_MARK in name else name


def _local_paths(name: str, key: str) -> list[str]:
    path = Path(name).expanduser()
    if path.is_file():
        return [str(path)]
    if path.is_dir():
        raise DataError(
            f"{key}: {name!r} is a folder; write {name.rstrip('/')}/*.jsonl for files in it, or name "
            "a folder with train, validation and test files in data.path."
        )
    if glob.has_magic(name):
        found = sorted(p for p in glob.glob(str(path), recursive=True) if Path(p).is_file())
        if found:
            return found
        # The folder in front of the first wildcard is the one that can be listed.
        plain = [part for part in path.parts[:-1] if not glob.has_magic(part)]
        raise DataError(
            f"{key}: no file matches {name}. {holdings(Path(*plain).absolute() if plain else Path.cwd())}"
        )
    raise DataError(f"{key}: no such file: {path}. {holdings(path.absolute().parent, path.name)}")


def holdings(folder: Path, wanted: str = "") -> str:
    """A sentence that says what a folder holds, and which of it was probably meant."""
    if not folder.is_dir():
        return f"The folder {folder} does not exist."
    names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    if not names:
        return f"The folder {folder} is empty."
    shown = ", ".join(names[:NAMES_SHOWN]) + (", …" if len(names) > NAMES_SHOWN else "")
    return f"The folder {folder} holds: {shown}.{did_you_mean(wanted, names)}"


def _remote_files(name: str, key: str, streaming: bool) -> list[File]:
    system, path = _file_system(name, key)
    try:
        found = sorted(system.glob(path)) if glob.has_magic(path) else [path]
        if not found:
            raise DataError(f"{key}: no file matches {name}.")
        if not system.isfile(found[0]):
            raise DataError(f"{key}: no such file: {name}.")
        addresses = [system.unstrip_protocol(one) for one in found]
        if len(found) == 1 and not glob.has_magic(path):
            addresses = [name]
        if streaming:
            return [File(key, address, address, remote=True) for address in addresses]
        pairs = zip(addresses, found, strict=True)
        return [File(key, address, str(_copy(system, one))) for address, one in pairs]
    except OSError as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise DataError(f"{key}: {name} cannot be read: {reason}.") from error


def _file_system(name: str, key: str) -> tuple[Any, str]:
    import fsspec

    protocol = name.partition(PROTOCOL_MARK)[0]
    try:
        system, path = fsspec.core.url_to_fs(name)
    except ImportError as error:
        reason = str(error).rstrip(".")
        raise DataError(
            f"{key}: {name}: a package for {protocol}{PROTOCOL_MARK} is missing: {reason}."
        ) from error
    except ValueError as error:
        known = fsspec.available_protocols()
        raise DataError(
            f"{key}: {name}: unknown protocol {protocol!r}.{did_you_mean(protocol, known)}"
        ) from error
    return system, path


def _copy(system: Any, path: str) -> Path:
    """The remote file on this machine, copied unless this state of it has been copied before."""
    state = sha256(f"{system.unstrip_protocol(path)} {system.ukey(path)}".encode()).hexdigest()
    name = Path(path).name
    copy = cache_folder() / state[:32] / name
    if not copy.is_file():
        copy.parent.mkdir(parents=True, exist_ok=True)
        aside = copy.with_name(f"{name}.{os.getpid()}.partial")
        system.get_file(path, str(aside))
        os.replace(aside, copy)
    return copy


def cache_folder() -> Path:
    """Where copies of remote files are kept: `PEFTUNE_CACHE`, or `~/.cache/peftune`."""
    named = os.environ.get("PEFTUNE_CACHE", "~/.cache/peftune")
    return Path(named).expanduser() / "remote"
