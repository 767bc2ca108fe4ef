"""Watch the autoscaler: alert the operator once when something lasts, and once when it has ended.

Not a task: a beat that stopped is one of the things to alert to. Knows neither Celery nor how a decision is made.
"""

import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection

from headrace.config import Settings
from headrace.policies.webhooks import SCALING_EVENT
from headrace.store import clock, deliveries, locks
from headrace.store.fleet import decisions
from headrace.store.fleet.decisions import AlertKey
from scheduler.deps import ControlDeps

log = logging.getLogger(__name__)

#: Intervals without an observation.
UNOBSERVED_INTERVALS = 3
#: How long a pool must be at its maximum, and refuse jobs, before that is an alert.
FULL = timedelta(minutes=10)
#: Refusals within this time count for the present.
REFUSING = timedelta(minutes=1)
#: The time of which the paid API's share is taken.
SHARE_OF = timedelta(hours=1)
#: An alert of the share ends below this part of the bound, so that a share near it sends no stream of alerts.
BACK_AT = 0.9
#: How long a host that was written off is remembered, so that it is alerted to once.
WRITTEN_OFF = timedelta(days=1)

UNOBSERVED, WROTE_OFF, AT_MAXIMUM, OVERFLOW = "unobserved", "host_written_off", "at_maximum", "overflow_share"
#: Only a list of the provider shows it, so `HostMover` watches it.
UNCLAIMED = "machine_unclaimed"


@dataclass(frozen=True, slots=True)
class Condition:
    """Something that the operator should know if it lasts.

    Attributes:
        facts: fields of the alert.
        lasts: how long it must last before it is alerted to.
    """

    key: AlertKey
    facts: Mapping[str, Any] = field(default_factory=dict)
    lasts: timedelta = timedelta(0)


def watch_scaling(deps: ControlDeps) -> int:
    """Log each alert that begins or ends, and write the operator's webhook, if one is configured.

    Bound: one sweep. One transaction notes the alert and writes the webhook, so that neither is lost or doubled.
    """
    with deps.store.begin() as db:
        locks.take(db, "watch_scaling")
        before = [key for key in decisions.lasting_alerts(db) if key.kind != UNCLAIMED]
        news = note_conditions(db, deps, _conditions(db, deps, set(before)), before)
    log_alerts(news)
    return len(news)


#: An alert that begins or ends: what it is about, which of both, and its facts.
Alert = tuple[AlertKey, str, Mapping[str, Any]]


def note_conditions(
    db: Connection, deps: ControlDeps, conditions: Iterable[Condition], before: Iterable[AlertKey]
) -> list[Alert]:
    """Write the alerts that begin or end, and their webhooks. Args: before: what lasted at the last look."""
    found = {each.key: each for each in conditions}
    news: list[Alert] = [(key, "began", found[key].facts) for key in found if _begins(db, found[key])]
    ended = [key for key in before if key not in found and decisions.end_alert(db, key)]
    # That a host was written off does not end: it is only forgotten.
    news += [(key, "ended", {}) for key in ended if key.kind != WROTE_OFF]
    for key, state, facts in news:
        if url := deps.settings.budgets.webhook_url:
            deliveries.add(db, SCALING_EVENT + key.kind, url, _fields(key, state, facts))
    return news


def log_alerts(news: Iterable[Alert]) -> None:
    """Log alerts, once they are written."""
    for key, state, facts in news:
        level = logging.WARNING if state == "began" else logging.INFO
        log.log(level, f"scaling_{key.kind}", extra=_fields(key, state, facts))


def _begins(db: Connection, condition: Condition) -> bool:
    began_at = decisions.note_alert(db, condition.key)
    return clock.now(db) - began_at >= condition.lasts and decisions.tell_alert(db, condition.key)


def _fields(key: AlertKey, state: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    about = {"host": key.subject} if key.subject else {}
    return {"pool": key.pool, **about, "state": state, **facts}


def _conditions(db: Connection, deps: ControlDeps, lasting: set[AlertKey]) -> Iterator[Condition]:
    settings = deps.settings
    pools = list(settings.own_pools)
    for pool in pools:
        yield from _unobserved(db, deps, pool, AlertKey(UNOBSERVED, pool) in lasting)
        yield from _at_maximum(db, settings, pool)
        yield from _overflow(db, settings, pool, AlertKey(OVERFLOW, pool) in lasting)
    for row in decisions.written_off(db, pools, WRITTEN_OFF):
        facts = {"instance_type": row.instance_type, "requested_at": row.requested_at.isoformat()}
        yield Condition(AlertKey(WROTE_OFF, row.pool, row.id), facts)


def _unobserved(db: Connection, deps: ControlDeps, pool: str, is_told: bool) -> Iterator[Condition]:
    bound = timedelta(seconds=UNOBSERVED_INTERVALS * deps.settings.observe_every_s)
    at, now, key = decisions.observed_at(db, pool), clock.now(db), AlertKey(UNOBSERVED, pool)
    # After a pause of the whole system, the first observation is on its way, as in a new one.
    has_just_started = time.monotonic() - deps.made_at < bound.total_seconds()
    if at is None:
        yield Condition(key, {"observed_at": None}, lasts=bound)
    elif now - at > bound and (is_told or not has_just_started):
        yield Condition(key, {"observed_at": at.isoformat(), "age_s": round((now - at).total_seconds(), 1)})


def _at_maximum(db: Connection, settings: Settings, pool: str) -> Iterator[Condition]:
    max_hosts, hosts = settings.scaling.of_pool(pool).max_hosts, decisions.last_hosts(db, pool)
    _, refused, _ = decisions.recent_demand(db, pool, REFUSING)
    if refused and hosts is not None and hosts >= max_hosts:
        facts = {"hosts": hosts, "max_hosts": max_hosts, "refused_last_minute": refused}
        yield Condition(AlertKey(AT_MAXIMUM, pool), facts, lasts=FULL)


def _overflow(db: Connection, settings: Settings, pool: str, is_told: bool) -> Iterator[Condition]:
    offered, _, spilled = decisions.recent_demand(db, pool, SHARE_OF)
    bound = settings.scaling.overflow_share * (BACK_AT if is_told else 1.0)
    if offered and spilled / offered > bound:
        facts = {"share": round(spilled / offered, 4), "bound": settings.scaling.overflow_share, "jobs": offered}
        yield Condition(AlertKey(OVERFLOW, pool), {**facts, "spilled": spilled})
