"""Deliveries: the outbox of webhooks. A row is written when a job or a batch ends, or a budget reaches a threshold.

A worker pulls as many deliveries as it has free slots, in all and for each app and receiver, and records the result of
each try. A receiver without free slots does not hide others: the pull goes from receiver to receiver in an index, and
reads only the few rows of each that may be sent.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection, Row
from sqlalchemy.dialects.postgresql import insert

from headrace.domain.deliveries import START, Delivery, GivenUp, PausedReceiver, Pulled, Terms
from headrace.domain.ids import new_id, oldest_id
from headrace.domain.operators import OperatorAction
from headrace.domain.states import JobState
from headrace.errors import InvalidRequest, NotFound
from headrace.policies.webhooks import job_data
from headrace.store import clock
from headrace.store.sql import Statement, is_one_of
from headrace.tables import apps, audit_log, deliveries, gone_receivers, jobs, paused_receivers
from headrace.tables.work import APP_KEY, RECEIVER

#: How many receivers one pull reads; the next pull continues after them.
RECEIVERS_A_PULL = 500

#: The status of a gone receiver, and the error recorded for its waiting deliveries.
GONE_STATUS = 410
GONE = "The webhook's receiver answered 410 before: nothing is sent there any more."
_UNREPORTED = "The last try was begun and never reported: its worker died."

#: Literals, as in the predicates of partial indexes: a generic plan with parameters could not use those indexes.
IS_PENDING, IS_FAILED = (
    deliveries.c.state == sa.literal(state, sa.Text, literal_execute=True) for state in ("pending", "failed")
)
#: Whether the receiver of a row of `deliveries` is paused.
IS_PAUSED = sa.exists().where(
    paused_receivers.c.app_id == deliveries.c.app_id, paused_receivers.c.receiver == sa.literal_column(RECEIVER)
)
_ANY_DUE = sa.select(sa.exists().where(IS_PENDING, deliveries.c.next_at <= sa.func.now()))

_OLD_SECRET = sa.case((apps.c.webhook_secret_old_until > sa.func.now(), apps.c.webhook_secret_old), else_=None).label(
    "old_secret"
)

_CHOOSE = Statement("due_deliveries")


def pull(db: Connection, terms: Terms) -> Pulled:
    """Take due deliveries, each for one try under a lease. Call it in a transaction.

    The try is counted here, so that a try that kills its worker counts too. Two workers that pull at once get different
    rows.
    """
    if terms.most <= 0 or not db.execute(_ANY_DUE).scalar_one():
        return Pulled(after=terms.after)
    chosen = _CHOOSE.run(db, **_parameters(terms))
    if not chosen:
        return Pulled()  # The scan began after the last receiver.
    [found] = chosen
    was_cut = found.n >= RECEIVERS_A_PULL
    after = (found.app, found.receiver) if was_cut else START
    rows = _begin(db, found.ids, terms)
    given_up = [GivenUp(row.id, row.receiver, row.tries, row.last_error) for row in rows if row.state == "failed"]
    begun = [row for row in rows if row.state == "pending"]
    gone = _give_up_gone(db, begun)
    tries = _read(db, [row for row in begun if row.id not in gone])
    return Pulled(tries, [*given_up, *gone.values()], not (was_cut or found.is_more or found.ids), after)


def _parameters(terms: Terms) -> dict[str, Any]:
    of_app = {(app_id or UUID(int=0)): held for app_id, held in terms.of_app.items()}
    return {
        "most": terms.most,
        "per_app": terms.per_app,
        "per_receiver": terms.per_receiver,
        "apps": list(of_app),
        "app_counts": list(of_app.values()),
        "full_apps": [app_id for app_id, held in of_app.items() if held >= terms.per_app],
        "receivers": list(terms.of_receiver),
        "receiver_counts": list(terms.of_receiver.values()),
        "after_app": terms.after[0],
        "after_receiver": terms.after[1],
        "groups": RECEIVERS_A_PULL,
    }


def _begin(db: Connection, ids: Sequence[UUID], terms: Terms) -> Sequence[Row[Any]]:
    due = (
        sa.select(deliveries.c.id)
        .where(deliveries.c.id.in_(ids), deliveries.c.state == "pending", deliveries.c.next_at <= sa.func.now())
        .with_for_update(skip_locked=True)
    )
    may_go = deliveries.c.tries - deliveries.c.tries_before < terms.max_tries
    begun = (
        sa.update(deliveries)
        .where(deliveries.c.id.in_(due))
        .values(
            state=sa.case((may_go, "pending"), else_="failed"),
            tries=deliveries.c.tries + sa.case((may_go, 1), else_=0),
            next_at=sa.func.now() + timedelta(seconds=terms.lease_s),
            last_error=sa.case((may_go, deliveries.c.last_error), else_=_UNREPORTED),
        )
        .returning(*deliveries.c, sa.literal_column(RECEIVER).label("receiver"))
    )
    return db.execute(begun).all()


def receiver_digest(app_id: UUID | None, url: str) -> bytes:
    """The key of an app's receiver in `gone_receivers`."""
    return hashlib.sha256(f"{app_id} {url}".encode()).digest()


def _give_up_gone(db: Connection, rows: Sequence[Row[Any]]) -> dict[UUID, GivenUp]:
    """Fail the deliveries whose receivers are gone, without counting a try."""
    digests = {row.id: receiver_digest(row.app_id, row.url) for row in rows}
    gone = set(db.scalars(sa.select(gone_receivers.c.digest).where(gone_receivers.c.digest.in_(digests.values()))))
    given_up = {row.id: GivenUp(row.id, row.receiver, row.tries - 1, GONE) for row in rows if digests[row.id] in gone}
    if given_up:
        values = {"state": "failed", "tries": deliveries.c.tries - 1, "last_status": GONE_STATUS, "last_error": GONE}
        db.execute(sa.update(deliveries).where(deliveries.c.id.in_(given_up)).values(**values))
    return given_up


def _read(db: Connection, rows: Sequence[Row[Any]]) -> list[Delivery]:
    facts: sa.Select[Any] = sa.select(jobs.c.id, jobs.c.state, jobs.c.ended_at)
    facts = facts.where(jobs.c.id.in_([row.job_id for row in rows if row.job_id is not None]))
    found: dict[UUID, Row[Any]] = {job.id: job for job in db.execute(facts)}
    owners: sa.Select[Any] = sa.select(apps.c.id, apps.c.webhook_secret, _OLD_SECRET)
    owners = owners.where(apps.c.id.in_({row.app_id for row in rows if row.app_id is not None}))
    # A batch's end has an app, and no job. The operator's webhooks have neither.
    secrets = {app.id: tuple(filter(None, (app.webhook_secret, app.old_secret))) for app in db.execute(owners)}
    return [_delivery(row, found.get(row.job_id), secrets.get(row.app_id, ())) for row in rows]


def _delivery(row: Row[Any], job: Row[Any] | None, secrets: tuple[str, ...]) -> Delivery:
    return Delivery(
        id=row.id,
        app_id=row.app_id,
        event=row.event,
        url=row.url,
        receiver=row.receiver,
        secrets=secrets,
        tries=row.tries,
        tries_before=row.tries_before,
        data=row.data if job is None else job_data(job.id, JobState(job.state)),
        at=row.created_at if job is None else job.ended_at,
    )


#: The most deliveries of a gone receiver that fail at once with its 410; the others fail when they are due.
GONE_ROWS = 1000
#: The most deliveries, or receivers, that one sweep deletes. A sweep every 5 s keeps up with 1,000 jobs a second.
FORGET_ROWS = 5000

#: The most deliveries that a list of one app reads.
LOOK_ROWS = 100_000

_ID = re.compile("(?:evt_)?([0-9a-f]{32})")


@dataclass(frozen=True, slots=True)
class ListedDelivery:
    """A delivery as operators see it.

    Attributes:
        app: its app's name; None for the operator's webhook.
        job_id: the job that it is about; None for another event.
        subject: the id that another event names; None without one.
        last_status, last_error: of its last try.
        next_at: when the next try is due, or the lease of the running try ends; None once the delivery has ended.
    """

    id: UUID
    app: str | None
    job_id: UUID | None
    subject: str | None
    event: str
    url: str
    state: str
    tries: int
    last_status: int | None
    last_error: str | None
    created_at: datetime
    next_at: datetime | None
    is_paused: bool

    @property
    def shown_state(self) -> str:
        """`paused` for a pending one whose receiver is; `retrying` for another whose last try has failed."""
        if self.state == "pending" and self.is_paused:
            return "paused"
        has_failed = self.last_error is not None or self.last_status is not None
        return "retrying" if self.state == "pending" and has_failed else self.state


def add(db: Connection, event: str, url: str, data: Mapping[str, Any], app_id: UUID | None = None) -> None:
    """Add a webhook that is not about a job. It is due once the transaction commits.

    Args: app_id: whose it is; None for the operator's.
    """
    db.execute(sa.insert(deliveries).values(id=new_id(), app_id=app_id, event=event, url=url, data=dict(data)))


def record_success(db: Connection, delivery: Delivery, status: int) -> None:
    """Record a 2xx answer. It counts even if the receiver has answered 410 to another delivery meanwhile."""
    values = {"state": "delivered", "delivered_at": sa.func.now(), "last_status": status, "last_error": None}
    this_try = sa.and_(deliveries.c.id == delivery.id, deliveries.c.tries == delivery.tries)
    db.execute(sa.update(deliveries).where(this_try).values(**values))


def record_failure(
    db: Connection, delivery: Delivery, error: str, *, status: int | None, retry_in_s: float | None
) -> None:
    """Record a failed try. `retry_in_s`: until the next try; None if the delivery has failed."""
    values: dict[str, object] = {"last_status": status, "last_error": error[:500]}
    if retry_in_s is None:
        values["state"] = "failed"
    else:
        values["next_at"] = sa.func.now() + timedelta(seconds=retry_in_s)
    # Only if no later try has begun, so that a slow worker cannot overwrite a newer worker's report.
    this_try = sa.and_(
        deliveries.c.id == delivery.id, deliveries.c.tries == delivery.tries, deliveries.c.state == "pending"
    )
    db.execute(sa.update(deliveries).where(this_try).values(**values))


def record_gone(db: Connection, delivery: Delivery) -> None:
    """Record a 410 answer: the app's waiting and later deliveries to this URL fail.

    This ends with `forget_gone` or with an operator's retry.
    """
    digest = receiver_digest(delivery.app_id, delivery.url)
    mark = insert(gone_receivers).values(digest=digest, app_id=delivery.app_id, url=delivery.url)
    db.execute(mark.on_conflict_do_nothing())
    is_theirs = sa.text(f"{APP_KEY} = :app AND {RECEIVER} = :receiver").bindparams(
        app=delivery.app_id or UUID(int=0), receiver=delivery.receiver
    )
    waiting = (
        sa.select(deliveries.c.id)
        .where(IS_PENDING, deliveries.c.id != delivery.id, deliveries.c.url == delivery.url)
        .where(is_theirs)
        .limit(GONE_ROWS)
        .with_for_update(skip_locked=True)
    )
    values = {"state": "failed", "last_status": GONE_STATUS, "last_error": GONE}
    db.execute(sa.update(deliveries).where(deliveries.c.id.in_(waiting)).values(**values))


_RECEIVER = re.compile(r"(?:https?://|(?!https?:))([^\s/?#@]{1,2000})(?:[/?#].*)?", re.IGNORECASE)


def read_receiver(text: str) -> str:
    """The receiver that a host, with its port if it has one, or a URL names. Raises: InvalidRequest."""
    found = _RECEIVER.fullmatch(text.strip())
    if found is None or not text.isprintable():
        raise InvalidRequest(f"'{text[:60]}' is no receiver, such as hooks.example.com or hooks.example.com:8443.")
    # Only the letters of ASCII, as in the index of the outbox.
    return found[1].encode().lower().decode()


def pause(db: Connection, app_id: UUID, receiver: str) -> int:
    """Begin no try of the app's deliveries to this receiver until `resume`. Safe to repeat.

    They stay pending, with the tries and the schedule that they have. Returns: how many wait.
    """
    db.execute(insert(paused_receivers).values(app_id=app_id, receiver=receiver).on_conflict_do_nothing())
    return _waiting(db, app_id, receiver)


def resume(db: Connection, app_id: UUID, receiver: str) -> int:
    """Send to a paused receiver again. Returns: how many deliveries wait. Raises: NotFound: it is not paused."""
    row = paused_receivers.c
    gone = sa.delete(paused_receivers).where(row.app_id == app_id, row.receiver == receiver)
    if not db.execute(gone).rowcount:
        raise NotFound(
            f"The receiver '{receiver}' is not paused for this app: 'headrace deliveries paused' lists them."
        )
    return _waiting(db, app_id, receiver)


#: The most waiting deliveries of a receiver that are counted.
MOST_WAITING = 100_000


def _waiting(db: Connection, app_id: UUID, receiver: str) -> int:
    these = sa.text(f"{APP_KEY} = :app AND {RECEIVER} = :receiver").bindparams(app=app_id, receiver=receiver)
    some = sa.select(deliveries.c.id).where(IS_PENDING, these).limit(MOST_WAITING).subquery()
    return db.scalar(sa.select(sa.func.count()).select_from(some)) or 0


def paused(db: Connection) -> list[PausedReceiver]:
    """The paused receivers, those that were paused first at the top."""
    row, deed = paused_receivers.c, audit_log.c
    # The row and its deed have the time of one transaction.
    is_its_deed = (deed.at == row.since, deed.app_id == row.app_id, deed.subject == row.receiver)
    by = (
        sa.select(deed.actor)
        .where(*is_its_deed, deed.action == OperatorAction.RECEIVER_PAUSE)
        .limit(1)
        .scalar_subquery()
    )
    found = sa.select(row.app_id, apps.c.name, row.receiver, row.since, by).join(apps, apps.c.id == row.app_id)
    rows = db.execute(found.order_by(row.since, row.receiver)).all()
    return [
        PausedReceiver(name, receiver, since, by, _waiting(db, id_, receiver))
        for id_, name, receiver, since, by in rows
    ]


def newest(db: Connection, *, state: str | None = None, app_id: UUID | None = None, limit: int) -> list[ListedDelivery]:
    """The newest deliveries, of one app or of all. Those of one app are looked for among the `LOOK_ROWS` newest.

    Args: state: only those that are shown in this state; `retrying` are pending ones whose last try has failed.
    """
    near = sa.select(deliveries, IS_PAUSED.label("is_paused")).order_by(deliveries.c.id.desc()).limit(LOOK_ROWS)
    has_failed = sa.or_(deliveries.c.last_error.is_not(None), deliveries.c.last_status.is_not(None))
    if state == "failed":
        near = near.where(IS_FAILED)
    elif state in ("pending", "retrying"):
        near = near.where(IS_PENDING, has_failed if state == "retrying" else ~has_failed)
    elif state is not None:
        near = near.where(deliveries.c.state == state)
    each = near.subquery().c
    columns = (each[name] for name in ("id", "job_id", "event", "url", "state", "tries", "created_at", "is_paused"))
    next_at = sa.case((each.state == "pending", each.next_at), else_=None).label("next_at")
    subject = sa.case((each.job_id.is_(None), each.data["id"].astext), else_=None).label("subject")
    also = (each.last_status, each.last_error, next_at, subject, apps.c.name.label("app"))
    statement = sa.select(*columns, *also)
    statement = statement.outerjoin(apps, apps.c.id == each.app_id)
    if app_id is not None:
        statement = statement.where(each.app_id == app_id)
    found = db.execute(statement.order_by(each.id.desc()).limit(limit)).mappings()
    return [ListedDelivery(**row) for row in found]


def retry(db: Connection, texts: Sequence[str]) -> list[UUID]:
    """Try deliveries again from now on, with the whole schedule of retries. Their receivers no longer count as gone.

    Args:
        texts: their ids, as in the header `webhook-id`.
    Raises: NotFound: one of them does not exist; none is then tried again.
    """
    ids = [_read_id(text) for text in texts]
    values = {"state": "pending", "tries_before": deliveries.c.tries, "next_at": sa.func.now(), "delivered_at": None}
    changed = sa.update(deliveries).where(deliveries.c.id.in_(ids)).values(**values)
    rows = db.execute(changed.returning(deliveries.c.id, deliveries.c.app_id, deliveries.c.url)).all()
    found = {row.id for row in rows}
    for delivery_id, text in zip(ids, texts, strict=True):
        if delivery_id not in found:
            raise _no_such(text)
    digests = {receiver_digest(row.app_id, row.url) for row in rows}
    db.execute(sa.delete(gone_receivers).where(gone_receivers.c.digest.in_(digests)))
    return ids


def _read_id(text: str) -> UUID:
    match = _ID.fullmatch(text.lower())
    if match is None:
        raise _no_such(text)
    return UUID(hex=match[1])


def _no_such(text: str) -> NotFound:
    return NotFound(f"No webhook delivery has the id '{text[:60]}': 'headrace deliveries' lists the newest.")


def oldest_due(db: Connection, most: int) -> tuple[int, float]:
    """How many deliveries are due, up to `most`, and for how many seconds the oldest has been. Without paused ones."""
    due = (
        sa.select(deliveries.c.next_at)
        .where(IS_PENDING, deliveries.c.next_at <= sa.func.now(), ~IS_PAUSED)
        .order_by(deliveries.c.next_at)
        .limit(most)
        .subquery()
    )
    late_s = sa.func.extract("epoch", sa.func.now() - sa.func.min(due.c.next_at))
    number, seconds = db.execute(sa.select(sa.func.count(), sa.func.coalesce(late_s, 0)).select_from(due)).one()
    return number, float(seconds)


def forget_old(db: Connection, keep_days: int) -> int:
    """Delete deliveries that ended more than `keep_days` ago, at most `FORGET_ROWS`; returns how many.

    Ids sort by time, so that younger ones are not read.
    """
    before = clock.now(db) - timedelta(days=keep_days)
    ended_at = sa.func.coalesce(deliveries.c.delivered_at, deliveries.c.next_at)
    old = (
        sa.select(deliveries.c.id)
        .where(deliveries.c.id < oldest_id(before), deliveries.c.state != "pending", ended_at < before)
        .order_by(deliveries.c.id)
        .limit(FORGET_ROWS)
        .with_for_update(skip_locked=True)
    )
    ids = db.scalars(old).all()
    if ids:
        db.execute(sa.delete(deliveries).where(is_one_of(deliveries.c.id, ids)))
    return len(ids)


def forget_gone(db: Connection, keep_days: int) -> int:
    """Delete receivers that answered 410 more than `keep_days` ago, at most `FORGET_ROWS`; returns how many.

    The next delivery to such a receiver is tried; another 410 marks it again.
    """
    old = (
        sa.select(gone_receivers.c.digest)
        .where(gone_receivers.c.created_at < sa.func.now() - timedelta(days=keep_days))
        .order_by(gone_receivers.c.created_at)
        .limit(FORGET_ROWS)
        .with_for_update(skip_locked=True)
    )
    digests = db.scalars(old).all()
    if digests:
        these = is_one_of(gone_receivers.c.digest, digests)
        db.execute(sa.delete(gone_receivers).where(these))
    return len(digests)
