"""Operators' accounts, and the limit of failed logins."""

import hashlib
from datetime import timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection, Row
from sqlalchemy.dialects.postgresql import insert

from headrace.domain.ids import new_id
from headrace.domain.operators import Operator, Role
from headrace.errors import InvalidRequest, NotFound
from headrace.store.sql import delete_chosen
from headrace.tables import failed_logins, operators

#: Failed logins of one name in a period; further ones are refused until it ends.
TRIES_MAX = 10
PERIOD = timedelta(minutes=15)
#: The most old failures that one failure deletes.
FORGET_ROWS = 100


def create(db: Connection, name: str, role: Role, password_hash: str) -> Operator:
    """Create an account. Raises: InvalidRequest: the name is taken."""
    row = {"id": new_id(), "name": name, "role": role, "password_hash": password_hash}
    statement = insert(operators).values(**row).on_conflict_do_nothing(index_elements=["name"])
    created = db.execute(statement.returning(operators)).one_or_none()
    if created is None:
        raise InvalidRequest(
            f"There is an operator '{name}' already: 'headrace operators password' sets a new password.", param="name"
        )
    return _operator(created)


def list_all(db: Connection) -> list[Operator]:
    """Every operator, by name."""
    return [_operator(row) for row in db.execute(sa.select(operators).order_by(operators.c.name))]


def named(db: Connection, name: str) -> Operator | None:
    return _first(db, operators.c.name == name)


def find(db: Connection, operator_id: UUID) -> Operator | None:
    return _first(db, operators.c.id == operator_id)


def set_password(db: Connection, name: str, password_hash: str) -> None:
    """Replace a password, which ends the operator's open sessions and its time-out. Raises: NotFound."""
    changed = sa.update(operators).where(operators.c.name == name).values(password_hash=password_hash)
    _check(db.execute(changed.returning(operators.c.id)).first(), name)
    forgive(db, name)


def set_role(db: Connection, name: str, role: Role) -> None:
    """Replace a role, from the next request on. Raises: NotFound."""
    changed = sa.update(operators).where(operators.c.name == name).values(role=role)
    _check(db.execute(changed.returning(operators.c.id)).first(), name)


def delete(db: Connection, name: str) -> None:
    """Delete an account, which ends its sessions. Raises: NotFound."""
    _check(db.execute(sa.delete(operators).where(operators.c.name == name).returning(operators.c.id)).first(), name)


def count_try(db: Connection, name: str) -> bool:
    """Count a login with this name as failed, until `forgive`. Returns: False: too many have failed, so try nothing.

    Counted before the password is compared, so that simultaneous guesses count too.
    """
    until = sa.func.now() + PERIOD
    is_over = failed_logins.c.until <= sa.func.now()
    count = insert(failed_logins).values(digest=_digest(name), tries=1, until=until)
    again = {
        "tries": sa.case((is_over, 1), else_=sa.func.least(failed_logins.c.tries + 1, TRIES_MAX + 1)),
        "until": sa.case((is_over, until), else_=failed_logins.c.until),
    }
    counted = count.on_conflict_do_update(index_elements=["digest"], set_=again).returning(failed_logins.c.tries)
    tries: int = db.execute(counted).scalar_one()
    _forget(db)
    return tries <= TRIES_MAX


def forgive(db: Connection, name: str) -> None:
    """Forget the failed logins of this name."""
    db.execute(sa.delete(failed_logins).where(failed_logins.c.digest == _digest(name)))


def _forget(db: Connection) -> None:
    """Delete failures that count no more: made-up names leave no rows behind."""
    old = (
        sa.select(failed_logins.c.digest)
        .where(failed_logins.c.until < sa.func.now())
        .order_by(failed_logins.c.until)
        .limit(FORGET_ROWS)
        .with_for_update(skip_locked=True)
    )
    db.execute(delete_chosen(old, failed_logins))


def _digest(name: str) -> bytes:
    return hashlib.sha256(name.encode(errors="surrogatepass")).digest()


def _first(db: Connection, *conditions: sa.ColumnElement[bool]) -> Operator | None:
    row = db.execute(sa.select(operators).where(*conditions)).one_or_none()
    return None if row is None else _operator(row)


def _operator(row: Row[Any]) -> Operator:
    return Operator(row.id, row.name, Role(row.role), row.password_hash, row.created_at)


def _check(row: Row[Any] | None, name: str) -> None:
    if row is None:
        raise NotFound(f"There is no operator '{name}': 'headrace operators list' shows those there are.")
