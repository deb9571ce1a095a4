"""Scores of tagged words, with intervals; pure functions of tags and a seed.

N rows, K types of entities.
"""

import re
from collections.abc import Callable, Sequence

import numpy as np

from peftune.data.labels import OUTSIDE
from peftune.evaluation.metrics import Results, resampled_interval

Tags = Sequence[Sequence[str]]
"""By row, the tag of each word."""
SCHEME = re.compile(r"[BIESLU](-.*)?")
SAME_IN_IOBES = {"L": "E", "U": "S"}
"""BILOU's names for the last word of an entity and for one of a single word."""


def tag_results(found: Tags, wanted: Tags, seed: int) -> Results:
    """Precision, recall and F1 of entities, F1 of each type, and accuracy of words.

    An entity counts when its type and both of its ends are right, as the CoNLL-2003 script and
    seqeval count (Tjong Kim Sang and De Meulder 2003, arXiv:cs/0306050). Precision, recall and
    `f1` are over all entities. Types that no reference has are left out. Whole rows are drawn for
    the intervals.
    """
    as_entities = entity_tags({tag for row in (*found, *wanted) for tag in row})
    counts = _entity_counts(
        [[as_entities[tag] for tag in row] for row in found],
        [[as_entities[tag] for tag in row] for row in wanted],
    )
    words = np.array([[_right(*rows), len(rows[0])] for rows in zip(found, wanted, strict=True)])
    every = sum(counts.values(), np.zeros((len(words), 3), dtype=int))
    results = {
        "precision": _with_interval(precision, every, seed),
        "recall": _with_interval(recall, every, seed),
        "f1": _with_interval(f1, every, seed),
        "accuracy": _with_interval(lambda sums: sums[0] / sums[1], words, seed),
    }
    wanted_kinds = [kind for kind in sorted(counts) if counts[kind][:, 2].any()]
    return results | {f"f1_{kind}": _with_interval(f1, counts[kind], seed) for kind in wanted_kinds}


def _with_interval(
    statistic: Callable[[np.ndarray], float], counts: np.ndarray, seed: int
) -> dict[str, float]:
    """A statistic of the sums of `counts` (N, columns), with its interval over the rows."""

    def at(picks: np.ndarray) -> float:
        return statistic(counts[picks].sum(axis=0))

    low, high = resampled_interval(at, len(counts), seed)
    return {"value": float(at(np.arange(len(counts)))), "low": low, "high": high}


def entity_tags(tags: set[str]) -> dict[str, str]:
    """What stands for each tag in seqeval, which reads B-, I-, E-, S- and O.

    Tags without such a prefix say nothing about where an entity begins. With an `O` among them each
    run of one tag is an entity; without one (parts of speech) each word is, and precision, recall
    and F1 are all the accuracy.
    """
    inside = tags - {OUTSIDE}
    if all(SCHEME.fullmatch(tag) for tag in inside):
        return {tag: SAME_IN_IOBES.get(tag[:1], tag[:1]) + tag[1:] for tag in tags}
    prefix = "I-" if OUTSIDE in tags else "S-"
    return {tag: tag if tag == OUTSIDE else prefix + tag for tag in tags}


def _entity_counts(found: Tags, wanted: Tags) -> dict[str, np.ndarray]:
    """By type, for each row: right, found and wanted entities (N, 3)."""
    counts: dict[str, np.ndarray] = {}
    for index, rows in enumerate(zip(found, wanted, strict=True)):
        ours, theirs = (_entities(row) for row in rows)
        for column, entities in enumerate((ours & theirs, ours, theirs)):
            for kind, *_ in entities:
                counts.setdefault(kind, np.zeros((len(wanted), 3), dtype=int))
                counts[kind][index, column] += 1
    return counts


def _entities(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    from seqeval.metrics.sequence_labeling import get_entities

    return set(get_entities(list(tags)))


def _right(found: Sequence[str], wanted: Sequence[str]) -> int:
    return sum(one == other for one, other in zip(found, wanted, strict=True))


def precision(sums: np.ndarray) -> float:
    """Share of the found entities that are right; 0 when none was found. `sums` as in `f1`."""
    return sums[0] / sums[1] if sums[1] else 0.0


def recall(sums: np.ndarray) -> float:
    """Share of the wanted entities that were found; 0 when there are none."""
    return sums[0] / sums[2] if sums[2] else 0.0


def f1(sums: np.ndarray) -> float:
    """Harmonic mean of both; `sums` is (right, found, wanted)."""
    return 2 * sums[0] / (sums[1] + sums[2]) if sums[1] + sums[2] else 0.0


def tagged_text(words: Sequence[str], tags: Sequence[str]) -> str:
    """One row for people: every word with its tag, but for words outside."""
    pairs = zip(words, tags, strict=True)
    return " ".join(word if tag == OUTSIDE else f"{word}/{tag}" for word, tag in pairs)
