"""Rows in every table that the pages read. Each text that a role may not see has a word of its own in it."""

from datetime import timedelta
from decimal import Decimal
from uuid import UUID

import sqlalchemy as sa

from headrace.domain.apps import App
from headrace.domain.attempts import AttemptEnd, Usage
from headrace.domain.fleet import WorkerInfo
from headrace.domain.ids import new_id
from headrace.domain.limits import Cost
from headrace.domain.queues import Lane, queue_name
from headrace.domain.states import JobState
from headrace.store import Store
from headrace.store.fleet import workers
from headrace.tables import (
    budgets,
    cost_hours,
    decisions,
    deliveries,
    hosts,
    job_texts,
    jobs,
    ledger,
    own_prices,
    queue_samples,
)
from plugins.batches.domain import noted
from plugins.batches.tables import batch_lines, batches
from tests import one_attempt

#: In prompts, answers, errors that quote a prompt, and all of a webhook's URL but its host.
CANARY = "CANARY"
HOOK = f"https://user:{CANARY}@hooks.example.com/{CANARY}?token={CANARY}"
HOUR = timedelta(hours=1)


def fill(store: Store, app: App, job_ids: list[UUID]) -> None:
    """Let the first queued job succeed and the second fail at the paid API, and fill the other tables.

    The other jobs wait.
    """
    worker = WorkerInfo(new_id(), "gpu@test", "host-1", "chat", "simulator", "served", 8, 2048, 65_536, 16)
    with store.begin() as db:
        workers.register(db, worker, 60)
        _end(store, db, worker.id, *job_ids[:2])
        db.execute(sa.update(jobs).values(webhook_url=HOOK, metadata={"note": CANARY}))
        _samples(db)
        _hosts(db)
        _money(db, app)
        _batch(db, app, job_ids)


def _end(store: Store, db: sa.Connection, worker_id: UUID, good: UUID, bad: UUID) -> None:
    cost, usage = Cost(Decimal("0.00000123"), "test-1"), Usage(9, 7, 2)
    for job_id, outcome in ((good, "succeeded"), (bad, "failed")):
        claim = one_attempt.claim(db, job_id, 1, worker_id, "simulator")
        assert claim is not None
        end = AttemptEnd(
            outcome, 0.5, cost, "compute" if outcome == "succeeded" else "waste", usage, f"{CANARY} answer"
        )
        one_attempt.finish(db, claim, JobState(outcome), end)
    failure = {"error_code": "prompt_rejected", "error_message": f"{CANARY} is not allowed", "route": "overflow"}
    db.execute(sa.update(jobs).where(jobs.c.id == bad).values(**failure))
    db.execute(sa.update(job_texts).values(reasoning=f"{CANARY} thought"))
    row = {"job_id": bad, "event": "job.failed", "url": HOOK, "state": "failed", "tries": 3, "last_status": 500}
    db.execute(sa.insert(deliveries).values(id=new_id(), app_id=_owner(db, bad), **row))


def _batch(db: sa.Connection, app: App, job_ids: list[UUID]) -> None:
    """A batch of four lines, of which one is in each state that jobs of this app have."""
    row = {
        **{"id": new_id(), "app_id": app.id, "state": "in_progress", "endpoint": "/v1/responses", "model": "served"},
        **{"input_file_id": new_id(), "completion_window": "24h", "overflow": "never", "metadata": {"note": CANARY}},
        **{"webhook_url": HOOK, "total": 4, "completed": 1, "failed": 1, "usd": Decimal("0.5")},
        **{"expires_at": sa.func.now() + HOUR, "in_progress_at": sa.func.now()},
        "errors": [{"code": "invalid_body", "message": f"{CANARY} is wrong", "line": 7, "param": None}],
    }
    db.execute(sa.insert(batches).values(row))
    for number, (job_id, state) in enumerate(
        zip(job_ids, ("succeeded", "failed", "submitted", "waiting"), strict=True)
    ):
        line = {"batch_id": row["id"], "number": number, "custom_id": f"row-{number}", "state": state}
        texts = {"prefix": f"{CANARY} prefix", "body": f'{{"input": "{CANARY}"}}'}
        db.execute(sa.insert(batch_lines).values(**line, **texts, job_id=None if state == "waiting" else job_id))
        db.execute(sa.update(jobs).where(jobs.c.id == job_id).values(notes=noted(row["id"])))


def _owner(db: sa.Connection, job_id: UUID) -> UUID:
    owner: UUID = db.execute(sa.select(jobs.c.app_id).where(jobs.c.id == job_id)).scalar_one()
    return owner


def _samples(db: sa.Connection) -> None:
    rows = [
        {
            **{
                "queue": queue_name("chat", lane),
                "at": sa.func.now() - timedelta(minutes=minute),
                "depth": 40 - minute,
            },
            **{"oldest_wait_s": 3.0, "arrivals": 4, "refused": 0, "started": 3, "running": 2, "slots": 8},
            **{"hosts": 1 + (minute < 20), "offered_tokens": 900, "kv_use": 0.5 + minute / 100},
        }
        for lane in Lane
        for minute in range(40)
    ]
    for row in rows:
        db.execute(sa.insert(queue_samples).values(**row))


def _hosts(db: sa.Connection) -> None:
    common = {"pool": "chat", "mode": "active", "inputs": {}, "hosts": 1, "policy": "reactive"}
    up = sa.insert(decisions).values(**common, target=2, action="up", reason="Depth grows.")
    decision_id = db.execute(up.returning(decisions.c.id)).scalar_one()
    down = {"target": 1, "action": "down", "reason": "One host is spare."}
    db.execute(sa.insert(decisions).values(**common, **down))
    lease = {"pool": "chat", "instance_type": "big", "usd_per_hour": Decimal(2), "requested_at": sa.func.now() - HOUR}
    times = {"ordered_at": sa.func.now() - HOUR, "ready_at": sa.func.now() - HOUR / 2}
    for name, more in (
        ("host-1", {"is_adopted": True}),
        ("host-2", {"decision_id": decision_id}),
        ("host-3", {"drain_at": sa.func.now(), "end_reason": "by_hand"}),
        ("host-4", {"drain_at": sa.func.now(), "ended_at": sa.func.now(), "end_reason": "by_hand"}),
    ):
        db.execute(sa.insert(hosts).values(id=name, **lease, **times, **more))


def _money(db: sa.Connection, app: App) -> None:
    day = sa.func.date_trunc("day", sa.func.now(), "UTC")
    account = {"app_id": app.id, "period": "day", "starts_at": day, "spent_usd": Decimal("0.9")}
    db.execute(sa.insert(budgets).values(id=new_id(), **account))
    for kind, usd in (("compute", "0.4"), ("api", "0.7")):
        charge = {"app_id": app.id, "pool": "chat", "model": "served", "api_usd": Decimal("0.6"), "engine_s": 1.0}
        tokens = {"prompt_tokens": 100, "cached_tokens": 0, "output_tokens": 50}
        hour = sa.func.date_trunc("hour", sa.func.now(), "UTC")
        db.execute(sa.insert(ledger).values(kind=kind, usd=Decimal(usd), at=hour, **charge, **tokens))
    hour = sa.func.date_trunc("hour", sa.func.now(), "UTC")
    numbers = {"host_s": 3600, "boot_s": 60, "unpriced_hosts": 0, "bill_usd": 2, "boot_usd": Decimal("0.03")}
    shares = {"requests": 1, "work": 150, "compute_usd": Decimal("0.4"), "waste_usd": 0, "factor": 1}
    rest = {"idle_usd_per_work": 0, "platform_usd": Decimal("1.6"), "weigh_by": "tokens", "cached_weight": 1}
    db.execute(
        sa.insert(cost_hours).values(
            pool="chat", hour=hour, **numbers, **shares, **rest, output_weight=4, closed_at=sa.func.now()
        )
    )
    price = {"usd_per_hour": 2, "tokens_per_s": 400.0, "work_per_token": 2.0, "input_usd_per_mtok": 1}
    more = {"cached_input_usd_per_mtok": 1, "output_usd_per_mtok": 4, "instance_type": "big"}
    db.execute(sa.insert(own_prices).values(pool="chat", **price, **more))
