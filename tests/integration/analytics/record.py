"""Writes the answers into docs/questions.md and docs/analytics.md, from `quarter.py` and `economics.py`, on a Postgres:

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
from headrace.stack.postgres import Postgres
from tests.integration.analytics import economics, quarter
from tests.integration.analytics.answers import EXAMPLE, PAGE, answered


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="headrace-record-") as folder, pytest.MonkeyPatch.context() as environment:
        postgres = Postgres(Path(folder), free_port())
        with postgres.running():
            environment.setenv("DATABASE_URL", postgres.url)
            command.upgrade(Config(toml_file=PROJECT_ROOT / "pyproject.toml"), "head")
            engine = connections.postgres(Settings.load(database_url=postgres.url))
            for page, fill in ((PAGE, quarter.fill), (EXAMPLE, economics.fill)):
                with engine.connect() as db, db.begin() as transaction:
                    fill(db)
                    page.write_text(answered(page.read_text(encoding="utf-8"), db), encoding="utf-8")
                    transaction.rollback()
            engine.dispose()


if __name__ == "__main__":
    main()
