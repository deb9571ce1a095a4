"""Writes in a thread of its own, so that training waits for memory and not for the disk."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class Writer:
    """One write at a time, in order. Writing leaves the interpreter free most of the time."""

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self.pending: Future[object] | None = None

    def close(self) -> None:
        """Return when the last write has ended, whatever came of it."""
        self.pool.shutdown()

    def submit(self, write: Callable[[], object]) -> None:
        """Start `write` when the one before is done; raises what that one raised."""
        self.wait()
        self.pending = self.pool.submit(write)

    def wait(self) -> None:
        """Return when nothing is being written any more; raises what the write raised."""
        if self.pending is not None:
            pending, self.pending = self.pending, None
            pending.result()

    @property
    def failed(self) -> bool:
        """Whether a write has ended in an error that nobody has been told of."""
        pending = self.pending
        return pending is not None and pending.done() and pending.exception() is not None
