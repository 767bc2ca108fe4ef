"""One job's history for operators: its row, its attempts, its charges and its webhook."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection, Row

from headrace.domain.ids import show_id
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
