"""Keeps the splits apart: what is tested must not have been trained on."""

import re

import numpy as np

from peftune.data.order import permutation
from peftune.errors import DataError

NOT_A_WORD = re.compile(r"[\W_]+")


def normalized(source: str) -> str:
    """The text without case, white space and punctuation; unchanged when nothing else is in it."""
    return NOT_A_WORD.sub("", source.casefold()) or source.strip()


def set_aside(sources: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Which of the examples are validated on, bool (examples,); equal ones fall on the same side.

    `sources` are hashes of normalised sources. Sources are drawn in the order of a permutation that
    depends on `seed` until the validation side has at least `fraction` of the examples. Raises
    DataError when the training side would be empty.
    """
    _, first, group = np.unique(sources, return_index=True, return_inverse=True)
    order = np.argsort(first)  # groups in the order of their first example
    sizes = np.bincount(group)[order]
    drawn = np.array(permutation(seed, 0, len(order)))
    before = np.cumsum(sizes[drawn]) - sizes[drawn]
    chosen = order[drawn[before < max(1, round(fraction * len(sources)))]]
    validated = np.isin(group, chosen)
    if validated.all():
        raise DataError(
            f"data.validation_fraction: {fraction} of {len(sources):,} rows leaves no row to "
            "train on."
        )
    return validated
