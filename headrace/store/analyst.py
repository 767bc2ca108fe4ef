"""A role that reads the figures and cannot see a prompt, an answer, a key or a secret."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Row

from headrace.errors import ConfigError
from headrace.store.views import VIEWS
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
#: How long a transaction of an analyst lasts at most: then the control process ends its session. It is a little longer
#: than the limits above, which no role can be kept from lifting.
LONGEST = timedelta(minutes=5, seconds=30)
#: What a superuser's analysts may write to disk for one query's sorts and joins.
TEMP_FILES = "10GB"
#: Functions that any role may call until a superuser revokes it: they fill the table of locks, or the disk.
_WRITES = "^(lo_creat|lo_create|lo_from_bytea|lo_put|lowrite)$"
_LOCKS = "^pg_(try_)?advisory_(xact_)?lock|^pg_logical_emit_message$"
#: Analysts' connections at once, of those that Postgres has for all.
CONNECTIONS = 10

#: Columns that an analyst may not read: what apps and providers write is in them, or what signs and opens.
HIDDEN: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "apps": frozenset({"webhook_secret", "webhook_secret_old", "webhook_secret_old_until"}),
        "jobs": frozenset({"metadata", "webhook_url", "error_message"}),
        "decisions": frozenset({"error"}),
        "deliveries": frozenset({"data", "url", "last_error"}),
        **{table.name: table.info["hidden"] for table in metadata.sorted_tables if "hidden" in table.info},
    }
)
#: Tables that an analyst may not read at all.
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
        ),
        *("locks", "operators", "paused_receivers", "poison_prompts"),
        *(table.name for table in metadata.sorted_tables if table.info.get("is_closed")),
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


def allow(db: Connection, role: str, password: str) -> bool:
    """Make a role that may log in and read; or give one that was made so before a new password and the present rights.

    Takes from all roles what analysts have no use for, as far as the database's own user may.
    Returns: False if a superuser must do the rest of that; see docs/analytics.md.
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
    own = db.execute(_OWN).one()
    statements = _statements(role, _encrypted(db, role, password), database, is_new=found is None)
    statements += _takings(role, database, own)
    try:
        for statement in statements:
            db.exec_driver_sql(_formatted(db, *statement).replace("%", "%%"))
    except sa.exc.ProgrammingError as error:
        message = f"The database's user may not make the role '{role}': {str(error.orig).strip()}."
        raise ConfigError(f"{message} Connect as one that has CREATEROLE, or as its owner.", param="role") from error
    return bool(own.is_superuser)


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
    rights += _reading(role)
    # So that the control process sees its sessions, and may end them.
    rights.append(("GRANT %I TO CURRENT_USER WITH INHERIT TRUE, SET FALSE", role))
    return rights


def _reading(role: str) -> list[tuple[str, ...]]:
    """The statements that let a role read; as `_statements`."""
    rights: list[tuple[str, ...]] = [("GRANT SELECT ON %I TO %I", view, role) for view in VIEWS]
    for table, columns in readable().items():
        rights += [(f"GRANT SELECT ({', '.join(columns)}) ON %I TO %I", table, role)]
    return rights


def renew(db: Connection) -> None:
    """Let this database's analysts read the views and tables of now."""
    for role in db.scalars(_ROLES, {"mark": MARK}).all():
        for statement in _reading(role):
            db.exec_driver_sql(_formatted(db, *statement).replace("%", "%%"))


def _takings(role: str, database: str, own: Row[Any]) -> list[tuple[str, ...]]:
    """What to revoke from all roles. Args: own: what the database's own user is, from `_OWN`."""
    takings: list[tuple[str, ...]] = []
    if own.is_owner:
        takings += [
            ("REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC", database),
            ("REVOKE CREATE ON SCHEMA public FROM PUBLIC",),
        ]
    if own.is_superuser:
        takings += [
            (f"REVOKE EXECUTE ON FUNCTION {own.locks}, {own.writes} FROM PUBLIC",),
            # Headrace itself needs them: the roles of its processes are those that may accept jobs.
            (f"GRANT EXECUTE ON FUNCTION {own.locks} TO {own.writers}",),
            (f"ALTER ROLE %I IN DATABASE %I SET temp_file_limit = '{TEMP_FILES}'", role, database),
        ]
    return takings


_FUNCTIONS = """
           (SELECT string_agg(CAST(CAST(oid AS regprocedure) AS text), ', ') FROM pg_proc
            WHERE pronamespace = CAST('pg_catalog' AS regnamespace) AND proname ~ '{}')"""
_OWN = sa.text(
    f"""
    SELECT rolsuper AS is_superuser, pg_has_role(datdba, 'USAGE') AS is_owner,
           {_FUNCTIONS.format(_LOCKS)} AS locks, {_FUNCTIONS.format(_WRITES)} AS writes,
           (SELECT string_agg(quote_ident(rolname), ', ') FROM pg_roles
            WHERE has_table_privilege(oid, 'idempotency_keys', 'INSERT') AND rolname !~ '^pg_') AS writers
    FROM pg_roles, pg_database
    WHERE rolname = current_user AND datname = current_database()
    """
)


def end_sessions(db: Connection) -> Sequence[Row[Any]]:
    """End the analysts' sessions whose transaction lasts longer than `LONGEST`, or that hold an advisory lock.

    Such a transaction holds back vacuum and releases, and locks without end leave none to the others.
    Returns: the role, process and seconds of each.
    """
    return db.execute(_END_SESSIONS, {"mark": MARK, "longest": LONGEST}).all()


def out_of_reach(db: Connection) -> Sequence[str]:
    """Roles of analysts whose sessions this user may not end: an older release made them."""
    return db.scalars(_OUT_OF_REACH, {"mark": MARK}).all()


_END_SESSIONS = sa.text(
    """
    SELECT usename AS role, pid, extract(epoch FROM now() - xact_start) AS seconds, pg_terminate_backend(pid)
    FROM pg_stat_activity
    WHERE shobj_description(usesysid, 'pg_authid') = :mark AND pg_has_role(usesysid, 'USAGE')
      AND (xact_start < now() - :longest
           OR EXISTS (SELECT FROM pg_locks WHERE pg_locks.pid = pg_stat_activity.pid AND locktype = 'advisory'))
    """
)
#: `allow` gives each of them settings in its database.
_ROLES = sa.text(
    """
    SELECT rolname FROM pg_roles r JOIN pg_db_role_setting s ON s.setrole = r.oid
    JOIN pg_database d ON d.oid = s.setdatabase
    WHERE shobj_description(r.oid, 'pg_authid') = :mark AND datname = current_database()
    """
)
_OUT_OF_REACH = sa.text(
    "SELECT rolname FROM pg_roles WHERE shobj_description(oid, 'pg_authid') = :mark AND NOT pg_has_role(oid, 'USAGE')"
)


def _formatted(db: Connection, template: str, *values: str) -> str:
    """The statement, quoted by the server: statements about roles take no parameters."""
    names = [f"v{number}" for number in range(len(values))]
    given = [":template", *(f"CAST(:{name} AS text)" for name in names)]
    call = sa.text(f"SELECT format({', '.join(given)})")
    return str(db.scalar(call, {"template": template, **dict(zip(names, values, strict=True))}))
