"""Redis or Postgres is absent, or refuses the login, at a start: a sentence with the remedy, soon, and no traceback."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import sqlalchemy as sa

from headrace import startup
from headrace.config import PROJECT_ROOT, Settings
from headrace.errors import BrokerUnavailable, ConfigError, StoreUnavailable
from headrace.stack.child import Child, Command, read_procfile, shell
from headrace.stack.ports import free_port
from headrace.tables import revisions

DEADLINE_S = 60.0
ABSENT = "redis://:secret@127.0.0.1:1/0"
PROCESSES = ("web", "ops", "gpu", "overflow", "webhooks", "plugins", "control", "beat", "flower")


@pytest.fixture
def start(settings: Settings, tmp_path: Path) -> Iterator[Callable[..., Child]]:
    """Starts a line of the Procfile on this Redis."""
    lines, children = read_procfile(PROJECT_ROOT / "Procfile"), list[Child]()

    def run(name: str, redis_url: str, database_url: str = settings.database_url, **more: str) -> Child:
        env = {"PATH": f"{Path(sys.executable).parent}:{os.defpath}", "DATABASE_URL": database_url}
        env |= {"REDIS_URL": redis_url, "HEADRACE_ENGINE": "simulator", "OPENAI_API_KEY": "sk-test"}
        env |= {port: str(free_port()) for port in ("PORT", "OPS_PORT", "FLOWER_PORT")}
        env |= {"FLOWER_BASIC_AUTH": "u:p"} | more
        command = Command(name, shell(lines[name]), env, PROJECT_ROOT)
        children.append(Child(command, tmp_path / f"{name}.log"))
        return children[-1]

    yield run
    for child in children:
        child.stop()


def told(child: Child, event: str = "server_not_usable") -> list[str]:
    lines = [line for line in child.log.read_text().splitlines() if f'"{event}"' in line]
    return [json.loads(line)["error"] for line in lines]


@pytest.mark.parametrize("name", PROCESSES)
def test_wrong_redis_password_ends_each_process_at_its_start_with_one_sentence(
    start: Callable[..., Child], settings: Settings, name: str
) -> None:
    server = urlsplit(settings.redis_url)
    child = start(name, f"redis://:wrong@{server.hostname}:{server.port}/0")
    assert child.wait(DEADLINE_S)
    assert child.poll() == 1
    [sentence] = told(child)
    assert sentence.startswith(f"Redis at 127.0.0.1:{server.port} does not let us in")
    assert sentence.endswith("set user and password in REDIS_URL.")
    assert "Traceback" not in child.log.read_text()
    assert "engine_loading" not in child.log.read_text()


@pytest.mark.parametrize("name", ["release", *PROCESSES])
@pytest.mark.parametrize(
    ("variable", "value", "start_of_sentence"),
    [
        ("HEADRACE_LEASE", "5", "The variable HEADRACE_LEASE names no setting. Did you mean 'HEADRACE_LEASE_S'?"),
        ("HEADRACE_LEASE_S", "soon", "Setting lease_s (HEADRACE_LEASE_S): "),
    ],
    ids=["unknown", "malformed"],
)
def test_a_wrong_setting_ends_each_process_at_its_start_with_one_sentence(
    start: Callable[..., Child], settings: Settings, name: str, variable: str, value: str, start_of_sentence: str
) -> None:
    child = start(name, settings.redis_url, **{variable: value})
    assert child.wait(DEADLINE_S)
    # The web server's own status, where the app cannot be imported.
    assert child.poll() not in (None, 0)
    [sentence] = told(child, "settings_not_usable")
    assert sentence.startswith(start_of_sentence)
    assert "Traceback" not in child.log.read_text()


@pytest.mark.parametrize("name", PROCESSES)
def test_absent_redis_is_told_by_each_process_at_its_start_in_one_sentence(
    start: Callable[..., Child], name: str
) -> None:
    child = start(name, ABSENT)
    if name == "control":  # It sweeps without Redis too.
        child.wait_until(lambda: told(child), DEADLINE_S)
    else:
        assert child.wait(DEADLINE_S)
        assert child.poll() == 1
    [sentence] = told(child)
    assert sentence.startswith("No Redis answers at 127.0.0.1:1 (")
    assert sentence.endswith("start it, or set REDIS_URL to where it is.")
    assert "secret" not in child.log.read_text()
    assert "Traceback" not in child.log.read_text()
    assert "engine_loading" not in child.log.read_text()


def test_redis_is_asked_for_two_seconds_at_most(settings: Settings) -> None:
    # An address of the documentation's network: nothing answers, and nothing refuses.
    for url in ("redis://192.0.2.1:6379/0", ABSENT, "sentinel://127.0.0.1:1,127.0.0.1:2/0?master_name=any"):
        began = time.monotonic()
        with pytest.raises(BrokerUnavailable, match="No Redis answers at"):
            startup.check_redis(settings.model_copy(update={"redis_url": url}))
        assert time.monotonic() - began < 2
    startup.check_redis(settings)
    with pytest.raises(ConfigError, match="does not let us in"):
        startup.check_redis(
            settings.model_copy(
                update={"redis_url": settings.redis_url.replace(":@", ":x@", 1).replace("redis://:", "redis://:x", 1)}
            )
        )


@pytest.mark.parametrize("name", ["web", "ops", "gpu", "overflow", "webhooks", "plugins", "control"])
def test_database_without_migrations_ends_each_process_at_its_start_with_one_sentence(
    start: Callable[..., Child], settings: Settings, name: str
) -> None:
    # Every cluster has this database.
    url = sa.make_url(settings.database_url).set(database="postgres").render_as_string(hide_password=False)
    child = start(name, settings.redis_url, url)
    assert child.wait(DEADLINE_S)
    assert child.poll() == 1
    [sentence] = told(child)
    assert sentence.endswith("has no tables of Headrace: run the Procfile's 'release' ('alembic upgrade head').")
    assert "Traceback" not in child.log.read_text()
    assert "engine_loading" not in child.log.read_text()


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        ({"database": "nowhere"}, ConfigError, "has no such database .* correct its name in DATABASE_URL"),
        ({"password": "canary"}, ConfigError, "refuses the login .* set user and password in DATABASE_URL"),
        ({"username": "nobody"}, ConfigError, "refuses the login .* set user and password in DATABASE_URL"),
        (
            {"host": "127.0.0.1", "port": 1},
            StoreUnavailable,
            r"No Postgres answers at 127\.0\.0\.1:1 .* start it, or set",
        ),
        ({"host": "192.0.2.1"}, StoreUnavailable, r"No Postgres answers at 192\.0\.2\.1:.* start it, or set"),
    ],
)
def test_wrong_postgres_address_is_told_within_three_seconds_without_the_password(
    settings: Settings, change: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    changed = sa.make_url(settings.database_url).set(**change)
    url = changed.render_as_string(hide_password=False)
    began = time.monotonic()
    with pytest.raises(error, match=sentence) as told_:
        startup.check_postgres(settings.model_copy(update={"database_url": url}))
    assert time.monotonic() - began < 3
    assert changed.password
    assert str(changed.password) not in str(told_.value)
    assert "\n" not in str(told_.value)


def test_tables_older_than_the_code_are_refused_and_newer_ones_pass(
    settings: Settings, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def turn(version: str) -> str:
        with engine.begin() as db:
            before = str(db.exec_driver_sql("SELECT version_num FROM alembic_version").scalar())
            db.execute(sa.text("UPDATE alembic_version SET version_num = :version"), {"version": version})
        return before

    head = turn("0070")
    try:
        with pytest.raises(
            ConfigError, match=r"is at migration 0070, which is older than 0\.1\.0: move its rows .*--help"
        ):
            startup.check_postgres(settings)
        turn(head)
        with monkeypatch.context() as patch:
            patch.setattr(revisions, "newest", lambda: "0999")
            with pytest.raises(ConfigError, match=f"is at migration {head} and this code needs 0999: run the Procfile"):
                startup.check_postgres(settings)
        turn("9999")
        startup.check_postgres(settings)
    finally:
        turn(head)
    startup.check_postgres(settings)
