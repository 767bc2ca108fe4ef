"""Apps: the clients of the API, their limits, and their recent activity. Knows nothing about their keys."""

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import fields
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection, Row
from sqlalchemy.dialects.postgresql import insert

from headrace.domain.apps import Activity, App, AppLimits, Changes, Scope
from headrace.domain.ids import new_id, oldest_id
from headrace.domain.queues import Lane
from headrace.domain.states import JobState
from headrace.errors import InvalidRequest, NotFound
from headrace.policies.webhooks import new_secret
from headrace.store import clock
from headrace.tables import apps, jobs, ledger, refusals

#: How far the clocks of the hosts that make ids may be behind the database's.
CLOCK_SKEW = timedelta(hours=1)


#: The columns that `read_app` reads.
COLUMNS: tuple[sa.ColumnElement[Any], ...] = (
    apps.c.id,
    apps.c.name,
    apps.c.webhook_secret,
    apps.c.queued_jobs,
    apps.c.requests_per_minute,
    apps.c.tokens_per_minute,
    apps.c.day_usd,
    apps.c.month_usd,
    apps.c.calls_per_minute,
    apps.c.lanes,
    apps.c.cache_s,
    apps.c.max_error,
)


def read_app(row: Row[*tuple[Any, ...]], scopes: Iterable[str] = tuple(Scope)) -> App:
    """The app in a row that has `COLUMNS`."""
    lanes = None if row.lanes is None else frozenset(map(Lane, row.lanes))
    return App(
        id=row.id,
        name=row.name,
        webhook_secret=row.webhook_secret,
        limits=AppLimits(**{field.name: getattr(row, field.name) for field in fields(AppLimits)}),
        lanes=lanes,
        scopes=frozenset(map(Scope, scopes)),
        cache_s=row.cache_s,
        max_error=row.max_error,
    )


def create(db: Connection, name: str, limits: Changes) -> App:
    """Create an app. Raises: InvalidRequest: the name is taken."""
    if not _insert(db, name, _values(limits)):
        raise InvalidRequest(
            f"There is an app '{name}' already: 'headrace apps limit' changes its limits, "
            "'headrace keys create' makes a key for it.",
            param="name",
        )
    return find_app(db, name)


def ensure(db: Connection, name: str) -> App:
    """The app of this name, created without limits if it does not exist. Safe to run twice at once."""
    _insert(db, name, {})
    return find_app(db, name)


def _insert(db: Connection, name: str, values: Mapping[str, Any]) -> bool:
    """Insert an app. Returns: False if the name is taken."""
    row = {"id": new_id(), "name": name, "webhook_secret": new_secret(), **values}
    statement = insert(apps).values(**row).on_conflict_do_nothing(index_elements=["name"])
    return db.execute(statement.returning(apps.c.id)).first() is not None


def find_app(db: Connection, name: str, *, is_locked: bool = False) -> App:
    """An app by name. Args: is_locked: let no other transaction change it. Raises: NotFound."""
    statement = sa.select(*COLUMNS).where(apps.c.name == name)
    row = db.execute(statement.with_for_update() if is_locked else statement).first()
    if row is None:
        raise _no_such_app(name)
    return read_app(row)


def by_id(db: Connection, app_ids: Iterable[UUID]) -> dict[UUID, App]:
    """These apps, by their ids."""
    found = db.execute(sa.select(*COLUMNS).where(apps.c.id.in_(list(app_ids))))
    return {app.id: app for app in map(read_app, found)}


def list_apps(db: Connection) -> list[App]:
    """Every app, by name."""
    return [read_app(row) for row in db.execute(sa.select(*COLUMNS).order_by(apps.c.name))]


def set_limits(db: Connection, name: str, changes: Changes) -> App:
    """Change an app's limits. Web processes apply them once their cached copy expires. Raises: NotFound."""
    return _update(db, name, _values(changes))


def rotate_webhook_secret(db: Connection, name: str, *, keep_old_for: timedelta) -> tuple[App, datetime]:
    """Replace the secret that signs an app's webhooks, from each webhook's next try on.

    Until the returned time, each try is also signed with the old secret. An even older secret no longer signs: a try
    has at most two signatures.
    Raises: NotFound.
    """
    until = sa.func.now() + keep_old_for
    old = {"webhook_secret_old": apps.c.webhook_secret, "webhook_secret_old_until": until}
    app = _update(db, name, {"webhook_secret": new_secret(), **old})
    read = sa.select(apps.c.webhook_secret_old_until).where(apps.c.id == app.id)
    return app, db.execute(read).scalar_one()


def _update(db: Connection, name: str, values: Mapping[str, Any]) -> App:
    row = db.execute(sa.update(apps).where(apps.c.name == name).values(**values).returning(*COLUMNS)).first()
    if row is None:
        raise _no_such_app(name)
    return read_app(row)


def _values(changes: Changes) -> dict[str, Any]:
    """The table's values of the changes; lanes in a fixed order, so that equal sets give equal rows."""
    values: dict[str, Any] = dict(changes)
    if (lanes := changes.get("lanes")) is not None:
        allowed = frozenset(lanes)
        values["lanes"] = [str(lane) for lane in Lane if lane in allowed]
    return values


def _no_such_app(name: str) -> NotFound:
    return NotFound(
        f"There is no app '{name}': 'headrace apps list' shows those there are, "
        f"'headrace apps create {shlex.quote(name)}' makes it."
    )


def activity(db: Connection, app_id: UUID, period: timedelta) -> Activity:
    """The app's activity in the period that ends now."""
    since = clock.now(db) - period
    # The index is on the id, and ids begin with their creation time, so that old jobs are not read.
    mine = (jobs.c.app_id == app_id, jobs.c.id >= oldest_id(since - CLOCK_SKEW), jobs.c.created_at >= since)
    counted = db.execute(sa.select(jobs.c.state, sa.func.count()).where(*mine).group_by(jobs.c.state))
    charged = sa.select(sa.func.coalesce(sa.func.sum(ledger.c.usd), 0)).where(
        ledger.c.app_id == app_id, ledger.c.at >= since, ledger.c.kind != "waste"
    )
    row = refusals.c
    why = sa.select(row.reason, sa.func.sum(row.jobs)).where(row.minute >= since, row.app_id == app_id)
    refused = {reason: int(number) for reason, number in db.execute(why.group_by(row.reason).order_by(row.reason))}
    usd = Decimal(db.execute(charged).scalar_one())
    return Activity({JobState(state): jobs for state, jobs in counted}, usd, refused)
