"""Which files a folder may have: regular ones, and links that stay inside it."""

import os
import re
import stat
from pathlib import Path

from peftune.errors import UnsafeFileError
from peftune.untrusted.json_file import shown

TEMPLATES = "additional_chat_templates"
NAME = re.compile(r"[\w.+-]+")


def check_files(folder: Path) -> None:
    """Raise UnsafeFileError for a file of a folder that is elsewhere, or is no file: a pipe would hold
    up whoever reads it. Folders inside are passed over, but for that of the chat templates."""
    places = allowed_places(folder)
    for directory in (folder, folder / TEMPLATES):
        if directory.is_symlink() and directory != folder:
            check_file(directory, places)
        for path in sorted(directory.iterdir()) if directory.is_dir() else ():
            if not path.is_dir():
                check_file(path, places)


def check_file(path: Path, places: tuple[Path, ...]) -> None:
    """Raise UnsafeFileError for a link out of `places`, and for a device, pipe or socket."""
    target = Path(os.path.realpath(path))
    if not any(target.is_relative_to(place) for place in places):
        raise UnsafeFileError(
            f"{path} is a link that leaves its folder, to {target}; put a copy of the file in its place."
        )
    if os.path.exists(target) and not stat.S_ISREG(os.stat(target).st_mode):
        raise UnsafeFileError(f"{path} is not a regular file; remove it.")


def allowed_places(folder: Path) -> tuple[Path, ...]:
    """Where the files of a folder may be: inside, and for a snapshot in the Hub's cache, which is all
    links, among the blobs of the same repository: from `models--NAME/snapshots/COMMIT` to
    `models--NAME/blobs`."""
    real = Path(os.path.realpath(folder))
    repository = real.parent.parent
    if real.parent.name == "snapshots" and repository.name.startswith("models--"):
        return real, repository / "blobs"
    return (real,)


def check_name(name: object, place: Path, ending: str = "") -> str:
    """A file's name as another file gives it: of this folder, and not of another place.

    Raises UnsafeFileError.
    """
    if not isinstance(name, str) or name in (".", "..") or not NAME.fullmatch(name):
        raise UnsafeFileError(
            f"{place} names {shown(name)}, which is not in its own folder; fetch it anew, or do not "
            "use it."
        )
    if not name.endswith(ending):
        raise UnsafeFileError(f"{place} names {shown(name)}, which is no {ending} file.")
    return name
