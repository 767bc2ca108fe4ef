"""What all commands have in common, what is imported for them, and those that `bin/headrace` has besides."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from headrace.cli import LazyGroup, main
from headrace.cli.output import note, notes
from headrace.config import PROJECT_ROOT

#: Runs the command line, and says on standard error what it has imported.
START = """
import atexit, sys
from headrace.__main__ import main
atexit.register(lambda: print(*sys.modules, file=sys.stderr))
main()
"""
#: Libraries of some commands. Each takes a tenth of a second or more.
HEAVY = ("celery", "flask", "httpx2", "openai", "pydantic", "redis", "rich", "sqlalchemy")


def leaves(group: click.Group, path: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, with its full name."""
    for name, listed in group.commands.items():
        command = group.load(name) if isinstance(group, LazyGroup) else listed
        whole = f"{path} {name}".strip()
        if isinstance(command, click.Group):
            yield from leaves(command, whole)
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield whole, command


@pytest.mark.parametrize(("name", "command"), list(leaves(main)))
def test_every_command_prints_its_outcome_as_json(name: str, command: click.Command) -> None:
    assert any("--json" in parameter.opts for parameter in command.params), name


@pytest.mark.parametrize("name", main.commands)
@pytest.mark.parametrize("limit", [20, 45, 1000])
def test_the_list_of_commands_shows_what_each_says_of_itself(name: str, limit: int) -> None:
    listed, command = main.commands[name], main.load(name)
    assert command.name == listed.name == name
    assert listed.get_short_help_str(limit) == command.get_short_help_str(limit) != ""
    assert (listed.hidden, listed.deprecated) == (command.hidden, command.deprecated)


@pytest.mark.parametrize(
    ("arguments", "status"), [(["--version"], 0), (["--help"], 0), ([], 2), (["job"], 2), (["--unknown"], 2)]
)
def test_what_calls_no_command_imports_none(arguments: list[str], status: int) -> None:
    assert imported(arguments, status) & {*HEAVY, "headrace.cli.jobs", "headrace.config"} == set()


def test_a_command_is_imported_when_it_is_called() -> None:
    modules = imported(["apps", "--help"], 0)
    assert {"headrace.cli.access.apps", "sqlalchemy", "rich"} <= modules
    assert modules & {"headrace.cli.up", "celery", "flask", "httpx2", "openai", "redis"} == set()


def imported(arguments: list[str], status: int) -> set[str]:
    """The modules that the command line imports with these arguments, before it exits with this status."""
    command = [sys.executable, "-c", START, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == status, done.stderr
    return set(done.stderr.splitlines()[-1].split())


def test_a_command_of_the_checkout_is_missed_in_an_installation_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.cli._CHECKOUT", tmp_path)
    done = CliRunner().invoke(main, ["bench", "--list"])
    assert (done.exit_code, "'bench' needs a checkout" in done.output) == (1, True)


def test_a_wrong_name_gets_the_near_ones() -> None:
    shown = CliRunner().invoke(main, ["job"])
    assert shown.exit_code == 2
    assert "No such command 'job'" in shown.output
    assert "jobs" in shown.output


def test_the_shell_completes_the_commands_and_their_options() -> None:
    shell = ShellComplete(main, {}, "headrace", "_HEADRACE_COMPLETE")
    assert [item.value for item in shell.get_completions([], "co")] == ["costs"]
    assert [item.value for item in shell.get_completions(["apps"], "li")] == ["limit", "list"]
    assert "--max-error" in [item.value for item in shell.get_completions(["apps", "limit"], "--max")]


def test_the_help_names_what_only_a_checkout_has() -> None:
    shown = CliRunner().invoke(main, ["--help"]).output
    assert "bin/headrace install [--dev]" in shown
    assert "bin/headrace python FILE" in shown


def test_hints_name_the_program_as_the_user_can_call_it(tmp_path: Path) -> None:
    """A checkout's `bin/headrace` from the user's folder; `headrace` where the shell finds one."""

    def run(*arguments: str, folder: Path = PROJECT_ROOT, path: str = "/usr/bin:/bin") -> str:
        done = subprocess.run(
            [sys.executable, "-I", "-m", "headrace", *arguments],
            env={"PATH": path, "HEADRACE_STATE": str(tmp_path)},
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=120,
        )
        return done.stdout + done.stderr

    assert "start one with 'bin/headrace up', or set" in run("queues")
    assert "Usage: bin/headrace apps" in (shown := run("apps", "--help"))
    assert "see 'bin/headrace keys'" in shown
    assert "Try 'bin/headrace --help' for help." in run("nothing")
    assert "bin/headrace up', or set" in (shown := run("queues", folder=tmp_path))
    assert "'bin/headrace up" not in shown
    found = tmp_path / "headrace"
    found.write_text("#!/bin/sh\n")
    found.chmod(0o755)
    assert "start one with 'headrace up', or set" in run("queues", path=f"{tmp_path}:/usr/bin:/bin")


def test_a_printed_hint_names_the_program_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LazyGroup, "program", "bin/headrace")
    with notes.capture() as printed:
        note("'headrace keys create web' makes a key.")
    assert printed.get() == "'bin/headrace keys create web' makes a key.\n"


@pytest.mark.parametrize(
    "column", ["depth", "cap", "apps", "tokens", "tokens/s", "wait", "workers", "running", "slots"]
)
def test_the_help_for_queues_explains_each_column(column: str) -> None:
    shown = CliRunner().invoke(main, ["queues", "--help"]).output
    assert f"\n  {column:8}  " in shown


@pytest.mark.parametrize(
    ("encoding", "shown"), [("latin-1", b"host-018f2c\\u2026"), ("utf-8", "host-018f2c…".encode())]
)
def test_a_terminal_gets_what_it_does_not_know_escaped(
    encoding: str, shown: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", encoding)
    done = subprocess.run([sys.executable, "-m", "headrace", "hosts", "--help"], capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    assert shown in done.stdout
