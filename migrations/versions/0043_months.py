"""Partition jobs, their texts, attempts, charges and webhooks by month of the job's id.

The present tables become the first partitions as they are: no row is copied or read. New months are made by the sweep
`make_months`. The names stay, so that the old code reads and writes the partitioned tables.

Revision: 0043, after 0042
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0043"
down_revision = "0042"
branch_labels = None
depends_on = None

#: The tables, each with the column that holds the job's id. A table comes after those that it refers to.
KEYS = {"jobs": "id", "job_texts": "job_id", "attempts": "job_id", "ledger": "job_id", "deliveries": "job_id"}
#: Some of their rows are about no job: the first partition has these too. It takes what no month takes, and its check
#: lets months be attached unread. Their own key is no part of the job's id, so each partition has its own.
WITH_OTHERS = ("ledger", "deliveries")
#: Held by the table `job_retries` instead.
REPLACED = "uq_jobs_retry_of"

#: Less than Postgres's `deadlock_timeout`: this transaction gives way before another one fails.
LOCK_TIMEOUT = "SET LOCAL lock_timeout = '500ms'"
LOCK = f"LOCK TABLE {', '.join(KEYS)} IN ACCESS EXCLUSIVE MODE"

BOUND = "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'ck_jobs_first'"
VIEWS = """
    SELECT DISTINCT v.oid::regclass::text AS name, pg_get_viewdef(v.oid) AS query
    FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid JOIN pg_class v ON v.oid = r.ev_class
    WHERE d.classid = 'pg_rewrite'::regclass AND d.refobjid = ANY (CAST(:tables AS regclass[])) AND v.relkind = 'v'
"""
CONSTRAINTS = """
    SELECT conname AS name, contype = 'p' AS is_key, pg_get_constraintdef(oid) AS rule FROM pg_constraint
    WHERE conrelid = CAST(:table AS regclass) AND (contype IN ('p', 'u') OR confrelid = 'apps'::regclass)
    ORDER BY contype, conname
"""
INDEXES = """
    SELECT c.relname AS name, pg_get_indexdef(c.oid) AS made,
           EXISTS (SELECT FROM pg_constraint WHERE conindid = c.oid AND contype IN ('p', 'u')) AS is_rule
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = CAST(:table AS regclass)
    ORDER BY c.relname
"""
TRIGGERS = """
    SELECT tgname AS name, pg_get_triggerdef(oid) AS made FROM pg_trigger
    WHERE tgrelid = CAST(:table AS regclass) AND NOT tgisinternal
"""
RIGHTS = """
    SELECT right_of.privilege_type AS kind, NULL AS part, grantee::regrole::text AS role
    FROM pg_class c, aclexplode(c.relacl) right_of
    WHERE c.oid = CAST(:table AS regclass) AND grantee NOT IN (0, c.relowner)
    UNION ALL
    SELECT right_of.privilege_type, quote_ident(attname), grantee::regrole::text
    FROM pg_attribute a, aclexplode(a.attacl) right_of
    WHERE a.attrelid = CAST(:table AS regclass) AND grantee <> 0 AND NOT attisdropped
"""
MONTHS = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = CAST(:table AS regclass)"
RANGE = "SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE oid = CAST(:table AS regclass)"


def upgrade() -> None:
    with _alone():
        [bound] = re.findall(r"'([0-9a-f-]{36})'", _scalar(BOUND))
        for table in KEYS:
            _partition(table, bound)


def downgrade() -> None:
    with _alone():
        for table in reversed(KEYS):
            for month in _scalars(MONTHS, table=table):
                if month != f"{table}_first" and _scalar(f"SELECT EXISTS (SELECT FROM {month})"):
                    raise RuntimeError(f"{month} has rows: undo this migration by restoring a backup.")
            _merge(table)
    for table in reversed(KEYS):
        op.execute(f"DROP TABLE {table}_parent")


@contextmanager
def _alone() -> Iterator[None]:
    """Lock the tables; afterwards the views read the tables that have their names then."""
    op.execute(LOCK_TIMEOUT)
    op.execute("LOCK TABLE apps IN SHARE ROW EXCLUSIVE MODE")
    op.execute(LOCK)
    views = _rows(VIEWS, tables=list(KEYS))
    yield
    for view in views:
        op.execute(f"CREATE OR REPLACE VIEW {view.name} AS {view.query}")


def _partition(table: str, bound: str) -> None:
    """Give the table's name to a partitioned table, and attach the table to it."""
    first, indexes, rights = f"{table}_first", _rows(INDEXES, table=table), _rows(RIGHTS, table=table)
    constraints, triggers = _rows(CONSTRAINTS, table=table), _rows(TRIGGERS, table=table)
    about = _scalar("SELECT quote_nullable(obj_description(CAST(:table AS regclass), 'pg_class'))", table=table)
    for trigger in triggers:
        op.execute(f"DROP TRIGGER {trigger.name} ON {table}")
    op.execute(f"ALTER TABLE {table} RENAME TO {first}")
    for index in indexes:
        op.execute(f"ALTER INDEX {index.name} RENAME TO {index.name}_first")
    like = "INCLUDING COMMENTS INCLUDING CONSTRAINTS INCLUDING DEFAULTS INCLUDING STORAGE INCLUDING COMPRESSION"
    op.execute(f"CREATE TABLE {table} (LIKE {first} {like}) PARTITION BY RANGE ({KEYS[table]})")
    op.execute(f"COMMENT ON TABLE {table} IS {about}")
    op.execute(f"ALTER TABLE {table} DROP CONSTRAINT ck_{table}_first")
    for rule in constraints:
        if not (rule.is_key and table in WITH_OTHERS):
            op.execute(f"ALTER TABLE {table} ADD CONSTRAINT {rule.name} {rule.rule}")
    for index in indexes:
        if not index.is_rule and index.name != REPLACED:
            op.execute(index.made)
    if table == "ledger":
        _move_identity(first, table)
    for trigger in triggers:
        op.execute(trigger.made)
    _grant(table, rights)
    if table in WITH_OTHERS:
        op.execute(f"ALTER TABLE {table} ATTACH PARTITION {first} DEFAULT")
    else:
        op.execute(f"ALTER TABLE {table} ATTACH PARTITION {first} FOR VALUES FROM (MINVALUE) TO ('{bound}')")
        op.execute(f"ALTER TABLE {first} DROP CONSTRAINT ck_{table}_first")


def _merge(table: str) -> None:
    """Give the table's name back to its first partition."""
    first, key, rights = f"{table}_first", KEYS[table], _rows(RIGHTS, table=table)
    triggers = _rows(TRIGGERS, table=table)
    if table not in WITH_OTHERS:
        [bound] = re.findall(r"TO \('(.*)'\)", _scalar(RANGE, table=first))
        op.execute(f"ALTER TABLE {first} ADD CONSTRAINT ck_{table}_first CHECK ({key} < '{bound}') NOT VALID")
    op.execute(f"ALTER TABLE {table} DETACH PARTITION {first}")
    op.execute(f"ALTER TABLE {table} RENAME TO {table}_parent")
    for index in _rows(INDEXES, table=f"{table}_parent"):
        op.execute(f"ALTER INDEX {index.name} RENAME TO {index.name}_parent")
    op.execute(f"ALTER TABLE {first} RENAME TO {table}")
    for index in _rows(INDEXES, table=table):
        op.execute(f"ALTER INDEX {index.name} RENAME TO {index.name.removesuffix('_first')}")
    if table == "ledger":
        _move_identity(f"{table}_parent", table)
    for trigger in triggers:
        op.execute(trigger.made)
    _grant(table, rights)


def _move_identity(old: str, new: str) -> None:
    """Number the entries of the new table on from the last one of the old table."""
    sequence = _scalar("SELECT pg_get_serial_sequence(:table, 'id')", table=old)
    following = _scalar(f"SELECT last_value + is_called::int FROM {sequence}")
    op.execute(f"ALTER TABLE {old} ALTER COLUMN id DROP IDENTITY")
    op.execute(f"ALTER TABLE {new} ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY")
    op.execute(f"ALTER TABLE {new} ALTER COLUMN id RESTART WITH {following}")


def _grant(table: str, rights: list[sa.Row[Any]]) -> None:
    for right in rights:
        part = f" ({right.part})" if right.part else ""
        op.execute(f"GRANT {right.kind}{part} ON {table} TO {right.role}")


def _rows(query: str, **given: Any) -> list[sa.Row[Any]]:
    return list(op.get_bind().execute(sa.text(query), given))


def _scalars(query: str, **given: Any) -> list[Any]:
    return [row[0] for row in _rows(query, **given)]


def _scalar(query: str, **given: Any) -> Any:
    [value] = _scalars(query, **given)
    return value
