"""The questions of docs/questions.md, and the answers of a database, as text tables. Knows nothing of the data."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from headrace.config import PROJECT_ROOT
from headrace.store import analyst

PAGE = PROJECT_ROOT / "docs" / "questions.md"
#: The page of the worked example.
EXAMPLE = PROJECT_ROOT / "docs" / "analytics.md"
#: A query, and the answer below it.
ASKED = re.compile(r"```sql\n(?P<query>[^`]*)```\n\n```text\n(?P<answer>[^`]*)```")
#: A heading of a question.
QUESTION = re.compile(r"^## \d+\. .*\?$", re.M)
ROLE = "analyst of the questions"


def answered(page: str, db: Connection) -> str:
    """The page with the answers of this database, as the role of analysts gets them. Leaves no role behind."""
    savepoint = db.begin_nested()
    analyst.allow(db, ROLE, "not used")
    db.exec_driver_sql(f'SET LOCAL ROLE "{ROLE}"')
    db.exec_driver_sql("SET LOCAL TimeZone = 'UTC'")

    def answer(match: re.Match[str]) -> str:
        found = db.execute(sa.text(match["query"].replace(":", "\\:")))
        return f"```sql\n{match['query']}```\n\n```text\n{table(list(found.keys()), found.all())}```"

    made = ASKED.sub(answer, page)
    savepoint.rollback()
    return made


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Aligned columns: text to the left, numbers to the right."""
    cells = [[_shown(value) for value in row] for row in rows]
    widths = [max(map(len, each)) for each in zip(columns, *cells, strict=True)]
    is_number = [
        all(isinstance(value, int | float | Decimal | None) for value in each) for each in zip(*rows, strict=True)
    ]
    lines = [columns, *cells]
    aligned = [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, is_number or [False] * len(widths), strict=True)
        ).rstrip()
        for line in lines
    ]
    return "\n".join(aligned) + f"\n({len(rows)} row{'' if len(rows) == 1 else 's'})\n"


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime):
        at = value.astimezone(UTC)
        return f"{at:%Y-%m-%d}" if at.time() == at.min.time() else f"{at:%Y-%m-%d %H:%M}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
