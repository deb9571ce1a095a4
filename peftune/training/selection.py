"""Which validation was the best so far, and when to stop: a value that each validation updates."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Selection:
    """The lowest validation loss, the step it belongs to, and the validations since."""

    best_loss: float | None = None
    best_step: int | None = None
    since_best: int = 0

    def updated(self, step: int, loss: float) -> "Selection":
        """The selection after a validation; a tie keeps the earlier step."""
        if self.best_loss is None or loss < self.best_loss:
            return Selection(loss, step, 0)
        return replace(self, since_best=self.since_best + 1)

    def exhausted(self, patience: int | None) -> bool:
        """True when `patience` validations in a row brought nothing better."""
        return patience is not None and self.since_best >= patience


def is_due(step: int, every: int | None, total: int) -> bool:
    """Whether something that happens every so many steps happens after `step`, and at the end."""
    return every is not None and (step % every == 0 or step == total)
