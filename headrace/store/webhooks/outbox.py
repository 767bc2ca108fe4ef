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
from headrace.tables import apps, deliveries, gone_receivers, jobs
from headrace.tables.webhooks import APP_KEY, RECEIVER

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

#: The receivers after a given one, with one index probe each, and the first due rows of each. An app without free slots
#: takes one probe in all. First come the rows whose app and receiver have the fewest running tries, then the oldest.
_CHOOSE = sa.text(f"""
WITH RECURSIVE held_apps (app, n) AS MATERIALIZED (
    SELECT * FROM unnest(CAST(:apps AS uuid[]), CAST(:app_counts AS int[]))
), held_receivers (receiver, n) AS MATERIALIZED (
    SELECT name COLLATE "C", n FROM unnest(CAST(:receivers AS text[]), CAST(:receiver_counts AS int[])) held (name, n)
), groups (app, receiver, n) AS (
    (SELECT {APP_KEY}, {RECEIVER}, 1 FROM deliveries
     WHERE state = 'pending' AND ({APP_KEY}, {RECEIVER}) > (CAST(:after_app AS uuid), :after_receiver COLLATE "C")
     ORDER BY 1, 2 LIMIT 1)
    UNION ALL
    SELECT later.app, later.receiver, groups.n + 1 FROM groups CROSS JOIN LATERAL (
        SELECT {APP_KEY} AS app, {RECEIVER} AS receiver FROM deliveries
        WHERE state = 'pending' AND ({APP_KEY}, {RECEIVER}) > (
            groups.app,
            CASE WHEN groups.app = ANY (CAST(:full_apps AS uuid[])) THEN chr(1114111) ELSE groups.receiver END
                COLLATE "C"
        )
        ORDER BY 1, 2 LIMIT 1
    ) later
    WHERE groups.n < :groups
), due AS (
    SELECT head.id, head.next_at, groups.app, groups.receiver,
           coalesce(held_apps.n, 0) AS of_app, coalesce(held_receivers.n, 0) AS of_receiver,
           head.nth + coalesce(held_apps.n, 0) + coalesce(held_receivers.n, 0) AS turn
    FROM groups
    LEFT JOIN held_apps ON held_apps.app = groups.app
    LEFT JOIN held_receivers ON held_receivers.receiver = groups.receiver
    CROSS JOIN LATERAL (
        SELECT first.id, first.next_at, row_number() OVER (ORDER BY first.next_at) AS nth FROM (
            SELECT id, next_at FROM deliveries
            WHERE state = 'pending' AND {APP_KEY} = groups.app AND {RECEIVER} = groups.receiver AND next_at <= now()
            ORDER BY next_at
            LIMIT greatest(0, least(
                :most, :per_app - coalesce(held_apps.n, 0), :per_receiver - coalesce(held_receivers.n, 0)
            ))
        ) first
    ) head
), fair AS (
    SELECT id, next_at, turn,
           of_app + row_number() OVER (PARTITION BY app ORDER BY turn, next_at) AS app_nth,
           of_receiver + row_number() OVER (PARTITION BY receiver ORDER BY turn, next_at) AS receiver_nth
    FROM due
), chosen AS (
    SELECT id FROM fair WHERE app_nth <= :per_app AND receiver_nth <= :per_receiver ORDER BY turn, next_at LIMIT :most
)
SELECT (SELECT coalesce(array_agg(id), '{{}}') FROM chosen) AS ids,
       (SELECT count(*) FROM fair) > (SELECT count(*) FROM chosen) AS is_more, n, app, receiver
FROM groups ORDER BY n DESC LIMIT 1
""")


def pull(db: Connection, terms: Terms) -> Pulled:
    """Take due deliveries, each for one try under a lease. Call it in a transaction.

    The try is counted here, so that a try that kills its worker counts too. Two workers that pull at once get different
    rows.
    """
    if terms.most <= 0 or not db.execute(_ANY_DUE).scalar_one():
        return Pulled(after=terms.after)
    found = db.execute(_CHOOSE, _parameters(terms)).first()
    if found is None:
        return Pulled()  # The scan began after the last receiver.
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
    about = (row.id, row.app_id, row.event, row.url, row.receiver)
    if job is None:
        return Delivery(*about, (), row.tries, row.tries_before, row.data, row.created_at)
    data = job_data(job.id, JobState(job.state))
    secrets = (job.webhook_secret, job.old_secret) if job.old_secret else (job.webhook_secret,)
    return Delivery(*about, secrets, row.tries, row.tries_before, data, job.ended_at)
