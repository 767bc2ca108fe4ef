"""The due deliveries in the outbox of webhooks, and how workers pull them.

A worker pulls as many deliveries as it has free slots, in all and for each app and receiver. A receiver without free
slots does not hide others: the pull goes from receiver to receiver in an index, and reads only the few rows of each
that may be sent.
"""

import hashlib
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection, Row

from headrace.domain.deliveries import START, Delivery, GivenUp, Pulled, Terms
from headrace.domain.states import JobState
from headrace.policies.webhooks import job_data
from headrace.store.sql import Statement
from headrace.tables import apps, deliveries, gone_receivers, jobs
from headrace.tables.webhooks import RECEIVER

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
    facts: sa.Select[Any] = (
        sa.select(jobs.c.id, jobs.c.state, jobs.c.ended_at, apps.c.webhook_secret, _OLD_SECRET)
        .join(apps, apps.c.id == jobs.c.app_id)
        .where(jobs.c.id.in_([row.job_id for row in rows if row.job_id is not None]))
    )
    found: dict[UUID, Row[Any]] = {job.id: job for job in db.execute(facts)}
    return [_delivery(row, found.get(row.job_id)) for row in rows]


def _delivery(row: Row[Any], job: Row[Any] | None) -> Delivery:
    secrets = () if job is None else tuple(filter(None, (job.webhook_secret, job.old_secret)))
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
