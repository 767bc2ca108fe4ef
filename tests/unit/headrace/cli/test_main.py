"""`headrace` itself: its commands, and those that `bin/headrace` has besides."""

import subprocess
import sys

import pytest
from click.testing import CliRunner

from headrace.cli import main


def test_the_help_names_what_only_a_checkout_has() -> None:
    shown = CliRunner().invoke(main, ["--help"]).output
    assert "bin/headrace install [--dev]" in shown
    assert "bin/headrace python FILE" in shown


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
