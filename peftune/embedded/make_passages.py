"""Writes the embedded passages: short texts with a question each, answered in the text's words.

python peftune/embedded/make_passages.py
"""

import random
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    # Python puts this folder on the path of a script; the package is two levels up.
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from peftune.embedded import vocabulary
from peftune.embedded.facts import FACTS, Fact
from peftune.embedded.grammar import (
    Person,
    draw_people,
    draw_slots,
    expand,
    slot_names,
    template_fields,
)
from peftune.embedded.make_dialogues import train_names, train_pools
from peftune.embedded.writing import normalized, write_splits

FOLDER = Path(__file__).resolve().parent / "passages"
SEED = 2028
SIZES = {"train": 1500, "validation": 120, "test": 250}


@dataclass(frozen=True)
class Told:
    """A fact with its words."""

    fact: Fact
    fields: dict[str, str]

    def values(self) -> set[str]:
        """The words of its slots, people apart."""
        return {self.fields[slot] for slot in slot_names([self.fact.sentence])}


@dataclass(frozen=True)
class Passage:
    """A text, one question, and its answer, which stands in the text exactly once."""

    context: str
    question: str
    answer: str

    def row(self) -> dict[str, Any]:
        """The columns of the data set; `answers` has the form of SQuAD."""
        start = self.context.index(self.answer)
        answers = {"text": [self.answer], "answer_start": [start]}
        return {
            "context": self.context,
            "question": self.question,
            "answer": self.answer,
            "answers": answers,
        }


def draw_facts(rng: random.Random, count: int, held_out_words: bool) -> list[Told]:
    """Facts about different people; often two of one kind, which then share no word."""
    pools = vocabulary.POOLS if held_out_words else train_pools()
    people = draw_people(rng, 2 * count, None if held_out_words else train_names())
    kinds = [rng.choice(FACTS) for _ in range(count)]
    if rng.random() < 0.6:
        kinds[-1] = kinds[0]
    rng.shuffle(kinds)
    facts: list[Told] = []
    for index, fact in enumerate(kinds):
        pair = people[2 * index : 2 * index + 2]
        told = Told(fact, _fields(rng, fact, pair, pools))
        while any(told.fact is other.fact and told.values() & other.values() for other in facts):
            told = Told(fact, _fields(rng, fact, pair, pools))
        facts.append(told)
    return facts


def _fields(
    rng: random.Random, fact: Fact, people: list[Person], pools: dict[str, Any]
) -> dict[str, str]:
    texts = [fact.sentence, *(question for question, _ in fact.questions)]
    return template_fields(people, draw_slots(rng, slot_names(texts), pools))


def tell(rng: random.Random, facts: Sequence[Told]) -> str:
    """The facts as a text."""
    return " ".join(expand(told.fact.sentence, told.fields, rng) for told in facts)


def occurrences(answer: str, text: str) -> int:
    """How often the answer stands in the text as whole words."""
    return len(re.findall(rf"(?<!\w){re.escape(answer)}(?!\w)", text))


def make_passage(rng: random.Random, held_out_words: bool) -> Passage:
    """One random row; without `held_out_words` only from the training vocabulary."""
    while True:
        facts = draw_facts(rng, rng.randint(2, 4), held_out_words)
        context, told = tell(rng, facts), rng.choice(facts)
        question, slot = rng.choice(told.fact.questions)
        answer = told.fields[slot]
        once = context.count(answer) == occurrences(answer, context) == 1
        if once:
            return Passage(context, expand(question, told.fields, rng), answer)


def make_splits(seed: int = SEED) -> dict[str, list[Passage]]:
    """All splits; no context occurs twice anywhere."""
    rng = random.Random(seed)
    seen: set[str] = set()
    splits: dict[str, list[Passage]] = {split: [] for split in SIZES}
    for split, size in SIZES.items():
        while len(splits[split]) < size:
            passage = make_passage(rng, held_out_words=split != "train")
            key = normalized(passage.context)
            if key not in seen:
                seen.add(key)
                splits[split].append(passage)
    return splits


def main() -> None:
    """Write the three files."""
    splits = make_splits()
    write_splits(FOLDER, {split: [one.row() for one in rows] for split, rows in splits.items()})


if __name__ == "__main__":
    main()
