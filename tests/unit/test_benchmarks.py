"""The registry of claims, the figures and their page, as they are in this checkout."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.bench.claims import REGISTRY, BenchClaim, read_claims
from benchmarks.bench.figures import FIGURES, read_figures
from benchmarks.bench.page import PAGE, page, without_marks

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"
PATCHES = sorted(BENCHMARKS.rglob("sitecustomize.py"))
CLAIMS = read_claims((ROOT / REGISTRY).read_text())


def test_each_script_has_a_claim() -> None:
    """What the scripts stand on is in `bed/`, and what they compare with in `peers/`."""
    scripts = {f"benchmarks/{path.name}" for path in BENCHMARKS.glob("*.py")}

    assert scripts == {claim.script for claim in CLAIMS.values()}


def test_no_command_is_outside_the_top_folder() -> None:
    folders = [path for folder in ("bed", "peers") for path in (BENCHMARKS / folder).rglob("*.py")]

    assert [path for path in folders if "@click.command" in path.read_text()] == []


def test_peers_import_nothing_of_the_bed_and_a_script_is_imported_nowhere() -> None:
    scripts = {path.stem for path in BENCHMARKS.glob("*.py")}

    assert "bed" not in imported_by(BENCHMARKS / "peers")
    assert imported_by(BENCHMARKS) & scripts == set()


def imported_by(folder: Path) -> set[str]:
    """The top-level names of what the modules below a folder import."""
    nodes = [node for path in folder.rglob("*.py") for node in ast.walk(ast.parse(path.read_text()))]
    names = [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    names += [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("path", PATCHES, ids=[path.parts[-3] for path in PATCHES])
def test_what_a_script_replaces_exists(path: Path) -> None:
    """Python ignores an error in `sitecustomize`, and a new attribute is none: nothing would be switched off."""
    tree = ast.parse(path.read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    found: dict[str, Any] = {}
    exec(compile(ast.Module(imports, []), path, "exec"), found)
    assigned = [target for node in ast.walk(tree) if isinstance(node, ast.Assign) for target in node.targets]
    replaced = [target for target in assigned if isinstance(target, ast.Attribute)]

    assert replaced
    for target in replaced:
        # An AttributeError if it does not exist. A function whose parameters have no defaults has None for them.
        value = eval(ast.unparse(target), found)
        is_constant = target.attr.isupper() or (target.attr == "__defaults__" and value is not None)
        assert callable(value) or is_constant, ast.unparse(target)


def mechanisms(path: Path) -> list[dict[str, str]]:
    """The environments in which a patch takes something away, one by one."""
    tree = ast.parse(path.read_text())
    tests = [node.test for node in ast.walk(tree) if isinstance(node, ast.If)]
    if not tests:
        return [{}]
    [variable] = re.findall(r'environ.get\("([A-Z_]+)"', path.read_text())[:1]
    words = [each.value for test in tests for each in ast.walk(test) if isinstance(each, ast.Constant)]
    return [{variable: str(word)} for word in words if word != variable]


@pytest.mark.parametrize(
    ("path", "env"),
    [pytest.param(path, env, id=f"{path.parts[-3]} {env}") for path in PATCHES for env in mechanisms(path)],
)
def test_a_patch_is_without_error_in_a_process_of_its_own(path: Path, env: dict[str, str]) -> None:
    """Python only prints it, and the process goes on with the mechanism in place."""
    paths = {"PYTHONPATH": f"{path.parent}{os.pathsep}{ROOT}"}
    ended = subprocess.run([sys.executable, "-c", ""], env={**paths, **env}, capture_output=True, text=True)
    assert ended.stderr == ""


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS)
def test_what_a_claim_measures_exists(claim: BenchClaim) -> None:
    assert [path for path in claim.measures if not (ROOT / path).exists()] == []


def test_the_page_of_figures_is_current() -> None:
    """Its marks of age aside, which change with every commit: `bin/headrace bench --page` makes it again."""
    figures = read_figures(ROOT / FIGURES)

    assert without_marks((ROOT / PAGE).read_text()) == page(CLAIMS, figures, {}), "Run: bin/headrace bench --page"


def test_each_figure_has_a_claim_and_names_its_commit_or_is_from_before() -> None:
    figures = read_figures(ROOT / FIGURES)

    assert figures.keys() <= CLAIMS.keys()
    assert [name for name, figure in figures.items() if not figure.text and not (figure.commit and figure.date)] == []
