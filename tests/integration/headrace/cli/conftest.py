"""Operators' commands on a real Postgres."""

from collections.abc import Callable

import pytest
from click.testing import CliRunner, Result

from headrace.cli import main, output
from headrace.config import Settings
from headrace.store import Store


@pytest.fixture
def run(store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs `headrace` on empty tables, in a terminal wide enough for any of them."""

    # It keeps the COLUMNS that was set when it was made. Here each call sets its own.
    monkeypatch.setattr(output.out, "_width", None)

    def invoke(*arguments: str, **changes: str | None) -> Result:
        pepper = settings.pepper.get_secret_value()
        environment = {"DATABASE_URL": settings.database_url, "HEADRACE_PEPPER": pepper, "COLUMNS": "200"}
        return CliRunner().invoke(main, arguments, env={**environment, **changes})

    return invoke
