"""The policy `predictive`: order hosts for the load expected when they will be ready.

All its times are shares of `window_s`; the comments name them for the default of 10 minutes.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from operator import itemgetter
from statistics import median_low
from typing import Self

from headrace.config import ScalingEvent, ScalingSettings
from headrace.domain.scaling import Decision, DemandForecast, DemandHistory, PoolHosts
from headrace.policies.scaling import reactive, schedule
from headrace.policies.scaling.bounds import clamped, hold, move, observed_s, staleness, tokens_per_job
from headrace.policies.scaling.forecast import BINS, Demand, demand_of, expected, expected_in_burst, upper
from headrace.policies.scaling.schedule import events_between, tokens_per_s
from headrace.policies.scaling.staffing import Worth

# How many hosts the expected load needs, and why.

#: One more host is ordered when the need exceeds whole hosts by `SLACK`. A host is spare with `SPARE` to go.
SLACK, SPARE = 0.05, 0.2
#: A backlog is to be gone after this share of the window: 3 minutes.
BACKLOG_SHARE = 0.3
#: New hosts are ordered for the larger of two loads, which are this far apart: 2 minutes.
AFTER_SHARE = 1 / 5
#: Loads that are forecast before a host is removed, one for each time in which a new host could be back.
AHEAD = 3
#: More hosts than exist. It keeps the figures of absurd observations within the columns of `decisions`.
MOST_HOSTS = 1e6


@dataclass(frozen=True, slots=True)
class Needs:
    """What the load needs.

    Attributes:
        need: hosts, not limited by the maximum.
        spare_need: hosts below which none is spare.
        at_once: those of them that a burst or an event needs, which are ordered without a pause.
        words: the figures, for the reason.
    """

    need: int
    spare_need: int
    at_once: int
    words: str


@dataclass(frozen=True, slots=True)
class View:
    """What one decision of `predictive` goes by. The rate of a host must be known.

    Attributes: job_tokens: the tokens of a mean job; 0 if unknown.
    """

    history: DemandHistory
    hosts: PoolHosts
    policy: ScalingSettings
    now: datetime
    job_tokens: float
    demand: Demand
    worth: Worth

    @classmethod
    def of(cls, history: DemandHistory, hosts: PoolHosts, policy: ScalingSettings, now: datetime) -> Self:
        """The view on a history that has a moment that lasted."""
        job_tokens = tokens_per_job(history) or 0.0
        demand = demand_of(history, job_tokens, policy, now)
        return cls(history, hosts, policy, now, job_tokens, demand, Worth.of(job_tokens, hosts, policy))

    @property
    def ready_s(self) -> float:
        """When a host would be ready that the next decision orders."""
        return self.hosts.provision_s + self.policy.window_s / BINS

    def forecast(self) -> DemandForecast:
        """The load expected when a host would be ready, with which the outcome is compared later."""
        bursts = self.demand.burst_until is not None
        loads = [self.calm(self.ready_s), *self.event_rates(self.ready_s)]
        if bursts:
            loads.append((expected_in_burst(self.demand, self.ready_s), "burst"))
        rate, why = max(loads)
        return DemandForecast(self.now + timedelta(seconds=self.ready_s), rate, why, bursts)

    def needs(self) -> Needs:
        """The hosts to have when a host would be ready that is ordered now."""
        later_s = self.ready_s + AFTER_SHARE * self.policy.window_s
        options = [(*self.calm(ahead_s), ahead_s) for ahead_s in (self.ready_s, later_s)]
        rate, why, ahead_s = max(options, key=itemgetter(0))
        calm, bursting = self.with_margin(rate, is_burst=False), 0.0
        if self.demand.burst_until is not None:
            burst = expected_in_burst(self.demand, later_s)
            bursting = self.with_margin(burst, is_burst=True)
            if bursting > calm:
                rate, why, ahead_s = burst, "burst", later_s
        backlog = self._backlog()
        needed = max(calm, bursting) + backlog
        for_events, event = self._for_events(self.hosts.provision_s, later_s)
        need = max(whole(needed), for_events, self._rescue(rate))
        words = f"{needed:.1f} hosts needed at {self._clock(ahead_s)} for {rate:,.0f} tokens/s ({why})"
        if for_events > whole(needed):
            words = f"event '{event}' needs {for_events} hosts"
        elif not self.worth.hosts_pay:
            at_the_api = "" if self.worth.spilling is None else " cost at the paid API"
            words += f", because a host costs more than the jobs that it would serve{at_the_api}"
        elif need > whole(needed) or backlog > SPARE:
            words += f" and {self.history.moments[-1].depth} waiting jobs"
        spare_need = max(need, whole(needed + SPARE) if needed > 0 else 0)
        at_once = max(whole(bursting + backlog) if bursting > 0 else 0, for_events)
        return Needs(need, spare_need, at_once, f"{words}, {self._present(need)}")

    def need_ahead(self) -> int:
        """The most hosts that the load needs until hosts that are removed now could be replaced, without a margin."""
        aheads = (0.0, *(self.ready_s * step for step in range(1, AHEAD + 1)))
        rate = max(self.calm(ahead_s)[0] for ahead_s in aheads)
        for_events, _ = self._for_events(0.0, aheads[-1])
        return max(whole(self._paying(rate)), for_events)

    def calm(self, ahead_s: float) -> tuple[float, str]:
        """The load expected then apart from bursts and events, and what it follows from."""
        return expected(self.demand, self.history.season, ahead_s)

    def with_margin(self, rate: float, *, is_burst: bool) -> float:
        """The hosts that pay for the load that may come if this one is expected."""
        errors, host_rate = self.history.errors, self.hosts.tokens_per_s or 0.0

        def outcome(quantile: float) -> float:
            return upper(rate, quantile, errors, host_rate, is_burst=is_burst)

        return self.worth.hosts_for(rate, outcome, self.hosts, self.policy.staffing_beta)

    def _paying(self, rate: float) -> float:
        """The hosts that pay for exactly this load."""
        return self.worth.hosts_for(rate, lambda _: rate, self.hosts, self.policy.staffing_beta)

    def _backlog(self) -> float:
        """The hosts that serve the waiting jobs within minutes. None where the paid API serves them for less."""
        last = self.history.moments[-1]
        tokens = last.depth_tokens or last.depth * self.job_tokens
        in_s = BACKLOG_SHARE * self.policy.window_s
        return tokens / in_s / (self.hosts.tokens_per_s or math.inf) if self.worth.hosts_pay else 0.0

    def _rescue(self, rate: float) -> int:
        """Hosts that are needed although the load is too small for them.

        One more than the pool has if jobs pile up, and one for any job at all if no paid API takes it.
        """
        depth = self.history.moments[-1].depth
        if not self.worth.hosts_pay:
            return 0
        if depth > self.policy.up_depth and self.hosts.requested == 0:
            return self.hosts.count + 1
        return 1 if self.worth.spilling is None and (rate > 0 or depth > 0) else 0

    def event_rates(self, ahead_s: float) -> list[tuple[float, str]]:
        """The rates that events announce for then, with their names."""
        at = self.now + timedelta(seconds=ahead_s)
        rates = [(tokens_per_s(event, self.history), event.name) for event in events_between(self.policy, at, at)]
        return [(rate, name) for rate, name in rates if rate is not None]

    def _for_events(self, start_s: float, end_s: float) -> tuple[int, str]:
        """The hosts for the largest event in this time from now, and its name."""
        start, end = (self.now + timedelta(seconds=ahead_s) for ahead_s in (start_s, end_s))
        events = events_between(self.policy, start, end)
        return max(((self.for_event(event), event.name) for event in events), default=(0, ""))

    def for_event(self, event: ScalingEvent) -> int:
        """The hosts that an event needs; 0 if they follow from a rate and the size of a job is unknown."""
        return event.hosts or whole(self._paying(tokens_per_s(event, self.history) or 0.0))

    def _clock(self, ahead_s: float) -> str:
        return f"{self.now + timedelta(seconds=ahead_s):%H:%M}"

    def _present(self, need: int) -> str:
        requested = f", {self.hosts.requested} on the way" if self.hosts.requested else ""
        at_most = f", at most {self.policy.max_hosts} allowed" if need > self.policy.max_hosts else ""
        return f"{self.hosts.ready} ready{requested}{at_most}"


def whole(hosts: float) -> int:
    return math.ceil(min(hosts, MOST_HOSTS) - SLACK)


# The decision.

#: The history decides once it spans this share of the window: 4 minutes.
ENOUGH_SHARE = 0.4
#: Between two orders, unless a burst or an event asks for more: 2 minutes. Between two removals: 2.5 minutes.
UP_SHARE, DOWN_SHARE = 1 / 5, 1 / 4
#: The pause between an order and a removal, as a share of the window (5 minutes): a new host has hardly begun.
AFTER_UP_SHARE = 0.5
#: Nothing is removed before earlier decisions span this share of the window.
HELD_SHARE = 0.8


def decide(history: DemandHistory, hosts: PoolHosts, policy: ScalingSettings, now: datetime) -> Decision:
    """Order the hosts that pay for the expected load; remove those that most of a window did not need.

    While too little is known, `reactive` decides.
    """
    stale = staleness(history, policy, now)
    if stale:
        return hold(hosts, stale)
    lacking = lacking_of(history, hosts, policy)
    if lacking:
        wanted = reactive.decide(history, hosts, policy, now)
        wanted = replace(wanted, reason=f"{wanted.reason} (thresholds decide: {lacking})")
        needs = schedule.event_needs(history, hosts, policy, now)
        known = [(need, name) for need, name in needs if need is not None]
        return schedule.at_least(known, wanted, hosts, policy)
    view = View.of(history, hosts, policy, now)
    found = view.needs()
    return replace(
        _up(view, found) or _down(view, found) or hold(hosts, found.words),
        need=found.need,
        spare_need=found.spare_need,
        forecast=view.forecast(),
        burst_until=view.demand.burst_until,
    )


def lacking_of(history: DemandHistory, hosts: PoolHosts, policy: ScalingSettings) -> str:
    """What must be known before this policy can decide; empty if all is known."""
    if not hosts.tokens_per_s or hosts.tokens_per_s <= 0:
        return "the rate of a host is unknown"
    if not hosts.slots_per_host or hosts.slots_per_host <= 0:
        return "the slots of a host are unknown"
    seen_s = observed_s(history, policy)
    if seen_s < ENOUGH_SHARE * policy.window_s:
        return f"{seen_s:.0f} of {ENOUGH_SHARE * policy.window_s:.0f} s are observed"
    return ""


def _up(view: View, needs: Needs) -> Decision | None:
    """The order of hosts; None if no more are needed than the pool has."""
    hosts, policy, count = view.hosts, view.policy, view.hosts.count
    gap = clamped(needs.need, policy) - count
    if gap <= 0:
        return None
    rest_s = _left_s(hosts.up_at, UP_SHARE * policy.window_s, view.now)
    # A forecast that is wrong is corrected before the other half of the gap is ordered.
    step = min(gap, max(policy.up_step, math.ceil(gap / 2))) if rest_s <= 0 else 0
    target = max(count + step, clamped(needs.at_once, policy))
    if target <= count:
        return hold(hosts, f"the next order may follow in {rest_s:.0f} s; {needs.words}")
    return move(hosts, target, needs.words, policy)


def _down(view: View, needs: Needs) -> Decision | None:
    """The removal of hosts; None if none is spare, or it is too early to say."""
    hosts, policy, count = view.hosts, view.policy, view.hosts.count
    held = [past for past in view.history.needs if (view.now - past.at).total_seconds() < policy.window_s]
    oldest_s = max(((view.now - past.at).total_seconds() for past in held), default=0.0)
    floor = clamped(max(needs.spare_need, view.need_ahead(), _usual(past.spare_need for past in held)), policy)
    if floor >= count or hosts.requested > 0 or oldest_s < HELD_SHARE * policy.window_s:
        return None
    if (
        view.history.moments[-1].depth > hosts.ready
        or _left_s(hosts.down_at, DOWN_SHARE * policy.window_s, view.now) > 0
        or _left_s(hosts.up_at, AFTER_UP_SHARE * policy.window_s, view.now) > 0
    ):
        return None
    target = max(floor, count - max(policy.down_step, math.ceil((count - floor) / 2)))
    window_s = policy.window_s
    window = f"{window_s / 60:.0f} minutes" if window_s >= 120 else f"{window_s:.0f} s"
    why = f"no more than {floor} hosts were needed for most of {window}; {needs.words}"
    return move(hosts, target, why, policy)


def _usual(needs: Iterable[int]) -> int:
    """The lower median, or 0 without any. The highest need would be that of the noisiest minute."""
    return median_low(list(needs) or [0])


def _left_s(last: datetime | None, pause_s: float, now: datetime) -> float:
    """Seconds until the pause after the last change is over; 0 or less if it is."""
    return pause_s - (now - last).total_seconds() if last is not None else 0.0
