"""Calls whose client closes its connection while it waits, on the server that production runs."""

import json
import select
import socket
import time
from collections.abc import Callable
from http.client import HTTPResponse
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2
import pytest
import sqlalchemy as sa
from redis import Redis

from api.asgi import PROBES, _probe_clients
from headrace.broker.streams import Streams
from headrace.domain.jobs import StreamPiece
from headrace.domain.states import JobState
from headrace.stack.child import Child
from headrace.store import Store
from headrace.tables import jobs
from tests.waiting import until
from tests.web import Web

DEADLINE_S = 60.0
#: Of 50 KB: more than the buffers between a server and its client take.
PIECES = 400


@pytest.fixture
def serve(serve_web: Callable[..., tuple[Child, str]]) -> Callable[[int], int]:
    """Starts a web process that holds this many waits; returns its port."""

    def serve(wait_slots: int) -> int:
        _, url = serve_web(HEADRACE_WAIT_SLOTS=str(wait_slots))
        return int(url.rpartition(":")[2])

    return serve


@pytest.fixture
def port(serve: Callable[[int], int]) -> int:
    """Of a web process that holds two waits."""
    return serve(2)


def connect(port: int, address: str) -> socket.socket:
    """A connection from this address."""
    return socket.create_connection(("127.0.0.1", port), DEADLINE_S, source_address=(address, 0))


class Caller:
    """A client that asks for an answer, and waits for it or not."""

    def __init__(
        self, port: int, key: str, address: str = "127.0.0.2", *, stream: bool = False, **headers: str
    ) -> None:
        self._connection = socket.create_connection(("127.0.0.1", port), DEADLINE_S, source_address=(address, 0))
        body = json.dumps({"messages": [{"role": "user", "content": "Why is the sky blue?"}], "stream": stream})
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


def call(states: States, *caller: Any, **more: Any) -> tuple[Caller, UUID]:
    """A caller whose job is accepted."""
    before = states().keys()
    calling = Caller(*caller, **more)
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
    """One that vanishes without closing its connection is noticed, though the app saw no request before it."""
    waiting, _ = call(states, port, key, "127.0.0.3")
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    # Of the server's end of the connection: addresses, state, and the timer with its rest in hundredths of a second.
    [timer] = [each[5] for each in lines if each[1:4] == [f"0100007F:{port:04X}", waiting.peer, "01"]]
    kind, rest = timer.split(":")
    assert kind == "02", "keep-alive"
    assert int(rest, 16) <= PROBES[socket.TCP_KEEPIDLE] * 100
    waiting.leave()


def test_an_abandoned_long_poll_gives_its_slot_back(port: int, key: str, states: States) -> None:
    waiting, job_id = call(states, port, key, "127.0.0.3")

    def poll() -> socket.socket:
        connection = connect(port, "127.0.0.2")
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


def test_a_reader_that_takes_nothing_more_has_left(
    web: Web, base_url: str, redis: Redis, key: str, states: States, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its kernel acknowledges no more than its buffers hold, as that of a client that vanished acknowledges nothing."""
    assert PROBES[socket.TCP_USER_TIMEOUT] == 60_000
    monkeypatch.setitem(PROBES, socket.TCP_USER_TIMEOUT, 500)
    _probe_clients()
    reader = Caller(int(base_url.rpartition(":")[2]), key, stream=True)
    until(lambda: len(states()) == 1)
    [job_id], streams, piece = states(), Streams(redis), "x" * 50_000
    streams.begin(job_id, 1)
    for number in range(PIECES):
        streams.publish([StreamPiece(job_id, 1, number * len(piece), piece, "delta")])
    until(lambda: states()[job_id] is JobState.CANCELLED)
    until(lambda: web.deps.waits.slots()["stream"].held == 0)
    reader.leave()


@pytest.mark.parametrize("stream", [False, True], ids=["wait", "stream"])
def test_idle_connections_and_older_waits_of_the_same_client_hide_no_leave(
    serve: Callable[[int], int], key: str, states: States, stream: bool
) -> None:
    """An SDK's pool and a proxy keep many connections from one address."""
    port = serve(40)
    idle = [
        socket.create_connection(("127.0.0.1", port), DEADLINE_S, source_address=("127.0.0.2", 0)) for _ in range(4)
    ]
    for each in idle:
        each.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert each.recv(65536).startswith(b"HTTP/1.1 200")
    older = [call(states, port, key) for _ in range(20)]
    leaving, job_id = call(states, port, key, stream=stream)

    left_at = time.monotonic()
    leaving.leave()
    until(lambda: states()[job_id] is JobState.CANCELLED)

    assert time.monotonic() - left_at < 2
    assert {states()[job] for _, job in older} == {JobState.QUEUED}
    for caller, _ in older:
        caller.leave()
    for each in idle:
        each.close()


def test_a_connection_goes_on_after_a_wait_and_its_next_request_is_no_leave(
    port: int, key: str, states: States
) -> None:
    with connect(port, "127.0.0.2") as connection:
        for no in range(3):
            ask(connection, key)
            assert answered(connection) == 504, no
    until(lambda: len(states()) == 3)
    assert set(states().values()) == {JobState.QUEUED}


def ask(connection: socket.socket, key: str) -> None:
    """Ask for an answer, and wait no moment for it."""
    body = '{"messages": [{"role": "user", "content": "Hi"}]}'
    lines = [
        "POST /v1/chat/completions HTTP/1.1",
        "Host: x",
        f"Authorization: Bearer {key}",
        f"Content-Length: {len(body)}",
        "Prefer: wait=0",
    ]
    connection.sendall("\r\n".join([*lines, "", body]).encode())


def answered(connection: socket.socket) -> int:
    """The status of the next answer, whose body is read."""
    response = HTTPResponse(connection)
    response.begin()
    response.read()
    return response.status
