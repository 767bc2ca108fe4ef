"""Questions from templates with a seed: exact repeats, paraphrases, and new ones, each with a known meaning. Pure.

Two texts have one right answer if, and only if, they have one meaning: what is to be done, to what, and where.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, product
from typing import Literal

#: What is to be done, in words that say the same; the first is the meaning's name. Half of these are simple tasks.
SIMPLE_VERBS = (
    ("open",), ("find",), ("print",), ("rename",), ("mute",), ("copy",), ("remove", "delete"), ("fix", "repair"),
    ("show",), ("close",), ("pause",), ("charge",),
)  # fmt: skip
HARD_VERBS = (
    ("migrate",), ("encrypt",), ("automate",), ("benchmark",), ("audit",), ("translate",), ("restructure",),
    ("buy", "purchase"), ("start", "begin"), ("replicate",), ("document",), ("test",),
)  # fmt: skip
THINGS = (
    "the invoice archive", "the customer list", "the payroll file", "the shift plan", "the price table",
    "the backup disk", "the mail server", "the door sensor", "the photo album", "the tax form", "the stock report",
    "the meeting notes", "the project wiki", "the test suite", "the ticket system", "the label printer",
    "the parking permit", "the delivery route", "the room booking", "the press kit", "the sales forecast",
    "the training video", "the spare key", "the company phone",
)  # fmt: skip
PLACES = (
    "on Ubuntu", "on Windows", "on Android", "in Berlin", "in Oslo", "in Lisbon", "in Madrid", "in Vienna",
    "for Acme", "for Globex", "for Initech", "for Umbrella", "for Hooli", "for students", "for nurses", "for pilots",
    "for teachers", "with Excel", "with Slack", "with Jira",
)  # fmt: skip
#: Ways to ask how something is done, with what stands before and behind.
BEFORE = (
    "", "", "", "Hi, ", "Hello, ", "Hey, ", "Good morning, ", "Good evening, ", "Hi there, ", "Please, ", "Ok, ",
    "So, ", "Excuse me, ", "Sorry, ",
)  # fmt: skip
WAYS = (
    "how do I {}?", "how can I {}?", "how do we {}?", "how can we {}?", "how could I {}?", "how should I {}?",
    "how do you {}?", "how can one {}?", "how would I {}?", "how to {}?", "what is the best way to {}?",
    "what are the steps to {}?", "what do I need to do to {}?", "tell me how to {}.", "show me how to {}.",
    "could you explain how to {}?", "can you tell me how to {}?", "I would like to know how to {}.",
    "do you know how to {}?", "I want to know how to {}.",
)  # fmt: skip
BEHIND = ("", "", "", " Thanks!", " Thank you!", " Thanks a lot!", " Thank you very much!", " Cheers!")
#: Tries to find a wording that was not used yet.
TRIES = 40

Kind = Literal["repeat", "paraphrase", "new"]


@dataclass(frozen=True, slots=True)
class Mix:
    """What the stream is made of.

    Attributes:
        repeats: the share of questions that repeat an earlier text, letter by letter.
        paraphrases: the share that asks an earlier question in words that were not used before.
        simple: the share of simple ones among the new ones.
        popular: how many questions are repeated and paraphrased: the first that come.
        zipf: the n-th of these gets 1 / n ** zipf of what the first one gets.
    """

    repeats: float = 0.3
    paraphrases: float = 0.3
    simple: float = 0.5
    popular: int = 50
    zipf: float = 0.8


@dataclass(frozen=True, slots=True)
class Question:
    """One text that a user asks. Attributes: meaning: what it has in common with its paraphrases alone."""

    text: str
    meaning: str
    kind: Kind
    is_simple: bool


@dataclass(frozen=True, slots=True)
class _Task:
    """A meaning. Attributes: verbs: the words that say it."""

    verbs: Sequence[str]
    rest: str
    is_simple: bool

    @property
    def meaning(self) -> str:
        return f"{self.verbs[0]} {self.rest}"


class Questions:
    """An endless stream, the same one for a seed. Raises StopIteration when all meanings are used up."""

    def __init__(self, mix: Mix, seed: int) -> None:
        self._mix, self._chance = mix, random.Random(seed)
        self._new = {is_simple: self._shuffled(is_simple) for is_simple in (True, False)}
        self._popular: list[_Task] = []
        self._weights = list(accumulate((place + 1) ** -mix.zipf for place in range(mix.popular)))
        self._asked: dict[str, list[str]] = {}
        self._number = 0

    def take(self, number: int) -> list[Question]:
        """The next ones."""
        return [next(self) for _ in range(number)]

    def __next__(self) -> Question:
        roll = self._chance.random()
        if self._popular and roll < self._mix.repeats:
            task = self._known()
            return self._question(task, self._chance.choice(self._asked[task.meaning]), "repeat")
        if self._popular and roll < self._mix.repeats + self._mix.paraphrases:
            task = self._known()
            if text := self._other_wording(task):
                return self._question(task, text, "paraphrase")
        # Evenly, and a hard one first: by Zipf's law the first ones come again most often.
        self._number += 1
        is_simple = int(self._number * self._mix.simple) > int((self._number - 1) * self._mix.simple)
        task = self._new[is_simple].pop()
        if len(self._popular) < self._mix.popular:
            self._popular.append(task)
        return self._question(task, self._wording(task), "new")

    def _question(self, task: _Task, text: str, kind: Kind) -> Question:
        if kind != "repeat":
            self._asked.setdefault(task.meaning, []).append(text)
        return Question(text, task.meaning, kind, task.is_simple)

    def _known(self) -> _Task:
        [task] = self._chance.choices(self._popular, cum_weights=self._weights[: len(self._popular)])
        return task

    def _other_wording(self, task: _Task) -> str | None:
        """A text that asks the same and was not used yet; None where there is hardly any left."""
        used = set(self._asked[task.meaning])
        return next((text for _ in range(TRIES) if (text := self._wording(task)) not in used), None)

    def _wording(self, task: _Task) -> str:
        pick = self._chance.choice
        asked = pick(WAYS).format(f"{pick(task.verbs)} {task.rest}")
        text = f"{pick(BEFORE)}{asked}{pick(BEHIND)}"
        return text[0].upper() + text[1:]

    def _shuffled(self, is_simple: bool) -> list[_Task]:
        verbs = SIMPLE_VERBS if is_simple else HARD_VERBS
        tasks = [_Task(verb, f"{thing} {place}", is_simple) for verb, thing, place in product(verbs, THINGS, PLACES)]
        self._chance.shuffle(tasks)
        return tasks


@cache
def _meanings() -> tuple[re.Pattern[str], dict[str, str]]:
    names = {verb: verbs[0] for verbs in (*SIMPLE_VERBS, *HARD_VERBS) for verb in verbs}
    either = ("|".join(sorted(words, key=len, reverse=True)) for words in (names, THINGS, PLACES))
    verb, thing, place = either
    return re.compile(rf"\b({verb}) ({thing}) ({place})\b"), names


def is_simple(meaning: str) -> bool:
    """Whether a small model can answer it."""
    return any(meaning.startswith(f"{verbs[0]} ") for verbs in SIMPLE_VERBS)


def meaning_of(text: str) -> str | None:
    """What a text of these templates asks; None for another text."""
    pattern, names = _meanings()
    found = pattern.search(text)
    return None if found is None else f"{names[found[1]]} {found[2]} {found[3]}"
