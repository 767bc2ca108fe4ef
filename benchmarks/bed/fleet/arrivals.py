"""Jobs by the clock: when each is submitted, and how long its answer is. Knows no system."""

import json
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from bed.load import drive, request

#: The answers: nine of ten are short, the tenth is long, so that a host that drains has something to finish.
SHORT_TOKENS, LONG_TOKENS, LONG_SHARE = 21, 128, 0.1
MEAN_TOKENS = (1 - LONG_SHARE) * SHORT_TOKENS + LONG_SHARE * LONG_TOKENS
#: Jobs that are due are submitted so often.
TICK_S = 0.1


class Arrival(NamedTuple):
    """One job."""

    at_s: float
    tokens: int


@dataclass(frozen=True, slots=True)
class Stretch:
    """A time of one rate."""

    seconds: float
    jobs_per_s: float


@dataclass(frozen=True, slots=True)
class Load:
    """Stretches, one after the other. Attributes: is_even: each answer has the mean length."""

    stretches: tuple[Stretch, ...]
    is_even: bool = False

    @property
    def seconds(self) -> float:
        """All of it."""
        return sum(stretch.seconds for stretch in self.stretches)

    def arrivals(self, seed: int) -> list[Arrival]:
        """The jobs: a Poisson process, the same for the same seed."""
        chance, began_s, found = random.Random(seed), 0.0, []
        for stretch in self.stretches:
            at_s = began_s + chance.expovariate(stretch.jobs_per_s)
            began_s += stretch.seconds
            while at_s < began_s:
                found.append(Arrival(at_s, self._tokens(chance)))
                at_s += chance.expovariate(stretch.jobs_per_s)
        return found

    def _tokens(self, chance: random.Random) -> int:
        if self.is_even:
            return round(MEAN_TOKENS)
        return LONG_TOKENS if chance.random() < LONG_SHARE else SHORT_TOKENS


@dataclass(slots=True)
class Offered:
    """What was submitted. Attributes: answers: for each job, the time from the beginning and the status."""

    began: float = field(default_factory=time.time)
    answers: list[tuple[float, int]] = field(default_factory=list)

    def count(self, status: int) -> int:
        """Jobs that were answered so."""
        return sum(each == status for _, each in self.answers)

    def first_s(self, status: int) -> float | None:
        """When one was first answered so; None for never."""
        return min((at_s for at_s, each in self.answers if each == status), default=None)


def offer(url: str, key: Mapping[str, str], arrivals: Sequence[Arrival], seconds: float) -> Iterator[Offered]:
    """Submit each job when it is due, whatever becomes of it. Yields what was submitted so far, each tick."""
    offered, began, due = Offered(), time.monotonic(), 0
    while (at_s := time.monotonic() - began) < seconds:
        first, due = due, due + sum(arrival.at_s <= at_s for arrival in arrivals[due : due + 1000])
        if jobs := arrivals[first:due]:
            bodies = (request("POST", "/v1/jobs", key, body_of(job)) for job in jobs)
            outcome = drive([url], bodies, len(jobs))
            offered.answers += [(at_s, answer.status) for answer in outcome.answers]
        yield offered
        time.sleep(max(0.0, began + (at_s // TICK_S + 1) * TICK_S - time.monotonic()))


def body_of(job: Arrival) -> bytes:
    """The body of its request. No two are alike: a request that is refused again is no further demand."""
    about = {"at_s": f"{job.at_s:.6f}"}
    return json.dumps(
        {"prompt": "What is a headrace?", "max_tokens": job.tokens, "lane": "normal", "metadata": about}
    ).encode()
