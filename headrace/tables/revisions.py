"""Which migration a database is at, and which one this code needs.

A revision has four digits: two for the release line and two for the migration. `0100` is the baseline of 0.1.
"""

from functools import cache

from headrace.config import PROJECT_ROOT

#: The baseline of this release line. A database with an earlier revision was made before 0.1.0.
BASELINE = "0100"
_RELEASE = "run the Procfile's 'release' ('alembic upgrade head')"
_MOVE = "move its rows to the tables of now with 'bin/headrace python migrations/move.py', whose --help says more"


@cache
def newest() -> str:
    """The newest migration of this code."""
    return max(file.name[:4] for file in (PROJECT_ROOT / "migrations" / "versions").glob("[0-9]*.py"))


def is_from_before(applied: str) -> bool:
    """Whether a migration before 0.1.0 made this database."""
    return applied < BASELINE


def lacking(applied: str | None) -> str | None:
    """Why this code cannot use a database, and the remedy, as the end of a sentence; None if it can.

    A revision that is newer than this code passes: two releases run side by side during a deployment.
    """
    if applied is None:
        return f"has no tables of Headrace: {_RELEASE}."
    if is_from_before(applied):
        return f"is at migration {applied}, which is older than 0.1.0: {_MOVE}."
    if applied < newest():
        return f"is at migration {applied} and this code needs {newest()}: {_RELEASE}."
    return None
