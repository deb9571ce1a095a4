"""Writes the embedded parallel text: English sentences with their German translation.

python peftune/embedded/make_phrases.py
"""

import random
import sys
import zlib
from pathlib import Path

if __name__ == "__main__":
    # Python puts this folder on the path of a script; the package is two levels up.
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from peftune.embedded.sentences import KINDS, Pair
from peftune.embedded.writing import normalized, write_splits

FOLDER = Path(__file__).resolve().parent / "phrases"
SEED = 2027
SIZES = {"train": 2000, "validation": 150, "test": 250}


def is_held_out(combination: str) -> bool:
    """Whether a pair of words, such as verb and object, is kept out of the training split."""
    return zlib.crc32(combination.encode()) % 6 == 0


def make_pair(rng: random.Random, held_out: bool) -> Pair:
    """One sentence; without `held_out` only combinations of words that training may show."""
    while True:
        pair = rng.choice(KINDS)(rng)
        if held_out or not any(map(is_held_out, pair.combinations)):
            english, german = (text[0].upper() + text[1:] for text in (pair.english, pair.german))
            return Pair(english, german, pair.combinations)


def make_splits(seed: int = SEED) -> dict[str, list[Pair]]:
    """All splits; no sentence occurs twice anywhere, in neither language."""
    rng = random.Random(seed)
    seen: set[str] = set()
    splits: dict[str, list[Pair]] = {split: [] for split in SIZES}
    for split, size in SIZES.items():
        while len(splits[split]) < size:
            pair = make_pair(rng, held_out=split != "train")
            keys = {f"en {normalized(pair.english)}", f"de {normalized(pair.german)}"}
            if not keys & seen:
                seen |= keys
                splits[split].append(pair)
    return splits


def main() -> None:
    """Write the three files."""
    rows = {
        split: [{"english": pair.english, "german": pair.german} for pair in pairs]
        for split, pairs in make_splits().items()
    }
    write_splits(FOLDER, rows)


if __name__ == "__main__":
    main()
