"""Whether the paid API is open to a job: its owner allows it, its price is known, and the budgets pay for it. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol, Self

from headrace.domain.limits.budgets import Lack
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
        message: what the job's owner reads.
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
    job: Payable, tariff: Tariff, lacking: Callable[[Decimal], Lack | None] = lambda _: None, *, is_set_up: bool = True
) -> Quote | Objection:
    """Quote the maximum cost of the job's call, or say why the paid API is closed to the job.

    Args:
        lacking: why the budgets do not pay this many USD; None if they do. Without it, money is not checked here.
        is_set_up: False while no key for the paid API is set, or no worker calls it.
    """
    if job.overflow is Overflow.NEVER:
        return Objection("overflow_not_allowed", "Its overflow is 'never'.")
    if not is_set_up:
        return Objection("overflow_not_set_up", "none is set up (OPENAI_API_KEY).")
    try:
        most_usd = tariff.ceiling_usd(job.model, job.messages, job.sampling)
    except UnknownPrice as error:
        return Objection(error.code, str(error))
    if job.max_cost_usd is not None and most_usd > job.max_cost_usd:
        return Objection(TOO_DEAR, f"It may cost {most_usd:f} USD, more than its max_cost_usd.", most_usd)
    lack = lacking(most_usd)
    return Quote(most_usd) if lack is None else Objection.of(lack)
