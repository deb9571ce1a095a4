"""Writes the embedded data set for classification: what customers write, and what they want.

python peftune/embedded/make_requests.py
"""

import random
import sys
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":
    # Python puts this folder on the path of a script; the package is two levels up.
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from peftune.embedded import vocabulary
from peftune.embedded.grammar import draw_people, draw_slots, expand, slot_names, template_fields
from peftune.embedded.make_dialogues import train_names, train_pools
from peftune.embedded.scenarios_requests import CLOSERS, OPENERS, REQUESTS
from peftune.embedded.writing import normalized, write_splits

FOLDER = Path(__file__).resolve().parent / "requests"
SEED = 2029
SIZES = {"train": 1200, "validation": 150, "test": 300}
# So many wordings at the end of each kind are never drawn for training.
HELD_OUT_WORDINGS = 1


@dataclass(frozen=True)
class Request:
    """A message, what it wants, and whether training shows its wording."""

    text: str
    label: str
    new_wording: bool


def make_request(rng: random.Random, held_out: bool) -> Request:
    """One random message; without `held_out` only training's words and wordings."""
    label = rng.choice(list(REQUESTS))
    wordings = REQUESTS[label]
    known = len(wordings) - HELD_OUT_WORDINGS
    number = rng.randrange(len(wordings) if held_out else known)
    text = rng.choice(OPENERS) + wordings[number] + rng.choice(CLOSERS)
    people = draw_people(rng, 1, None if held_out else train_names())
    pools = vocabulary.POOLS if held_out else train_pools()
    fields = template_fields(people, draw_slots(rng, slot_names([text]), pools))
    return Request(expand(text, fields, rng), label, number >= known)


def make_splits(seed: int = SEED) -> dict[str, list[Request]]:
    """All splits; no message occurs twice anywhere."""
    rng = random.Random(seed)
    seen: set[str] = set()
    splits: dict[str, list[Request]] = {split: [] for split in SIZES}
    for split, size in SIZES.items():
        while len(splits[split]) < size:
            request = make_request(rng, held_out=split != "train")
            key = normalized(request.text)
            if key not in seen:
                seen.add(key)
                splits[split].append(request)
    return splits


def main() -> None:
    """Write the three files."""
    rows = {
        split: [{"text": request.text, "label": request.label} for request in requests]
        for split, requests in make_splits().items()
    }
    write_splits(FOLDER, rows)


if __name__ == "__main__":
    main()
