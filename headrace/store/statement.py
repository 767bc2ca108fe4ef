"""Statements that are compiled once and take any number of rows as one JSON parameter.

With one array per column instead, psycopg would need more time for the arrays than Postgres for the rows.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Self
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import ColumnClause, ColumnElement, Connection, Select, TableValuedAlias
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.sql.dml import ReturningInsert

from headrace.domain.ids import month_of
from headrace.store.session import Store

_encode = json.JSONEncoder(separators=(",", ":"), default=str).encode


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL for the driver. Through SQLAlchemy, each run would cost more than it costs Postgres."""

    sql: str
    parameters: Mapping[str, Any]

    @classmethod
    def of(cls, statement: Select[Any] | ReturningInsert[Any]) -> Self:
        """Compile it."""
        dialect = sa.make_url("postgresql+psycopg://").get_dialect()()
        compiled = statement.compile(dialect=dialect, compile_kwargs={"render_postcompile": True})
        return cls(str(compiled), compiled.params)


#: What stands in the text of a `StatementByMonth` for the first ids of the jobs' month and of the next one, and for the
#: jobs' ids.
_SINCE, _UNTIL, _IDS = "{since}", "{until}", "{ids}"
#: So many ids are written one by one, as elements of the parameter; those that it does not have are NULL.
FEW = 8
_ALL_IDS = "%(ids)s::uuid[]"
_FEW_IDS = f"ARRAY[{', '.join(f'({_ALL_IDS})[{place}]' for place in range(1, FEW + 1))}]"


def among(job_id: ColumnElement[UUID]) -> ColumnElement[bool]:
    """The condition that the job is one of those that a `StatementByMonth` is run for, and so of their month.

    It always holds. Because the bounds are literals, Postgres plans, locks and opens the one partition between them.
    With a join to the rows sent alone, it would do so with the partitions of all months, and all their indexes. And
    with the bounds alone it would read the whole month, while it has no statistics of it: as after an installation, and
    at the beginning of each month.

    Up to `FEW` ids are written one by one. Postgres keeps a plan for any ids if, by its estimate, it costs no more than
    a plan for the given ones. In an array that is one parameter it expects ten ids: it would plan each run with a few
    anew, which takes two to four times as long as the run. Source: `choose_custom_plan` and `estimate_array_length` in
    Postgres 18.
    """
    since, until = (sa.literal_column(f"'{bound}'::uuid", sa.Uuid) for bound in (_SINCE, _UNTIL))
    return sa.and_(job_id >= since, job_id < until, job_id == sa.any_(sa.literal_column(_IDS, ARRAY(sa.Uuid))))


@dataclass(frozen=True, slots=True)
class StatementByMonth(Statement):
    """SQL about jobs of one month, with `among` for each table that is in partitions by month."""

    def within(self, job_id: UUID, count: int) -> str:
        """The SQL for so many jobs of this job's month."""
        since, until = month_of(job_id)
        ids = _FEW_IDS if count <= FEW else _ALL_IDS
        return self.sql.replace(_SINCE, str(since)).replace(_UNTIL, str(until)).replace(_IDS, ids)

    def run(self, where: Connection | Store, given: Iterable[Mapping[str, Any]]) -> Sequence[Any]:
        """Run it once for each month of the jobs.

        Args:
            where: a transaction; or a store, where each run is one by itself and costs less.
            given: one row for each job, by column name.

        Returns: rows with its columns as attributes.
        """
        # Sorted, so that two workers lock rows in the same order and cannot deadlock.
        in_order = sorted(given, key=lambda each: each["job_id"])
        rows: list[Any] = []
        for _, of_one_month in groupby(in_order, key=lambda each: month_of(each["job_id"])):
            sent = list(of_one_month)
            ids = [each["job_id"] for each in sent]
            sql, parameters = self.within(ids[0], len(ids)), {**self.parameters, "given": _encode(sent), "ids": ids}
            if isinstance(where, Store):
                rows += where.run(sql, parameters)
            else:
                rows += where.exec_driver_sql(sql, parameters).all()
        return rows


def before_disk() -> ColumnElement[str]:
    """A column with which the statement's transaction ends before its commit is on disk; see `Store.wait_for_disk`.

    If the statement returns no row, it waits for the disk as ever.
    """
    return sa.func.set_config("synchronous_commit", "off", sa.true()).label("before_disk")


def rows_sent(parameter: str, columns: Iterable[ColumnClause[Any]], name: str = "sent") -> TableValuedAlias:
    """The rows of a JSON list as a table with this name and these columns. Args: parameter: the list's name."""
    rows = sa.func.json_to_recordset(sa.bindparam(parameter, None, sa.JSON)).table_valued(*columns)
    return rows.render_derived(name, with_types=True)
