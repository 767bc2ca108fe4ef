"""Jobs for operators: lists of all apps' jobs, one job's history, and retries.

A job ends once, with one result and one bill. Its retry is another job, whose `retry_of` names it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection, Row

from headrace.domain.ids import new_id, oldest_id, show_id, time_of
from headrace.domain.operators import OperatorAction
from headrace.domain.queues import Lane, Route
from headrace.domain.states import SUSPECT, JobState
from headrace.errors import EngineCrash, InvalidRequest, JobNotEnded
from headrace.installed import plugins
from headrace.store import audit
from headrace.store.audit import Entry, WantedEntries
from headrace.store.jobs import not_found
from headrace.tables import apps, attempts, deliveries, job_retries, job_texts, jobs, ledger, workers

#: The most jobs that one list reads, in about 0.1 s.
LOOK_ROWS = 100_000
#: States with a partial index of their own.
_INDEXED = frozenset({JobState.FAILED, JobState.QUEUED, JobState.WAITING, JobState.RUNNING})


@dataclass(frozen=True, slots=True)
class ListedJob:
    """One job of a list.

    Attributes:
        app: its owner's name.
        retry_of: the failed job that it retries.
    """

    id: UUID
    app: str
    state: JobState
    lane: Lane
    queue: str
    attempt: int
    error_code: str | None
    error_message: str | None
    usd: Decimal
    created_at: datetime
    ended_at: datetime | None
    retry_of: UUID | None
    end_user: str | None
    model_requested: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which jobs are listed.

    Attributes:
        app_id: only jobs of this app.
        is_dead: only failed jobs that were not retried.
        since, until: only jobs accepted at or after `since` and before `until`, by the time in their ids.
        before: only jobs with a smaller id: those after the last one of a page.
        error_code, end_user, model: only jobs with these values.
        note: only jobs of which this plugin has noted this text.
        queue: only jobs that are or were in this queue.
        metadata: only jobs whose metadata has this key with this value.
    """

    app_id: UUID | None = None
    is_dead: bool = False
    state: JobState | None = None
    lane: Lane | None = None
    since: datetime | None = None
    until: datetime | None = None
    before: UUID | None = None
    error_code: str | None = None
    end_user: str | None = None
    model: str | None = None
    note: tuple[str, str] | None = None
    queue: str | None = None
    metadata: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class StateTotal:
    """The listed jobs of one state."""

    state: JobState
    jobs: int
    usd: Decimal


def newest(db: Connection, wanted: Wanted, limit: int) -> list[ListedJob]:
    """The newest wanted jobs, newest first, among the `LOOK_ROWS` newest that an index finds."""
    near, conditions = _wanted(wanted)
    read = [near.c[field.name] for field in fields(ListedJob) if field.name != "app"]
    statement = sa.select(apps.c.name.label("app"), *read).join(apps, apps.c.id == near.c.app_id).where(*conditions)
    rows = db.execute(statement.order_by(near.c.id.desc()).limit(limit))
    return [ListedJob(**{**row._mapping, "state": JobState(row.state)}) for row in rows]


def totals(db: Connection, wanted: Wanted) -> list[StateTotal]:
    """The wanted jobs among the same newest ones, by their states."""
    near, conditions = _wanted(wanted)
    usd = sa.func.coalesce(sa.func.sum(near.c.usd), 0)
    rows = db.execute(sa.select(near.c.state, sa.func.count(), usd).where(*conditions).group_by(near.c.state))
    found = {JobState(state): StateTotal(JobState(state), count, amount) for state, count, amount in rows}
    return [found[state] for state in JobState if state in found]


def _wanted(wanted: Wanted) -> tuple[sa.Subquery, list[sa.ColumnElement[bool]]]:
    """The newest jobs that an index finds, and the conditions that none serves."""
    near = _near(wanted).order_by(jobs.c.id.desc()).limit(LOOK_ROWS).subquery()
    narrow = {
        near.c.state: wanted.state,
        near.c.lane: wanted.lane,
        near.c.error_code: wanted.error_code,
        near.c.end_user: wanted.end_user,
        near.c.model_requested: wanted.model,
        near.c.queue: wanted.queue,
    }
    conditions = [column == value for column, value in narrow.items() if value is not None]
    if wanted.is_dead:
        again = sa.select(job_retries.c.job_id).where(job_retries.c.job_id == near.c.id)
        conditions.append(~again.exists())
    if wanted.metadata is not None:
        key, value = wanted.metadata
        conditions.append(near.c.metadata[key].astext == value)
    return near, conditions


def looked_back_to(db: Connection, wanted: Wanted) -> datetime | None:
    """The `until` for the next list, which continues after the `LOOK_ROWS`; None if no older jobs exist."""
    older = _near(wanted).order_by(jobs.c.id.desc()).offset(LOOK_ROWS).limit(1)
    row = db.execute(older).one_or_none()
    return None if row is None else time_of(row.id) + timedelta(seconds=1)


def _near(wanted: Wanted) -> sa.Select[Any]:
    """Select by the conditions that an index serves: the key, the app, a note, and the states in `_INDEXED`."""
    columns = (jobs.c[field.name] for field in fields(ListedJob) if field.name != "app")
    statement = sa.select(*columns, jobs.c.app_id, jobs.c.metadata)
    if wanted.app_id is not None:
        statement = statement.where(jobs.c.app_id == wanted.app_id)
    if wanted.note is not None:
        plugin, text = wanted.note
        # The plugin's name as a literal, as its index has it.
        statement = statement.where(jobs.c.notes.op("->>")(sa.literal(plugin, literal_execute=True)) == text)
    if wanted.since is not None:
        statement = statement.where(jobs.c.id >= oldest_id(wanted.since))
    if wanted.until is not None:
        statement = statement.where(jobs.c.id < oldest_id(wanted.until))
    if wanted.before is not None:
        statement = statement.where(jobs.c.id < wanted.before)
    state = JobState.FAILED if wanted.is_dead else wanted.state
    if state in _INDEXED:
        # A literal: the planner cannot match a parameter with a partial index's condition.
        statement = statement.where(jobs.c.state == sa.literal_column(f"'{state}'"))
    return statement


def outcomes(db: Connection, job_ids: Sequence[UUID]) -> list[tuple[UUID, str, str | None, str | None]]:
    """Id, state and error code of the given jobs, and the worker that their last attempt was lost with, if it was."""
    last = sa.and_(attempts.c.job_id == jobs.c.id, attempts.c.number == jobs.c.attempt, attempts.c.outcome == "lost")
    source = jobs.outerjoin(attempts, last).outerjoin(workers, workers.c.id == attempts.c.worker_id)
    found = sa.select(jobs.c.id, jobs.c.state, jobs.c.error_code, workers.c.name).select_from(source)
    return [tuple(row) for row in db.execute(found.where(jobs.c.id.in_(job_ids)))]


@dataclass(frozen=True, slots=True)
class History:
    """What the tables have about a job.

    Attributes:
        job: its row, with `app`, its owner's name, and `retried_as`, the id of the job that is its retry.
        attempts: by their starts, each with `worker`, its worker's name; None once that worker's row is deleted.
        charges: its rows in the ledger.
        deliveries: its webhook; empty once that is deleted.
        deeds: what operators did to it and to what plugins note of it, and the retry that made it, as the audit log
            has it.
        texts: prompt, sampling and answer; None if not requested, or erased.
    """

    job: Row[Any]
    attempts: Sequence[Row[Any]]
    charges: Sequence[Row[Any]]
    deliveries: Sequence[Row[Any]]
    deeds: Sequence[Entry]
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
        raise not_found(job_id)
    tries = (
        sa.select(attempts, workers.c.name.label("worker"), workers.c.host_id)
        .outerjoin(workers, workers.c.id == attempts.c.worker_id)
        .where(attempts.c.job_id == job_id)
        .order_by(attempts.c.started_at, attempts.c.number)
    )
    charges = sa.select(ledger).where(ledger.c.job_id == job_id).order_by(ledger.c.id)
    webhooks = sa.select(deliveries).where(deliveries.c.job_id == job_id).order_by(deliveries.c.id)
    texts = sa.select(job_texts).where(job_texts.c.job_id == job_id)
    return History(
        job=job,
        attempts=db.execute(tries).all(),
        charges=db.execute(charges).all(),
        deliveries=db.execute(webhooks).all(),
        deeds=_deeds(db, job),
        texts=db.execute(texts).one_or_none() if with_texts else None,
    )


#: The deeds that a timeline names.
_DEEDS: Mapping[str, str] = {
    OperatorAction.JOB_CANCEL: "operator_cancelled",
    OperatorAction.JOB_RETRY: "operator_retried",
    **{action: f"operator_{action.replace('.', '_')}" for plugin in plugins() for action in plugin.actions},
}
#: The most rows of the audit log that are read for one job.
MOST_DEEDS = 1_000


def _deeds(db: Connection, job: Row[Any]) -> list[Entry]:
    own = [show_id(job.id), *(note for note in (job.notes or {}).values() if isinstance(note, str))]
    origin = [show_id(job.retry_of)] if job.retry_of is not None else []
    found = audit.newest(db, WantedEntries(subjects=[*own, *origin], since=job.created_at), MOST_DEEDS)
    about = [each for each in found if each.subject in own or each.details.get("retried_as") == own[0]]
    # A cancel of a job that has ended changes nothing.
    until = job.ended_at or datetime.max.replace(tzinfo=UTC)
    return [
        each
        for each in about
        if each.action in _DEEDS and (each.at <= until or each.action == OperatorAction.JOB_RETRY)
    ]


_TOKENS = ("prompt_tokens", "cached_tokens", "output_tokens")
_ENDED = (
    *("outcome", "error_code", "error_cause", "model_served", *_TOKENS, "engine_s", "first_token_s", "preemptions"),
    "reserved_usd",
)
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
    for deed in found.deeds:
        who = {"operator": deed.actor, "source": deed.source, "subject": deed.subject}
        yield Event(deed.at, _DEEDS[deed.action], {**who, **deed.details})
    yield Event(job.created_at, "accepted", _some(job, "lane", "overflow", "model_requested", "start_by", "finish_by"))
    if job.queued_at is not None:
        stay = _some(job, "queue", "route", "route_reason", "enqueue_no")
        yield Event(job.queued_at, "queued" if job.enqueue_no == 1 else "queued_again", stay)
    for each in found.attempts:
        number = attempt_number(each.number)
        began = {"attempt": number, **_some(each, "worker", "worker_id", "host_id", "engine")}
        yield Event(each.started_at, "attempt_started", began)
        if each.ended_at is not None:
            yield Event(each.ended_at, "attempt_ended", {"attempt": number, **_some(each, *_ENDED)})
    if job.served_by_job is not None:
        # An answer to the same question in other words is found while the job waits.
        at = job.ended_at if job.cache == "semantic" else job.created_at
        yield Event(at, "served_from_cache", {"cache": job.cache, "served_by": show_id(job.served_by_job)})
    if job.cancel_requested_at is not None:
        yield Event(job.cancel_requested_at, "cancel_requested", {})
    for each in found.charges:
        charged = _some(each, *_CHARGED, "estimated")
        if each.attempt is not None:
            charged["attempt"] = attempt_number(each.attempt)
        yield Event(each.at, "charged", charged)
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


def attempt_number(number: int) -> int | str:
    """The number of an attempt for operators. One under which an engine died has none, because it does not count."""
    return number if number > 0 else "uncounted"


def suspicion_in_words(job: Row[Any]) -> str | None:
    """What the job's suspicion means; None without one."""
    if not job.suspicion:
        return None
    if is_poison(job):
        return "A poison prompt: its engine died also while it ran alone. The API refuses the prompt for a day."
    whose = "an earlier try of it" if job.retry_of is not None else "it"
    if job.suspicion < SUSPECT:
        return f"An engine died under {whose} after its first token. If one dies again, it runs alone."
    found = f"An engine died under {whose} before its first token, or a second time, so it runs alone."
    return found if JobState(job.state).is_terminal else f"{found} If an engine dies again, it fails."


def is_poison(job: Row[Any]) -> bool:
    """True if the job failed because an engine died in which nothing else ran."""
    failed = (job.state, job.error_code) == (JobState.FAILED, EngineCrash.code)
    return failed and bool(job.suspicion >= SUSPECT)


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


#: The columns that the new job copies. Suspicion is one of them: a job that may have killed an engine runs alone again.
_COPIED = (
    *("app_id", "lane", "pool", "queue", "route", "overflow", "model_requested", "adapter", "end_user", "metadata"),
    *("webhook_url", "stream", "max_cost_usd", "max_tokens", "n", "suspicion"),
)
_TEXTS = ("messages", "sampling", "is_unstored")
_JUDGED = (jobs.c.state, jobs.c.error_code, jobs.c.suspicion)
#: How jobs end that have not failed, in an error's words.
_ENDS = {"succeeded": "succeeded", "cancelled": "been cancelled", "expired": "expired"}


def retry(db: Connection, job_ids: Iterable[UUID], *, with_poison: bool = False) -> dict[UUID, UUID]:
    """Create a new `queued` job for each failed one; `publish_due` puts its message into the list.

    It has the same times to wait and to run as the old job. No request waits for it, and no limit applies to it.

    Args: with_poison: also jobs whose prompts killed an engine in which nothing else ran.
    Returns: the new job of each old one.
    Raises: NotFound, JobNotEnded, InvalidRequest: one of the jobs cannot be retried, and none was.
    """
    olds = list(dict.fromkeys(job_ids))
    # Locked first, in one order, so that the second of two operators sees the first one's new jobs.
    db.execute(sa.select(jobs.c.id).where(jobs.c.id.in_(olds)).order_by(jobs.c.id).with_for_update())
    _check(db, olds, with_poison)
    news = {old: new_id() for old in olds}
    for old, new in news.items():
        _copy(db, old, new)
    return news


def _check(db: Connection, job_ids: Iterable[UUID], with_poison: bool) -> None:
    is_erased = job_texts.c.job_id.is_(None).label("is_erased")
    facts = (
        sa.select(jobs.c.id, *_JUDGED, is_erased, job_retries.c.retried_as)
        .outerjoin(job_texts, job_texts.c.job_id == jobs.c.id)
        .outerjoin(job_retries, job_retries.c.job_id == jobs.c.id)
        .where(jobs.c.id.in_(job_ids))
    )
    found = {row.id: row for row in db.execute(facts)}
    for job_id in job_ids:
        job = f"Job '{show_id(job_id)}'"
        row = found.get(job_id)
        if row is None:
            raise not_found(job_id)
        if not JobState(row.state).is_terminal:
            raise JobNotEnded(f"{job} is {row.state}: it has not failed, and may yet succeed.", job_id=job_id)
        if row.state != JobState.FAILED:
            raise InvalidRequest(
                f"{job} has {_ENDS[row.state]}: only one that has failed can be retried.", job_id=job_id
            )
        if row.retried_as is not None:
            again = show_id(row.retried_as)
            raise InvalidRequest(f"{job} was retried already, as '{again}': retry that.", job_id=job_id)
        if row.is_erased:
            raise InvalidRequest(f"{job} was deleted: its prompt is gone.", job_id=job_id)
    poison = [show_id(job_id) for job_id in job_ids if is_poison(found[job_id])]
    if poison and not with_poison:
        raise InvalidRequest(
            "These jobs killed an engine in which nothing else ran, and would kill one again; "
            f"'headrace retry --force' runs them all the same: {', '.join(poison)}."
        )


def _copy(db: Connection, old: UUID, new: UUID) -> None:
    # A background job: the caller of the old one no longer waits.
    values = {
        "id": sa.literal(new, sa.Uuid),
        "state": sa.literal(JobState.QUEUED),
        "route_reason": sa.literal(f"retry of {show_id(old)}"),
        "background": sa.true(),
        "retry_of": jobs.c.id,
        "queued_at": sa.func.now(),
        "overflow_at": sa.case((jobs.c.route == Route.OVERFLOW, sa.func.now())),
        "start_by": sa.func.now() + (jobs.c.start_by - jobs.c.created_at),
        "finish_by": sa.func.now() + (jobs.c.finish_by - jobs.c.created_at),
        "prompt_tokens": sa.func.coalesce(jobs.c.original_tokens, jobs.c.prompt_tokens),
        **{name: jobs.c[name] for name in _COPIED},
    }
    db.execute(sa.insert(jobs).from_select(list(values), sa.select(*values.values()).where(jobs.c.id == old)))
    texts = sa.select(sa.literal(new, sa.Uuid), *(job_texts.c[name] for name in _TEXTS))
    db.execute(sa.insert(job_texts).from_select(["job_id", *_TEXTS], texts.where(job_texts.c.job_id == old)))
