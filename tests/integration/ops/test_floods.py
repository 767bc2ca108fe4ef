"""Floods of the login, against the lines of the Procfile: what they leave of the API and of other operators."""

import json
import os
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import httpx2
import pytest
from redis import Redis

from headrace.config import PROJECT_ROOT, Settings
from headrace.domain.operators import Operator, Role
from headrace.stack.child import Child, Command, read_procfile, shell
from headrace.stack.ports import free_port
from headrace.store import Store, apps, keys
from tests.integration.ops.browser import PASSWORD, TOKEN

DEADLINE_S = 60.0
#: Within which an answer is prompt on a busy machine.
PROMPT_S = 5.0
SILENT = 2150
FLOOD = 40


class Servers:
    """The processes `web` and `ops`."""

    def __init__(self, web: Child, web_port: int, ops: Child, ops_port: int, key: str) -> None:
        self.web, self.web_port, self.ops, self.ops_port, self._key = web, web_port, ops, ops_port, key

    def submits(self) -> bool:
        """Whether the API accepts a job promptly, and is well."""
        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
        with httpx2.Client(base_url=f"http://127.0.0.1:{self.web_port}", timeout=PROMPT_S) as api:
            job = api.post("/v1/jobs", content=json.dumps({"prompt": "Hello?"}), headers=headers)
            return (api.get("/healthz").status_code, job.status_code) == (200, 202)

    def log_in(self, name: str, password: str, address: str = "127.0.0.1") -> HTTPResponse:
        """The answer to a login from this address."""
        connection = HTTPConnection("127.0.0.1", self.ops_port, timeout=DEADLINE_S, source_address=(address, 0))
        connection.request("GET", "/ops/login")
        form = connection.getresponse()
        cookie = form.headers["Set-Cookie"].partition(";")[0]
        found = TOKEN.search(form.read().decode())
        assert found is not None
        fields = httpx2.QueryParams({"csrf_token": found[1], "name": name, "password": password})
        headers = {"Cookie": cookie, "Content-Type": "application/x-www-form-urlencoded"}
        connection.request("POST", "/ops/login", str(fields), headers)
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return answer


@pytest.fixture
def servers(settings: Settings, redis: Redis, store: Store, tmp_path: Path) -> Iterator[Servers]:
    """Both processes, as the Procfile starts them."""
    with store.begin() as db:
        key = keys.make(db, apps.ensure(db, "test").id, settings.pepper.get_secret_value())
    env = {
        "PATH": f"{Path(sys.executable).parent}:{os.defpath}",
        "PORT": str(free_port()),
        "OPS_PORT": str(free_port()),
        "DATABASE_URL": settings.database_url,
        "REDIS_URL": settings.redis_url,
        "HEADRACE_ENGINE": "simulator",
        "HEADRACE_PEPPER": settings.pepper.get_secret_value(),
    }
    lines = read_procfile(PROJECT_ROOT / "Procfile")
    with ExitStack() as exits:

        def start(name: str, port: int) -> Child:
            child = Child(Command(name, shell(lines[name]), env, PROJECT_ROOT), tmp_path / f"{name}.log")
            exits.callback(child.stop)
            child.wait_until(lambda: _is_well(port), DEADLINE_S)
            return child

        web_port, ops_port = int(env["PORT"]), int(env["OPS_PORT"])
        yield Servers(start("web", web_port), web_port, start("ops", ops_port), ops_port, key)


def _is_well(port: int) -> bool:
    with suppress(httpx2.TransportError):
        return httpx2.get(f"http://127.0.0.1:{port}/healthz").status_code == 200
    return False


@contextmanager
def silent_posts(port: int, addresses: list[str]) -> Iterator[None]:
    """Clients that send the head of a login, and never its body."""
    head = b"POST /ops/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    with ExitStack() as exits:
        for number in range(SILENT):
            source = (addresses[number % len(addresses)], 0)
            connection = socket.create_connection(("127.0.0.1", port), DEADLINE_S, source_address=source)
            exits.enter_context(connection)
            connection.sendall(head + b"Content-Length: 100\r\n\r\n")
        yield


@pytest.mark.parametrize("addresses", [["127.0.0.2"], [f"127.0.1.{number}" for number in range(1, 201)]])
def test_silent_posts_to_the_login_stop_neither_the_api_nor_another_operator(
    servers: Servers, make_operator: Callable[[str, Role], Operator], addresses: list[str]
) -> None:
    make_operator("ada", Role.VIEWER)
    with silent_posts(servers.ops_port, addresses):
        began = time.monotonic()
        assert servers.log_in("ada", PASSWORD).status == 303
        assert time.monotonic() - began < PROMPT_S
        assert servers.submits()
        # A thread for each would be thousands.
        assert len(os.listdir(f"/proc/{_worker(servers.ops.pid)}/task")) < 100


def _worker(pid: int) -> int:
    """The process below granian's own that serves."""
    [child] = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


def test_a_flood_of_invented_names_is_refused_at_once_and_locks_nobody_out(
    servers: Servers, make_operator: Callable[[str, Role], Operator]
) -> None:
    make_operator("ada", Role.VIEWER)
    is_over, answers = threading.Event(), Counter[int]()

    def guess(number: int) -> None:
        while not is_over.is_set():
            answer = servers.log_in(f"invented-{number}", "a wrong password", "127.0.0.2")
            assert answer.status != 429 or int(answer.headers["Retry-After"]) > 0
            answers[answer.status] += 1

    threads = [threading.Thread(target=guess, args=(number,)) for number in range(FLOOD)]
    for thread in threads:
        thread.start()
    try:
        servers.ops.wait_until(lambda: answers[429] >= FLOOD, DEADLINE_S)
        for _ in range(3):
            assert servers.log_in("ada", PASSWORD).status == 303
        assert servers.submits()
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
    assert answers.keys() == {401, 429}
