"""Signals that ask a run to stop: while it trains they wait for the end of the step."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

from peftune.errors import Interrupted

STOPPING = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class Signals:
    """Inside, the first signal of a kind is a request, and the second ends the process at once.

    Launchers may follow one signal with another of a different kind, which changes nothing. Schedulers
    say the same thing in several ways, and end by SIGKILL what does not obey: `patient` takes all
    further signals for repetitions.
    """

    def __init__(self, patient: bool = False) -> None:
        self.patient = patient
        self.received: signal.Signals | None = None
        self._waits = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        for number in STOPPING:
            self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.patient and self.received is not None:
            return
        if not self.patient:
            # The default action ends the process with 128 + the number of the signal.
            signal.signal(number, signal.SIG_DFL)
        self.received = self.received or signal.Signals(number)
        self._raise()

    def _raise(self) -> None:
        if self.received is not None and not self._waits:
            raise Interrupted(
                f"stopped by {self.received.name}; go on later with resume: auto, from the last "
                "checkpoint if there is one."
            )

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Inside, whoever trains looks at `received`; what is left at the end is raised then."""
        self._waits = True
        try:
            yield
        finally:
            self._waits = False
        self._raise()
