"""How large the house is: files, lines, classes and migrations; core, plugins and tests apart.

The claim: a maintainer can carry it. Reads files and runs nothing of them.
"""

import ast
import json
from collections.abc import Mapping
from pathlib import Path

import click
from rich.table import Table

from bed.commits import tree_of
from bed.testbed import console, line_of
from headrace.config import PROJECT_ROOT

#: The folders of each part. What is in none of them (benchmarks, documents, images) is not counted.
PARTS = {
    "core": ("api", "ops", "workers", "scheduler", "headrace", "migrations", "bin"),
    "plugins": ("plugins",),
    "tests": ("tests", "plugins"),
}
SUFFIXES = (".py", ".lua", ".sql")
MIGRATIONS = "migrations/versions"

#: Figures by name, such as `core_lines`.
Figures = Mapping[str, int]


def measure(root: Path) -> dict[str, int]:
    """The figures of a tree."""
    found: dict[str, int] = {}
    for part, folders in PARTS.items():
        sources = (path for folder in folders for path in _sources(root / folder))
        texts = {path: path.read_text() for path in sources if _is_test(path.relative_to(root)) == (part == "tests")}
        classes = sum(_classes(text) for path, text in texts.items() if path.suffix == ".py")
        lines = sum(len(text.splitlines()) for text in texts.values())
        found |= {f"{part}_files": len(texts), f"{part}_lines": lines, f"{part}_classes": classes}
    migrations = [path for path in (root / MIGRATIONS).glob("*.py") if path.stem != "__init__"]
    return found | {"migrations": len(migrations)}


def _sources(folder: Path) -> list[Path]:
    """The files below a folder that count."""
    return [path for path in folder.rglob("*") if path.suffix in SUFFIXES]


def _is_test(path: Path) -> bool:
    """Whether a file is in a folder of tests, the tree's or a plugin's."""
    return "tests" in path.parts[:3]


def _classes(text: str) -> int:
    """Class statements, nested ones included."""
    return sum(isinstance(node, ast.ClassDef) for node in ast.walk(ast.parse(text)))


def show(now: Figures, before: Figures | None) -> None:
    """A table, with the earlier commit's figures beside today's."""
    table = Table("", "before", "now", "share") if before else Table("", "now")
    for name, value in now.items():
        earlier = [] if before is None else [f"{before[name]:,}"]
        share = [] if before is None else [f"{value / before[name]:.2f}" if before[name] else ""]
        table.add_row(name.replace("_", " "), *earlier, f"{value:,}", *share)
    console.print(table)


@click.command()
@click.option("--before", "commit", metavar="COMMIT", help="Count an earlier commit's files too.")
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write figures.")
def main(commit: str | None, file: Path | None) -> None:
    """Count files and their lines (.py, .lua, .sql), classes and migrations.

    Core: api, ops, workers, scheduler, headrace, migrations and bin. Plugins: plugins without their tests. Tests:
    tests, and those of plugins. Every line counts, blank ones and comments included. The earlier commit's files are
    read from git into a temporary folder.

    The last line is name=value pairs: core_files, core_lines, core_classes, the same of plugins and of tests, and
    migrations; with --before also those of the commit, as before_core_files and so on.

    \b
    bin/headrace python benchmarks/house.py
    bin/headrace python benchmarks/house.py --before COMMIT
    """
    now, before = measure(PROJECT_ROOT), None
    if commit is not None:
        with tree_of(commit) as root:
            before = measure(root)
    show(now, before)
    figures = now | {f"before_{name}": value for name, value in (before or {}).items()}
    if file is not None:
        file.write_text(json.dumps({"commit": commit, "figures": figures}, indent=2) + "\n")
    print(line_of(figures))


if __name__ == "__main__":
    main()
