"""The codes and reasons that the pages list are those that the code has."""

import ast
import re
from collections.abc import Iterator
from functools import cache

from headrace.config import PROJECT_ROOT

FOLDERS = ("api", "headrace", "plugins", "workers", "scheduler")
#: Codes that no app sees, and why.
UNSEEN = {
    "actuator_unavailable": "of hosts",
    "delivery_failed": "of a webhook's try",
    "engine_error": "a base class",
    "illegal_transition": "a defect",
    "job_failed": "a base class",
    "lock_held": "of a sweep",
    "missing": "becomes missing_parameter",
    "overflow_not_allowed": "a job that may not spill is in no queue of the paid API",
    "permission_denied": "a base class",
    "refused": "a base class",
    "stack_error": "of the terminal",
    "unavailable": "a base class",
}
#: Calls whose argument at this place is a code.
CALLS = {"refusal": 1, "Fate": 1, "Objection": 0, "BatchError": 0, "_note": 0, "_error": 0}
KEYWORDS = ("code", "error_code")
#: A code or a reason, as a page has it.
_WORDS = re.compile(r"`([a-z]+(?:_[a-z]+)*)`")


@cache
def trees() -> list[ast.Module]:
    paths = [path for folder in FOLDERS for path in sorted((PROJECT_ROOT / folder).rglob("*.py"))]
    paths = [path for path in paths if "tests" not in path.parts]
    return [ast.parse(path.read_text(encoding="utf-8")) for path in paths]


def constants(tree: ast.Module) -> dict[str, str]:
    """The texts that a module names."""
    return {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def text_of(node: ast.expr, names: dict[str, str]) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return names.get(node.id) if isinstance(node, ast.Name) else None


def calls() -> Iterator[tuple[str, ast.Call, dict[str, str]]]:
    """Each call with the name of what is called, and the texts that its module names."""
    for tree in trees():
        names = constants(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                called = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
                yield called, node, names


def of_calls() -> Iterator[str | None]:
    """The codes that calls are given."""
    for called, node, names in calls():
        yield from (text_of(each.value, names) for each in node.keywords if each.arg in KEYWORDS)
        if called in CALLS and len(node.args) > CALLS[called]:
            yield text_of(node.args[CALLS[called]], names)


def of_classes() -> Iterator[str | None]:
    """The `code` of each class of errors."""
    for node in (node for tree in trees() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)):
        for each in node.body:
            if isinstance(each, ast.Assign) and [getattr(target, "id", "") for target in each.targets] == ["code"]:
                yield text_of(each.value, {})


@cache
def literals() -> frozenset[str]:
    """Every text in the code."""
    return frozenset(
        node.value
        for tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def column(page: str, heading: str, number: int) -> set[str]:
    """The words in code of this column, from 0, of the tables below this heading, up to the next of its level."""
    text = (PROJECT_ROOT / "docs" / page).read_text(encoding="utf-8")
    level = heading.partition(" ")[0]
    chapter = re.split(rf"^#{{1,{len(level)}}} ", text.partition(f"\n{heading}\n")[2], flags=re.MULTILINE)[0]
    rows = [line.strip("|").split("|") for line in chapter.splitlines() if line.startswith("| ")]
    return {word for row in rows for word in _WORDS.findall(row[number])} - {"insufficient_quota", "type", "error"}


def of_pages() -> set[str]:
    errors = column("api.md", "## Errors", 1) - column("api.md", "### Why a job has no answer", 1)
    lines = column("batches.md", "### What makes a file no batch", 0)
    results = column("batches.md", "### What a line's result looks like", 0)
    return errors | column("api.md", "### Why a job has no answer", 0) | lines | results


def test_each_code_of_the_code_is_on_a_page_unless_no_app_sees_it() -> None:
    found = {code for code in (*of_calls(), *of_classes()) if code}
    assert len(found) > 60
    assert found - of_pages() - UNSEEN.keys() == set()
    assert UNSEEN.keys() <= found - of_pages()


def test_each_code_of_a_page_is_in_the_code() -> None:
    assert of_pages() - literals() == set()


def test_no_page_shows_a_code_that_no_app_sees() -> None:
    shown = re.compile(rf"\b({'|'.join(code for code in UNSEEN if '_' in code)})\b")
    pages = (PROJECT_ROOT / "docs" / f"{name}.md" for name in ("analytics", "api", "batches", "guide", "questions"))
    assert [found for page in pages for found in shown.findall(page.read_text(encoding="utf-8"))] == []


def test_each_reason_of_a_429_is_on_the_page_and_in_the_code() -> None:
    listed = column("api.md", "## Limits and 429", 1)
    # `api.door.refusals.slots_full` puts them together.
    of_slots = {f"{kind}_slots" for kind in ("wait", "stream", "file", "usage")}
    assert listed - literals() == of_slots
    refusing = {"Refused", "QueueFull", "AppLimited", "BudgetExceeded", "GoalMissed", "BodiesFull", "SlotsFull"}
    given = {
        text_of(each.value, names)
        for called, node, names in calls()
        if called in refusing
        for each in node.keywords
        if each.arg == "reason"
    }
    assert len(given) > 3
    assert given - {None} <= listed
