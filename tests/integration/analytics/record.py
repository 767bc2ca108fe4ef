"""Writes the answers into docs/questions.md, from the data of `quarter.py` on a Postgres of its own:

.venv/bin/python -m tests.integration.analytics.record
"""

import tempfile
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config

from headrace import connections
from headrace.config import PROJECT_ROOT, Settings
from headrace.stack.ports import free_port
from headrace.stack.servers.postgres import Postgres
from tests.integration.analytics import quarter
from tests.integration.analytics.answers import PAGE, answered


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="headrace-record-") as folder, pytest.MonkeyPatch.context() as environment:
        postgres = Postgres(Path(folder), free_port())
        with postgres.running():
            environment.setenv("DATABASE_URL", postgres.url)
            command.upgrade(Config(toml_file=PROJECT_ROOT / "pyproject.toml"), "head")
            engine = connections.postgres(Settings.load(database_url=postgres.url))
            with engine.begin() as db:
                quarter.fill(db)
                PAGE.write_text(answered(PAGE.read_text(encoding="utf-8"), db), encoding="utf-8")
            engine.dispose()


if __name__ == "__main__":
    main()
