"""The policy `schedule`: follow the calendar alone."""

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from headrace.config import ScalingEvent, ScalingSettings
from headrace.domain.scaling import Action, Decision, History, PoolHosts
from headrace.policies.scaling import reactive
from headrace.policies.scaling.bounds import clamped, hold, move
from headrace.policies.scaling.calendar import events_between, tokens_per_s
from headrace.policies.scaling.staffing import hosts_for

#: Hosts, and the name of the event that needs them.
Need = tuple[int, str]


def decide(history: History, hosts: PoolHosts, policy: ScalingSettings, now: datetime) -> Decision:
    """Have each event's hosts ready when it starts, and the minimum outside of events.

    If an event gives a rate, and what a host or a job amounts to is unknown, `reactive` decides.
    """
    needs = event_needs(history, hosts, policy, now)
    known = [(need, name) for need, name in needs if need is not None]
    if len(known) < len(needs):
        wanted = reactive.decide(history, hosts, policy, now)
        why = "an event gives a rate, but a host's rate or a job's size is unknown"
        return at_least(known, replace(wanted, reason=f"{wanted.reason} ({why})"), hosts, policy)
    if not known:
        return _have(0, "no event is near", hosts, policy)
    return at_least(known, Decision(policy.min_hosts, Action.HOLD, ""), hosts, policy)


def at_least(needs: Sequence[Need], wanted: Decision, hosts: PoolHosts, policy: ScalingSettings) -> Decision:
    """What was wanted, or the hosts of the largest event if they are no fewer."""
    need, name = max(needs, default=(0, ""))
    if not needs or clamped(need, policy) < wanted.target:
        return wanted
    return _have(need, f"event '{name}' needs {need} hosts", hosts, policy)


def event_needs(
    history: History, hosts: PoolHosts, policy: ScalingSettings, now: datetime
) -> list[tuple[int | None, str]]:
    """The hosts for each event that is on, or for which hosts must be ordered now, with its name; see `event_hosts`."""
    near = events_between(policy, now, now + timedelta(seconds=hosts.provision_s))
    return [(event_hosts(event, history, hosts, policy), event.name) for event in near]


def _have(need: int, why: str, hosts: PoolHosts, policy: ScalingSettings) -> Decision:
    target = clamped(need, policy)
    if target == hosts.count:
        return hold(hosts, f"{why}, and the pool has {target}")
    return move(hosts, target, f"{why}: {hosts.count} to {target} hosts", policy)


def event_hosts(event: ScalingEvent, history: History, hosts: PoolHosts, policy: ScalingSettings) -> int | None:
    """The hosts that an event needs. None if they follow from a rate, and a host's rate or a job's size is unknown."""
    if event.hosts is not None:
        return event.hosts
    rate = tokens_per_s(event, history)
    if rate is None or not hosts.tokens_per_s:
        return None
    return math.ceil(hosts_for(rate, hosts, policy.staffing_beta))
