"""Reads what is known of the running system, for `policies.health` and the first page of the operators.

Reads it in one connection, and what a server does not tell stays unknown: the page that says what is wrong must not
fail with it.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from sqlalchemy import Connection

from headrace.broker.admission import Admission
from headrace.config import Settings
from headrace.domain.fleet import Flow
from headrace.domain.queues import OVERFLOW, Lane, queue_name
from headrace.errors import BrokerUnavailable, StoreUnavailable
from headrace.policies.health import Facts, LaneFacts
from headrace.store import Store, batches, clock, deliveries, provider_batches
from headrace.store.fleet import decisions, observations, processes, status, workers
from headrace.store.money import bills, budgets
from headrace.store.money.host_hours import HostTerms, bills_so_far

#: What "lately" is, and what it is compared with.
LATELY, BEFORE = timedelta(minutes=15), timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Overview:
    """The running system at one moment.

    Attributes:
        hosts_usd, paid_usd: what hosts and answers of the paid API have cost in the last hour.
    """

    now: datetime
    facts: Facts
    hosts_usd: Decimal
    paid_usd: Decimal


def read(
    store: Store, admission: Admission, settings: Settings, expected_wait_s: Callable[[str], float | None]
) -> Overview:
    """Args: expected_wait_s: of a job that came into this queue now. Raises: StoreUnavailable."""
    pools = [*settings.own_pools, *([OVERFLOW] if settings.openai_api_key else [])]
    places = {queue_name(pool, lane): (pool, lane) for pool in pools for lane in Lane}
    redis_error, depths = None, dict[str, int]()
    try:
        admission.check_writable()
        depths = {queue: load.jobs for queue, load in admission.loads(list(places)).items()}
    except BrokerUnavailable as error:
        redis_error = error.public_cause
    with store.read() as db:
        present = observations.present(db, list(places))
        now = clock.now(db)
        lately, before = (status.flows(db, list(places), *span) for span in _spans(now))
        lanes = [
            LaneFacts(
                queue,
                pool,
                lane,
                depths.get(queue),
                present[queue].oldest_wait_s if queue in present else 0.0,
                None if redis_error else _unless_unknown(expected_wait_s, queue),
                settings.lane(lane, pool).max_wait_s,
                lately.get(queue, Flow()),
                before.get(queue, Flow()),
            )
            for queue, (pool, lane) in places.items()
        ]
        facts = _facts(db, settings, lanes, redis_error, _write_error(store))
        return Overview(now, facts, _hosts_usd(db, settings, now), status.paid_usd(db, now - BEFORE))


def _unless_unknown(expected_wait_s: Callable[[str], float | None], queue: str) -> float | None:
    with suppress(BrokerUnavailable):
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


def _facts(
    db: Connection,
    settings: Settings,
    lanes: Sequence[LaneFacts],
    redis_error: str | None,
    postgres_error: str | None,
) -> Facts:
    now, pools = clock.now(db), list(settings.own_pools)
    observed_at = observations.last_sample_at(db, now)
    open_batches, sent = batches.open_batches(db).batches, provider_batches.under_way(db)
    return Facts(
        redis_error=redis_error,
        postgres_error=postgres_error,
        lives=processes.lives(db),
        left_hosts=status.left_hosts(db),
        lanes=lanes,
        fleets=workers.fleets(db),
        observed_s=None if observed_at is None else (now - observed_at).total_seconds(),
        late_s=deliveries.oldest_due(db, 1)[1],
        receivers=status.failing_receivers(db),
        paused=deliveries.paused(db),
        open_batches=sum(open_batches.values()),
        bill_differences=bills.difference_shares(db),
        unsent_s=sent.unsent_s,
        at_provider_s=sent.oldest_s,
        accounts=budgets.balances(db, settings.budgets).accounts,
        ordered_s=status.oldest_orders_s(db),
        failing_orders=[pool for pool in pools if decisions.failing(db, pool)],
        scaling_alerts=sorted(decisions.alerts_told(db)),
        preempted=status.preempted(db, LATELY),
        has_key=settings.openai_api_key is not None,
    )
