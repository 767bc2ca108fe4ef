"""A Postgres that has no pgvector: it migrates, jobs run, and the semantic cache says that it is off."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from headrace.config import Settings
from headrace.connections import postgres
from headrace.domain.queues import books_key
from tests.e2e.test_semantic_cache import ASKED, SAME, SETTINGS, ask
from tests.waiting import until

NAME = "without_pgvector"


@pytest.fixture(scope="module")
def bare_url(database_url: str) -> Iterator[str]:
    """A database whose sessions find no extension's files, as on a server where none is installed."""
    engine = postgres(Settings.load(database_url=database_url)).execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as db:
        db.exec_driver_sql(f"CREATE DATABASE {NAME}")
        db.exec_driver_sql(f"ALTER DATABASE {NAME} SET extension_control_path = '/nowhere'")
    yield sa.make_url(database_url).set(database=NAME).render_as_string(hide_password=False)
    with engine.connect() as db:
        db.exec_driver_sql(f"DROP DATABASE {NAME} WITH (FORCE)")
    engine.dispose()


@pytest.fixture(scope="module")
def system(bare_url: str, start: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("bare")
    (folder / "headrace.toml").write_text(SETTINGS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", bare_url)
        return start(folder=folder, config=str(folder / "headrace.toml"), drain_s="1")


def said(system: Any) -> list[str]:
    """What the embedding model's worker has logged of it."""
    log: Path = system.stack.state_dir / "logs" / "gpu-embed.log"
    return [line for line in log.read_text().splitlines() if "semantic_cache_is_off" in line]


def test_it_migrates_runs_jobs_and_says_that_the_semantic_cache_is_off(system: Any) -> None:
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="vector"):
        system.sql("CREATE EXTENSION vector")
    until(lambda: said(system), "the worker says it")

    first, same = ask(system, ASKED), ask(system, SAME[0])

    assert [(job["status"], job["cache"]) for job in system.all_ended([first, same])] == [("succeeded", "miss")] * 2
    assert system.ended(ask(system, ASKED))["cache"] == "hit", "the exact cache needs no extension"
    assert system.sql("SELECT FROM cache_entries") == []
    assert system.redis.exists(books_key("lookups", "embed"), books_key("looking", "embed")) == 0
    [line] = said(system)
    assert "CREATE EXTENSION vector" in json.loads(line)["reason"]
