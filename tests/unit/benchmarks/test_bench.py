"""`headrace bench` in a checkout of its own, whose claims take no time."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from benchmarks.bench.figures import pairs_of
from headrace.cli import main
from tests.waiting import until

GIT = ("git", "-c", "user.name=t", "-c", "user.email=t@localhost", "-c", "commit.gpgsign=false")
CLAIM = '[{name}]\nclaim = "{name} is measured"\nrun = "{name}.py"\ngoals = ["ratio >= 1.5"]\nmeasures = ["{path}"]\n'
SCRIPTS = {
    "fast": "print('noise')\nprint('ratio=2.5 winner=granian lost=0')",
    "missing": "import sys\nprint('ratio=1.2')\nsys.exit(1)",
    "broken": "raise SystemExit('no server')",
}
#: Starts the real command on another root, as a process that can be interrupted.
STARTER = """
import sys
from pathlib import Path
from benchmarks.bench import command
command.PROJECT_ROOT = Path(sys.argv[1])
command.bench(sys.argv[2:])
"""
MARK = "**old**"


class Project:
    """A git repository with claims. Each measures a file of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for folder in ("benchmarks", "docs"):
            (root / folder).mkdir()
        self.git("init", "-q")
        self.claims(**SCRIPTS)

    def claims(self, **scripts: str) -> None:
        """Register these in place of all others, and commit."""
        registry = "".join(CLAIM.format(name=name, path=f"{name}_part") for name in scripts)
        self.commit("benchmarks/claims.toml", registry)
        for name, script in scripts.items():
            self.commit(f"benchmarks/{name}.py", script)
            self.commit(f"{name}_part", "one")

    def commit(self, path: str, text: str) -> None:
        (self.root / path).write_text(text)
        self.git("add", path)
        self.git("commit", "-q", "--allow-empty", "-m", path)

    def git(self, *arguments: str) -> str:
        return subprocess.run(
            [*GIT, *arguments], cwd=self.root, check=True, capture_output=True, text=True
        ).stdout.strip()

    def figures(self) -> dict[str, Any]:
        entries: dict[str, Any] = json.loads((self.root / "benchmarks" / "figures.json").read_text())
        return entries

    def row(self, name: str) -> str:
        """The claim's line of the page."""
        page = (self.root / "docs" / "figures.md").read_text()
        return next(line for line in page.splitlines() if line.startswith(f"| `{name}`"))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    monkeypatch.setattr("benchmarks.bench.command.PROJECT_ROOT", tmp_path)
    before = signal.getsignal(signal.SIGTERM)
    yield Project(tmp_path)
    signal.signal(signal.SIGTERM, before)


def bench(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["bench", *arguments])


def test_every_figure_names_its_commit(project: Project) -> None:
    head = project.git("rev-parse", "HEAD")
    result = bench("fast")

    assert result.exit_code == 0, result.output
    entry = project.figures()["fast"]
    assert entry["figures"] == {"ratio": 2.5, "winner": "granian", "lost": 0}
    assert entry["commit"] == head
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", entry["date"])
    assert entry["machine"]["cores"] >= 1
    assert entry["machine"]["memory_gib"] >= 1
    assert entry["machine"]["cpu"]
    row = project.row("fast")
    assert "`ratio=2.5`" in row, "the figure of the goal"
    assert head[:10] in row
    assert entry["date"][:10] in row


def test_a_figure_older_than_the_last_change_of_what_it_measures_is_marked(project: Project) -> None:
    bench("fast", "missing")
    project.commit("fast_part", "two")
    bench("--page")

    assert MARK in project.row("fast")
    assert MARK not in project.row("missing")

    bench("fast")
    assert MARK not in project.row("fast")


def test_a_change_of_the_script_makes_its_figure_old(project: Project) -> None:
    bench("fast")
    project.commit("benchmarks/fast.py", SCRIPTS["fast"] + "\n")
    bench("--page")
    assert MARK in project.row("fast")


def test_other_arguments_in_the_registry_make_a_figure_old(project: Project) -> None:
    bench("fast")
    registry = (project.root / "benchmarks" / "claims.toml").read_text()
    project.commit("benchmarks/claims.toml", registry.replace('"fast.py"', '"fast.py --off x"'))
    bench("--page")
    assert MARK in project.row("fast")


def test_a_failed_claim_is_recorded_and_the_rest_go_on(project: Project) -> None:
    project.claims(broken=SCRIPTS["broken"], missing=SCRIPTS["missing"], fast=SCRIPTS["fast"])
    result = bench("--all")

    assert result.exit_code == 1
    assert "2 of 3 failed or missed a goal: broken, missing." in result.output
    entries = project.figures()
    assert {name: entry["status"] for name, entry in entries.items()} == {"broken": 1, "missing": 1, "fast": 0}
    assert "figures" not in entries["broken"]
    assert "failed** with status 1" in project.row("broken")
    assert "**missed:** ratio >= 1.5. `ratio=1.2`" in project.row("missing")


def test_a_goal_is_missed_where_the_script_itself_says_nothing(project: Project) -> None:
    project.claims(quiet="print('ratio=1')")
    assert bench("quiet").exit_code == 1
    assert "missed" in bench("--list").output


def test_changes_that_no_commit_has_are_told(project: Project) -> None:
    (project.root / "fast_part").write_text("two")
    bench("fast")
    assert project.figures()["fast"]["is_dirty"]
    assert "with changes that no commit has" in project.row("fast")


def test_the_files_that_bench_writes_are_no_changes(project: Project) -> None:
    bench("fast", "missing")
    assert "is_dirty" not in project.figures()["missing"]


def test_the_stale_are_those_that_are_not_of_the_present_state(project: Project) -> None:
    bench("fast", "missing")
    assert set(json.loads(bench("--stale", "--json").stdout)) == {"broken"}
    project.commit("missing_part", "two")
    assert set(json.loads(bench("--stale", "--json").stdout)) == {"missing", "broken"}


def test_without_a_history_the_commit_is_unknown(project: Project) -> None:
    bench("fast")
    (project.root / ".git").rename(project.root / "elsewhere")
    bench("--page")
    assert "not in the history" in project.row("fast")

    assert bench("missing").exit_code == 1
    assert "commit" not in project.figures()["missing"]
    assert "| unknown |" in project.row("missing")


def test_a_commit_that_was_rebased_away_is_not_part_of_the_history(project: Project) -> None:
    bench("fast")
    project.git("commit", "--amend", "-q", "-m", "another")
    bench("--page")
    assert "not in the history" in project.row("fast")


def test_a_claim_that_runs_too_long_is_stopped_and_has_failed(project: Project) -> None:
    project.claims(slow="import signal\nsignal.pause()")
    result = bench("slow", "--limit", "0.01")
    assert "slow is stopped" in result.output
    assert result.exit_code == 1
    assert project.figures()["slow"]["status"] != 0


def test_ctrl_c_stops_the_script_and_keeps_what_was_recorded(project: Project) -> None:
    started = project.root / "started"
    slow = f"import os, pathlib, signal\npathlib.Path('{started}').write_text(str(os.getpid()))\nsignal.pause()"
    project.claims(fast=SCRIPTS["fast"], slow=slow)
    command = [sys.executable, "-c", STARTER, str(project.root), "--all"]
    # A shell's job in the background ignores Ctrl-C, and so would all that it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        until(lambda: started.exists() and started.read_text() != "")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)

    assert process.returncode == 1
    assert set(project.figures()) == {"fast"}
    with pytest.raises(ProcessLookupError):
        os.kill(int(started.read_text()), 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "exactly one"),
        (("fast", "--all"), "exactly one"),
        (("--list", "--page"), "exactly one"),
        (("fats",), "There is no claim 'fats': the registry has fast, missing, broken."),
    ],
)
def test_a_wrong_choice_is_refused(project: Project, arguments: tuple[str, ...], message: str) -> None:
    result = bench(*arguments)
    assert result.exit_code != 0
    assert message in result.output


def test_a_script_that_does_not_exist_is_named(project: Project) -> None:
    (project.root / "benchmarks" / "fast.py").unlink()
    assert "benchmarks/fast.py does not exist" in bench("fast").output


def test_outside_a_checkout_the_registry_is_missed(project: Project) -> None:
    (project.root / "benchmarks" / "claims.toml").unlink()
    assert "Run this in a checkout." in bench("--list").output


def test_figures_that_cannot_be_read_are_named(project: Project) -> None:
    (project.root / "benchmarks" / "figures.json").write_text("{")
    assert "figures.json cannot be read" in bench("--list").output


@pytest.mark.parametrize("line", ["no pairs", "ratio=1 and more", "ratio="])
def test_only_a_last_line_of_pairs_has_figures(line: str) -> None:
    assert pairs_of(f"ratio=1\n{line}\n") == {}
