"""Reads what is known of the running system, for `policies.health` and the first page of the operators.

Reads it in one connection, and what a server does not tell stays unknown: the page that says what is wrong must not
fail with it. A table that is locked costs what needs that table alone.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal

from sqlalchemy import Connection

from headrace.broker.admission import Admission
from headrace.config import Settings
from headrace.domain.fleet import Fleet, Flow
from headrace.domain.queues import OVERFLOW, Lane, queue_name
from headrace.errors import BrokerUnavailable, StoreUnavailable
from headrace.installed import parts
from headrace.policies.health import Facts, LaneFacts, Problem
from headrace.store import Glance, Store, clock, deliveries
from headrace.store.fleet import decisions, observations, processes, status, workers
from headrace.store.money import budgets
from headrace.store.money.host_hours import HostTerms, bills_so_far

#: What "lately" is, and what it is compared with.
LATELY, BEFORE = timedelta(minutes=15), timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Overview:
    """The running system at one moment.

    Attributes:
        hosts_usd, paid_usd: what hosts and answers of the paid API have cost in the last hour; None: unread.
    """

    now: datetime
    facts: Facts
    hosts_usd: Decimal | None
    paid_usd: Decimal | None


def read(
    store: Store, admission: Admission, settings: Settings, expected_wait_s: Callable[[str], float | None]
) -> Overview:
    """Args: expected_wait_s: of a job that came into this queue now. Raises: StoreUnavailable."""
    redis_error, depths = None, dict[str, int]()
    try:
        admission.check_writable()
        depths = {queue: load.jobs for queue, load in admission.loads(list(_places(settings, has_paid=True))).items()}
    except BrokerUnavailable as error:
        redis_error = error.public_cause
    with store.read() as db:
        glance, now = Glance(db), clock.now(db)
        fleets = glance.read("workers", workers.fleets, dict[str, Fleet]())
        # A command may lack the key that the workers have.
        has_paid = settings.openai_api_key is not None or OVERFLOW in fleets
        places = _places(settings, has_paid=has_paid)
        # A forecast reads the workers too.
        is_known = redis_error is None and not glance.unread
        expected_s = {queue: _unless_unknown(expected_wait_s, queue) if is_known else None for queue in places}
        lanes = _lanes(glance, settings, places, depths, expected_s, now)
        facts = _facts(glance, settings, lanes, now)
        hosts_usd = glance.read("costs of hosts", lambda db: _hosts_usd(db, settings, now), None)
        paid_usd = glance.read("costs of the paid API", lambda db: status.paid_usd(db, now - BEFORE), None)
        held = status.blockers(db)
        told = replace(facts, fleets=fleets, blockers=held, unread=glance.unread, has_key=has_paid)
        # On a second connection: one that was open before may still write.
        told = replace(told, redis_error=redis_error, postgres_error=_write_error(store))
    return Overview(now, told, hosts_usd, paid_usd)


def _places(settings: Settings, *, has_paid: bool) -> dict[str, tuple[str, Lane]]:
    """Pool and lane of each queue."""
    pools = [*settings.own_pools, *([OVERFLOW] if has_paid else [])]
    return {queue_name(pool, lane): (pool, lane) for pool in pools for lane in Lane}


def _lanes(
    glance: Glance,
    settings: Settings,
    places: Mapping[str, tuple[str, Lane]],
    depths: Mapping[str, int],
    expected_s: Mapping[str, float | None],
    now: datetime,
) -> list[LaneFacts]:
    queues = list(places)
    present = glance.read("oldest waits", lambda db: observations.present(db, queues), None)
    lately, before = glance.read(
        "flows of queues", lambda db: [status.flows(db, queues, *span) for span in _spans(now)], [dict[str, Flow]()] * 2
    )
    return [
        LaneFacts(
            queue,
            pool,
            lane,
            depths.get(queue),
            None if present is None else present[queue].oldest_wait_s if queue in present else 0.0,
            expected_s[queue],
            settings.lane(lane, pool).max_wait_s,
            lately.get(queue, Flow()),
            before.get(queue, Flow()),
        )
        for queue, (pool, lane) in places.items()
    ]


def _unless_unknown(expected_wait_s: Callable[[str], float | None], queue: str) -> float | None:
    with suppress(BrokerUnavailable, StoreUnavailable):
        return expected_wait_s(queue)
    return None


def _write_error(store: Store) -> str | None:
    """What Postgres says when it is asked to take a write; None if it takes it."""
    try:
        with store.begin() as db:
            status.check_writable(db)
    except StoreUnavailable as error:
        return error.public_cause
    return None


def _hosts_usd(db: Connection, settings: Settings, now: datetime) -> Decimal:
    return sum(bills_so_far(db, HostTerms.of(settings), now - BEFORE, now).values(), Decimal())


def _spans(now: datetime) -> tuple[tuple[datetime, datetime], tuple[datetime, datetime]]:
    """Lately, and the hour before."""
    since = now - LATELY
    return (since, now), (since - BEFORE, since)


def _of_plugins(glance: Glance) -> list[Problem]:
    return [each for part in parts("health") for each in glance.read(part.__name__, part.problems, list[Problem]())]


def _facts(glance: Glance, settings: Settings, lanes: Sequence[LaneFacts], now: datetime) -> Facts:
    read = glance.read
    observed_at = read("samples", lambda db: observations.last_sample_at(db, now), None)
    pools = list(settings.own_pools)
    return Facts(
        lives=read("processes", processes.lives, []),
        left_hosts=read("hosts", status.left_hosts, set()),
        lanes=lanes,
        observed_s=None if observed_at is None else (now - observed_at).total_seconds(),
        late_s=read("webhooks", lambda db: deliveries.oldest_due(db, 1)[1], 0.0),
        receivers=read("webhooks", status.failing_receivers, []),
        paused=read("webhooks", deliveries.paused, []),
        of_plugins=_of_plugins(glance),
        accounts=read("budgets", lambda db: budgets.balances(db, settings.budgets).accounts, ()),
        ordered_s=read("hosts", status.oldest_orders_s, {}),
        failing_orders=read("decisions", lambda db: [pool for pool in pools if decisions.failing(db, pool)], []),
        scaling_alerts=read("decisions", lambda db: sorted(decisions.alerts_told(db)), []),
        preempted=read("samples", lambda db: status.preempted(db, LATELY), {}),
    )
