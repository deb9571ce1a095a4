"""What a server does wrong, and how often."""

from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event, Lock


@dataclass
class Fault:
    """One thing that goes wrong with requests of a kind; which, is the field that is set."""

    on: str
    """Name of the route."""
    only: str = ""
    """Text that the address must have."""
    times: int | None = None
    """How often; None is for good."""
    status: int | None = None
    """The request is answered with this error ..."""
    text: str = ""
    """... and these words, as JSON unless they are XML."""
    headers: dict[str, str] = field(default_factory=dict)
    applied: bool = False
    """Whether the request has its effect all the same."""
    cut: int | None = None
    """The connection ends after so many bytes of the request's body, or of the answer's."""
    silent: bool = False
    """There is no answer."""
    change: Callable[[bytes], bytes] | None = None
    """The body of the answer is changed."""


class Faults:
    """The plan of a server. Threads take faults from it one after the other."""

    def __init__(self) -> None:
        self.planned: list[Fault] = []
        self.healed = Event()
        """Ends the silence of requests that are held."""
        self.lock = Lock()

    def plan(self, fault: Fault) -> None:
        self.healed.clear()
        self.planned.append(fault)

    def heal(self) -> None:
        with self.lock:
            self.planned.clear()
        self.healed.set()

    def take(self, on: str, address: str) -> Fault | None:
        """The fault that this request meets, which has then happened once more."""
        with self.lock:
            for fault in self.planned:
                if fault.on == on and fault.only in address and fault.times != 0:
                    fault.times = None if fault.times is None else fault.times - 1
                    return fault
        return None
