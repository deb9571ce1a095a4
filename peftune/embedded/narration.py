"""Third-person texts for the pretraining corpus: stories in which names and things come back.

None of them reports a dialogue of the data set, so the pretrained model has seen no summary.
"""

import random

from peftune.embedded.grammar import draw_people, draw_slots, expand, slot_names, template_fields
from peftune.embedded.vocabulary import POOLS

OPENINGS = (
    "{a} found {an_tool} in the cellar on {day}. The {tool} [was old|still worked well].",
    "On {day} {a} walked to the {place} with {b}. They wanted to see the {trail}.",
    "{a} bought {an_appliance} for {price}. {b} thought the {appliance} was too expensive.",
    "{a} and {b} were reading in the {place}. {a} liked {title}, and {b} liked {title2}.",
    "[Last|One] {day} {a} cooked {an_cuisine} food for {b}. {A_he} made it with {c}.",
    "{a} has {an_plant}. Every {day} {a_he} waters the {plant}, and {b} helps {a_him}.",
    "{a} wrote {an_paper} for {b}. The {paper} had to be ready by {day} at {time}.",
    "There was a {noise} in the street on {day}. {a} could not sleep, and {b} was angry.",
)
MIDDLES = (
    "{a} asked {b} for help, and {b} agreed.",
    "{b} could not come on {day2}, because {b_he} {excuse}. So {a} asked {c}.",
    "{c} said that {time2} was too late, so they met at {time}.",
    "{b} gave {a} some {snack}. {a} shared the {snack} with {c}.",
    "{b} offered {price2} for it, but {a} wanted {price}.",
    "{a} promised to call {c} on {day2}. On {day2} {a} called {c}.",
    "{c} told {b} about {a}, and {b} told {c} about the {place}.",
    "{b} will bring the {tool}, and {c} will {chore}.",
)
ENDINGS = (
    "In the end {a} thanked {b} and went home with {c}.",
    "{b} declined politely, and {a} was not angry.",
    "They agreed to meet again at the {place} on {day2}.",
    "{a} will return the {tool} to {b} by {day2}.",
    "So {a} paid {price} and kept it.",
    "{c} was happy that {a} and {b} were friends again.",
)
QUOTES = (
    '"Bring the {tool} on {day}," said {a} to {b}. So on {day} {b} brought {a} the {tool}.',
    '{a} said: "Meet {c} at the {place} at {time}." {b} met {c} at the {place} at {time}.',
    '"It costs {price}," {a} told {b}. {b} told {c} that it costs {price}.',
    '{b} asked {a}: "Did you {chore}?" {a} answered that {a_he} would {chore} on {day}.',
)
LIST_POOLS = ("tool", "snack", "place", "paper", "appliance")


def make_story(rng: random.Random) -> str:
    """A short story, a chain of quotations, or a list that is read twice."""
    kind = rng.random()
    if kind < 0.2:
        return _repeated_list(rng)
    count = rng.randint(2, 4)
    if kind < 0.4:
        templates = rng.sample(QUOTES, count)
    else:
        templates = [rng.choice(OPENINGS), *rng.sample(MIDDLES, count), rng.choice(ENDINGS)]
    fields = template_fields(draw_people(rng, 4), draw_slots(rng, slot_names(templates), POOLS))
    return " ".join(expand(template, fields, rng) for template in templates)


def _repeated_list(rng: random.Random) -> str:
    """Names and things in order, then the same again: only copying predicts the second half."""
    pool = POOLS[rng.choice(LIST_POOLS)]
    count = rng.randint(3, 7)
    people = [person.name for person in draw_people(rng, count)]
    pairs = [
        f"{name}: {thing}" for name, thing in zip(people, rng.sample(pool, count), strict=True)
    ]
    return "List\n" + "\n".join(pairs) + "\nThe list again\n" + "\n".join(pairs)
