"""Heads of requests: what they cost is bounded before it is done, for callers without a key too."""

import http.client
import socket
import time
from collections.abc import Callable
from contextlib import closing, suppress
from urllib.parse import urlsplit

import httpx2
import pytest

from headrace.stack.child import Child
from tests.waiting import DEADLINE_S
from tests.web import ApiClient, Web

#: Seconds that the Procfile leaves a head.
HEAD_S = 10


@pytest.fixture
def web_server(serve_web: Callable[..., tuple[Child, str]]) -> str:
    return serve_web()[1]


def connect(url: str) -> socket.socket:
    return socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), DEADLINE_S)


def exchange(url: str, head: bytes) -> bytes:
    """The first line of the answer; empty where the server closes without one."""
    with closing(connect(url)) as connection, suppress(ConnectionError):
        with suppress(ConnectionError):
            connection.sendall(head)
        return connection.makefile("rb").readline()
    return b""


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(
            b"GET /openapi.json HTTP/1.1\r\nHost: x\r\nIf-None-Match: %s\r\n\r\n" % (b"a," * 190_000), id="etags"
        ),
        pytest.param(b"GET /v1/jobs?%s HTTP/1.1\r\nHost: x\r\n\r\n" % (b"a=&" * 20_000), id="query"),
        pytest.param(
            b"POST /v1/files HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=%s\r\n\r\n"
            % (b"b" * 390_000),
            id="boundary",
        ),
    ],
)
def test_an_oversized_head_is_refused_by_the_server(web_server: str, head: bytes) -> None:
    assert exchange(web_server, head).split(b" ")[1:2] in ([b"431"], [])
    assert httpx2.get(f"{web_server}/healthz").status_code == 200


def test_a_head_that_does_not_come_is_given_up(web_server: str) -> None:
    began = time.monotonic()
    with closing(connect(web_server)) as half:
        half.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n")
        half.settimeout(DEADLINE_S)
        half.recv(1)
    assert time.monotonic() - began < 2 * HEAD_S, "the default is 30 s"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("If-None-Match", "a," * 4000),
        ("If-Modified-Since", "a" * 8000),
        ("Range", "bytes=" + "0-1," * 2000),
        ("Content-Type", "multipart/form-data" + ";a=b" * 2000),
        ("Prefer", "wait=1," * 1000),
    ],
)
@pytest.mark.parametrize("path", ["/openapi.json", "/v1/jobs"])
def test_a_header_that_is_parsed_has_a_length_of_its_own(base_url: str, path: str, name: str, value: str) -> None:
    reply = httpx2.get(f"{base_url}{path}", headers={name: value})
    error = reply.json()["error"]
    assert (reply.status_code, error["code"]) == (431, "header_too_large")
    assert name.lower() in error["message"]
    assert reply.headers["x-request-id"]


def test_headers_of_one_name_are_measured_together(base_url: str) -> None:
    connection = http.client.HTTPConnection(urlsplit(base_url).netloc, timeout=DEADLINE_S)
    with closing(connection):
        connection.putrequest("GET", "/openapi.json")
        for _ in range(50):
            connection.putheader("If-None-Match", '"a",' * 20)
        connection.endheaders()
        assert connection.getresponse().status == 431


def test_what_a_browser_sends_is_answered(web: Web) -> None:
    etag = web.test_client().get("/openapi.json").headers["ETag"]
    headers = {"If-None-Match": f'"other", W/{etag}'}
    assert web.test_client().get("/openapi.json", headers=headers).status_code == 304


@pytest.mark.parametrize("path", ["/healthz", "/openapi.json", "/v1/nothing"])
def test_cookies_which_nothing_here_parses_have_only_the_heads_limit(web_server: str, path: str) -> None:
    plain = httpx2.get(f"{web_server}{path}").status_code
    assert httpx2.get(f"{web_server}{path}", headers={"Cookie": "a=b;" * 3500}).status_code == plain


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/usage", f"/v1/jobs/job_{'0' * 32}"])
def test_a_query_has_so_many_fields(client: ApiClient, path: str) -> None:
    reply = client.get(f"{path}?{'a=&' * 2000}")
    assert (reply.status_code, reply.json["error"]["code"]) == (400, "invalid_value")
    assert "fields" in reply.json["error"]["message"]
