"""A job changes its state by the statements of `headrace/store/states`, and by no other."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.config import PROJECT_ROOT

FOLDERS = ("headrace", "api", "ops", "workers", "scheduler", "plugins", "migrations/move")
DOOR = PROJECT_ROOT / "headrace" / "store" / "states"
#: In SQL, up to the next clause that is none of the assignments.
SETS_STATE = re.compile(r"UPDATE\s+jobs\b[^;]*?\bSET\b(?:(?!\bFROM\b|\bWHERE\b)[^;])*?\bstate\s*=", re.IGNORECASE)


def paths(suffix: str) -> Iterator[Path]:
    for folder in FOLDERS:
        found = (path for path in (PROJECT_ROOT / folder).rglob(f"*{suffix}") if DOOR not in path.parents)
        yield from (path for path in found if "tests" not in path.parts)


def root_of(node: ast.expr) -> ast.expr:
    """The first call of a chain, such as `sa.update(jobs)` of `sa.update(jobs).where(...).values(...)`."""
    while isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Call):
        node = node.func.value
    return node


def updates_jobs(node: ast.expr) -> bool:
    if not isinstance(node, ast.Call) or not node.args:
        return False
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    table = node.args[0].attr if isinstance(node.args[0], ast.Attribute) else getattr(node.args[0], "id", "")
    return name == "update" and table == "jobs"


def changes(text: str) -> list[int]:
    """The lines of Python that change a job's state."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "values":
            given = {each.arg for each in node.keywords} | {
                key.value
                for each in node.args
                if isinstance(each, ast.Dict)
                for key in each.keys
                if isinstance(key, ast.Constant)
            }
            if "state" in given and updates_jobs(root_of(node.func.value)):
                found.append(node.lineno)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and SETS_STATE.search(node.value):
            found.append(node.lineno)
    return found


def test_no_python_elsewhere_changes_a_state() -> None:
    assert {str(path): lines for path in paths(".py") if (lines := changes(path.read_text()))} == {}


def test_no_sql_elsewhere_changes_a_state() -> None:
    assert [str(path) for path in paths(".sql") if SETS_STATE.search(path.read_text())] == []


@pytest.mark.parametrize("name", ["claim.sql", "finish.sql"])
def test_the_statements_here_do(name: str) -> None:
    assert SETS_STATE.search((DOOR / name).read_text())


@pytest.mark.parametrize(
    "text",
    [
        "sa.update(jobs).where(a).values(state=b)",
        'update(tables.jobs).values({"state": b}).returning(jobs)',
        'db.execute("UPDATE jobs SET queue = 1, state = 2 WHERE id = 3")',
    ],
)
def test_another_statement_would_be_found(text: str) -> None:
    assert changes(text) == [1]


@pytest.mark.parametrize(
    "text",
    [
        "sa.update(jobs).where(jobs.c.state == a).values(queue=b)",
        "sa.update(deliveries).values(state=b)",
        "db.execute(\"UPDATE jobs SET queue = 1 WHERE state = 'queued'\")",
    ],
)
def test_what_changes_no_state_is_none(text: str) -> None:
    assert changes(text) == []
