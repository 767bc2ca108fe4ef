"""What the operators' first page asks of Postgres, beyond what other parts ask too. Each query reads little."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal

import sqlalchemy as sa
from sqlalchemy import Connection

from headrace.domain.deliveries import FailingReceiver
from headrace.domain.fleet import Flow
from headrace.policies.health import BLOCKING_S, Blocker
from headrace.policies.webhooks import origin
from headrace.store.deliveries import IS_PAUSED
from headrace.store.fleet.observations import oldest_entry
from headrace.store.fleet.processes import LATELY
from headrace.tables import apps, attempts, deliveries, hosts, ledger, queue_samples, worker_samples
from headrace.tables.work import RECEIVER

#: Deliveries that are looked at for receivers that fail: those whose next try is due first.
LOOK_ROWS = 5_000
_FLOW = ("arrivals", "refused", "discounted", "started", "ended", "failed", "expired")
#: A write: a row lock needs a transaction id and a commit, which a standby, a read-only node and a full disk refuse.
#: Two probes do not wait for each other, and neither waits for a migration, which changes the row.
_WRITE = sa.text("SELECT FROM alembic_version FOR KEY SHARE SKIP LOCKED")
#: Sessions that block others, and holders of ACCESS EXCLUSIVE locks, which block even reads. An index build that waits
#: for old transactions (`virtualxid`) blocks nothing. Postgres shows pid, database, role and application of every
#: session, the rest only to a member of pg_read_all_stats.
_BLOCKERS = sa.text(
    """
    WITH waits AS (
        SELECT pid, pg_blocking_pids(pid) AS blockers FROM pg_locks WHERE NOT granted AND locktype <> 'virtualxid'
    ), holders AS (
        SELECT unnest(blockers) AS pid FROM waits
        UNION
        SELECT l.pid FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
        WHERE l.granted AND l.mode = 'AccessExclusiveLock' AND pg_table_is_visible(c.oid)
    )
    SELECT a.pid, coalesce(nullif(a.application_name, ''), a.backend_type, 'unnamed') AS application,
        a.usename AS user, host(a.client_addr) AS address, a.state,
        left(regexp_replace(a.query, '[[:cntrl:][:space:]]+', ' ', 'g'), 200) AS query,
        cast(extract(epoch FROM clock_timestamp() - a.xact_start) AS float) AS lasted_s,
        (SELECT count(DISTINCT pid) FROM waits) AS waiting
    FROM holders JOIN pg_stat_activity a USING (pid)
    WHERE a.datname = current_database() AND a.pid NOT IN (SELECT pid FROM waits)
        AND coalesce(a.xact_start < clock_timestamp() - make_interval(secs => :least_s), true)
    ORDER BY a.xact_start NULLS LAST LIMIT 5
    """
)


def revision(db: Connection) -> str | None:
    """The migration that Postgres is at; None where it has no tables of Headrace."""
    if db.scalar(sa.text("SELECT to_regclass('alembic_version')")) is None:
        return None
    applied: str | None = db.scalar(sa.text("SELECT max(version_num) FROM alembic_version"))
    return applied


def check_writable(db: Connection) -> None:
    """Return if Postgres takes writes. Raises: StoreUnavailable, by the connection's block."""
    db.execute(_WRITE)


def blockers(db: Connection) -> list[Blocker]:
    """The sessions that hold locks for long which others wait for, the oldest first. Reads no table of Headrace."""
    return [Blocker(**row._mapping) for row in db.execute(_BLOCKERS, {"least_s": BLOCKING_S})]


def flows(db: Connection, queues: Sequence[str], since: datetime, until: datetime) -> dict[str, Flow]:
    """What came and went in these queues, by their samples; a queue without samples is absent."""
    row = queue_samples.c
    sums = (sa.cast(sa.func.sum(row[name]), sa.BigInteger).label(name) for name in _FLOW)
    within = (row.queue.in_(queues), row.at > since, row.at <= until)
    found = db.execute(sa.select(row.queue, *sums).where(*within).group_by(row.queue)).mappings()
    return {each["queue"]: Flow(**{name: each[name] for name in _FLOW}) for each in found}


def preempted(db: Connection, within: timedelta) -> dict[str, int]:
    """By pool, the requests whose KV blocks were taken away lately; a pool without any is absent."""
    row = worker_samples.c
    count = sa.cast(sa.func.sum(row.preemptions), sa.BigInteger)
    lately = sa.select(row.pool, count.label("number")).where(row.taken_at > sa.func.now() - within).group_by(row.pool)
    return {each.pool: each.number for each in db.execute(lately.having(count > 0))}


def left_hosts(db: Connection) -> set[str]:
    """The names of hosts that were drained or ended lately, as their workers call them."""
    row = hosts.c
    left = sa.func.greatest(row.drain_at, row.ended_at) > sa.func.now() - LATELY
    rows = db.execute(sa.select(row.id, row.provider_id).where(left))
    return {name for names in rows for name in names if name is not None}


def oldest_orders_s(db: Connection) -> dict[str, float]:
    """By pool, the seconds since its oldest order whose host has not come."""
    row = hosts.c
    age_s = sa.cast(sa.extract("epoch", sa.func.now() - sa.func.min(row.ordered_at)), sa.Float)
    waiting = (row.ended_at.is_(None), row.drain_at.is_(None), row.ready_at.is_(None), row.ordered_at.is_not(None))
    oldest = sa.select(row.pool, age_s.label("age_s")).where(*waiting).group_by(row.pool)
    return {each.pool: each.age_s for each in db.execute(oldest)}


def paid_usd(db: Connection, since: datetime) -> Decimal:
    """Returns the cost of the paid API since then, failed calls included."""
    entry = ledger.c
    called = (attempts.c.job_id == entry.job_id, attempts.c.number == entry.attempt, attempts.c.engine == "openai")
    # Waste of a provider's batch has no attempt of its own.
    is_paid_waste = entry.price_version.like("%/batch") | sa.exists().where(*called)
    is_paid = (entry.kind == "api") | ((entry.kind == "waste") & is_paid_waste)
    new = (entry.id > oldest_entry(db, since), entry.at > since, is_paid)
    usd: Decimal = db.execute(sa.select(sa.func.coalesce(sa.func.sum(entry.usd), 0)).where(*new)).scalar_one()
    return usd


def failing_receivers(db: Connection) -> list[FailingReceiver]:
    """The receivers with deliveries that have failed and wait for their next try, those with most deliveries first.

    Without paused ones. An app may have a URL of its own for each job, so its URLs of one receiver are taken together.
    """
    row = deliveries.c
    has_failed = sa.or_(row.last_error.is_not(None), row.last_status.is_not(None))
    pending = row.state == sa.literal("pending", literal_execute=True)
    receiver = sa.literal_column(RECEIVER, sa.Text).label("receiver")
    look = sa.select(row.app_id, row.url, receiver, row.tries, row.last_error, row.last_status, row.next_at)
    each = look.where(pending, has_failed, ~IS_PAUSED).order_by(row.next_at).limit(LOOK_ROWS).subquery().c
    said = sa.func.coalesce(each.last_error, sa.cast(each.last_status, sa.Text))
    columns = (
        *(each.app_id, sa.func.max(each.url).label("url"), sa.func.count().label("deliveries")),
        sa.cast(sa.func.sum(each.tries), sa.BigInteger).label("tries"),
        sa.func.max(said).label("last_error"),
    )
    found = sa.select(*columns).group_by(each.app_id, each.receiver).subquery().c
    named = sa.select(apps.c.name, found.url, found.deliveries, found.tries, found.last_error)
    named = named.outerjoin_from(found.app_id.table, apps, apps.c.id == found.app_id)
    rows = db.execute(named.order_by(found.deliveries.desc(), found.url)).all()
    return [FailingReceiver(app, origin(url), count, tries, said) for app, url, count, tries, said in rows]
