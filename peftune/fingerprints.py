"""SHA-256 of files, which tells whether they are still the same."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import file_digest, sha256
from pathlib import Path


def file_sha256(path: Path) -> str:
    """Of the bytes of one file."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def files_digest(paths: Sequence[Path]) -> str:
    """One SHA-256 for names and bytes of some files; hashing leaves the interpreter free, so several
    are read at a time."""
    with ThreadPoolExecutor() as pool:
        found = zip(paths, pool.map(file_sha256, paths), strict=True)
        lines = sorted(f"{path.name} {digest}\n" for path, digest in found)
    return sha256("".join(lines).encode()).hexdigest()
