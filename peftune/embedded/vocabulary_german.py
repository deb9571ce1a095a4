"""Words of the parallel grammar, English beside German.

Nouns: singular, plural | German singular, gender, German plural. Adjectives: English | predicative
form, attributive stem if it differs. Verbs: base, third person, past, -ing form or ``-`` for one
that has no progressive | infinitive, third person, participle; a separable verb has ``auf·machen``.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Noun:
    """A countable noun; `gender` is m, f or n. None of them has weak endings (der Junge)."""

    english: str
    english_plural: str
    german: str
    gender: str
    german_plural: str


@dataclass(frozen=True)
class Adjective:
    """An adjective; `stem` takes the attributive endings (teuer, but ein teures Auto)."""

    english: str
    german: str
    stem: str


@dataclass(frozen=True)
class Verb:
    """A verb that forms its perfect with haben; `particle` is empty unless it is separable."""

    english: str
    third: str
    past: str
    progressive: str
    infinitive: str
    german_third: str
    participle: str
    particle: str


def _entries(table: str) -> list[list[str]]:
    """The cells of a table with one entry a line; ``|`` and ``,`` both part them."""
    lines = [line for line in table.strip().splitlines() if line.strip()]
    return [[cell.strip() for cell in line.replace("|", ",").split(",")] for line in lines]


def _nouns(table: str) -> tuple[Noun, ...]:
    return tuple(Noun(*cells) for cells in _entries(table))


def _adjectives(table: str) -> tuple[Adjective, ...]:
    return tuple(Adjective(cells[0], cells[1], cells[-1]) for cells in _entries(table))


def _verbs(table: str) -> tuple[Verb, ...]:
    return tuple(_verb(cells) for cells in _entries(table))


def _verb(cells: list[str]) -> Verb:
    base, third, past, progressive, listed, german_third, participle = cells
    particle, _, infinitive = listed.rpartition("·")
    return Verb(base, third, past, progressive, infinitive, german_third, participle, particle)


PEOPLE = _nouns("""
man, men | Mann, m, Männer
woman, women | Frau, f, Frauen
child, children | Kind, n, Kinder
girl, girls | Mädchen, n, Mädchen
teacher, teachers | Lehrer, m, Lehrer
doctor, doctors | Arzt, m, Ärzte
father, fathers | Vater, m, Väter
mother, mothers | Mutter, f, Mütter
brother, brothers | Bruder, m, Brüder
sister, sisters | Schwester, f, Schwestern
friend, friends | Freund, m, Freunde
uncle, uncles | Onkel, m, Onkel
aunt, aunts | Tante, f, Tanten
daughter, daughters | Tochter, f, Töchter
son, sons | Sohn, m, Söhne
baker, bakers | Bäcker, m, Bäcker
gardener, gardeners | Gärtner, m, Gärtner
driver, drivers | Fahrer, m, Fahrer
singer, singers | Sänger, m, Sänger
queen, queens | Königin, f, Königinnen
king, kings | König, m, Könige
guest, guests | Gast, m, Gäste
grandmother, grandmothers | Großmutter, f, Großmütter
grandfather, grandfathers | Großvater, m, Großväter
painter, painters | Maler, m, Maler
nurse, nurses | Krankenschwester, f, Krankenschwestern
baby, babies | Baby, n, Babys
""")
ANIMALS = _nouns("""
dog, dogs | Hund, m, Hunde
cat, cats | Katze, f, Katzen
horse, horses | Pferd, n, Pferde
bird, birds | Vogel, m, Vögel
cow, cows | Kuh, f, Kühe
pig, pigs | Schwein, n, Schweine
mouse, mice | Maus, f, Mäuse
duck, ducks | Ente, f, Enten
goat, goats | Ziege, f, Ziegen
frog, frogs | Frosch, m, Frösche
rabbit, rabbits | Kaninchen, n, Kaninchen
sheep, sheep | Schaf, n, Schafe
""")
FOODS = _nouns("""
apple, apples | Apfel, m, Äpfel
egg, eggs | Ei, n, Eier
cake, cakes | Kuchen, m, Kuchen
potato, potatoes | Kartoffel, f, Kartoffeln
pear, pears | Birne, f, Birnen
tomato, tomatoes | Tomate, f, Tomaten
banana, bananas | Banane, f, Bananen
soup, soups | Suppe, f, Suppen
fish, fish | Fisch, m, Fische
carrot, carrots | Karotte, f, Karotten
salad, salads | Salat, m, Salate
sausage, sausages | Wurst, f, Würste
loaf, loaves | Brot, n, Brote
""")
TEXTS = _nouns("""
book, books | Buch, n, Bücher
letter, letters | Brief, m, Briefe
newspaper, newspapers | Zeitung, f, Zeitungen
story, stories | Geschichte, f, Geschichten
poem, poems | Gedicht, n, Gedichte
message, messages | Nachricht, f, Nachrichten
""")
CLOTHES = _nouns("""
coat, coats | Mantel, m, Mäntel
dress, dresses | Kleid, n, Kleider
shirt, shirts | Hemd, n, Hemden
hat, hats | Hut, m, Hüte
jacket, jackets | Jacke, f, Jacken
skirt, skirts | Rock, m, Röcke
scarf, scarves | Schal, m, Schals
shoe, shoes | Schuh, m, Schuhe
""")
MACHINES = _nouns("""
car, cars | Auto, n, Autos
bicycle, bicycles | Fahrrad, n, Fahrräder
clock, clocks | Uhr, f, Uhren
computer, computers | Computer, m, Computer
lamp, lamps | Lampe, f, Lampen
radio, radios | Radio, n, Radios
camera, cameras | Kamera, f, Kameras
boat, boats | Boot, n, Boote
""")
OPENINGS = _nouns("""
door, doors | Tür, f, Türen
window, windows | Fenster, n, Fenster
box, boxes | Kiste, f, Kisten
suitcase, suitcases | Koffer, m, Koffer
bottle, bottles | Flasche, f, Flaschen
cupboard, cupboards | Schrank, m, Schränke
""")
THINGS = _nouns("""
bag, bags | Tasche, f, Taschen
key, keys | Schlüssel, m, Schlüssel
ball, balls | Ball, m, Bälle
flower, flowers | Blume, f, Blumen
picture, pictures | Bild, n, Bilder
knife, knives | Messer, n, Messer
cup, cups | Tasse, f, Tassen
plate, plates | Teller, m, Teller
spoon, spoons | Löffel, m, Löffel
ring, rings | Ring, m, Ringe
umbrella, umbrellas | Regenschirm, m, Regenschirme
candle, candles | Kerze, f, Kerzen
pencil, pencils | Bleistift, m, Bleistifte
present, presents | Geschenk, n, Geschenke
ladder, ladders | Leiter, f, Leitern
map, maps | Karte, f, Karten
glass, glasses | Glas, n, Gläser
basket, baskets | Korb, m, Körbe
""")
FURNITURE = _nouns("""
table, tables | Tisch, m, Tische
chair, chairs | Stuhl, m, Stühle
bed, beds | Bett, n, Betten
sofa, sofas | Sofa, n, Sofas
tree, trees | Baum, m, Bäume
bench, benches | Bank, f, Bänke
""")
PLACES = _nouns("""
kitchen, kitchens | Küche, f, Küchen
garden, gardens | Garten, m, Gärten
house, houses | Haus, n, Häuser
school, schools | Schule, f, Schulen
park, parks | Park, m, Parks
city, cities | Stadt, f, Städte
forest, forests | Wald, m, Wälder
office, offices | Büro, n, Büros
library, libraries | Bibliothek, f, Bibliotheken
hospital, hospitals | Krankenhaus, n, Krankenhäuser
hotel, hotels | Hotel, n, Hotels
cellar, cellars | Keller, m, Keller
room, rooms | Zimmer, n, Zimmer
restaurant, restaurants | Restaurant, n, Restaurants
museum, museums | Museum, n, Museen
church, churches | Kirche, f, Kirchen
shop, shops | Laden, m, Läden
village, villages | Dorf, n, Dörfer
factory, factories | Fabrik, f, Fabriken
castle, castles | Schloss, n, Schlösser
tent, tents | Zelt, n, Zelte
""")
OF_ALL = _adjectives("""
old | alt
big | groß
small | klein
beautiful | schön
""")
OF_PEOPLE = _adjectives("""
young | jung
happy | glücklich
sad | traurig
friendly | freundlich
strong | stark
clever | klug
famous | berühmt
funny | lustig
rich | reich
brave | mutig
curious | neugierig
tired | müde | müd
hungry | hungrig
""")
OF_ANIMALS = _adjectives("""
young | jung
black | schwarz
white | weiß
brown | braun
fast | schnell
fat | dick
tired | müde | müd
hungry | hungrig
""")
OF_FOODS = _adjectives("""
fresh | frisch
sweet | süß
hot | heiß
cold | kalt
""")
OF_THINGS = _adjectives("""
red | rot
blue | blau
green | grün
yellow | gelb
black | schwarz
white | weiß
new | neu
cheap | billig
expensive | teuer | teur
heavy | schwer
dirty | schmutzig
strange | seltsam
""")
OF_PLACES = _adjectives("""
quiet | ruhig
dark | dunkel | dunkl
modern | modern
warm | warm
empty | leer
""")
# Verbs by what they act on.
BUYING = _verbs("""
buy, buys, bought, buying | kaufen, kauft, gekauft
sell, sells, sold, selling | verkaufen, verkauft, verkauft
need, needs, needed, - | brauchen, braucht, gebraucht
bring, brings, brought, bringing | bringen, bringt, gebracht
carry, carries, carried, carrying | tragen, trägt, getragen
forget, forgets, forgot, - | vergessen, vergisst, vergessen
lose, loses, lost, - | verlieren, verliert, verloren
find, finds, found, - | finden, findet, gefunden
take, takes, took, taking | nehmen, nimmt, genommen
""")
SEEING = _verbs("""
see, sees, saw, - | sehen, sieht, gesehen
draw, draws, drew, drawing | zeichnen, zeichnet, gezeichnet
love, loves, loved, - | lieben, liebt, geliebt
photograph, photographs, photographed, photographing | fotografieren, fotografiert, fotografiert
""")
MEETING = _verbs("""
know, knows, knew, - | kennen, kennt, gekannt
visit, visits, visited, visiting | besuchen, besucht, besucht
hear, hears, heard, - | hören, hört, gehört
call, calls, called, calling | an·rufen, ruft, angerufen
invite, invites, invited, inviting | ein·laden, lädt, eingeladen
pick up, picks up, picked up, picking up | ab·holen, holt, abgeholt
ask, asks, asked, asking | fragen, fragt, gefragt
""")
EATING = _verbs("""
eat, eats, ate, eating | essen, isst, gegessen
order, orders, ordered, ordering | bestellen, bestellt, bestellt
try, tries, tried, trying | probieren, probiert, probiert
""")
READING = _verbs("""
read, reads, read, reading | lesen, liest, gelesen
write, writes, wrote, writing | schreiben, schreibt, geschrieben
""")
WEARING = _verbs("""
wash, washes, washed, washing | waschen, wäscht, gewaschen
try on, tries on, tried on, trying on | an·probieren, probiert, anprobiert
""")
REPAIRING = _verbs("""
repair, repairs, repaired, repairing | reparieren, repariert, repariert
clean, cleans, cleaned, cleaning | putzen, putzt, geputzt
""")
OPENING = _verbs("""
open, opens, opened, opening | auf·machen, macht, aufgemacht
close, closes, closed, closing | zu·machen, macht, zugemacht
""")
GIVING = _verbs("""
give, gives, gave, giving | geben, gibt, gegeben
show, shows, showed, showing | zeigen, zeigt, gezeigt
send, sends, sent, sending | schicken, schickt, geschickt
lend, lends, lent, lending | leihen, leiht, geliehen
""")
HELPING = _verbs("""
help, helps, helped, helping | helfen, hilft, geholfen
thank, thanks, thanked, thanking | danken, dankt, gedankt
answer, answers, answered, answering | antworten, antwortet, geantwortet
""")
RESTING = _verbs("""
sleep, sleeps, slept, sleeping | schlafen, schläft, geschlafen
work, works, worked, working | arbeiten, arbeitet, gearbeitet
dance, dances, danced, dancing | tanzen, tanzt, getanzt
sing, sings, sang, singing | singen, singt, gesungen
play, plays, played, playing | spielen, spielt, gespielt
laugh, laughs, laughed, laughing | lachen, lacht, gelacht
wait, waits, waited, waiting | warten, wartet, gewartet
cry, cries, cried, crying | weinen, weint, geweint
learn, learns, learned, learning | lernen, lernt, gelernt
smoke, smokes, smoked, smoking | rauchen, raucht, geraucht
""")
NAMES = (
    "Anna",
    "Mia",
    "Lena",
    "Clara",
    "Nina",
    "Emma",
    "Julia",
    "Nora",
    "Laura",
    "Tom",
    "Ben",
    "Paul",
    "Leo",
    "Noah",
    "Peter",
)
OBJECTS = (*FOODS, *TEXTS, *CLOTHES, *MACHINES, *THINGS)
ACTIONS: tuple[tuple[tuple[Verb, ...], tuple[Noun, ...]], ...] = (
    (BUYING, OBJECTS),
    (SEEING, (*PEOPLE, *ANIMALS, *THINGS, *MACHINES)),
    (MEETING, PEOPLE),
    (EATING, FOODS),
    (READING, TEXTS),
    (WEARING, CLOTHES),
    (REPAIRING, (*MACHINES, *FURNITURE[:4])),
    (OPENING, OPENINGS),
)
ADJECTIVES: tuple[tuple[tuple[Noun, ...], tuple[Adjective, ...]], ...] = (
    (PEOPLE, (*OF_ALL, *OF_PEOPLE)),
    (ANIMALS, (*OF_ALL, *OF_ANIMALS)),
    (FOODS, OF_FOODS),
    (PLACES, (*OF_ALL, *OF_PLACES)),
    ((*TEXTS, *CLOTHES, *MACHINES, *OPENINGS, *THINGS, *FURNITURE), (*OF_ALL, *OF_THINGS)),
)
