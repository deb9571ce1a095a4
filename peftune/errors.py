"""The errors peftune raises on purpose; each is one line for the user and carries an exit code."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any


class PeftuneError(Exception):
    """Something went wrong while the run was working; the message is one line for the user."""

    exit_code = 1


class RecipeError(PeftuneError):
    """The recipe, an override or the way the command was called is wrong."""

    exit_code = 2


class DataError(RecipeError):
    """The data named by the recipe cannot be trained or evaluated on."""


class ModelError(RecipeError):
    """The model, tokenizer or adapter named by the recipe cannot be used."""


class UnsafeFileError(ModelError):
    """A file of a model, adapter or checkpoint is not what it should be, or asks for what it may not."""


class LaunchError(RecipeError):
    """The launcher's configuration does not fit the recipe or this machine."""


class CheckpointError(RecipeError):
    """A checkpoint cannot be used, or belongs to another run."""


class StorageError(PeftuneError):
    """Something could not be written: no space, no permission, or the disk is gone."""


class ExportError(RecipeError):
    """Something must not, or cannot, be given away as it is."""


class ReproductionError(PeftuneError):
    """A run made again has other results than its model card states."""


class ParityError(PeftuneError):
    """What was written does not compute what was trained."""

    def __init__(self, reason: str, parity: Any = None) -> None:
        super().__init__(reason)
        self.parity = parity
        """The numbers, where both could be computed."""


class HubError(PeftuneError):
    """The Hugging Face Hub could not be reached, or refused or garbled something."""


class Interrupted(PeftuneError):
    """Training was asked to stop and can go on later; schedulers requeue on this exit code."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h


class TrainingError(PeftuneError):
    """Training stopped because a number stopped making sense."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence that names the closest known spelling, or an empty string."""
    matches = get_close_matches(name, list(known), n=1)
    return f" Did you mean {matches[0]}?" if matches else ""
