"""Redis is absent, or its password wrong, when a process starts: a sentence with the remedy, soon, and no traceback."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from headrace import startup
from headrace.config import PROJECT_ROOT, Settings
from headrace.errors import BrokerUnavailable, ConfigError
from headrace.stack import procfile
from headrace.stack.child import Child, Command
from headrace.stack.ports import free_port

DEADLINE_S = 60.0
ABSENT = "redis://:secret@127.0.0.1:1/0"
PROCESSES = ("web", "gpu", "overflow", "webhooks", "control", "beat", "flower")


@pytest.fixture
def start(settings: Settings, tmp_path: Path) -> Iterator[Callable[[str, str], Child]]:
    """Starts a line of the Procfile on this Redis."""
    lines, children = procfile.read(PROJECT_ROOT / "Procfile"), list[Child]()

    def run(name: str, redis_url: str) -> Child:
        env = {"PATH": f"{Path(sys.executable).parent}:{os.defpath}", "DATABASE_URL": settings.database_url}
        env |= {"REDIS_URL": redis_url, "HEADRACE_ENGINE": "simulator", "OPENAI_API_KEY": "sk-test"}
        env |= {"PORT": str(free_port()), "FLOWER_PORT": str(free_port()), "FLOWER_BASIC_AUTH": "u:p"}
        command = Command(name, procfile.shell(lines[name]), env, PROJECT_ROOT)
        children.append(Child(command, tmp_path / f"{name}.log"))
        return children[-1]

    yield run
    for child in children:
        child.stop()


def told(child: Child) -> list[str]:
    lines = [line for line in child.log.read_text().splitlines() if '"server_not_usable"' in line]
    return [json.loads(line)["error"] for line in lines]


@pytest.mark.parametrize("name", PROCESSES)
def test_wrong_redis_password_ends_each_process_at_its_start_with_one_sentence(
    start: Callable[[str, str], Child], settings: Settings, name: str
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


@pytest.mark.parametrize("name", PROCESSES)
def test_absent_redis_is_told_by_each_process_at_its_start_in_one_sentence(
    start: Callable[[str, str], Child], name: str
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
