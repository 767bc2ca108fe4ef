"""Calls whose client closes its connection while it waits, on the server that production runs."""

import json
import select
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2
import pytest
import sqlalchemy as sa
from redis import Redis

from api.reading.probes import IDLE_S
from headrace.config import Settings
from headrace.domain.states import JobState
from headrace.stack.ports import free_port
from headrace.store import Store
from headrace.tables import jobs
from tests.waiting import until

DEADLINE_S = 60.0


@pytest.fixture
def port(settings: Settings, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Of a web process that holds two waits."""
    port = free_port()
    environment = {
        "DATABASE_URL": settings.database_url,
        "REDIS_URL": settings.redis_url,
        "HEADRACE_ENGINE": "simulator",
        "HEADRACE_PEPPER": settings.pepper.get_secret_value(),
        "HEADRACE_WAIT_SLOTS": "2",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    words = f"--interface wsgi --http 1 --no-ws --host 127.0.0.1 --port {port} --blocking-threads 16 api.wsgi:app"
    server = subprocess.Popen([sys.executable, "-m", "granian", *words.split()])
    try:
        until(lambda: is_up(port))
        yield port
    finally:
        server.terminate()
        server.wait(DEADLINE_S)


def is_up(port: int) -> bool:
    """Whether the server listens. It is asked nothing, so that Flask has seen no request yet."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), DEADLINE_S):
        return True
    return False


class Caller:
    """A client that asks for an answer, and waits for it or not."""

    def __init__(self, port: int, key: str, address: str, **headers: str) -> None:
        self._connection = socket.create_connection(("127.0.0.1", port), DEADLINE_S, source_address=(address, 0))
        body = json.dumps({"messages": [{"role": "user", "content": "Why is the sky blue?"}]})
        lines = [
            "POST /v1/chat/completions HTTP/1.1",
            f"Host: 127.0.0.1:{port}",
            f"Authorization: Bearer {key}",
            f"Content-Length: {len(body)}",
            *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items()),
        ]
        self._connection.sendall("\r\n".join([*lines, "", body]).encode())

    @property
    def peer(self) -> str:
        """The client's address and port, as the kernel writes them."""
        address, port = self._connection.getsockname()
        return f"{socket.inet_aton(address)[::-1].hex().upper()}:{port:04X}"

    def leave(self) -> None:
        self._connection.close()

    def status(self) -> int:
        """Of the answer."""
        with self._connection:
            return int(self._connection.recv(65536).split()[1])


@pytest.fixture
def states(store: Store) -> Callable[[], dict[UUID, JobState]]:
    """All jobs, oldest first."""

    def read() -> dict[UUID, JobState]:
        with store.begin() as db:
            return {
                row.id: JobState(row.state)
                for row in db.execute(sa.select(jobs.c.id, jobs.c.state).order_by(jobs.c.id))
            }

    return read


States = Callable[[], dict[UUID, JobState]]


def call(states: States, *caller: Any, **headers: str) -> tuple[Caller, UUID]:
    """A caller whose job is accepted."""
    before = states().keys()
    calling = Caller(*caller, **headers)
    until(lambda: len(states()) > len(before))
    return calling, (states().keys() - before).pop()


def test_an_abandoned_synchronous_call_is_noticed_and_gives_its_slot_back(port: int, key: str, states: States) -> None:
    waiting, kept = call(states, port, key, "127.0.0.3")
    abandoned, job_id = call(states, port, key, "127.0.0.2")
    assert Caller(port, key, "127.0.0.3").status() == 429, "both slots are held"

    abandoned.leave()

    until(lambda: states()[job_id] is JobState.CANCELLED)
    after, _ = call(states, port, key, "127.0.0.2")
    assert states()[kept] is JobState.QUEUED, "its client waits, and is as silent"
    headers = {"Authorization": f"Bearer {key}"}
    httpx2.post(f"http://127.0.0.1:{port}/v1/jobs/job_{kept.hex}/cancel", headers=headers).raise_for_status()
    assert waiting.status() == 409
    after.leave()


def test_a_job_that_its_abandoned_call_may_come_back_for_goes_on(port: int, key: str, states: States) -> None:
    abandoned, job_id = call(states, port, key, "127.0.0.2", Idempotency_Key="a")
    sentinel, _ = call(states, port, key, "127.0.0.4")
    abandoned.leave()
    # Its slot is free once it was noticed.
    until(lambda: Caller(port, key, "127.0.0.5", Prefer="wait=0").status() == 504)
    assert states()[job_id] is JobState.QUEUED
    sentinel.leave()


def test_the_kernel_probes_a_client_that_waits(port: int, key: str, states: States) -> None:
    """One that vanishes without closing its connection is noticed, though Flask saw no request before it."""
    waiting, _ = call(states, port, key, "127.0.0.3")
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    # Of the server's end of the connection: addresses, state, and the timer with its rest in hundredths of a second.
    [timer] = [each[5] for each in lines if each[1:4] == [f"0100007F:{port:04X}", waiting.peer, "01"]]
    kind, rest = timer.split(":")
    assert kind == "02", "keep-alive"
    assert int(rest, 16) <= IDLE_S * 100
    waiting.leave()


def test_an_abandoned_long_poll_gives_its_slot_back(port: int, key: str, states: States) -> None:
    waiting, job_id = call(states, port, key, "127.0.0.3")

    def poll() -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", port), DEADLINE_S, source_address=("127.0.0.2", 0))
        lines = f"GET /v1/jobs/job_{job_id.hex}?wait=60 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\r\n"
        connection.sendall(lines.encode())
        return connection

    polls = [poll()]

    def is_held() -> bool:
        """Whether the poll has the second slot. One that came while the look itself had it was answered at once."""
        if select.select(polls, [], [], 0)[0]:
            polls.pop().close()
            polls.append(poll())
        return Caller(port, key, "127.0.0.5", Prefer="wait=0").status() == 429

    until(is_held)
    polls.pop().close()
    until(lambda: Caller(port, key, "127.0.0.5", Prefer="wait=0").status() == 504)
    assert states()[job_id] is JobState.QUEUED
    waiting.leave()
