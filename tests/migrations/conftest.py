"""A database of each test's own, and Alembic pointed at it."""

import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from headrace.config import PROJECT_ROOT, Settings
from headrace.connections import postgres
from headrace.domain.ids import new_id


@pytest.fixture
def config(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Config]:
    """Alembic, pointed at a database of this test's own."""
    name = f"migrations_{secrets.token_hex(4)}"
    admin = postgres(Settings.load(database_url=database_url)).execution_options(isolation_level="AUTOCOMMIT")
    with admin.connect() as db:
        db.execute(sa.text(f"CREATE DATABASE {name}"))
    url = sa.make_url(database_url).set(database=name).render_as_string(hide_password=False)
    monkeypatch.setenv("DATABASE_URL", url)
    yield Config(toml_file=PROJECT_ROOT / "pyproject.toml")
    with admin.connect() as db:
        db.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


@pytest.fixture
def engine(config: Config) -> Iterator[sa.Engine]:
    """Connections of its API and its workers."""
    engine = postgres(Settings.load())
    yield engine
    engine.dispose()


@pytest.fixture
def role(engine: sa.Engine) -> Iterator[str]:
    """A role that an operator made, without any right."""
    name = f"reader_{new_id().hex}"
    with engine.begin() as db:
        db.exec_driver_sql(f"CREATE ROLE {name}")
    yield name
    with engine.begin() as db:
        db.exec_driver_sql(f"DROP OWNED BY {name}; DROP ROLE {name}")


@pytest.fixture
def with_next(config: Config, tmp_path: Path) -> Callable[[str], Config]:
    """The migrations up to now are applied; makes one more, whose `upgrade` does this, in a copy of the folder."""

    def make(body: str) -> Config:
        command.upgrade(config, "head")
        folder = tmp_path / "migrations"
        shutil.copytree(PROJECT_ROOT / "migrations", folder, ignore=shutil.ignore_patterns("__pycache__"))
        head = ScriptDirectory.from_config(config).get_current_head()
        lines = ["import sqlalchemy as sa", "from alembic import op"]
        if "concurrently" in body:
            lines.append("from headrace.tables import concurrently")
        ids = ("revision = 'next'", f"down_revision = {head!r}", "branch_labels = depends_on = None")
        text = "\n".join((*lines, *ids, "def upgrade():", f"    {body}", "def downgrade(): ...", ""))
        (folder / "versions" / "next.py").write_text(text)
        copied = Config(toml_file=PROJECT_ROOT / "pyproject.toml")
        copied.set_main_option("script_location", str(folder))
        return copied

    return make
