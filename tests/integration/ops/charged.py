"""Rows of a month that is over and of the last hour: closed and open hours, discounts, waste, corrections and a bill.

What own hosts cost and what they serve is in four hours of that month, of which three are closed.
"""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import sqlalchemy as sa

from headrace.config import CostSettings, OwnedHostSettings
from headrace.domain.apps import App
from headrace.domain.ids import new_id
from headrace.store import Store
from headrace.store.money import cost_hours
from headrace.store.money.host_hours import HostTerms, OwnedHost
from headrace.tables import attempts, budgets, hosts, jobs, label_keys, ledger, own_prices, queue_samples, refusals
from ops.money import before, month_of
from plugins.batches.domain import noted
from plugins.batches.tables import batches

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
#: The prices of BUSY add up to more than its bill. Hosts are idle in CLOSED and NEXT.
MONTH = before(month_of(None, datetime.now(UTC)))
BUSY, CLOSED, NEXT, OPEN = (MONTH + timedelta(days=9, hours=hour) for hour in (8, 9, 10, 11))
#: What the hosts of each closed hour cost, and the part of it for an owned machine without a worker.
BILLS = {BUSY: (Decimal(4), Decimal(0)), CLOSED: (Decimal(7), Decimal("1.5")), NEXT: (Decimal(7), Decimal(3))}
#: What hosts cost before they were ready: a quarter of an hour.
BOOT_USD = Decimal(1)
HOST_HOURS, DEAD_HOURS = 5, Decimal("1.5")
_SHARED = ", ".join(f"(timestamptz '{at}', {usd - dead})" for at, (usd, dead) in BILLS.items())
#: The ledger, with what each entry costs with its share of idle hosts. Of the bill without dead machines a request pays
#: its price, or less where the prices add up to more; what the prices leave is shared by work.
ENTRIES = f"""
    WITH bills (hour, shared) AS (VALUES {_SHARED}
    ), own AS (
        SELECT id, kind, usd, date_trunc('hour', at, 'UTC') AS hour,
               prompt_tokens - 0.9 * cached_tokens + 4 * output_tokens AS work
        FROM ledger l
        WHERE kind = 'compute' OR kind = 'waste' AND EXISTS (
            SELECT FROM attempts a WHERE a.job_id = l.job_id AND a.number = l.attempt AND a.engine = 'vllm')
    ), hours AS (
        SELECT hour, shared, sum(usd) AS prices, sum(work) FILTER (WHERE kind = 'compute') AS work
        FROM own JOIN bills USING (hour)
        GROUP BY hour, shared
    ), entries AS (
        SELECT l.*, coalesce(l.usd * least(1, h.shared / h.prices)
                             + greatest(h.shared - h.prices, 0) * o.work / h.work, l.usd) AS full_usd
        FROM ledger l
        LEFT JOIN own o ON o.id = l.id AND l.kind = 'compute'
        LEFT JOIN hours h USING (hour)
    )
"""


def charge(store: Store, app: App, job_ids: list[UUID]) -> UUID:
    """Fill the tables; returns the id of a batch whose three jobs ended in a closed and in the open hour, and lately.

    Of the charges of the month some are in closed hours, some in an open one, some are waste of own hosts and of the
    paid API, and one is a correction. Some name their end user, and jobs have labels. Of the refusals most are
    discounted.

    Args: job_ids: six.
    """
    with store.begin() as db:
        batch_id = _batch(db, app, job_ids[:3])
        _charges(db, app, job_ids)
        _hosts(db)
        _demand(db, app)
        _money(db, app)
    return batch_id


def _hosts(db: sa.Connection) -> None:
    """A host in all four hours, and an owned machine in two, whose worker ran for the first half an hour."""
    lease = {"pool": "chat", "instance_type": "big", "end_reason": "gone"}
    for name, usd, begin, ready, end in (
        ("box", 4, BUSY, BUSY + 15 * MINUTE, OPEN + HOUR),
        ("own-1", 3, CLOSED, CLOSED, CLOSED + HOUR / 2),
    ):
        times = {"requested_at": begin, "ordered_at": begin, "ready_at": ready, "ended_at": end}
        db.execute(sa.insert(hosts).values(id=name, usd_per_hour=usd, **lease, **times))
    owned = OwnedHostSettings(name="own-1", type="big", since=CLOSED, until=OPEN)
    for bill in cost_hours.open_bills(db, HostTerms(owned=[OwnedHost(owned, Decimal(3), ["chat"])])):
        if bill.hour < OPEN:
            cost_hours.close_hour(db, bill, CostSettings())
    rate = {"pool": "chat", "instance_type": "big", "usd_per_hour": 4, "tokens_per_s": 1, "work_per_token": 2}
    amounts = {f"{name}_usd_per_mtok": 1 for name in ("input", "cached_input", "output")}
    db.execute(sa.insert(own_prices).values(**rate, **amounts))


def _charges(db: sa.Connection, app: App, job_ids: list[UUID]) -> None:
    now = datetime.now(UTC)
    lately = max(now - 10 * MINUTE, month_of(None, now))
    for job_id, number, engine in ((job_ids[3], 1, "vllm"), (job_ids[3], 2, "vllm"), (job_ids[4], 1, "openai")):
        failed = {"worker_id": new_id(), "started_at": lately, "engine": engine}
        db.execute(sa.insert(attempts).values(job_id=job_id, number=number, **failed))
    # Kind, time, USD, USD at the paid API, job, attempt.
    rows = [
        *[("api", MONTH - HOUR, "0.20", "0.20", None, 1)] * 6,
        *[("compute", BUSY, "2", "0.5", None, 1)] * 3,
        *[("compute", CLOSED, "0.05", "0.20", None, 1)] * 6,
        *[("compute", NEXT, "0.03", "0.11", None, 1)] * 3,
        *[("compute", OPEN, "0.05", "0.20", None, 1)] * 11,
        ("compute", CLOSED + MINUTE, "0.07", "0.30", job_ids[0], 1),
        ("compute", OPEN + MINUTE, "0.05", "0.20", job_ids[1], 1),
        ("compute", lately, "0.0000004", "0.20", job_ids[2], 1),
        ("waste", BUSY, "0.60", None, job_ids[3], 2),
        ("waste", CLOSED, "0.30", None, job_ids[3], 1),
        ("waste", lately, "0.000402", None, job_ids[4], 1),
        ("api", lately, "0.0005", "0.0005", job_ids[5], 1),
        ("api", CLOSED, "0.20", "0.20", None, 1),
        ("adjustment", lately, "-0.0001", None, job_ids[5], 1),
    ]
    # In the order of time, as they are written.
    for number, (kind, at, amount, api, job_id, attempt) in enumerate(sorted(rows, key=lambda row: row[1])):
        usage = {"app_id": app.id, "pool": "chat", "model": "m", "job_id": job_id or new_id(), "attempt": attempt}
        tokens = {"prompt_tokens": 100, "cached_tokens": 10 * (number % 3), "output_tokens": 20 + number}
        # One end user before the month, three in it, and some entries without.
        user = "user-0" if at < MONTH else f"user-{number % 3}"
        price = {"usd": Decimal(amount), "api_usd": api and Decimal(api), "end_user": user if number % 4 else None}
        db.execute(sa.insert(ledger).values(kind=kind, at=at, **usage, **tokens, **price))
    db.execute(sa.insert(label_keys).values(key="team"))
    for job_id, team in zip(job_ids, ("search", "mail", "search", "mail", "mail", None), strict=True):
        # No other key of the metadata is a label.
        db.execute(sa.update(jobs).where(jobs.c.id == job_id).values(metadata=team and {"team": team, "note": "n"}))
    paid = {"state": "succeeded", "usd": Decimal("0.0004"), "cache": "miss", "ended_at": sa.func.now()}
    db.execute(sa.update(jobs).where(jobs.c.id == job_ids[5]).values(**paid, started_at=lately))


def _batch(db: sa.Connection, app: App, job_ids: list[UUID]) -> UUID:
    batch_id = new_id()
    row = {"app_id": app.id, "state": "in_progress", "endpoint": "/v1/responses", "input_file_id": new_id()}
    counts = {"total": 7, "completed": 3, "failed": 1, "usd": Decimal("0.1200004"), "completion_window": "24h"}
    metadata = {"team": "search", "secret": "s"}
    times = {"expires_at": sa.func.now() + HOUR}
    db.execute(sa.insert(batches).values(id=batch_id, **row, **counts, **times, overflow="allow", metadata=metadata))
    db.execute(sa.update(jobs).where(jobs.c.id.in_(job_ids)).values(notes=noted(batch_id)))
    return batch_id


def _demand(db: sa.Connection, app: App) -> None:
    now = datetime.now(UTC)
    for minute, reason, is_repeat, count in (
        *((3, "depth", False, 11), (3, "depth", True, 50), (3, "wait", False, 6)),
        *((3, "app_jobs", False, 9), (3, "budget", False, 5)),
    ):
        row = {"minute": now - minute * MINUTE, "app_id": app.id, "queue": "chat.normal", "reason": reason}
        db.execute(sa.insert(refusals).values(**row, is_repeat=is_repeat, jobs=count, tokens=24 * count))
    for minute, arrivals, refused, discounted in ((3, 40, 8, 50), (2, 2, 3, 6), (40, 20, 4, 8)):
        came = {"arrivals": arrivals, "refused": refused, "discounted": discounted, "failed": 2, "expired": 1}
        more = {"depth": 4, "oldest_wait_s": 3.0, "started": 3, "running": 2, "slots": 8, "hosts": 1}
        at = now - minute * MINUTE
        db.execute(sa.insert(queue_samples).values(queue="chat.normal", at=at, offered_tokens=9, **came, **more))


def _money(db: sa.Connection, app: App) -> None:
    day = sa.func.date_trunc("day", sa.func.now(), "UTC")
    account = {"app_id": app.id, "period": "day", "starts_at": day}
    amounts = {"spent_usd": Decimal("0.000902"), "reserved_usd": Decimal("0.5")}
    db.execute(sa.insert(budgets).values(id=new_id(), **account, **amounts))
