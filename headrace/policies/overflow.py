"""Whether the paid API is open to a job: its owner allows it, its price is known, and the budgets pay for it. Pure."""

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from time import monotonic
from typing import Protocol, Self

from headrace.domain.limits import BUDGETS, Balances, Budget, Lack, Limits, shortfall
from headrace.domain.prompts import Message, Sampling
from headrace.domain.queues import Overflow
from headrace.errors import UnknownPrice
from headrace.policies.pricing import Tariff

#: The code of a job that may cost more than its `max_cost_usd`.
TOO_DEAR = "too_dear"


class Payable(Protocol):
    """What the price of a job depends on, and what its owner allows."""

    @property
    def model(self) -> str: ...
    @property
    def messages(self) -> Sequence[Message]: ...
    @property
    def sampling(self) -> Sampling: ...
    @property
    def overflow(self) -> Overflow: ...
    @property
    def max_cost_usd(self) -> Decimal | None: ...


@dataclass(frozen=True, slots=True)
class Quote:
    """The paid API is open to a job; its call costs at most `most_usd`."""

    most_usd: Decimal


@dataclass(frozen=True, slots=True)
class Objection:
    """Why the paid API is closed to a job.

    Attributes:
        code: the job's error code if the job fails for this reason.
        most_usd: the maximum cost of its call, if that is too much.
        lack: why the budgets do not pay for it, if that is the reason.
    """

    code: str
    message: str
    most_usd: Decimal | None = None
    lack: Lack | None = None

    @classmethod
    def of(cls, lack: Lack) -> Self:
        """The objection to a job that the budgets do not pay for."""
        return cls("budget_exceeded", f"No money: {lack}.", lack=lack)


def quote(
    job: Payable,
    tariff: Tariff,
    lacking: Callable[[Decimal], Lack | None] = lambda _: None,
    *,
    is_set_up: bool = True,
    tier: str | None = None,
) -> Quote | Objection:
    """Quote the maximum cost of the job's call, or say why the paid API is closed to the job.

    Args:
        lacking: why the budgets do not pay this many USD; None if they do. Without it, money is not checked here.
        is_set_up: False while no key for the paid API is set, or no worker calls it.
        tier: the one that will answer; None: any that has a price.
    """
    if job.overflow is Overflow.NEVER:
        return Objection("overflow_not_allowed", "Its overflow is 'never'.")
    if not is_set_up:
        return Objection("overflow_not_set_up", "none is set up (OPENAI_API_KEY).")
    try:
        most_usd = tariff.ceiling_usd(job.model, job.messages, job.sampling, tier)
    except UnknownPrice as error:
        return Objection(error.code, str(error))
    if job.max_cost_usd is not None and most_usd > job.max_cost_usd:
        return Objection(TOO_DEAR, f"It may cost {most_usd:f} USD, more than its max_cost_usd.", most_usd)
    lack = lacking(most_usd)
    return Quote(most_usd) if lack is None else Objection.of(lack)


class Wallet:
    """What the budgets have left after the money promised to jobs on their way to the paid API. Not safe for threads.

    A worker reserves a job's money only when it claims the job. Without counting promises, many jobs would be admitted
    for the last money of a budget.
    """

    def __init__(self, keeps_s: float = math.inf, clock: Callable[[], float] = monotonic) -> None:
        """Start without promises. Args: keeps_s: how long a promise counts, in seconds."""
        self._keeps_s, self._clock = keeps_s, clock
        #: Each promise: when it was made, the job's app, and the job's maximum cost in USD.
        self._promises: deque[tuple[float, str, Decimal]] = deque()

    def promise(self, app: str, usd: Decimal) -> None:
        """Count a job of this app that costs at most `usd`."""
        self._promises.append((self._clock(), app, usd))

    def lacking(self, usd: Decimal, app: str, own: Limits, balances: Balances, waiting: int = 0) -> Lack | None:
        """Why the budgets do not pay for a job of this app that may cost `usd`; None if they do.

        Args:
            own: the app's limits.
            waiting: jobs that wait for the paid API, promised ones included. Their apps are unknown: they count only
                against the budget of all apps together, each at the mean of the promises.
        """
        while self._promises and self._promises[0][0] < self._clock() - self._keeps_s:
            self._promises.popleft()
        own_usd = sum((each for _, name, each in self._promises if name == app), Decimal(0))
        together_usd = sum((each for _, _, each in self._promises), Decimal(0))
        mean_usd = together_usd / len(self._promises) if self._promises else usd
        together_usd = max(together_usd, waiting * mean_usd)
        used = balances.used_usd(app)
        both: dict[Budget, Decimal] = {
            budget: used.get(budget, Decimal(0)) + (own_usd if budget.is_own else together_usd) for budget in BUDGETS
        }
        return shortfall(usd, both, own, balances.together)
