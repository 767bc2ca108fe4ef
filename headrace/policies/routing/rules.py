"""Which pools can answer a job of the model `auto`, by the operator's rules, and which of them costs least. Pure."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal

from headrace.config.rules import RuleSettings


@dataclass(frozen=True, slots=True)
class Traits:
    """What the rules see of a job.

    Attributes:
        app: its app's name.
        task: of its metadata; None without one.
        prompt_chars: characters of all messages together.
        wants_json: it asks for JSON.
        output_tokens: the length that its answer is expected to have in a pool.
    """

    app: str
    task: str | None
    prompt_chars: int
    wants_json: bool
    output_tokens: Callable[[str], int]


@dataclass(frozen=True, slots=True)
class Offer:
    """What a job costs in one pool.

    Attributes:
        usd: by the price of one more host of the pool, or by the paid API's; None if no price is known.
        is_idle: own workers have free slots for it, which are paid for anyway.
    """

    pool: str
    usd: Decimal | None
    is_idle: bool = False

    @property
    def marginal_usd(self) -> Decimal:
        """What the job adds to the bill; infinite where no price is known."""
        return Decimal(0) if self.is_idle else Decimal("Infinity") if self.usd is None else self.usd


def matching(rules: Mapping[str, RuleSettings], job: Traits) -> tuple[str, RuleSettings] | None:
    """The first rule that matches the job, with its name; None if none does."""
    return next(((name, rule) for name, rule in rules.items() if _matches(rule, job)), None)


def _matches(rule: RuleSettings, job: Traits) -> bool:
    return (
        (not rule.apps or job.app in rule.apps)
        and (not rule.tasks or job.task in rule.tasks)
        and rule.wants_json in (None, job.wants_json)
        and (rule.max_prompt_chars is None or job.prompt_chars <= rule.max_prompt_chars)
        and (rule.max_output_tokens is None or job.output_tokens(rule.pools[0]) <= rule.max_output_tokens)
    )


def cheapest_first(offers: Iterable[Offer]) -> list[Offer]:
    """The offers by what the job adds to the bill; then by its price; equal ones stay in their order."""
    return sorted(offers, key=lambda each: (each.marginal_usd, each.usd is None, each.usd or Decimal(0)))


def offer_reason(rule: str, offer: Offer, before: Iterable[str]) -> str:
    """Why this pool is tried. Args: before: the pools that were tried before it, and had no place for the job."""
    passed = ", ".join(before)
    if passed:
        return f"rule '{rule}': {offer.pool}, after {passed} had no place"
    return f"rule '{rule}': {offer.pool} {'has free slots' if offer.is_idle else 'costs least'}"


def cascade_reason(rule: str, pool: str, before: Iterable[str]) -> str:
    """Why this pool of a cascade is tried. Args: before: as in `offer_reason`."""
    passed = ", ".join(before)
    return f"rule '{rule}': {pool}, after {passed} had no place" if passed else f"rule '{rule}': {pool} answers first"
