"""The fields of the log lines of all processes, as the source names them."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    path
    for package in ("api", "headrace", "plugins", "scheduler", "workers")
    for path in (ROOT / package).rglob("*.py")
)


def log_fields(tree: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Each field of a dictionary that is given as `extra`, or of one in a variable or function that `extra` takes."""
    dicts = {id(node): node for node in ast.walk(tree) if isinstance(node, ast.Dict)}
    extras = [
        word.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        for word in node.keywords
        if word.arg == "extra"
    ]
    names = {each.id for extra in extras for each in ast.walk(extra) if isinstance(each, ast.Name)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and any(isinstance(to, ast.Name) and to.id in names for to in node.targets):
            extras.append(node.value)
        elif isinstance(node, ast.FunctionDef) and node.name in names:
            extras += [each.value for each in ast.walk(node) if isinstance(each, ast.Return) and each.value]
    for extra in extras:
        for node in ast.walk(extra):
            if id(node) in dicts:
                for key, value in zip(dicts[id(node)].keys, dicts[id(node)].values, strict=True):
                    if isinstance(key, ast.Constant):
                        yield str(key.value), value


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_process_logs_a_job_as_job_id_in_one_spelling(path: Path) -> None:
    for name, value in log_fields(ast.parse(path.read_text())):
        shown = ast.unparse(value)
        assert name not in ("job", "task_id", "request_id") or shown in (
            "g.request_id",
            "request_id",
            "bid.sent.id",
            "sent.id",
            "caller.request_id",
        ), f"{name}: {shown}"
        if name == "job_id":
            # A webhook's data has it in this spelling.
            is_spelled = shown.startswith(("show_id(", "f'job_{")) or shown == "delivery.data.get('job_id')"
            assert is_spelled, f"{path}: {shown}"
