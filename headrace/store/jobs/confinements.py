"""Poison prompts, which killed an engine in which nothing else ran, and the apps that are confined for them.

A poison prompt is refused for a day. An app with several of them in a pool is confined there: its jobs run one at a
time, on one worker. A worker that has claimed a job of a confined app asks `enter`, and hands the job back if it is not
the job's turn. That job waits in Postgres until `give_turn` chooses it, or until the confinement ends. So it takes no
place in a queue, and no other app waits behind it.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection, Row
from sqlalchemy.dialects.postgresql import insert

from headrace.domain.apps import Confinement
from headrace.domain.attempts import Claim
from headrace.domain.queues import Lane, Route
from headrace.domain.states import JobState
from headrace.policies.retries import CONFINED, WITHIN_S, confinement
from headrace.store.states import IS_RUNNING, IS_WAITING
from headrace.tables import apps, confinements, jobs, poison_prompts, poison_strikes, workers

#: How long such a prompt is refused. Not for ever, since a new release may fix the engine.
REFUSED_FOR = timedelta(days=1)
#: The most poison prompts that a web process knows, the newest first. Each has cost two engine starts.
MOST_KNOWN = 10_000


def remember_poison(db: Connection, digest: bytes, job_id: UUID) -> None:
    """Refuse this prompt from now on. Safe to repeat."""
    added = insert(poison_prompts).values(digest=digest, job_id=job_id, refused_until=sa.func.now() + REFUSED_FOR)
    renewed = {name: added.excluded[name] for name in ("job_id", "refused_until")}
    db.execute(added.on_conflict_do_update(index_elements=["digest"], set_=renewed))


def refused_prompts(db: Connection) -> Mapping[bytes, datetime]:
    """The refused prompts' digests, each with the end of its refusal."""
    table = poison_prompts.c
    live = sa.select(table.digest, table.refused_until).where(table.refused_until > sa.func.now())
    rows = db.execute(live.order_by(table.refused_until.desc()).limit(MOST_KNOWN))
    return {bytes(row.digest): row.refused_until for row in rows}


def forget_poison(db: Connection) -> int:
    """Delete prompts that are no longer refused; returns how many."""
    over = sa.delete(poison_prompts).where(poison_prompts.c.refused_until <= sa.func.now())
    return len(db.execute(over.returning(poison_prompts.c.digest)).all())


#: How long strikes and past confinements stay for operators to see.
KEPT_FOR = timedelta(days=1)
#: The most apps and pools that one sweep goes through.
MOST = 1_000

_MINE = confinements.c
_IS_LIVE = _MINE.until > sa.func.now()
_LANES = {str(lane): place for place, lane in enumerate(Lane)}
#: A job that waits for its turn. `not_before` is the end of the confinement, as it was when the job began to wait.
IS_HELD = sa.and_(
    IS_WAITING,
    jobs.c.not_before > sa.func.now(),
    jobs.c.route == Route.POOL,
    jobs.c.route_reason.startswith(CONFINED, autoescape=True),
)


def strike(db: Connection, claim: Claim, confine_s: float) -> datetime | None:
    """Count a poison prompt against its app in its pool, and confine the app if it has too many. Safe to repeat.

    Returns: until when the app is confined; None if it is not.
    """
    # Two strikes at once must see each other. This lock does not keep the app's jobs from being inserted.
    db.execute(sa.select(apps.c.id).where(apps.c.id == claim.app_id).with_for_update(key_share=True))
    values = {"job_id": claim.job_id, "app_id": claim.app_id, "pool": claim.pool, "at": sa.func.now()}
    db.execute(insert(poison_strikes).values(**values).on_conflict_do_nothing())
    lately = (
        poison_strikes.c.app_id == claim.app_id,
        poison_strikes.c.pool == claim.pool,
        poison_strikes.c.at > sa.func.now() - timedelta(seconds=WITHIN_S),
    )
    strikes = db.scalar(sa.select(sa.func.count()).where(*lately)) or 0
    confine = confinement(strikes, confine_s)
    if confine is None:
        return None
    now = sa.func.now()
    until, next_at = (now + timedelta(seconds=each) for each in (confine.for_s, confine.pause_s))
    times = {"until": until, "next_at": next_at, "reason": confine.reason}
    added = insert(confinements).values(app_id=claim.app_id, pool=claim.pool, since=now, **times)
    since = sa.case((_IS_LIVE, _MINE.since), else_=now)
    renewed = {"since": since, **{name: added.excluded[name] for name in times}}
    added = added.on_conflict_do_update(index_elements=["app_id", "pool"], set_=renewed)
    confined_until: datetime = db.execute(added.returning(_MINE.until)).scalar_one()
    return confined_until


def enter(db: Connection, claim: Claim) -> float | None:
    """Let a claimed job run, if its app is not confined or it is the job's turn, and no other's until it has ended.

    Returns: None if it may run; otherwise for how many seconds its app stays confined.
    """
    # Its own statement: what follows must see all that was committed before the lock was got.
    locked = sa.select(confinements, (_MINE.until - sa.func.now()).label("left"), _bound_to().label("bound_to")).where(
        _MINE.app_id == claim.app_id, _MINE.pool == claim.pool, _IS_LIVE
    )
    row = db.execute(locked.with_for_update(of=confinements)).first()
    if row is None:
        return None
    is_elsewhere = row.bound_to not in (None, claim.worker_id)
    if is_elsewhere or db.scalar(sa.select(sa.or_(*_obstacles(row, claim.job_id)))):
        return float(row.left.total_seconds())
    this = (_MINE.app_id == claim.app_id, _MINE.pool == claim.pool)
    db.execute(sa.update(confinements).where(*this).values(job_id=claim.job_id, worker_id=claim.worker_id))
    return None


def _bound_to() -> sa.ScalarSelect[Any]:
    """The worker on which the app's jobs run; NULL for none, or if its lease has ended."""
    alive = sa.select(workers.c.id).where(workers.c.id == _MINE.worker_id, workers.c.lease_until > sa.func.now())
    return alive.correlate(confinements).scalar_subquery()


def _obstacles(row: Row[Any], but: UUID | None = None) -> Sequence[ColumnElement[bool]]:
    """Why no job of a confined app may start: the pause, the job whose turn it is, or those that ran before.

    Args: but: the job that wants to start, which is not in its own way.
    """
    others = [] if but is None else [jobs.c.id != but]
    is_on_its_way = sa.or_(
        jobs.c.state.in_((JobState.QUEUED, JobState.RUNNING)),
        sa.and_(jobs.c.state == JobState.WAITING, jobs.c.not_before <= sa.func.now()),
    )
    turn = sa.exists().where(jobs.c.id == row.job_id, is_on_its_way, *others)
    is_mine = (jobs.c.app_id == row.app_id, jobs.c.pool == row.pool, jobs.c.route == Route.POOL)
    before = sa.exists().where(IS_RUNNING, *is_mine, jobs.c.started_at < row.since, *others)
    return (sa.literal(row.next_at) > sa.func.now(), turn, before)


def give_turn(db: Connection) -> list[UUID]:
    """Choose the next job of each confined app without a running or due job: it is due from now on.

    Jobs that have started before come first, then the higher lanes, then the older jobs. Returns: the chosen jobs.
    """
    chosen = []
    live = sa.select(confinements).where(_IS_LIVE).order_by(_MINE.until).limit(MOST)
    for row in db.execute(live.with_for_update(skip_locked=True)).all():
        if db.scalar(sa.select(sa.or_(*_obstacles(row)))):
            continue
        if (job_id := _next(db, row)) is not None:
            this = (_MINE.app_id == row.app_id, _MINE.pool == row.pool)
            db.execute(sa.update(confinements).where(*this).values(job_id=job_id))
            chosen.append(job_id)
    return chosen


def _next(db: Connection, row: Row[Any]) -> UUID | None:
    """Make the next held job due; None if none is held."""
    lane = sa.case(_LANES, value=jobs.c.lane)
    mine = sa.select(jobs.c.id).where(IS_HELD, jobs.c.app_id == row.app_id, jobs.c.pool == row.pool)
    first = mine.order_by(jobs.c.started_at.is_(None), lane, jobs.c.id).limit(1).with_for_update(skip_locked=True)
    job_id: UUID | None = db.scalar(first)
    if job_id is not None:
        db.execute(sa.update(jobs).where(jobs.c.id == job_id).values(not_before=sa.func.now()))
    return job_id


def live(db: Connection, app_id: UUID | None = None) -> Mapping[tuple[UUID, str], Confinement]:
    """The confinements in force, by app and pool. Args: app_id: of this app alone."""
    # Materialized: found among the few jobs that wait, and never by way of all the jobs of the app.
    waiting = sa.select(jobs.c.app_id, jobs.c.pool).where(IS_HELD).cte("held").prefix_with("MATERIALIZED")
    is_same = (waiting.c.app_id == _MINE.app_id, waiting.c.pool == _MINE.pool)
    held = sa.select(sa.func.count()).select_from(waiting).where(*is_same).correlate(confinements).scalar_subquery()
    columns = (_MINE.app_id, _MINE.pool, _MINE.since, _MINE.until, _MINE.reason, held.label("held"))
    found = sa.select(*columns).where(_IS_LIVE).order_by(_MINE.pool)
    rows = db.execute(found if app_id is None else found.where(_MINE.app_id == app_id)).all()
    return {(row.app_id, row.pool): Confinement(row.pool, row.since, row.until, row.reason, row.held) for row in rows}


def lift(db: Connection, app_id: UUID) -> list[str]:
    """End an app's confinements, and forget its strikes. Its held jobs are due at once. Returns: the pools."""
    ended = db.scalars(sa.delete(confinements).where(_MINE.app_id == app_id, _IS_LIVE).returning(_MINE.pool)).all()
    db.execute(sa.delete(poison_strikes).where(poison_strikes.c.app_id == app_id))
    db.execute(sa.update(jobs).where(IS_HELD, jobs.c.app_id == app_id).values(not_before=sa.func.now()))
    return sorted(ended)


def forget_old(db: Connection) -> int:
    """Delete strikes and confinements that have long been over; returns how many."""
    before = sa.func.now() - KEPT_FOR
    strikes = sa.delete(poison_strikes).where(poison_strikes.c.at < before).returning(poison_strikes.c.job_id)
    over = sa.delete(confinements).where(_MINE.until < before).returning(_MINE.pool)
    return len(db.execute(strikes).all()) + len(db.execute(over).all())
