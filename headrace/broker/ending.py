"""The use cases that end a job from outside: its caller cancels it, or reads it after its time. Knows no HTTP."""

import logging
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Row

from headrace.broker.admission import Admission
from headrace.domain.jobs import Job
from headrace.domain.queues import Ticket
from headrace.domain.states import JobState
from headrace.errors import BrokerUnavailable
from headrace.store import Store, jobs
from headrace.store.bad_rows import BadRows
from headrace.store.cache import exact_cache

log = logging.getLogger(__name__)


def read(store: Store, admission: Admission, app_id: UUID, job_id: UUID) -> Job:
    """The app's job as it stands. A job whose time is over is ended here: its reader need not wait for the sweep.

    So is a job that shares the answer of another that has succeeded.

    Raises: NotFound. StoreUnavailable.
    """
    with store.autocommit() as db:
        job = jobs.find(db, app_id, job_id)
    return ended_if_over(store, admission, job)


def ended_if_over(store: Store, admission: Admission, job: Job) -> Job:
    """The job; if its time is over, it is ended first. A job that Postgres refuses to end is returned as it was read.

    Raises: NotFound. StoreUnavailable.
    """
    if job.is_leader_ended:
        job = _settled(store, job)
    if not job.is_over:
        return job

    def end(db: Connection, _: Sequence[Job]) -> list[tuple[list[Ticket], Job]]:
        return [(jobs.expire(db, [job.id]), jobs.find(db, job.app_id, job.id))]

    done, _ = BadRows("read").move(store, lambda *_: [job], end, most=2)
    if not done:
        return job
    [(tickets, now)] = done
    _give_back(admission, tickets)
    return now


def _settled(store: Store, job: Job) -> Job:
    """The job with its leader's answer; as it was if there is none, for then the sweep moves it on."""

    def choose(db: Connection, *_: ColumnElement[bool]) -> Sequence[Row[Any]]:
        return exact_cache.with_ended_leader(db, job.id)

    done, _ = BadRows("read").move(store, choose, exact_cache.serve_followers, most=2)
    if not done:
        return job
    with store.autocommit() as db:
        return jobs.find(db, job.app_id, job.id)


def cancel(store: Store, admission: Admission, app_id: UUID, job_id: UUID) -> Job:
    """Cancel the app's job. Its worker stops a running job soon. Raises: NotFound. StoreUnavailable."""
    with store.begin() as db:
        job = jobs.cancel(db, app_id, job_id)
    give_back_cancelled(admission, job)
    return job


def give_back_cancelled(admission: Admission, job: Job) -> None:
    """Free the place of a job whose cancel is committed, and wake its readers, if it has ended."""
    if job.state is JobState.CANCELLED:
        _give_back(admission, [job.ticket])


def _give_back(admission: Admission, ended: Sequence[Ticket]) -> None:
    """Take ended jobs out of their queues, and wake their readers."""
    if not ended:
        return
    try:
        admission.remove(ended)
        job_ids = [ticket.job_id for ticket in ended]
        admission.announce_ended(job_ids, moved=job_ids)
    except BrokerUnavailable as error:
        # The message finds nothing to claim, `reconcile_admission` frees the place, and readers look again anyway.
        log.warning("end_not_announced", extra={"jobs": len(ended), "error": str(error)})
