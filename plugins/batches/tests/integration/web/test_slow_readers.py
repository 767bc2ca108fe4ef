"""Clients that take files slowly: they are given up, and never hold the slots that another app needs."""

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from http.client import HTTPResponse
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from headrace.stack.child import Child
from plugins.batches.web import FILE_SLOTS
from tests.waiting import DEADLINE_S

#: Bytes of the file: more than the buffers between both ends take.
SIZE = 16 * 1024 * 1024
GRACE_S = 1.0


@pytest.fixture
def web_server(serve_web: Callable[..., tuple[Child, str]], tmp_path: Path) -> tuple[Child, str]:
    return serve_web(HEADRACE_BATCHES__FILES__STORE=str(tmp_path / "files"), HEADRACE_BODY_GRACE_S=str(GRACE_S))


def upload(url: str, key: str, content: bytes = b"{}\n") -> httpx2.Response:
    headers = {"Authorization": f"Bearer {key}"}
    data, files = {"purpose": "batch"}, {"file": ("a.jsonl", content)}
    return httpx2.post(f"{url}/v1/files", data=data, files=files, headers=headers, timeout=DEADLINE_S)


@pytest.fixture
def download() -> Iterator[Callable[[str, str, str], HTTPResponse]]:
    """Asks for a file, and takes no more than the head."""
    with ExitStack() as exits:

        def begin(url: str, key: str, file_id: str) -> HTTPResponse:
            connection = exits.enter_context(socket.socket())
            connection.settimeout(DEADLINE_S)
            # As little as can be on the way.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect((urlsplit(url).hostname, urlsplit(url).port))
            lines = [f"GET /v1/files/{file_id}/content HTTP/1.1", "Host: x", f"Authorization: Bearer {key}", "", ""]
            connection.sendall("\r\n".join(lines).encode())
            response = HTTPResponse(connection)
            response.begin()
            return response

        yield begin


def test_downloads_that_trickle_hold_half_of_the_slots_and_no_longer_than_the_grace(
    web_server: tuple[Child, str], make_key: Callable[[str], str], download: Callable[[str, str, str], HTTPResponse]
) -> None:
    child, url = web_server
    slow, other = make_key("slow"), make_key("other")
    file_id = upload(url, slow, bytes(SIZE)).json()["id"]
    replies = [download(url, slow, file_id) for _ in range(FILE_SLOTS)]

    with ThreadPoolExecutor(9) as threads:
        uploads = list(threads.map(lambda _: upload(url, other).status_code, range(9)))
    assert uploads == [200] * 9
    assert [reply.status for reply in replies].count(429) >= FILE_SLOTS // 2

    child.wait_until(lambda: upload(url, slow).status_code == 200, DEADLINE_S)
    begun = next(reply for reply in replies if reply.status == 200)
    taken = 0
    with suppress(ConnectionError):
        while part := begun.read(65536):
            taken += len(part)
    assert taken < SIZE


def test_a_client_that_takes_what_is_sent_gets_the_whole_file(
    web_server: tuple[Child, str], make_key: Callable[[str], str]
) -> None:
    _, url = web_server
    key = make_key("quick")
    file_id = upload(url, key, bytes(SIZE)).json()["id"]
    reply = httpx2.get(
        f"{url}/v1/files/{file_id}/content", headers={"Authorization": f"Bearer {key}"}, timeout=DEADLINE_S
    )
    assert reply.content == bytes(SIZE)
