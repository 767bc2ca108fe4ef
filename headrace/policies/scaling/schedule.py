"""The policy `schedule`: follow the calendar alone."""

import math
from dataclasses import replace
from datetime import datetime, timedelta

from headrace.config import ScalingEvent, ScalingSettings
from headrace.domain.scaling import Decision, History, PoolHosts
from headrace.policies.scaling import reactive
from headrace.policies.scaling.bounds import clamped, hold, move
from headrace.policies.scaling.calendar import events_between, tokens_per_s
from headrace.policies.scaling.staffing import hosts_for


def decide(history: History, hosts: PoolHosts, policy: ScalingSettings, now: datetime) -> Decision:
    """Have each event's hosts ready when it starts, and the minimum outside of events.

    If an event gives a rate, and what a host or a job amounts to is unknown, `reactive` decides.
    """
    near = events_between(policy, now, now + timedelta(seconds=hosts.provision_s))
    needs = [(event_hosts(event, history, hosts, policy), event.name) for event in near]
    known = [(need, name) for need, name in needs if need is not None]
    if len(known) < len(needs):
        wanted = reactive.decide(history, hosts, policy, now)
        why = "an event gives a rate, but a host's rate or a job's size is unknown"
        return replace(wanted, reason=f"{wanted.reason} ({why})")
    need, name = max(known, default=(0, ""))
    target, why = clamped(need, policy), f"event '{name}' needs {need} hosts" if known else "no event is near"
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
