"""Pairs from templates, the same ones each time: one task asked in two ways, and two tasks asked in one way."""

import random
from collections.abc import Iterator
from typing import Any

SEED = 2026
PARAPHRASES = 80
DIFFERENT = 160

#: Ways to ask for a task, in each language.
WAYS = {
    "English": (
        "How do I {}?", "How can I {}?", "How to {}?", "What is the best way to {}?", "Please tell me how to {}.",
        "What are the steps to {}?", "Could you explain how to {}?", "I want to {}.", "I would like to know how to {}.",
        "What do I need to do to {}?", "Show me how to {}.", "Is there a way to {}?", "Hi, how do you {}?",
        "Can you help me {}?",
    ),
    "German": (
        "Wie kann ich {}?", "Wie kann man {}?", "Ich möchte {}.", "Kannst du mir erklären, wie ich {} kann?",
        "Wie soll ich am besten {}?", "Hallo, wie kann ich {}?", "Ich möchte wissen, wie ich {} kann.",
    ),
}  # fmt: skip
TASKS = {
    "English": (
        "export the report as a PDF", "pair my headphones with the laptop", "change the oil in a Ford Focus",
        "renew a library card", "publish a package to PyPI", "set up a VPN on Ubuntu",
        "share a calendar with my family",
        "install a dishwasher", "dispute a charge on my credit card", "move photos from Android to a Mac",
        "descale the coffee machine", "add subtitles to a video", "apply for a student loan", "prune an apple tree",
        "enable spell checking in Firefox", "limit screen time on an iPad", "write a unit test for a Flask route",
        "remove the background of a picture", "knit a scarf", "cancel a gym contract",
    ),
    "German": (
        "den Bericht als PDF exportieren", "das Öl am Ford wechseln", "einen Bibliotheksausweis verlängern",
        "ein Paket nach Kanada schicken", "die Kaffeemaschine entkalken", "einen Apfelbaum schneiden",
        "einen Schal stricken", "den Vertrag mit dem Fitnessstudio kündigen", "Untertitel zu einem Video hinzufügen",
        "die Rechtschreibprüfung in Firefox einschalten",
    ),
}  # fmt: skip
#: Requests with a gap, by what fills it, and what does.
GAPS = {
    "opposites": (
        ("How do I {} the alarm?", "Please {} the lamp in the hall.", "What happens if I {} the fan?"),
        ("turn on", "turn off"),
    ),
    "number": (
        ("Give me {} ideas for a party.", "What is {} percent of 640?", "Book a room for {} nights in Rome.",
         "How old is a tree with {} rings?", "Nenne {} Gründe für Sport.", "Was sind {} Prozent von 640?"),
        ("4", "7", "12", "25", "40", "140"),
    ),
    "unit": (
        ("How much is 35 {}?", "Add 20 {} to the mixture.", "Is 9 {} a lot?"),
        ("grams", "ounces", "liters", "gallons", "milligrams", "kg", "lb"),
    ),
    "date": (
        ("Is the office open on {}?", "Show all bookings for {}.", "Remind me on {} to call Mia."),
        ("Monday", "Tuesday", "May 4", "May 14", "June 4", "4 May 2023", "the first Sunday"),
    ),
    "entity": (
        ("Who is the president of {}?", "What do people eat in {}?", "Find a hotel in {}.",
         "Translate the menu for guests from {}.",
         "Wie komme ich nach {}?", "Was kostet ein Hotel in {}?"),
        ("Norway", "Kenya", "Peru", "Chile", "Paris", "Vienna", "Korea"),
    ),
    "code": (
        ("What does `{}` do?", "Explain the output of `{}`.", "Was macht `{}`?"),
        ("x << 1", "x >> 1", "len(x)", "len(y)", "git fetch", "git pull", "a or b", "a and b"),
    ),
}  # fmt: skip
#: Requests about two things, where each has a part of its own, and what fills them.
ROLES = (
    ("Does {} owe {} an answer?", "Did {} beat {} in chess?", "Is {} older than {}?", "Send the notes from {} to {}.",
     "Why did {} thank {}?", "Hat {} mehr Punkte als {}?"),
    ("Tom", "Ada", "Felix", "Nina", "Omar"),
)  # fmt: skip
NEGATED = (
    ("Which of these mushrooms are edible?", "Which of these mushrooms are not edible?"),
    ("Show customers who paid in May.", "Show customers who did not pay in May."),
    ("Plan a trip with a stop in Lyon.", "Plan a trip without a stop in Lyon."),
    ("Welche Fächer sind Pflicht?", "Welche Fächer sind nicht Pflicht?"),
    ("Zeige Kunden mit Vertrag.", "Zeige Kunden ohne Vertrag."),
)


def made_pairs() -> Iterator[dict[str, Any]]:
    """The pairs, each `a`, `b`, `same` and `kind`."""
    dice = random.Random(SEED)
    pairs = {_key(pair): pair for pair in (_paraphrase(dice) for _ in range(4 * PARAPHRASES))}
    yield from list(pairs.values())[:PARAPHRASES]
    different = {_key(pair): pair for pair in (_different(dice) for _ in range(4 * DIFFERENT))}
    yield from list(different.values())[:DIFFERENT]
    for plain, negated in NEGATED:
        yield {"a": plain, "b": negated, "same": False, "kind": "negation"}


def _key(pair: dict[str, Any]) -> frozenset[str]:
    return frozenset((pair["a"], pair["b"]))


def _paraphrase(dice: random.Random) -> dict[str, Any]:
    language = dice.choices(list(WAYS), [3, 1])[0]
    task = dice.choice(TASKS[language])
    one, other = dice.sample(WAYS[language], 2)
    return {"a": one.format(task), "b": other.format(task), "same": True, "kind": f"paraphrase, {language}"}


def _different(dice: random.Random) -> dict[str, Any]:
    kind = dice.choice([*GAPS, "roles"])
    ways, things = ROLES if kind == "roles" else GAPS[kind]
    way = dice.choice(ways)
    one, other = dice.sample(things, 2)
    if kind == "roles":
        return {"a": way.format(one, other), "b": way.format(other, one), "same": False, "kind": kind}
    return {"a": way.format(one), "b": way.format(other), "same": False, "kind": kind}
