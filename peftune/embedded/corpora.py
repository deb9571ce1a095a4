"""Endless generated documents for pretraining, without the rows of the data sets.

The data sets' labels, answers and summaries never occur, and no document is one of their texts.
"""

import random
from collections.abc import Callable, Iterator, Sequence, Set

from peftune.embedded import make_dialogues, make_passages, make_phrases, make_requests
from peftune.embedded.grammar import expand
from peftune.embedded.narration import make_story
from peftune.embedded.writing import normalized

Maker = Callable[[random.Random], str]


def documents(
    seed: int, makers: Sequence[tuple[float, Maker]], kept_out: Set[str]
) -> Iterator[str]:
    """Documents of the makers by their weights; `kept_out` are normalised texts that no document is
    and no line of one."""
    rng = random.Random(f"pretraining {seed}")
    weights = [weight for weight, _ in makers]
    while True:
        ((_, make),) = rng.choices(makers, weights)
        text = make(rng)
        if not kept_out & {normalized(part) for part in (text, *text.splitlines())}:
            yield text


def encoder_documents(seed: int) -> Iterator[str]:
    """English: requests without labels and in no held-out wording, passages, dialogues, stories."""
    makers = [(0.4, _request), (0.3, _passage), (0.15, _dialogue), (0.15, make_story)]
    requests = make_requests.make_splits().values()
    kept_out = {normalized(row.text) for rows in requests for row in rows}
    return documents(seed, makers, kept_out | _known_contexts() | _known_dialogues())


def encoder_decoder_documents(seed: int) -> Iterator[str]:
    """Two lines or halves that tell the same: sentences in both languages, passages in other words."""
    pairs = [pair for pairs in make_phrases.make_splits().values() for pair in pairs]
    known = {normalized(text) for pair in pairs for text in (pair.english, pair.german)}

    def sentence_pair(rng: random.Random) -> str:
        return _sentence_pair(rng, known)

    makers = [
        (0.5, sentence_pair),
        (0.4, _retold),
        (0.1, _asked),
    ]
    return documents(seed, makers, known | _known_contexts())


def _known_contexts() -> set[str]:
    splits = make_passages.make_splits().values()
    return {normalized(row.context) for rows in splits for row in rows}


def _known_dialogues() -> set[str]:
    splits = make_dialogues.make_splits().values()
    return {normalized(row.dialogue) for rows in splits for row in rows}


def _request(rng: random.Random) -> str:
    return make_requests.make_request(rng, held_out=False).text


def _dialogue(rng: random.Random) -> str:
    return make_dialogues.make_row(rng, held_out_words=True).dialogue


def _facts(rng: random.Random) -> list[make_passages.Told]:
    return make_passages.draw_facts(rng, rng.randint(2, 4), held_out_words=True)


def _passage(rng: random.Random) -> str:
    return make_passages.tell(rng, _facts(rng))


def _retold(rng: random.Random) -> str:
    """A passage and some of its facts in other words, so that the text can be looked up."""
    facts = _facts(rng)
    again = [expand(rng.choice(told.fact.retold), told.fields, rng) for told in facts]
    rng.shuffle(again)
    return f"{make_passages.tell(rng, facts)}\n\n{' '.join(again[: rng.randint(1, 3)])}"


def _asked(rng: random.Random) -> str:
    """A passage with a question that stays open."""
    facts = _facts(rng)
    told = rng.choice(facts)
    question, _ = rng.choice(told.fact.questions)
    return f"{make_passages.tell(rng, facts)}\n\n{expand(question, told.fields, rng)}"


def _sentence_pair(rng: random.Random, known: Set[str]) -> str:
    """A sentence and its translation, in either order; none of the data set or its held-out words."""
    while True:
        pair = make_phrases.make_pair(rng, held_out=False)
        if not known & {normalized(pair.english), normalized(pair.german)}:
            sides = [pair.english, pair.german]
            rng.shuffle(sides)
            return "\n".join(sides)
