"""Word pools of the dialogue and narration grammars.

A placeholder such as ``{tool}`` or ``{tool2}`` draws from the pool of that name. The last entries
of an open pool are kept out of the training split (see ``train_pool``).
"""

FEMALE_NAMES = [
    "Mia",
    "Anna",
    "Lena",
    "Clara",
    "Nina",
    "Sofia",
    "Emma",
    "Julia",
    "Maya",
    "Zoe",
    "Leah",
    "Hannah",
    "Ruth",
    "Nora",
    "Elena",
    "Laura",
    "Priya",
    "Aisha",
    "Yuki",
    "Fatima",
    "Ingrid",
    "Paula",
    "Carla",
    "Irene",
    "Tessa",
    "Marta",
    "Olga",
    "Bianca",
    "Diana",
    "Esther",
    "Fiona",
    "Gina",
    "Heidi",
    "Ivy",
    "Jana",
    "Katie",
    "Lucy",
    "Molly",
    "Naomi",
    "Olivia",
    "Petra",
    "Rachel",
    "Sara",
    "Tanya",
    "Ursula",
    "Vera",
    "Wendy",
    "Yasmin",
    "Zara",
    "Alice",
    "Beth",
    "Chloe",
    "Daria",
    "Eliza",
    "Farah",
    "Greta",
    "Helen",
    "Imani",
    "Joan",
    "Kira",
    "Lydia",
    "Mona",
    "Nadia",
    "Orla",
    "Pilar",
    "Rita",
    "Selma",
    "Thea",
    "Uma",
    "Vivian",
    "Willa",
    "Xenia",
    "Amina",
    "Briony",
    "Celia",
    "Dalia",
    "Edith",
    "Flora",
    "Gwen",
    "Hilda",
    "Isla",
    "Jovana",
    "Kamila",
    "Liv",
    "Mabel",
    "Noor",
    "Odette",
    "Phoebe",
    "Rosalind",
    "Soraya",
]
MALE_NAMES = [
    "Tom",
    "Ben",
    "Adam",
    "Paul",
    "Leo",
    "Max",
    "Noah",
    "Omar",
    "Ivan",
    "Hugo",
    "Felix",
    "Oscar",
    "Peter",
    "David",
    "Simon",
    "Martin",
    "Daniel",
    "Victor",
    "Samir",
    "Kenji",
    "Diego",
    "Pablo",
    "Marco",
    "Luca",
    "Erik",
    "Anton",
    "Karl",
    "Bruno",
    "Colin",
    "Derek",
    "Edgar",
    "Frank",
    "George",
    "Henry",
    "Ian",
    "Jack",
    "Kevin",
    "Liam",
    "Nathan",
    "Oliver",
    "Patrick",
    "Quentin",
    "Robert",
    "Stefan",
    "Theo",
    "Umar",
    "Vincent",
    "Walter",
    "Xavier",
    "Yusuf",
    "Zack",
    "Arjun",
    "Bernard",
    "Carlo",
    "Dmitri",
    "Emil",
    "Farid",
    "Gavin",
    "Hamid",
    "Isaac",
    "Jerome",
    "Kofi",
    "Logan",
    "Miguel",
    "Neil",
    "Otto",
    "Pavel",
    "Ramon",
    "Stuart",
    "Tariq",
    "Ulrich",
    "Viktor",
    "Wesley",
    "Yannick",
    "Alvin",
    "Bastian",
    "Cedric",
    "Dario",
    "Ernest",
    "Floyd",
    "Gideon",
    "Harvey",
    "Igor",
    "Joel",
    "Kurt",
    "Lorenzo",
    "Elliot",
    "Nolan",
    "Orlando",
    "Percy",
]
HELD_OUT_SHARE = 8
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
COLOURS = [
    "red",
    "blue",
    "green",
    "yellow",
    "black",
    "white",
    "brown",
    "grey",
    "purple",
    "orange",
    "pink",
    "silver",
    "golden",
]
_TITLE_FIRST = "Silver Hidden Last Quiet Broken Golden Secret Winter Crooked Distant Paper Burning"
_TITLE_LAST = "Bridge Garden Letter River Lantern Island Orchard Harbour Mirror Tower Forest Clock"


def _split(text: str) -> tuple[str, ...]:
    """The entries of a comma-separated table."""
    return tuple(entry.strip() for entry in text.split(",") if entry.strip())


def _clock_times() -> tuple[str, ...]:
    """Whole and half hours from 7 am to 9:30 pm in their order."""
    times = []
    for hour in range(7, 22):
        half, shown = ("am" if hour < 12 else "pm"), (hour - 1) % 12 + 1
        times += [f"{shown} {half}", f"{shown}:30 {half}"]
    return tuple(times)


def _pairs(first: str, last: str) -> tuple[str, ...]:
    """Every title of a first and a last word, mixed so that its end is no single first word."""
    firsts, lasts = first.split(), last.split()
    count = len(firsts)
    return tuple(
        f"The {firsts[(row + column) % count]} {lasts[row]}"
        for column in range(count)
        for row in range(len(lasts))
    )


# Pools whose order carries meaning: numbered placeholders get rising values.
ORDERED_POOLS = ("time", "price", "cost", "count")
POOLS: dict[str, tuple[str, ...]] = {
    "day": WEEKDAYS,
    "time": _clock_times(),
    "price": tuple(f"${amount}" for amount in range(20, 250, 5)),
    "cost": tuple(f"${amount}" for amount in range(3, 30)),
    "count": _split("two, three, four, five, six, seven, eight, nine, ten, twelve"),
    "colour": tuple(COLOURS),
    "title": _pairs(_TITLE_FIRST, _TITLE_LAST),
    "month": _split(
        "January, February, March, April, May, June, July, August, September, October, November"
    ),
    "tool": _split(
        "ladder, drill, tent, bike, projector, sewing machine, suitcase, wheelbarrow, lawnmower, "
        "sleeping bag, guitar, camera, food processor, iron, air pump, toolbox, extension cord, "
        "raincoat, cake tin, waffle maker, paint roller, saw, telescope, tripod, kayak, hammock, "
        "fishing rod, umbrella, axe, hammer, leaf blower, picnic basket, cool box, steam cleaner, "
        "electric heater, backpack, car jack, glue gun, tennis racket, inflatable mattress, "
        "spirit level, crowbar, snow shovel"
    ),
    "goods": _split(
        "bookshelf, desk, sofa, armchair, lamp, keyboard, rug, mirror, wardrobe, coffee table, "
        "chest of drawers, dining table, printer, monitor, piano stool, record player, office "
        "chair, bunk bed, exercise bike, aquarium, high chair, garden bench, trumpet, accordion, "
        "clay pot, oil painting, wall clock, sideboard, radio, rocking chair, footstool, hat stand"
    ),
    "thing": _split(
        "wallet, scarf, notebook, ring, earring, water bottle, glove, passport, watch, phone, "
        "library card, bracelet, lunch box, hat, calculator, bus pass, purse, diary, headset, "
        "tablet, necklace, pencil case, key ring, sketchbook, thermos, badge, envelope, hair clip"
    ),
    "appliance": _split(
        "dishwasher, boiler, washing machine, fridge, freezer, toaster, kettle, vacuum cleaner, "
        "microwave, doorbell, heater, tumble dryer, shower, radiator, coffee machine, oven, fan, "
        "garage door, smoke alarm, hair dryer, air conditioner, kitchen tap, rice cooker, blender"
    ),
    "event": _split(
        "birthday dinner, barbecue, picnic, garden party, quiz night, board game evening, "
        "housewarming party, film night, street party, costume party, book club, karaoke night, "
        "wine tasting, engagement party, farewell lunch, pizza evening, choir concert, art show, "
        "school play, bonfire, tea party, retirement party, anniversary dinner, potluck"
    ),
    "place": _split(
        "library, bakery, train station, market, museum, park, town hall, swimming pool, cafe, "
        "bookshop, post office, gym, sports centre, church hall, pharmacy, school gate, harbour, "
        "community garden, ice rink, bus stop, theatre, canteen, car park, playground, theme park, "
        "laundrette, botanical garden, castle, petrol station, art gallery"
    ),
    "city": _split(
        "Lisbon, Dublin, Vienna, Prague, Oslo, Madrid, Rome, Berlin, Glasgow, Seville, Krakow, "
        "Lyon, Zurich, Helsinki, Porto, Geneva, Munich, Naples, Bergen, Leeds, Bristol, Cardiff, "
        "Hamburg, Venice, Turin, Ghent, Malmo, Gdansk, Toledo, Salzburg, York, Bologna"
    ),
    "dish": _split(
        "lentil soup, mushroom risotto, apple pie, vegetable curry, banana bread, fish stew, "
        "onion tart, chicken noodle soup, carrot cake, potato salad, lemon cake, bean chilli, "
        "spinach lasagne, pumpkin soup, rice pudding, cheese omelette, cherry crumble, pea soup, "
        "tomato pasta, ginger biscuits, beef stew, walnut bread, plum cake, egg fried rice"
    ),
    "ingredient": _split(
        "butter, cream, garlic, honey, cinnamon, flour, milk, sugar, yeast, parsley, ginger, "
        "yoghurt, vinegar, mustard, basil, olive oil, nutmeg, cornflour, soy sauce, maple syrup, "
        "coconut milk, rosemary, lemon juice, vanilla, sour cream, thyme, almond milk, paprika"
    ),
    "pet": _split("cat, dog, rabbit, parrot, hamster, tortoise, guinea pig, canary, ferret, gecko"),
    "petname": _split(
        "Biscuit, Pepper, Shadow, Pickle, Waffles, Mittens, Rocket, Noodle, Cookie, Ziggy, Tofu, "
        "Bramble, Marble, Peanut, Sprout, Domino, Truffle, Muffin, Comet, Dumpling, Nacho, Socks"
    ),
    "subject": _split(
        "algebra, chemistry, history, geography, physics, biology, French, Spanish, German, "
        "grammar, geometry, economics, statistics, poetry, Latin, music theory, astronomy, Italian"
    ),
    "course": _split(
        "pottery, yoga, salsa, photography, watercolour, carpentry, knitting, first aid, chess, "
        "swimming, sewing, sign language, creative writing, baking, judo, climbing, calligraphy, "
        "tap dancing, bread making, archery"
    ),
    "sport": _split(
        "tennis, badminton, football, volleyball, basketball, squash, table tennis, hockey, golf, "
        "bowling, minigolf, cricket, frisbee, handball, rugby"
    ),
    "job": _split(
        "nurse, waiter, cook, teacher, gardener, librarian, driver, receptionist, accountant, "
        "electrician, plumber, baker, designer, lifeguard, translator, cashier, editor, carpenter, "
        "shop assistant, tour guide, engineer, zookeeper, optician, florist"
    ),
    "visit": _split(
        "dental check-up, eye test, haircut, blood test, massage, passport photo, flu jab, "
        "hearing test, vet visit, driving lesson, car inspection, tax meeting, piano lesson, "
        "skin check, knee scan, shoe fitting, allergy test, guitar lesson"
    ),
    "garment": _split(
        "jacket, sweater, dress, coat, shirt, skirt, hoodie, cardigan, blouse, belt, suit, waistcoat, "
        "apron, dressing gown, evening gown, tracksuit, poncho"
    ),
    "gift": _split(
        "teapot, cookbook, picture frame, chess set, photo album, vase, puzzle, candle set, kite, "
        "fountain pen, bird feeder, silk scarf, coffee grinder, hand cream, jewellery box, mug, "
        "plant pot, travel guide, board game, music box, wool blanket, bread knife, sundial"
    ),
    "plant": _split(
        "basil plant, rose bush, lemon tree, orchid, fern, cactus, tomato plant, lavender, begonia, "
        "fig tree, geranium, olive tree, mint plant, apple tree, bonsai, strawberry plant, peony"
    ),
    "chore": _split(
        "wash the dishes, take out the rubbish, vacuum the stairs, clean the bathroom, mop the "
        "kitchen, dust the shelves, rake the leaves, wash the car, iron the shirts, mow the lawn, "
        "clean the windows, sweep the balcony, feed the hens, tidy the garage, change the sheets, "
        "water the garden, empty the dishwasher, scrub the oven"
    ),
    "noise": _split(
        "drum practice, loud music, drilling, trumpet practice, barking dog, karaoke, hammering, "
        "television, piano practice, party, violin practice, football game, power washer"
    ),
    "cuisine": _split(
        "Italian, Thai, Mexican, Indian, Greek, Turkish, Japanese, Korean, Lebanese, Vietnamese, "
        "Ethiopian, Spanish, Moroccan, Chinese, Peruvian"
    ),
    "paper": _split(
        "sales report, budget plan, project summary, travel report, survey, newsletter, poster, "
        "grant form, price list, training manual, press release, annual report, floor plan, "
        "safety checklist, invoice, contract, catalogue, user guide, audit file, staff handbook"
    ),
    "trail": _split(
        "lake trail, forest path, coastal walk, waterfall loop, ridge trail, canal path, valley "
        "walk, castle hill, old mill trail, river path, moorland walk, cliff path, vineyard walk"
    ),
    "snack": _split(
        "salad, cake, lemonade, bread, cheese, fruit, crisps, ice cream, juice, popcorn, olives, "
        "brownies, sandwiches, hummus, muffins, cookies, grapes, pretzels, iced tea, apple juice"
    ),
    "excuse": _split(
        "has to work, has a cold, is visiting family, has an exam, is moving house, is on call, "
        "has a sore back, has guests, has a deadline, is travelling, has a dentist appointment, "
        "has a family dinner, has a headache, is looking after the kids, has a choir rehearsal"
    ),
}
CLOSED_POOLS = frozenset({"day", "colour", "month", "excuse", *ORDERED_POOLS})


def train_pool(entries: tuple[str, ...] | list[str]) -> list[str]:
    """The entries of an open pool that the training split may use."""
    return list(entries[: len(entries) - len(entries) // HELD_OUT_SHARE])
