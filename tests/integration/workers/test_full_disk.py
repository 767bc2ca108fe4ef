"""Redis's disk is full: workers keep their process, and with it their engine, and continue once it has space."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from headrace.broker.messages import make_celery
from headrace.config import PROJECT_ROOT, Settings
from headrace.stack import readiness
from headrace.stack.child import Child, Command, read_procfile, shell

DEADLINE_S = 90.0
NAMES = ("gpu", "webhooks", "control")


@pytest.fixture
def workers(settings: Settings, tmp_path: Path, store: object, redis: object) -> Iterator[dict[str, Child]]:
    lines, children = read_procfile(PROJECT_ROOT / "Procfile"), dict[str, Child]()
    env = {"PATH": f"{Path(sys.executable).parent}:{os.defpath}", "DATABASE_URL": settings.database_url}
    env |= {"REDIS_URL": settings.redis_url, "HEADRACE_ENGINE": "simulator", "HEADRACE_PEPPER": "a" * 32}
    for name in NAMES:
        command = Command(name, shell(lines[name]), env, PROJECT_ROOT)
        children[name] = Child(command, tmp_path / f"{name}.log")
    yield children
    for child in children.values():
        child.stop()


def test_full_disk_of_redis_ends_no_worker(
    workers: dict[str, Child],
    settings: Settings,
    redis_disk_full: Callable[[], AbstractContextManager[None]],
) -> None:
    with make_celery("test", settings) as celery:
        for name, child in workers.items():
            child.wait_until(lambda name=name: readiness.pongs(celery, name), DEADLINE_S)
        with redis_disk_full():
            for child in workers.values():
                child.wait_until(lambda child=child: "MISCONF" in child.log.read_text(), DEADLINE_S)
        for name, child in workers.items():
            child.wait_until(lambda name=name: readiness.pongs(celery, name), DEADLINE_S)
            assert child.poll() is None
        assert workers["gpu"].log.read_text().count('"engine_loading"') == 1
