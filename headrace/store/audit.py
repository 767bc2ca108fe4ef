"""The audit log: what operators did. A row commits together with the deed that it records, or neither does."""

import logging
import os
import pwd
import socket
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection

from headrace.domain.operators import Actor, OperatorAction, Source
from headrace.installed import plugins
from headrace.store import Store
from headrace.tables import apps, audit_log

log = logging.getLogger(__name__)


#: What operators do: of the core, and of plugins.
ACTIONS = (*map(str, OperatorAction), *(action for plugin in plugins() for action in plugin.actions))


class NotRecorded(RuntimeError):
    """An operator's transaction recorded nothing, and was rolled back."""


@dataclass(frozen=True, slots=True)
class Deed:
    """What was done to one thing.

    Attributes:
        subject: the thing's id or name; its kind is the first word of the action.
        app_id: the app that it belongs to; None for none.
        details: what helps to undo or explain it. Never a secret, a prompt or an answer.
    """

    subject: str
    app_id: UUID | None
    details: Mapping[str, Any]


class Audit:
    """An operator's transaction.

    Attributes:
        db: where the operator acts.
        rows: those that were written.
    """

    def __init__(self, db: Connection, actor: Actor) -> None:
        self.db = db
        self.rows: list[Mapping[str, Any]] = []
        self._actor = actor

    def record(self, action: str, subject: str, app_id: UUID | None = None, **details: Any) -> None:
        self.record_all(action, [Deed(subject, app_id, details)])

    def record_all(self, action: str, deeds: Iterable[Deed]) -> None:
        common = {"actor": self._actor.name, "source": self._actor.source, "action": action}
        rows = [
            {**common, "subject": deed.subject, "app_id": deed.app_id, "details": _plain(deed.details)}
            for deed in deeds
        ]
        if rows:
            self.db.execute(sa.insert(audit_log), rows)
            self.rows += rows


@contextmanager
def acting(store: Store, actor: Actor) -> Iterator[Audit]:
    """One transaction in which an operator acts: commits at the end, rolls back on any error.

    `headrace.store.actions` has the deeds. What was done is logged too. Raises: NotRecorded. StoreUnavailable.
    """
    with store.begin() as db:
        audit = Audit(db, actor)
        yield audit
        if not audit.rows:
            raise NotRecorded("An operator's transaction must write a row of the audit log.")
    for row in audit.rows:
        facts = {"operator": actor.name, "source": actor.source, "action": row["action"], "subject": row["subject"]}
        log.info("operator_acted", extra=facts)


def this_user() -> Actor:
    """The operator of a command: the user of this process, as the operating system knows it, and its host."""
    user_id = os.getuid()
    try:
        name = pwd.getpwuid(user_id).pw_name
    except KeyError:  # In a container a user may have no name.
        name = str(user_id)
    return Actor(f"{name}@{socket.gethostname()}", Source.CLI)


def _plain(value: Any) -> Any:
    """The value as JSON has it."""
    match value:
        case Mapping():
            return {str(name): _plain(each) for name, each in value.items()}
        case Decimal():
            return f"{value.normalize():f}"
        case datetime():
            return value.isoformat()
        case None | bool() | int() | float():
            return value
        case str() | UUID():
            return str(value)
        case Iterable():
            return sorted(map(str, value))
    raise TypeError(f"The audit log cannot hold a {type(value).__name__}.")


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of the audit log.

    Attributes:
        app: the app's name; None for none.
    """

    id: int
    at: datetime
    actor: str
    source: str
    action: str
    subject: str
    app: str | None
    details: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class WantedEntries:
    """Which rows are listed; None: any.

    Attributes:
        since, until: of the time; `until` is excluded.
        before: the id of the last row of the page before.
        subjects: of any of these. No index has them, so give `since`, too.
    """

    actor: str | None = None
    action: str | None = None
    app_id: UUID | None = None
    since: datetime | None = None
    until: datetime | None = None
    before: int | None = None
    subjects: Collection[str] | None = None


def newest(db: Connection, wanted: WantedEntries, limit: int) -> list[Entry]:
    """The newest rows that are wanted."""
    row = audit_log.c
    columns = (row.id, row.at, row.actor, row.source, row.action, row.subject, row.details)
    statement = sa.select(*columns, apps.c.name.label("app")).outerjoin(apps, apps.c.id == row.app_id)
    for name in ("actor", "action", "app_id"):
        if (value := getattr(wanted, name)) is not None:
            statement = statement.where(row[name] == value)
    if wanted.since is not None:
        statement = statement.where(row.at >= wanted.since)
    if wanted.until is not None:
        statement = statement.where(row.at < wanted.until)
    if wanted.before is not None:
        statement = statement.where(row.id < wanted.before)
    if wanted.subjects is not None:
        statement = statement.where(row.subject.in_(wanted.subjects))
    return [Entry(**found) for found in db.execute(statement.order_by(row.id.desc()).limit(limit)).mappings()]
