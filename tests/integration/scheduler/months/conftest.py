"""Databases of these tests' own: what is detached or made here is not there for other tests."""

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from headrace import connections
from headrace.config import PROJECT_ROOT
from headrace.domain.ids import time_of
from headrace.domain.queues import Ticket
from headrace.store import Store, months
from tests.integration.months_of_jobs import id_at

Admin = Callable[[str], None]


@pytest.fixture(scope="session")
def admin(database_url: str) -> Iterator[Admin]:
    """Runs a statement outside any transaction."""
    engine = sa.create_engine(database_url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)

    def run(sql: str) -> None:
        with engine.connect() as db:
            db.exec_driver_sql(sql)

    yield run
    engine.dispose()


def named(url: str, name: str) -> str:
    return sa.make_url(url).set(database=name).render_as_string(hide_password=False)


@pytest.fixture(scope="session")
def template(database_url: str, admin: Admin) -> Iterator[str]:
    """The name of a database with every migration applied."""
    name = f"months_{secrets.token_hex(4)}"
    admin(f"CREATE DATABASE {name}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", named(database_url, name))
        command.upgrade(Config(toml_file=PROJECT_ROOT / "pyproject.toml"), "head")
    yield name
    admin(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def copied(database_url: str, admin: Admin, template: str) -> Iterator[str]:
    """The URL of a copy of the template."""
    name = f"{template}_{secrets.token_hex(4)}"
    admin(f"CREATE DATABASE {name} TEMPLATE {template}")
    yield named(database_url, name)
    admin(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="module")
def migrated_url(database_url: str, admin: Admin, template: str) -> Iterator[str]:
    """One database for the tests of a file."""
    with copied(database_url, admin, template) as url:
        yield url


@pytest.fixture
def fresh_url(database_url: str, admin: Admin, template: str) -> Iterator[str]:
    """A database for one test, with the months that a release makes."""
    with copied(database_url, admin, template) as url:
        yield url


@pytest.fixture
def open_pools(migrated_url: str) -> Iterator[list[sa.Engine]]:
    """A pool for each test: some tests have a database of their own."""
    pools: list[sa.Engine] = []
    yield pools
    for each in pools:
        connections.close(each)


@pytest.fixture
def first_until(store: Store) -> datetime:
    """The end of the oldest month: the start of the present one."""
    with store.begin() as db:
        return time_of(months.found(db)[0].until)


@pytest.fixture
def last_until(store: Store) -> datetime:
    """The end of the newest month."""
    with store.begin() as db:
        return time_of(months.found(db)[-1].until)


@pytest.fixture
def make_until(store: Store) -> Callable[[datetime], list[str]]:
    """Makes the months that are due at a time."""

    def make(at: datetime) -> list[str]:
        with store.begin() as db:
            return months.make(db, at)

    return make


@pytest.fixture
def queued_in(queued: Callable[..., Ticket]) -> Callable[..., Ticket]:
    """Inserts a job whose id is of this time."""

    def insert(at: datetime, **changes: Any) -> Ticket:
        return queued(id=id_at(at), **changes)

    return insert
