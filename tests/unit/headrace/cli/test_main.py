"""`headrace` itself: its commands, and those that `bin/headrace` has besides."""

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
