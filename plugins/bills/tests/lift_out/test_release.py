"""A database with bills is released without the plugin, and with it again."""

from collections.abc import Callable, Sequence
from pathlib import Path

import psycopg

from tests.lift_out.test_lift_out import run, without

__all__ = ["without"]  # A fixture, which pytest finds by its name here.


def test_a_database_is_released_without_what_was_lifted_out(
    without: Callable[[Sequence[str]], Path], database_url: str
) -> None:
    """Its views go, since they would hold back the core's tables; its tables stay, with their rows."""
    url = database_url.replace("+psycopg", "")
    run(without(()), "alembic", "upgrade", "head", DATABASE_URL=url)
    with psycopg.connect(url, autocommit=True) as db:
        db.execute(
            "INSERT INTO bills (source, file, lines, first_day, last_day, ledger_usd, billed_usd)"
            " VALUES ('hosts', 'b.csv', 1, now(), now(), 2, 2)"
        )
        assert views(db) >= {"bill_differences", "cost_per_day"}
        lifted = without(["bills"])
        run(lifted, "alembic", "upgrade", "head", DATABASE_URL=url)
        assert (views(db) & {"bill_differences", "cost_per_day"}) == {"cost_per_day"}
        assert db.execute("SELECT sum(billed_usd) FROM bills").fetchone() == (2,)
        run(without(()), "alembic", "upgrade", "head", DATABASE_URL=url)
        assert "bill_differences" in views(db), "it can be put back"
        assert db.execute("SELECT name, version FROM plugin_versions WHERE name = 'bills'").fetchall() == [("bills", 1)]


def views(db: psycopg.Connection[tuple[str, ...]]) -> set[str]:
    return {name for (name,) in db.execute("SELECT viewname FROM pg_views WHERE schemaname = 'public'")}
