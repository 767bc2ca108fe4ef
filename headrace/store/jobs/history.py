"""One job's history for operators: its row, its attempts, its charges and its webhook, and all of it as events."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection, Row

from headrace.domain.ids import show_id
from headrace.domain.queues import Route
from headrace.errors import NotFound
from headrace.tables import apps, attempts, deliveries, job_retries, job_texts, jobs, ledger, workers


@dataclass(frozen=True, slots=True)
class History:
    """What the tables have about a job.

    Attributes:
        job: its row, with `app`, its owner's name, and `retried_as`, the id of the job that is its retry.
        attempts: in order, each with `worker`, its worker's name; None once that worker's row is deleted.
        charges: its rows in the ledger.
        deliveries: its webhook; empty once that is deleted.
        texts: prompt, sampling and answer; None if not requested, or erased.
    """

    job: Row[Any]
    attempts: Sequence[Row[Any]]
    charges: Sequence[Row[Any]]
    deliveries: Sequence[Row[Any]]
    texts: Row[Any] | None


def history(db: Connection, job_id: UUID, *, with_texts: bool = False) -> History:
    """Read a job's history, each table by its index on the job's id. Raises: NotFound."""
    job = db.execute(
        sa.select(jobs, apps.c.name.label("app"), job_retries.c.retried_as)
        .join(apps, apps.c.id == jobs.c.app_id)
        .outerjoin(job_retries, job_retries.c.job_id == jobs.c.id)
        .where(jobs.c.id == job_id)
    ).one_or_none()
    if job is None:
        raise NotFound(f"No job with id '{show_id(job_id)}'.")
    tries = (
        sa.select(attempts, workers.c.name.label("worker"), workers.c.host_id)
        .outerjoin(workers, workers.c.id == attempts.c.worker_id)
        .where(attempts.c.job_id == job_id)
        .order_by(attempts.c.number)
    )
    charges = sa.select(ledger).where(ledger.c.job_id == job_id).order_by(ledger.c.id)
    told = sa.select(deliveries).where(deliveries.c.job_id == job_id).order_by(deliveries.c.id)
    texts = sa.select(job_texts).where(job_texts.c.job_id == job_id)
    return History(
        job=job,
        attempts=db.execute(tries).all(),
        charges=db.execute(charges).all(),
        deliveries=db.execute(told).all(),
        texts=db.execute(texts).one_or_none() if with_texts else None,
    )


_TOKENS = ("prompt_tokens", "cached_tokens", "output_tokens")
_ENDED = ("outcome", "error_code", "model_served", *_TOKENS, "engine_s", "first_token_s", "preemptions", "reserved_usd")
_CHARGED = (
    *("kind", "attempt", "model", "host_id", *_TOKENS, "engine_s", "usd", "idle_usd", "api_usd", "saved_usd"),
    "price_version",
)
_DELIVERY = ("url", "state", "tries", "last_status", "last_error", "delivered_at")


@dataclass(frozen=True, slots=True)
class Event:
    """A past or future event of the job. `facts` holds its known details."""

    at: datetime
    name: str
    facts: Mapping[str, Any]


def timeline(found: History) -> Iterator[Event]:
    """Yield the events. If two events have the same time, the first one causes the other."""
    job = found.job
    yield Event(job.created_at, "accepted", _some(job, "lane", "overflow", "model_requested", "start_by", "finish_by"))
    if job.queued_at is not None:
        stay = _some(job, "queue", "route", "route_reason", "enqueue_no")
        yield Event(job.queued_at, "queued" if job.enqueue_no == 1 else "queued_again", stay)
    for each in found.attempts:
        began = {"attempt": each.number, **_some(each, "worker", "worker_id", "host_id", "engine")}
        yield Event(each.started_at, "attempt_started", began)
        if each.ended_at is not None:
            yield Event(each.ended_at, "attempt_ended", {"attempt": each.number, **_some(each, *_ENDED)})
    if job.served_by_job is not None:
        # An answer to the same question in other words is found while the job waits.
        at = job.ended_at if job.cache == "semantic" else job.created_at
        yield Event(at, "served_from_cache", {"cache": job.cache, "served_by": show_id(job.served_by_job)})
    if job.cancel_requested_at is not None:
        yield Event(job.cancel_requested_at, "cancel_requested", {})
    for each in found.charges:
        yield Event(each.at, "charged", _some(each, *_CHARGED, "estimated"))
    if job.state == "waiting" and job.not_before is not None:
        yield Event(job.not_before, "due_again", {})
    if job.ended_at is not None:
        ended = _some(job, "state", "finish_reason", "error_code", "usd")
        yield Event(job.ended_at, "ended", ended | message(found))
    for each in found.deliveries:
        due = {"next_at": plain(each.next_at)} if each.state == "pending" else {}
        about = {"id": f"evt_{each.id.hex}", "about": each.event}
        yield Event(each.created_at, "webhook", {**about, **_some(each, *_DELIVERY), **due})
    if job.erased_at is not None:
        yield Event(job.erased_at, "text_erased", {})


def message(found: History) -> dict[str, Any]:
    """The job's error message. The paid API's may quote the prompt, so it is shown only with the texts."""
    is_text = found.job.route == Route.OVERFLOW and found.texts is None
    return {} if is_text else _some(found.job, "error_message")


def _some(row: Row[Any], *names: str) -> dict[str, Any]:
    """The named columns that hold a value."""
    held = {name: plain(getattr(row, name)) for name in names}
    return {name: value for name, value in held.items() if value is not None and value is not False}


def plain(value: Any) -> Any:
    """A column's value for JSON."""
    match value:
        case datetime():
            return value.isoformat()
        case Decimal():
            return f"{value:f}"
        case UUID():
            return str(value)
        case float():
            return round(value, 3)
        case _:
            return value
