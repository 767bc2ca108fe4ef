"""What reaches a thread: whole requests, with the client's own address; and what is refused before."""

import asyncio
import json
import threading
from collections.abc import Awaitable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from flask import Flask, Response, jsonify, request
from prometheus_client import CollectorRegistry, generate_latest

from headrace.http import RequestMetrics
from ops import asgi
from ops.asgi import OpsServer
from ops.deps import EXTENSION

DEADLINE_S = 10.0
Answer = tuple[int, dict[str, str], bytes]


@pytest.fixture
def metrics() -> RequestMetrics:
    return RequestMetrics("headrace_ops")


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Opens the page `/slow`."""
    gate = threading.Event()
    yield gate
    gate.set()


@pytest.fixture
def app(metrics: RequestMetrics, gate: threading.Event) -> Flask:
    """Pages that say what they got."""
    app = Flask(__name__)
    app.extensions[EXTENSION] = SimpleNamespace(metrics=metrics)

    @app.route("/<path:path>", methods=["GET", "POST"])
    def echo(path: str) -> Response:
        headers = {name: value for name, value in request.headers.items() if name not in ("Host",)}
        about = {"path": path, "query": request.query_string.decode(), "form": request.form, "headers": headers}
        return jsonify(about | {"address": request.remote_addr, "host": request.host})

    @app.get("/slow")
    def slow() -> str:
        assert gate.wait(DEADLINE_S)
        return "done"

    return app


async def ask(
    server: OpsServer,
    path: str = "/page",
    parts: Sequence[bytes] | None = (),
    headers: Sequence[tuple[str, str]] = (),
    client: str = "192.0.2.1",
    query: str = "",
) -> Answer:
    """The answer to a request. Args: parts: of its body; None for one that never comes."""
    method = "GET" if parts == () else "POST"
    left, sent = list(parts or ()), list[dict[str, Any]]()
    length = [("content-length", "100" if parts is None else str(sum(map(len, parts))))] if method == "POST" else []

    async def receive() -> dict[str, Any]:
        if parts is None:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "scheme": "http",
        "http_version": "1.1",
        "client": (client, 4711),
        "server": ("127.0.0.1", 8600),
        "headers": [(name.encode(), value.encode()) for name, value in (("host", "ops.example"), *length, *headers)],
    }
    await server(scope, receive, send)
    found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], found, sent[1]["body"]


def run(call: Awaitable[Any]) -> Any:
    async def bounded() -> Any:
        return await asyncio.wait_for(call, DEADLINE_S)

    return asyncio.run(bounded())


def said(answer: Answer) -> dict[str, Any]:
    status, _, body = answer
    assert status == 200
    return dict(json.loads(body))


@pytest.mark.parametrize(("size", "status"), [(8192, 200), (8193, 431)])
def test_cookies_have_room_for_those_of_a_proxy_and_of_other_apps_of_the_host(
    app: Flask, size: int, status: int
) -> None:
    assert run(ask(OpsServer(app, ()), headers=[("cookie", "a=" + "b" * (size - 2))]))[0] == status


FORM = ("content-type", "application/x-www-form-urlencoded")


def test_a_form_in_parts_reaches_the_page_whole(app: Flask) -> None:
    found = said(run(ask(OpsServer(app, ()), "/a/ü", (b"name=a", b"da&x=", b"1"), [FORM], query="y=%C3%BC")))
    assert found["form"] == {"name": "ada", "x": "1"}
    assert (found["path"], found["query"], found["host"]) == ("a/ü", "y=%C3%BC", "ops.example")


def test_headers_of_one_name_are_joined_and_none_passes_for_another(app: Flask) -> None:
    headers = [("cookie", "a=1"), ("cookie", "b=2"), ("x-one", "1"), ("x-one", "2"), ("x_forged", "yes")]
    found = said(run(ask(OpsServer(app, ()), headers=headers)))["headers"]
    assert (found["Cookie"], found["X-One"]) == ("a=1; b=2", "1, 2")
    assert "X-Forged" not in found


@pytest.mark.parametrize(
    ("proxies", "peer", "forwarded", "address"),
    [
        ((), "192.0.2.1", "198.51.100.7", "192.0.2.1"),
        (("10.0.0.0/8",), "192.0.2.1", "198.51.100.7", "192.0.2.1"),
        (("10.0.0.0/8",), "10.1.2.3", "198.51.100.7", "198.51.100.7"),
        (("10.0.0.0/8",), "10.1.2.3", "203.0.113.9, 198.51.100.7, 10.9.9.9", "198.51.100.7"),
        (("10.0.0.0/8",), "10.1.2.3", "", "10.1.2.3"),
        (("::1/128",), "::1", "2001:db8::7", "2001:db8::7"),
    ],
)
def test_a_trusted_proxy_names_its_client_and_a_client_names_none(
    app: Flask, proxies: tuple[str, ...], peer: str, forwarded: str, address: str
) -> None:
    answer = run(ask(OpsServer(app, proxies), client=peer, headers=[("x-forwarded-for", forwarded)]))
    assert said(answer)["address"] == address


@pytest.mark.parametrize(("declared", "parts"), [(True, (b"x" * 70_000,)), (False, (b"x" * 60_000, b"x" * 10_000))])
def test_a_body_that_is_too_large_is_refused_declared_or_not(
    app: Flask, declared: bool, parts: tuple[bytes, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not declared:
        app.config["MAX_CONTENT_LENGTH"] = None
        monkeypatch.setattr(asgi, "FORM_BYTES_MAX", 65_536)
    headers = [] if declared else [("transfer-encoding", "chunked")]
    status, found, _ = run(ask(OpsServer(app, ()), parts=parts, headers=headers))
    assert (status, found["connection"]) == (413, "close")


def refusals(metrics: RequestMetrics) -> set[str]:
    registry = CollectorRegistry()
    registry.register(metrics)
    name = "headrace_ops_refusals_total"
    return {
        line.removeprefix(name) for line in generate_latest(registry).decode().splitlines() if line.startswith(name)
    }


def test_a_body_that_does_not_come_is_given_up_and_its_connection_closed(
    app: Flask, metrics: RequestMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asgi, "BODY_S", 0.01)
    status, found, _ = run(ask(OpsServer(app, ()), parts=None))
    assert (status, found["connection"]) == (408, "close")
    assert refusals(metrics) == {'{reason="late_bodies"} 1.0'}


def test_the_oldest_body_that_does_not_come_gives_way_to_one_that_does(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asgi, "BODIES", 3)
    server = OpsServer(app, ())

    async def flood() -> tuple[list[bool], Answer, int]:
        silent = [asyncio.create_task(ask(server, parts=None)) for _ in range(3)]
        await asyncio.sleep(0)
        answer = await ask(server, parts=(b"name=ada",), headers=[FORM])
        status, _, _ = await silent[0]
        done = [task.done() for task in silent]
        for task in silent[1:]:
            task.cancel()
        return done, answer, status

    done, answer, status = run(flood())
    assert said(answer)["form"] == {"name": "ada"}
    assert (done, status) == ([True, False, False], 408)


def test_requests_beyond_the_threads_and_the_queue_are_refused_at_once(
    app: Flask, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asgi, "THREADS", 1)
    monkeypatch.setattr(asgi, "WAITING", 1)
    server = OpsServer(app, ())

    async def flood() -> tuple[Answer, list[Answer]]:
        held = [asyncio.create_task(ask(server, "/slow")) for _ in range(2)]
        await asyncio.sleep(0)
        refused = await ask(server)
        gate.set()
        return refused, await asyncio.gather(*held)

    (status, headers, _), held = run(flood())
    assert (status, int(headers["retry-after"]) > 0) == (503, True)
    assert [answer[0] for answer in held] == [200, 200]
