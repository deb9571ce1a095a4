"""Writes the embedded data set: dialogues with a summary each.

python peftune/embedded/make_dialogues.py
"""

import random
import sys
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":
    # Python puts this folder on the path of a script; the package is two levels up.
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from peftune.embedded import vocabulary
from peftune.embedded.grammar import (
    Person,
    Scenario,
    draw_people,
    draw_slots,
    expand,
    slot_names,
    template_fields,
)
from peftune.embedded.scenarios_home import HOME_SCENARIOS
from peftune.embedded.scenarios_social import SOCIAL_SCENARIOS
from peftune.embedded.writing import normalized, write_splits

FOLDER = Path(__file__).resolve().parent / "dialogues"
SEED = 2026
SIZES = {"train": 1000, "validation": 120, "test": 160}
SCENARIOS = (*HOME_SCENARIOS, *SOCIAL_SCENARIOS)
GREETINGS = (
    "[Hi|Hello|Hey] {b}[!|.] ",
    "{b}, [have you got a minute?|can I ask you something?] ",
    "[Good morning|Good evening], {b}. ",
    "",
)
SMALL_TALK = (
    ("A: [Hi|Hello] {b}, how are you?", "B: [Fine, thanks. And you?|Very well, {a}. And you?]"),
    ("B: [Hi|Hello] {a}. You look busy.", "A: [Yes, it is a long day.|A little, yes.]"),
    ("A: [What a day, {b}!|It is so cold today, {b}.]", "B: [It really is, {a}.|Yes, {a}.]"),
)
FAREWELLS = (
    ("B: [See you, {a}.|Bye, {a}!|Take care, {a}.]",),
    ("A: Thank you, {b}.", "B: [You are welcome.|Any time, {a}.]"),
)


@dataclass(frozen=True)
class Row:
    """A dialogue, its summary, and what it is about: two rows with equal facts are one."""

    dialogue: str
    summary: str
    facts: tuple[str, ...]


def train_names() -> list[str]:
    """The first names that the training split may use."""
    names = (vocabulary.FEMALE_NAMES, vocabulary.MALE_NAMES)
    return [name for pool in names for name in vocabulary.train_pool(pool)]


def train_pools() -> dict[str, list[str]]:
    """The word pools without their held-out entries."""
    return {
        name: list(pool) if name in vocabulary.CLOSED_POOLS else vocabulary.train_pool(pool)
        for name, pool in vocabulary.POOLS.items()
    }


def make_row(rng: random.Random, held_out_words: bool) -> Row:
    """One random dialogue; without `held_out_words` only from the training vocabulary."""
    scenario = rng.choice(SCENARIOS)
    people = draw_people(rng, 4, None if held_out_words else train_names())
    pools = vocabulary.POOLS if held_out_words else train_pools()
    slots = draw_slots(rng, slot_names(scenario.texts()), pools)
    fields = template_fields(people, slots)
    outcome = rng.choice(scenario.outcomes)
    turns = [expand(turn, fields, rng) for turn in _turns(rng, scenario, outcome.turns)]
    summary = f"{expand(scenario.summary, fields, rng)}. {expand(outcome.summary, fields, rng)}"
    dialogue = "\n".join(_speaker(turn, people) for turn in turns)
    used = [word for word in (*fields.values(),) if word in summary]
    return Row(dialogue, summary, (scenario.name, *sorted(set(used))))


def _turns(rng: random.Random, scenario: Scenario, end: tuple[str, ...]) -> list[str]:
    talk = rng.choice(SMALL_TALK) if rng.random() < 0.3 else ()
    greeting = "" if talk else rng.choice(GREETINGS)
    detail = scenario.detail if rng.random() < 0.7 else ()
    farewell = rng.choice(FAREWELLS) if rng.random() < 0.4 else ()
    return [*talk, f"A: {greeting}{scenario.opening}", *detail, *end, *farewell]


def _speaker(turn: str, people: list[Person]) -> str:
    role, _, text = turn.partition(": ")
    return f"{people['AB'.index(role)].name}: {text[0].upper()}{text[1:]}"


def make_splits(seed: int = SEED) -> dict[str, list[Row]]:
    """All splits; no dialogue and no set of facts occurs twice anywhere."""
    rng = random.Random(seed)
    seen: set[str] = set()
    splits: dict[str, list[Row]] = {split: [] for split in SIZES}
    for split, size in SIZES.items():
        while len(splits[split]) < size:
            row = make_row(rng, held_out_words=split != "train")
            keys = {normalized(row.dialogue), " ".join(row.facts)}
            if not keys & seen:
                seen |= keys
                splits[split].append(row)
    return splits


def main() -> None:
    """Write the three files."""
    rows = {
        split: [{"dialogue": row.dialogue, "summary": row.summary} for row in dialogues]
        for split, dialogues in make_splits().items()
    }
    write_splits(FOLDER, rows)


if __name__ == "__main__":
    main()
