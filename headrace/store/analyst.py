"""A role that reads the figures and cannot see a prompt, an answer, a key or a secret."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from headrace.errors import ConfigError
from headrace.tables import metadata

#: The comment of a role that was made here. Any other role has rights and a password of its own, which must stay.
MARK = "Made by headrace analyst."
#: What holds in each session of the role in this database. A long query, or a transaction that stays open, holds back
#: the vacuum of the queues' tables and the locks of a release.
SESSION: Mapping[str, str] = MappingProxyType(
    {
        "default_transaction_read_only": "on",
        "statement_timeout": "5min",
        "idle_in_transaction_session_timeout": "5min",
        # A month of a million requests is joined and grouped in memory.
        "work_mem": "64MB",
    }
)
#: Analysts' connections at once, of those that Postgres has for all.
CONNECTIONS = 10

#: The views, whose columns may all be read.
VIEWS = (
    *("budget_run_rate", "cache_per_day", "charges", "compression_per_day", "cost_elasticity", "cost_per_day"),
    *("cost_per_request", "cost_per_user_day", "cost_per_user_month", "cost_reconciliation", "gpu_hours"),
    *("operator_actions", "routing_per_day"),
    *("savings_per_day", "semantic_cache_per_day", "split_options", "split_point", "waits_per_hour"),
)
#: Columns that an analyst may not read: what apps and providers write is in them, or what signs and opens.
HIDDEN: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "apps": frozenset({"webhook_secret", "webhook_secret_old", "webhook_secret_old_until"}),
        "jobs": frozenset({"metadata", "webhook_url", "error_message", "custom_id"}),
        "decisions": frozenset({"error"}),
        "deliveries": frozenset({"data", "url", "last_error"}),
    }
)
#: Tables of which an analyst may read nothing.
CLOSED = frozenset(
    {
        *(
            "api_keys",
            "audit_log",
            "cache_entries",
            "failed_logins",
            "gone_receivers",
            "idempotency_keys",
            "job_texts",
            "operators",
        ),
        "poison_prompts",
    }
)


@dataclass(frozen=True, slots=True)
class Relation:
    """A view or table that an analyst reads.

    Attributes:
        about: its comment; empty if it has none.
        columns: name, type and comment of each.
    """

    name: str
    about: str
    columns: Sequence[tuple[str, str, str]]


def dictionary(db: Connection) -> list[Relation]:
    """What the role reads, with the comments that the database has: the views by name, then the tables."""
    open_columns = readable()
    relations = []
    for name in (*VIEWS, *sorted(open_columns)):
        rows = db.execute(_COLUMNS, {"name": name}).all()
        shown = [(row.name, row.type, row.about) for row in rows if row.name in open_columns.get(name, (row.name,))]
        relations.append(Relation(name, rows[0].relation_about, shown))
    return relations


_COLUMNS = sa.text(
    """
    SELECT attname AS name, format_type(atttypid, atttypmod) AS type,
           coalesce(col_description(attrelid, attnum), '') AS about,
           coalesce(obj_description(attrelid, 'pg_class'), '') AS relation_about
    FROM pg_attribute
    WHERE attrelid = CAST(:name AS regclass) AND attnum > 0 AND NOT attisdropped
    ORDER BY attnum
    """
)


def readable() -> dict[str, tuple[str, ...]]:
    """The tables that an analyst may read, each with the columns."""
    return {
        table.name: tuple(column.name for column in table.columns if column.name not in HIDDEN.get(table.name, ()))
        for table in metadata.sorted_tables
        if table.name not in CLOSED
    }


def allow(db: Connection, role: str, password: str) -> None:
    """Make a role that may log in and read; or give one that was made so before a new password and the present rights.

    Repeat it after a release, which may add tables.
    Raises: ConfigError: another role has this name, or the database's own user may not make roles.
    """
    if db.scalar(sa.select(sa.text("current_user = :role")), {"role": role}):
        raise ConfigError(f"'{role}' is the role that Headrace itself uses: choose another name.", param="role")
    about = sa.text("SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = :role")
    found = db.execute(about, {"role": role}).one_or_none()
    if found is not None and found[0] != MARK:
        message = f"The role '{role}' exists, and 'headrace analyst' did not make it: choose another name."
        raise ConfigError(message, param="role")
    database = str(db.scalar(sa.select(sa.func.current_database())))
    try:
        for statement in _statements(role, _encrypted(db, role, password), database, is_new=found is None):
            db.exec_driver_sql(_formatted(db, *statement).replace("%", "%%"))
    except sa.exc.ProgrammingError as error:
        message = f"The database's user may not make the role '{role}': {str(error.orig).strip()}."
        raise ConfigError(f"{message} Connect as one that has CREATEROLE, or as its owner.", param="role") from error


def _encrypted(db: Connection, role: str, password: str) -> str:
    """The password as the server stores it, so that no log of the server ever has it."""
    driver: Any = db.connection.driver_connection
    encrypted: bytes = driver.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256")
    return encrypted.decode()


def _statements(role: str, password: str, database: str, *, is_new: bool) -> list[tuple[str, ...]]:
    """Each statement as a template of Postgres's `format`, with its values."""
    verb = "CREATE" if is_new else "ALTER"
    rights: list[tuple[str, ...]] = [
        (f"{verb} ROLE %I LOGIN CONNECTION LIMIT {CONNECTIONS} PASSWORD %L", role, password),
        ("COMMENT ON ROLE %I IS %L", role, MARK),
    ]
    rights += [
        (f"ALTER ROLE %I IN DATABASE %I SET {name} = %L", role, database, value) for name, value in SESSION.items()
    ]
    rights += [
        ("REVOKE ALL ON ALL TABLES IN SCHEMA public FROM %I", role),
        ("GRANT USAGE ON SCHEMA public TO %I", role),
    ]
    rights += [("GRANT SELECT ON %I TO %I", view, role) for view in VIEWS]
    for table, columns in readable().items():
        rights += [(f"GRANT SELECT ({', '.join(columns)}) ON %I TO %I", table, role)]
    return rights


def _formatted(db: Connection, template: str, *values: str) -> str:
    """The statement, quoted by the server: statements about roles take no parameters."""
    names = [f"v{number}" for number in range(len(values))]
    call = sa.text(f"SELECT format(:template, {', '.join(f'CAST(:{name} AS text)' for name in names)})")
    return str(db.scalar(call, {"template": template, **dict(zip(names, values, strict=True))}))
