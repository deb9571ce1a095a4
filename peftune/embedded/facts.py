"""Sentences that state a fact, the questions about it, and the same fact told another way.

An answer is the name of a slot; it stands in the sentence word for word. ``retold`` is for
pretraining only: the data set has no retold fact.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Fact:
    """One kind of sentence about the people ``a`` and ``b`` and what may be asked of it."""

    sentence: str
    questions: tuple[tuple[str, str], ...]
    """Question and slot of its answer."""
    retold: tuple[str, ...]


FACTS = (
    Fact(
        "{a} [lives in|has moved to|comes from] {city}.",
        (
            ("[Where is|In which city is] {a} at home?", "city"),
            ("Who is at home in {city}?", "a"),
        ),
        ("{city} is the city of {a}.", "At home in {city}: {a}."),
    ),
    Fact(
        "{a} [works as|wants to become|used to be] {an_job}.",
        (("[What is the job of {a}?|Which job is {a} linked with?]", "job"),),
        ("The job of {a}: {job}.", "{a} and the job: {job}."),
    ),
    Fact(
        "[On {day}|Last {day}] {a} bought {an_goods} for {price}.",
        (
            ("What did {a} buy?", "goods"),
            ("[How much did {a} pay?|What did the {goods} cost?]", "price"),
            ("When did {a} buy the {goods}?", "day"),
            ("Who [bought|paid for] the {goods}?", "a"),
        ),
        (
            "{a} bought the {goods}.",
            "The {goods} cost {price}.",
            "{a} paid {price}.",
            "The {goods} was bought on {day}.",
        ),
    ),
    Fact(
        "{a} lent {b} {an_tool} [for the weekend|until {day}|and some books].",
        (
            ("What did {b} borrow[| from {a}]?", "tool"),
            ("Who [lent {b} the {tool}|owns the {tool}]?", "a"),
            ("Who borrowed the {tool}?", "b"),
        ),
        ("{b} has the {tool} of {a}.", "The {tool} came from {a}.", "{b} borrowed the {tool}."),
    ),
    Fact(
        "{a} met {b} at the {place} at {time}.",
        (
            ("Where did {a} [meet|see] {b}?", "place"),
            ("[When|At what time] did {a} meet {b}?", "time"),
            ("Who met {b}?", "a"),
            ("Whom did {a} meet?", "b"),
        ),
        (
            "{a} was at the {place}.",
            "{b} was at the {place}.",
            "{a} was there at {time}.",
            "It was {b} whom {a} met.",
        ),
    ),
    Fact(
        "{a} has a {pet} called {petname}.",
        (
            ("What is the [name of {a}'s {pet}|{pet} of {a} called]?", "petname"),
            ("[What kind of animal|What] is {petname}?", "pet"),
            ("Whose pet is {petname}?", "a"),
        ),
        ("{petname} is a {pet}.", "The {pet} of {a} is {petname}.", "{petname} lives with {a}."),
    ),
    Fact(
        "{a} [lost|left|forgot] {a_his} {colour} {thing} at the {place}.",
        (
            ("What colour is the {thing} of {a}?", "colour"),
            ("Where is the {thing} of {a}?", "place"),
            ("What is missing since {a} was at the {place}?", "thing"),
            ("Who misses the {colour} {thing}?", "a"),
        ),
        (
            "The {thing} of {a} is {colour}.",
            "The {thing} of {a} is at the {place}.",
            "{a} misses the {thing}.",
        ),
    ),
    Fact(
        "{a} [made|cooked|is making] {dish} with {ingredient} for {b}.",
        (
            ("[What does {b} get to eat?|What is {a}'s dish?]", "dish"),
            ("What is in the {dish}?", "ingredient"),
            ("Who [eats|gets] the {dish}?", "b"),
            ("Who [made|is the cook of] the {dish}?", "a"),
        ),
        ("{b} eats {dish}.", "In the {dish} is {ingredient}.", "{a} can cook {dish}."),
    ),
    Fact(
        "{a} [is learning|teaches|likes] {subject} [at school|with {b}|in the evening].",
        (
            ("[Which subject goes with {a}?|What is {a}'s subject?]", "subject"),
            ("Who has {subject}?", "a"),
        ),
        ("The subject of {a}: {subject}.", "{subject} is what {a} has."),
    ),
    Fact(
        "The {event} of {a} is on {day} at {time}.",
        (
            ("[On which day is|When is] the {event}?", "day"),
            ("At what time [is the {event}|does the {event} begin]?", "time"),
            ("Who is having the {event}?", "a"),
            ("What is {a} having on {day}?", "event"),
        ),
        ("The {event} begins at {time}.", "On {day} is the {event}.", "{a} has {an_event}."),
    ),
    Fact(
        "{a} [got|received] {an_gift} from {b}[| for {a_his} birthday].",
        (
            ("What did {b} give {a}?", "gift"),
            ("Who gave {a} the {gift}?", "b"),
            ("Who [got|has] the {gift}?", "a"),
        ),
        ("{b} gave {a} the {gift}.", "The {gift} belongs to {a}.", "The {gift} was from {b}."),
    ),
    Fact(
        "{a} [must|will|wants to] {chore} before {time}.",
        (
            ("What [does {a} have to do|is {a} going to do]?", "chore"),
            ("By what time is {a} done?", "time"),
        ),
        ("The plan of {a}: {chore}.", "{a} is done by {time}."),
    ),
)
