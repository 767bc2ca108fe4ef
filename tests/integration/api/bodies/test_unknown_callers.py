"""No path of `web` reads a body for a caller that it does not know: each is answered while its body has not come."""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from http.client import HTTPResponse
from pathlib import Path

import httpx2
import pytest

from headrace.stack.processes.child import Child
from tests.integration.api.bodies.limits import DEADLINE_S, LIMIT
from tests.web import Web

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW")
FRAMES = (f"Content-Length: {LIMIT}", "Content-Length: 100", "Transfer-Encoding: chunked")
#: A body that Flask would read by itself where anything asks for the form.
FORM = "Content-Type: application/x-www-form-urlencoded"
#: None, another scheme, one that the checksum refuses, and one of the old kind, which Postgres is asked about.
KEYS = (None, "Basic eDp5", "Bearer hr-" + "x" * 49, "Bearer hr-" + "x" * 43)
#: Where no route is.
NOWHERE = ("/nowhere", "/v1", "/v1/jobs/x/y/z", "/ops/login")
#: What anyone may read.
OPEN = {"/", "/openapi.json", "/docs/", "/healthz", "/health", "/ping", "/version", "/readyz"}


def paths(web: Web) -> Iterator[str]:
    """A path of each route."""
    values = {"public_id": "job_" + "0" * 32, "name": "index.css", "rest": "some/path"}
    for rule in web.url_map.iter_rules():
        built = rule.build({name: values[name] for name in rule.arguments})
        assert built is not None
        yield built[1]


def calls(web: Web) -> list[tuple[str, str]]:
    return [(method, path) for path in sorted({*paths(web), *NOWHERE}) for method in METHODS]


def expected(method: str, path: str) -> set[int]:
    if path in OPEN or path.startswith("/docs/"):
        return {200, 204, 302, 405}
    if path in NOWHERE:
        return {401, 404}
    return {204, 405} if method in ("OPTIONS", "BREW") else {401, 405}


def threads_of(child: Child) -> int:
    """The threads of the server's processes, which are one group."""
    found = 0
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(ProcessLookupError, FileNotFoundError):
            if os.getpgid(int(process.name)) == child.pid:
                found += len(os.listdir(process / "task"))
    return found


@pytest.mark.parametrize("frame", FRAMES)
def test_a_body_of_an_unknown_caller_is_never_waited_for(web: Web, web_server: tuple[Child, str], frame: str) -> None:
    child, url = web_server
    host, port = url.removeprefix("http://").split(":")
    statuses: dict[tuple[str, str], int] = {}
    before = threads_of(child)
    with ExitStack() as silent:
        for number, (method, path) in enumerate(calls(web)):
            key = KEYS[number % len(KEYS)]
            lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", FORM, frame]
            lines += [f"Authorization: {key}"] if key else []
            connection = silent.enter_context(socket.create_connection((host, int(port)), DEADLINE_S))
            connection.sendall("\r\n".join([*lines, "", ""]).encode())
            response = silent.enter_context(closing(HTTPResponse(connection, method=method)))
            response.begin()
            statuses[method, path] = response.status
        assert httpx2.get(f"{url}/healthz").status_code == 200
        assert threads_of(child) < before + 32, "the connections are still open, and hold no threads"
    wrong = {call: status for call, status in statuses.items() if status not in expected(*call)}
    assert wrong == {}
    assert {401, 404, 405} <= set(statuses.values())
