"""The embedded dataset: English-like texts from a small grammar of our own, for first runs and tests without
a network.

Three tasks. `sentiment`: sentences whose polarity needs negation, contrast and intensity, not only a bag of
words. `pairs`: two statements that agree, disagree or speak of different things. `documents`: several
sentences about one named thing, told in order of time, for next-sentence and sentence-order prediction.

The clean label is a function of the text alone (`sentiment_of`, `relation_of`, `topic_of`), and `label_noise`
replaces the labels of exactly round(noise * n) texts of a split, so the best reachable accuracy is known:
`best_possible`.

A text's checksum decides the only split it may appear in. Splits are therefore disjoint, whatever their sizes
and seeds, and no split changes when another one's size does; a longer split begins with the texts of a
shorter one. Only `Random.random` is drawn from, the one method whose sequence Python promises to keep between
versions.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, NamedTuple, TypeVar

from bertlab.config.schema import DatasetConfig, Paths, choice, integer, number
from bertlab.data.dataset import LoadedDataset
from bertlab.declarations import Role

T = TypeVar("T")


@dataclass
class Synthetic(DatasetConfig):
    """Generated texts with a known best accuracy; needs no network and no file."""

    task: str = choice(
        "sentiment", "sentiment", "pairs", "documents", help="single sentences, sentence pairs, or documents"
    )
    train_size: int = integer(12000, "texts of the training split", low=1, high=1_000_000)
    validation_size: int = integer(1000, "texts of the validation split", low=1, high=1_000_000)
    test_size: int = integer(1000, "texts of the test split", low=1, high=1_000_000)
    label_noise: float = number(
        0.05, "share of labels replaced by another class; 1 - label_noise is reachable", low=0, below=0.5
    )
    generator_seed: int = integer(
        0, "seed of the texts and of the noise; independent of the run's seed", low=0
    )

    def offers(self) -> tuple[str, ...]:
        """Roles of the chosen task."""
        return ("text", "text_pair", "label") if self.task == "pairs" else ("text", "label")

    def has_documents(self) -> bool:
        """Where the task is that."""
        return self.task == "documents"

    def fingerprint(self, _paths: Paths) -> str:
        """The generator's config is in the run's identity already."""
        return "generated"

    def read(self, _paths: Paths, roles: Sequence[Role]) -> LoadedDataset:
        """See `read`."""
        return read(self, [role.name for role in roles])


# --- vocabulary -----------------------------------------------------------------------------------
def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


POSITIVE = _words(
    "good great wonderful brilliant charming excellent lovely clever delightful superb splendid impressive"
    " pleasant graceful inspired memorable elegant refreshing satisfying enjoyable remarkable fantastic"
    " beautiful flawless engaging stylish thrilling magnificent terrific vivid rewarding marvellous admirable"
    " sublime lively outstanding original perfect polished"
)
NEGATIVE = _words(
    "bad dull terrible boring awful poor clumsy weak bland dreadful tedious sloppy shabby horrible annoying"
    " disappointing mediocre ugly stale flimsy unpleasant pathetic lifeless predictable frustrating dismal"
    " tasteless irritating lazy careless messy tiresome stupid shallow forgettable grim hollow cheap"
    " depressing"
)
WEAK = ("slightly", "mildly", "somewhat", "faintly")
STRONG = ("utterly", "absolutely", "truly", "deeply")
ASPECTS = tuple(
    _words(domain)
    for domain in (
        "plot acting script ending soundtrack dialogue cast pacing premiere finale",
        "food service soup dessert menu wine bread waiter kitchen terrace",
        "battery screen camera keyboard speaker charger design display",
        "room bed breakfast pool view lobby garden bathroom balcony",
        "story prose opening hero cover language translation chapter",
        "band singer sound stage drummer lighting encore audience",
    )
)
PEOPLE = (
    "my sister",
    "our neighbour",
    "the critic",
    "my friend",
    "a colleague",
    "the reviewer",
    "everyone",
    "my brother",
)
ADJUNCTS = (
    "", "", "", "", "", "", "this time", "last night", "in the end", "for the price", "on the whole",
    "once again", "after all",
    "to my surprise", "as usual", "as far as I could tell", "in my opinion", "compared with last year",
    "at first glance",
    "to be honest", "during the holidays", "on our second visit", "for three long hours",
    "from the first minute to the last",
)  # fmt: skip
SIMPLE_CLAUSES = ("the {a} was {x}", "the {a} seemed {x}", "the {a} felt {x}", "the {a} looked {x}")
PLAIN_CLAUSES = (*SIMPLE_CLAUSES, *SIMPLE_CLAUSES, "I found the {a} {x}", "{who} called the {a} {x}")
NEGATED_CLAUSES = (
    "the {a} was not {x}", "the {a} was never {x}", "the {a} was hardly {x}", "the {a} was far from {x}",
    "the {a} seemed anything but {x}", "nobody called the {a} {x}", "{who} never called the {a} {x}",
)  # fmt: skip
CONTRASTS = (  # A (judgement y of aspect c) gives way, B decides
    "the {c} was {y}, but {B}", "although the {c} was {y}, {B}", "despite the {y} {c}, {B}",
    "{B} despite the {y} {c}",
)  # fmt: skip


class Topic(NamedTuple):
    """What documents of one topic are made of; `seconds` completes a name, `things` recur within
    a document.
    """

    kinds: tuple[str, ...]
    seconds: tuple[str, ...]
    things: tuple[str, ...]
    opening: tuple[str, ...]
    story: tuple[str, ...]  # in order of time
    closing: tuple[str, ...]


def _topic(kinds: str, seconds: str, things: str, opening: str, story: str, closing: str) -> Topic:
    lists = (
        kinds.split(),
        seconds.split(),
        things.split(),
        opening.split("|"),
        story.split("|"),
        closing.split("|"),
    )
    return Topic(*(tuple(part.strip() for part in parts) for parts in lists))


FIRST = _words(
    "Alder Amber Ash Birch Black Bright Cedar Clear Copper Crown Dawn Drift Elm Falcon Fern Flint Frost Gold"
    " Green Grey Hazel Iron Ivy Linden Long Maple Moon Oak Pine Quiet Raven Red Silver Stone White Willow"
)
GIVEN = _words(
    "Ada Bruno Clara Daniel Edith Felix Greta Hugo Ines Jonas Karin Leo Marta Nils Olga Paul Rosa Simon Tilda"
    " Victor"
)
FAMILY = _words(
    "Abel Berg Carver Dahl Ekman Faber Gruber Holt Irving Jansen Keller Lund Moreau Novak Olsen Price Quist"
    " Roth"
)
CITIES = _words(
    "Lisbon Oslo Turin Ghent Malmo Porto Riga Basel Cork Leeds Bremen Lyon Gdansk Tartu Zadar Bergen"
)
TOPICS = {
    "town": _topic(
        "town village", "Bay Hill Ford Harbour Valley Bridge", "market church mill lighthouse orchard",
        "{name} is a small {kind} not far from {city}.|The {kind} of {name} lies a day's walk from {city}.",
        "It was founded in {y1}, when {who} built the first {thing}.|Soon farmers and weavers settled in the streets around it.|"
        "In {y2} a flood reached the {thing} and most houses of {name}.|The mayor, {who}, then raised money for new walls.|"
        "Later a railway joined {name} to {city}.|By {y3} the population had doubled.",
        "Today visitors come to {name} to see the old {thing}.|Today the {thing} is still the pride of the {kind}.",
    ),
    "film": _topic(
        "film movie", "Lantern Letter Mirror Summer Stranger Promise", "thief widow pianist detective sailor",
        "{name} is a {kind} about a {thing} in {city}.|The {kind} {name} tells the story of a {thing} from {city}.",
        "The director, {who}, wrote the first scenes in {y1}.|At first no studio wanted a script about a {thing}.|"
        "In {y2} a producer found the money, and shooting began in {city}.|{who} then played the {thing} on screen.|"
        "After the premiere the critics praised the camera work of {name}.|By {y3} it had won four awards at festivals.",
        "Today {name} is shown in cinemas every winter.|Today the {kind} counts as the best work of {last}.",
    ),
    "device": _topic(
        "phone laptop", "Pocket Pulse Spark Wave Note Link", "battery sensor antenna processor hinge",
        "{name} is a {kind} made by a company in {city}.|The {kind} called {name} comes from a workshop in {city}.",
        "An engineer, {who}, drew the first sketch of its {thing} in {y1}.|Early prototypes of {name} grew hot after an hour.|"
        "In {y2} the workshop replaced the {thing} and halved the weight.|Then {last} moved the factory to {city}.|"
        "After the launch, software updates made the {kind} faster.|By {y3} a million customers had bought it.",
        "Today collectors pay high prices for {name}.|Today its {thing} is found in every other {kind}.",
    ),
    "ship": _topic(
        "ship schooner", "Gull Anchor Tide Compass Horizon Star", "sail mast rudder hull cabin",
        "{name} was a {kind} built in the yards of {city}.|The {kind} {name} left the harbour of {city} for the first time.",
        "Her captain, {who}, ordered the {thing} in {y1}.|On the first voyage she carried salt and timber.|"
        "In {y2} a storm broke the {thing} of {name} at sea.|The crew under {last} then rowed to the coast.|"
        "After repairs in {city}, the {kind} crossed the ocean twice.|By {y3} steamers had taken over the trade routes.",
        "Today the {thing} of {name} hangs in a naval museum.|Today divers visit the wreck of the {kind}.",
    ),
    "bird": _topic(
        "finch warbler", "Crest Throat Wing Tail Crown Back", "berries seeds beetles moths larvae",
        "{name} is a {kind} that nests near {city}.|The {kind} known as {name} lives in the forests around {city}.",
        "It was first described in {y1} by {who}.|In early spring the male sings from the treetops.|"
        "In {y2} the biologist {last} found its nest and eggs.|The parents then feed the chicks with {thing}.|"
        "After six weeks the young leave the nest and look for {thing}.|By {y3} hunters had made {name} rare near {city}.",
        "Today the habitat of the {kind} is protected.|Today {name} returns to the same trees and feeds on {thing}.",
    ),
    "club": _topic(
        "club team", "Rovers Arrows Lions Rangers Wolves Comets",
        "goalkeeper striker trainer defender captain",
        "{name} is a football {kind} from {city}.|The {kind} {name} plays its matches in a stadium in {city}.",
        "Students led by {who} started it in {y1}.|At first the players of {name} trained on a meadow.|"
        "In {y2} a new {thing} came, and the {kind} won the league.|The {thing}, {who}, then scored in the final.|"
        "After a poor season, {name} sold its best {thing} to a rival.|By {y3} the fans had paid for a new stand.",
        "Today {name} plays in the second division.|Today the {kind} is known for its young {thing}.",
    ),
}  # fmt: skip
LABEL_NAMES: dict[str, list[str]] = {
    "sentiment": ["negative", "positive"],
    "pairs": ["agree", "disagree", "unrelated"],
    "documents": list(TOPICS),
}

# --- the rules: clean labels as functions of the text ---------------------------------------------
_POLARITY = dict.fromkeys(POSITIVE, 1) | dict.fromkeys(NEGATIVE, -1)
_STRENGTH = dict.fromkeys((word.split()[-1] for word in WEAK), 1) | dict.fromkeys(STRONG, 3)
_NEGATION = frozenset(("not", "never", "hardly", "far", "anything", "nobody"))
_ASPECT = frozenset(aspect for domain in ASPECTS for aspect in domain)


def sentiment_of(text: str) -> int | None:
    """1 positive, 0 negative, None where nothing is said or both sides weigh the same.

    What is conceded ("although A, B"; "B, although A"; "A, but B") does not count. Of the rest, each
    judgement weighs 1 ("slightly"), 2 (plain or negated) or 3 ("utterly"), a negation before it turns its
    sign, and the sum decides.
    """
    clause = text.strip().rstrip(".").lower()
    clause = clause.rpartition(", but ")[2].partition(" despite ")[0]
    if clause.startswith(("although ", "despite ")):
        clause = clause.partition(", ")[2]
    total, sign, strength = 0, 1, 2
    for word in clause.replace(",", " ").split():
        if word in _NEGATION:
            sign = -1
        elif word in _STRENGTH:
            strength = _STRENGTH[word]
        elif word in _POLARITY:
            total += sign * strength * _POLARITY[word]
            sign, strength = 1, 2
    return None if total == 0 else int(total > 0)


def relation_of(text: str, text_pair: str) -> int | None:
    """0 agree and 1 disagree about the same thing, 2 where the things differ; None where one of them judges
    nothing.
    """
    ours, theirs = (
        {word for word in part.lower().rstrip(".").split() if word in _ASPECT} for part in (text, text_pair)
    )
    one, other = sentiment_of(text), sentiment_of(text_pair)
    if one is None or other is None:
        return None
    return 2 if ours != theirs else int(one != other)


def topic_of(text: str) -> int | None:
    """Index into `TOPICS` of the first kind ("town", "film", …) the text names; None where it names none."""
    kinds = {kind: index for index, topic in enumerate(TOPICS.values()) for kind in topic.kinds}
    return next((kinds[word] for word in text.lower().replace(".", " ").split() if word in kinds), None)


# --- the grammar ----------------------------------------------------------------------------------
def _pick(rng: Random, options: Sequence[T]) -> T:
    return options[int(rng.random() * len(options))]


def _pick_early(rng: Random, options: Sequence[T]) -> T:
    """Early options far more often than late ones (half of all draws fall on the first eighth), as words do
    in a language.
    """
    return options[int(rng.random() ** 3 * len(options))]


def _shuffled(rng: Random, items: Sequence[T]) -> list[T]:
    return [item for _, _, item in sorted((rng.random(), index, item) for index, item in enumerate(items))]


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _judgement(rng: Random, positive: bool, degrees: Sequence[Sequence[str]]) -> str:
    """An adjective of this polarity after an adverb out of one of `degrees` (equally likely)."""
    return f"{_pick_early(rng, _pick(rng, degrees))} {_pick_early(rng, POSITIVE if positive else NEGATIVE)}".strip()


def _clause(rng: Random, aspect: str, positive: bool) -> str:
    if rng.random() < 0.2:
        template, judgement = (
            _pick_early(rng, NEGATED_CLAUSES),
            _pick_early(rng, NEGATIVE if positive else POSITIVE),
        )
    else:
        template, judgement = (
            _pick(rng, PLAIN_CLAUSES),
            _judgement(rng, positive, (("",), ("",), WEAK, STRONG)),
        )
    return template.format(a=aspect, x=judgement, who=_pick(rng, PEOPLE))


def _ended(rng: Random, text: str) -> str:
    return _sentence(f"{text} {_pick(rng, ADJUNCTS)}".strip())


def _sentiment_text(rng: Random, label: int) -> str:
    """One clause, a contrast, or two judgements of different strength; the side that loses opposes the label
    in 1/4 to 1/3.

    Shares were set so that words alone reach about 0.77 and a 4 x 128 Transformer comes within 0.01 of the
    bound in few epochs.
    """
    positive, form = label == 1, rng.random()
    aspect, other = _shuffled(rng, _pick(rng, ASPECTS))[:2]
    if form < 0.5:
        return _ended(rng, _clause(rng, aspect, positive))
    other_positive = positive == (rng.random() < (0.65 if form < 0.8 else 0.75))
    if form < 0.8:
        conceded = _judgement(rng, other_positive, (("",),))
        return _sentence(_pick(rng, CONTRASTS).format(c=other, y=conceded, B=_clause(rng, aspect, positive)))
    weaker, stronger = _judgement(rng, other_positive, (WEAK,)), _judgement(rng, positive, (STRONG,))
    first, second = (weaker, stronger) if rng.random() < 0.8 else (stronger, weaker)
    return _ended(rng, _pick(rng, SIMPLE_CLAUSES).format(a=aspect, x=f"{first} and {second}"))


def _document(rng: Random, label: int) -> str:
    """An opening, three to six sentences of the story in order, and a closing, all about one name."""
    topic = list(TOPICS.values())[label]
    given, last = _pick(rng, GIVEN), _pick(rng, FAMILY)
    year = 1860 + int(rng.random() * 60)
    slots = {
        "name": f"{_pick(rng, FIRST)} {_pick(rng, topic.seconds)}", "kind": _pick(rng, topic.kinds),
        "thing": _pick(rng, topic.things), "who": f"{given} {last}", "last": last, "city": _pick(rng, CITIES),
        "y1": year, "y2": year + 5 + int(rng.random() * 25), "y3": year + 35 + int(rng.random() * 60),
    }  # fmt: skip
    kept = sorted(_shuffled(rng, range(len(topic.story)))[: 3 + int(rng.random() * (len(topic.story) - 2))])
    chosen = [_pick(rng, topic.opening), *(topic.story[index] for index in kept), _pick(rng, topic.closing)]
    return " ".join(sentence.format(**slots) for sentence in chosen)


# --- splits ---------------------------------------------------------------------------------------
def _split_of(text: str) -> str:
    """The only split this text may appear in: of all texts 3/4 are for training, 1/8 each for validation and
    test.
    """
    eighths = ("train",) * 6 + ("validation", "test")
    return eighths[zlib.crc32(text.encode()) % 8]


def _pair(rng: Random, label: int, fresh: Callable[[Callable[[], str]], str]) -> tuple[str, str]:
    """Two statements; praise comes first three times out of four, without which no single word would carry
    any signal.
    """
    things = [domain[0] for domain in ASPECTS]
    aspect = other = _pick_early(rng, things)
    positive = pair_positive = rng.random() < 0.75
    if label == 1:
        pair_positive = not positive
    if label == 2:
        other, pair_positive = _pick(rng, [thing for thing in things if thing != aspect]), rng.random() < 0.5
    first = fresh(lambda: _ended(rng, _clause(rng, aspect, positive)))
    return first, fresh(lambda: _ended(rng, _clause(rng, other, pair_positive)))


def generate_split(config: Synthetic, split: str, size: int) -> dict[str, list[Any]]:
    """Columns `text` (and `text_pair`), `label` int, `clean_label` int; classes of `clean_label` balanced to
    one text.
    """
    rng = Random(f"bertlab/{config.task}/{split}/{config.generator_seed}")
    classes = range(len(LABEL_NAMES[config.task]))
    seen: set[str] = set()

    def fresh(make: Callable[[], str]) -> str:
        while True:
            text = make()
            if _split_of(text) == split and text not in seen:
                seen.add(text)
                return text

    aims: list[int] = []
    while len(aims) < size:
        aims.extend(_shuffled(Random(f"aims/{config.generator_seed}/{len(aims)}"), classes))
    columns: dict[str, list[Any]]
    if config.task == "pairs":
        pairs = [_pair(rng, aim, fresh) for aim in aims[:size]]
        columns = {"text": [first for first, _ in pairs], "text_pair": [second for _, second in pairs]}
        clean = [relation_of(*pair) for pair in pairs]
    else:
        write, rule = (_sentiment_text, sentiment_of) if config.task == "sentiment" else (_document, topic_of)
        columns = {"text": [fresh(lambda aim=aim: write(rng, aim)) for aim in aims[:size]]}  # type: ignore[misc]  # a lambda's default
        clean = [rule(text) for text in columns["text"]]
    return columns | {"label": _noisy(clean, len(classes), config, split), "clean_label": clean}


def _noisy(clean: Sequence[Any], classes: int, config: Synthetic, split: str) -> list[int]:
    """The labels with exactly round(noise * n) of them moved to another class."""
    rng, labels = Random(f"noise/{config.task}/{split}/{config.generator_seed}"), list(clean)
    for index in _shuffled(rng, range(len(labels)))[: round(config.label_noise * len(labels))]:
        labels[index] = (labels[index] + 1 + int(rng.random() * (classes - 1))) % classes
    return labels


def generate(config: Synthetic) -> dict[str, dict[str, list[Any]]]:
    """Split name -> columns, for train, validation and test; the same config gives the same bytes
    everywhere.
    """
    sizes = {"train": config.train_size, "validation": config.validation_size, "test": config.test_size}
    return {split: generate_split(config, split, size) for split, size in sizes.items()}


def read(config: Synthetic, wanted: Sequence[str]) -> LoadedDataset:
    """The wanted columns of all splits."""
    from datasets import Dataset

    tables = {split: table for split, table in generate(config).items() if table["text"]}
    labelled = "label" in wanted
    best = {split: {"accuracy": best_possible(table)} for split, table in tables.items()} if labelled else {}
    splits = {
        split: Dataset.from_dict({name: values for name, values in table.items() if name in wanted})
        for split, table in tables.items()
    }
    return LoadedDataset(splits, label_names(config) if labelled else [], best)


def best_possible(columns: dict[str, list[Any]]) -> float:
    """The accuracy on this split of who knows the rules: the share of labels that noise left alone."""
    labels, clean = columns["label"], columns["clean_label"]
    right = sum(int(label == true) for label, true in zip(labels, clean, strict=True))
    return right / len(labels)


def label_names(config: Synthetic) -> list[str]:
    """Class names of the chosen task, in id order."""
    return list(LABEL_NAMES[config.task])
