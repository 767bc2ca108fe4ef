"""The models to try for a draft: the caller's own, or for `auto` those of the rules' pools, cheapest first.

With a cascade they are tried in the rule's order. Where only the best answer will do, the rule's last pool is the only
choice. Reads the forecast and the prices; takes no place.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from api.door.drafts import Draft
from api.door.specify import must_stay
from headrace.broker.forecast import Forecast
from headrace.config import Settings
from headrace.config.rules import AUTO, RuleSettings
from headrace.domain.attempts import Usage
from headrace.domain.queues import Overflow, queue_name
from headrace.errors import Unavailable
from headrace.policies.pricing import Tariff, cost
from headrace.policies.routing import Offer, Traits, cascade_reason, cheapest_first, matching, offer_reason

#: The field of a job's metadata that names its task.
TASK = "task"
#: Characters of one token, as far as the order of prices depends on it.
CHARS_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class Chooser:
    """Finds the choices of a draft of one app."""

    settings: Settings
    forecast: Forecast
    tariff: Tariff

    def choices(self, draft: Draft, app: str) -> tuple[Draft, ...]:
        """The draft with each model that may answer it, the best first; at least one. Args: app: its name."""
        settings = self.settings
        if draft.model != AUTO or not settings.rules:
            return (draft,)
        found = matching(settings.rules, self._traits(draft, app))
        if found is None:
            of_kind = (name for name, pool in settings.pools.items() if pool.is_embedding == draft.is_embedding)
            first = next(of_kind, next(iter(settings.pools)))
            return (self._choice(draft, first, f"no rule matches: {first}"),)
        name, rule = found
        pools = self._open_pools(draft, rule)
        draft = replace(draft, rule=name)
        if why := _why_last(draft, rule):
            return (self._choice(draft, pools[-1], f"rule '{name}': {pools[-1]}, for {why}"),)
        return tuple(self._in_order(draft, name, pools) if rule.cascade else self._ranked(draft, name, pools))

    def _open_pools(self, draft: Draft, rule: RuleSettings) -> Sequence[str]:
        """The rule's pools, without those that are closed to the job, unless it has no other."""
        pools = self.settings.pools
        # The paid API is closed to a job of `never`, or with parameters that it has no word for.
        stays_here = draft.overflow is Overflow.NEVER or must_stay(draft, names_paid_tokens=True) is not None
        stays = [pool for pool in rule.pools if not (stays_here and pools[pool].is_paid)]
        return stays or rule.pools

    def _ranked(self, draft: Draft, name: str, pools: Sequence[str]) -> Iterator[Draft]:
        offers = cheapest_first(self._offer(draft, pool) for pool in pools)
        for no, offer in enumerate(offers):
            reason = offer_reason(name, offer, (each.pool for each in offers[:no]))
            yield self._choice(draft, offer.pool, reason)

    def _in_order(self, draft: Draft, name: str, pools: Sequence[str]) -> Iterator[Draft]:
        for no, pool in enumerate(pools):
            yield self._choice(draft, pool, cascade_reason(name, pool, pools[:no]))

    def _choice(self, draft: Draft, pool: str, reason: str) -> Draft:
        return replace(draft, model=self.settings.pools[pool].model, choice_reason=reason)

    def _traits(self, draft: Draft, app: str) -> Traits:
        kind = (draft.response_format or {}).get("type", "text")
        return Traits(
            app, draft.metadata.get(TASK), draft.chars, kind != "text", lambda pool: self._output(draft, pool)
        )

    def _offer(self, draft: Draft, pool: str) -> Offer:
        of_pool, usage = self.settings.pools[pool], Usage(draft.chars // CHARS_PER_TOKEN, self._output(draft, pool))
        if of_pool.is_paid:
            return Offer(pool, self.tariff.api_usd(of_pool.model, usage))
        own = self.tariff.own.get(pool, of_pool.price)
        return Offer(pool, cost(own, usage).usd, self._is_idle(draft, pool))

    def _is_idle(self, draft: Draft, pool: str) -> bool:
        try:
            pressure = self.forecast.pressure(queue_name(pool, draft.lane))
        except Unavailable:
            return False
        return pressure.free > pressure.jobs

    def _output(self, draft: Draft, pool: str) -> int:
        most = draft.max_tokens or draft.default_max_tokens or self.settings.pools[pool].default_max_tokens
        return draft.n * self.forecast.expected_output(pool, draft.lane, most)


def _why_last(draft: Draft, rule: RuleSettings) -> str | None:
    """Why only the rule's last pool will do; None if another one may answer, too."""
    if draft.quality == "high":
        return "quality 'high'"
    if not rule.cascade:
        return None
    # A stream shows its first words before an answer can be judged, and of several answers each may be good or bad.
    return "a stream" if draft.stream else "several answers" if draft.n > 1 else None
