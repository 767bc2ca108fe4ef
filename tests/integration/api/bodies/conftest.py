"""A `web` process on the server line that production runs."""

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx2
import pytest
from redis import Redis

from headrace.config import PROJECT_ROOT, Settings
from headrace.stack.ports import free_port
from headrace.stack.processes import procfile
from headrace.stack.processes.child import Child, Command
from tests.integration.api.bodies.limits import DEADLINE_S, GRACE_S, LIMIT


@pytest.fixture
def web_server(settings: Settings, redis: Redis, tmp_path: Path) -> Iterator[tuple[Child, str]]:
    """The Procfile's web process, with room for two of the largest bodies, and its URL."""
    port = free_port()
    env = {
        "PATH": f"{Path(sys.executable).parent}:{os.defpath}",
        "PORT": str(port),
        "DATABASE_URL": settings.database_url,
        "REDIS_URL": settings.redis_url,
        "HEADRACE_ENGINE": "simulator",
        "HEADRACE_PEPPER": settings.pepper.get_secret_value(),
        "HEADRACE_BODY_LIMIT_BYTES": str(LIMIT),
        "HEADRACE_BODIES_IN_FLIGHT_BYTES": str(2 * LIMIT),
        "HEADRACE_BODY_GRACE_S": str(GRACE_S),
    }
    line = procfile.read(PROJECT_ROOT / "Procfile")["web"]
    child = Child(Command("web", procfile.shell(line), env, PROJECT_ROOT), tmp_path / "web.log")
    url = f"http://127.0.0.1:{port}"

    def is_up() -> bool:
        with suppress(httpx2.TransportError):
            return httpx2.get(f"{url}/healthz").status_code == 200
        return False

    try:
        child.wait_until(is_up, DEADLINE_S)
        yield child, url
    finally:
        child.stop()
