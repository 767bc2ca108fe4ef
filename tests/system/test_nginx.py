"""Clients that leave behind nginx, the real one, with and without connections that it keeps open to the API."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from headrace.stack.child import Child, Command
from headrace.stack.ports import LOOPBACK, free_port
from headrace.stack.stack import Stack
from tests.waiting import until

DEADLINE_S = 60.0
#: From a client's leave to the cancel of its job.
NOTICED_S = 2.0
OLDER = 20
#: Everything that would take a job.
WITHOUT = ("gpu", "overflow", "flower", "webhooks", "plugins")
KEPT = "keepalive 32;"
CONFIGURATION = """
daemon off;
pid {folder}/pid;
error_log stderr warn;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream api {{ server {api}; {kept} }}
    server {{
        listen {host}:{port};
        location / {{
            proxy_pass http://api;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_read_timeout 700s;
        }}
    }}
}}
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The API, and nothing that runs its jobs."""
    options = [word for name in WITHOUT for word in ("--without", name)]
    with Stack(tmp_path_factory.mktemp("stack"), ("--engine", "simulator", *options), {"OPENAI_API_KEY": ""}) as stack:
        yield stack


@pytest.fixture(params=["", KEPT], ids=["each request its own connection", "connections that are kept"])
def port(stack: Stack, nginx_path: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[int]:
    """Of nginx before the API."""
    port, configuration = free_port(), tmp_path / "nginx.conf"
    address = urlsplit(stack.report.url).netloc
    configuration.write_text(
        CONFIGURATION.format(folder=tmp_path, api=address, host=LOOPBACK, port=port, kept=request.param)
    )
    command = Command("nginx", (nginx_path, "-c", str(configuration), "-e", "stderr"), {}, tmp_path)
    child = Child(command, tmp_path / "nginx.log")
    try:
        until(lambda: _is_up(port))
        yield port
    finally:
        child.stop()


def _is_up(port: int) -> bool:
    try:
        socket.create_connection((LOOPBACK, port), DEADLINE_S).close()
    except OSError:
        return False
    return True


def states(stack: Stack) -> dict[Any, str]:
    """The states of all jobs, in the order that they were made in."""
    with psycopg.connect(stack.report.database_url.replace("+psycopg", "")) as db:
        return dict(db.execute("SELECT id, state FROM jobs ORDER BY id").fetchall())


@pytest.fixture
def call(stack: Stack, port: int) -> Iterator[Callable[..., tuple[socket.socket, Any]]]:
    """Makes a client whose job is accepted; returns its connection and its job's id."""
    opened: list[socket.socket] = []

    def call(*, stream: bool = False) -> tuple[socket.socket, Any]:
        before = states(stack).keys()
        body = json.dumps({"messages": [{"role": "user", "content": "Why is the sky blue?"}], "stream": stream})
        lines = [
            "POST /v1/chat/completions HTTP/1.1",
            "Host: api",
            f"Authorization: Bearer {stack.report.api_key}",
            f"Content-Length: {len(body)}",
        ]
        connection = socket.create_connection((LOOPBACK, port), DEADLINE_S)
        opened.append(connection)
        connection.sendall("\r\n".join([*lines, "", body]).encode())
        until(lambda: len(states(stack)) > len(before))
        return connection, (states(stack).keys() - before).pop()

    yield call
    for each in opened:
        each.close()
    until(lambda: set(states(stack).values()) == {"cancelled"}, "every job's client has left")


@pytest.mark.parametrize("stream", [False, True], ids=["wait", "stream"])
def test_a_client_that_leaves_nginx_is_noticed_beside_those_that_wait(
    stack: Stack, call: Callable[..., tuple[socket.socket, Any]], stream: bool
) -> None:
    older = [call()[1] for _ in range(OLDER)]
    leaving, job_id = call(stream=stream)
    if stream:
        assert leaving.recv(65536).startswith(b"HTTP/1.1 200")

    left_at = time.monotonic()
    leaving.close()
    until(lambda: states(stack)[job_id] == "cancelled")

    assert time.monotonic() - left_at < NOTICED_S
    assert {states(stack)[each] for each in older} == {"queued"}
