"""The policy `predictive`: order hosts for the load expected when they will be ready.

All its times are shares of `window_s`; the comments name them for the default of 10 minutes.
"""

import math
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from statistics import median_low

from headrace.config import ScalingSettings
from headrace.domain.scaling import Decision, History, PoolHosts
from headrace.policies.scaling import reactive, schedule
from headrace.policies.scaling.bounds import clamped, hold, move, staleness
from headrace.policies.scaling.needs import Needs, View
from headrace.policies.scaling.recent import observed_s

#: The history decides once it spans this share of the window: 4 minutes.
ENOUGH_SHARE = 0.4
#: Between two orders, unless a burst or an event asks for more: 2 minutes. Between two removals: 2.5 minutes.
UP_SHARE, DOWN_SHARE = 1 / 5, 1 / 4
#: The pause between an order and a removal, as a share of the window (5 minutes): a new host has hardly begun.
AFTER_UP_SHARE = 0.5
#: Nothing is removed before earlier decisions span this share of the window.
HELD_SHARE = 0.8


def decide(history: History, hosts: PoolHosts, policy: ScalingSettings, now: datetime) -> Decision:
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


def lacking_of(history: History, hosts: PoolHosts, policy: ScalingSettings) -> str:
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
