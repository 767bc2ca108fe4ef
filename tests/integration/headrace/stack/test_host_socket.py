"""The socket for hosts, with real clients, polite and hostile."""

import json
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from headrace.errors import StackError
from headrace.stack.hosts import (
    MAX_REQUEST_BYTES,
    HostAnswer,
    HostRequest,
    ListHosts,
    LocalHost,
    StartHost,
    StopHost,
    host_socket,
)
from headrace.stack.services import MemberState

DEADLINE_S = 20.0
NONE = HostAnswer(hosts=())
HOST = LocalHost(host_id="h-1", state=MemberState.RUNNING)


@pytest.fixture
def requests() -> list[HostRequest]:
    """The requests that were granted."""
    return []


@pytest.fixture
def path(tmp_path: Path, requests: list[HostRequest]) -> Iterator[Path]:
    def answer(request: HostRequest) -> HostAnswer:
        if request.pool != "chat":
            raise StackError("Not this pool.")
        requests.append(request)
        return HostAnswer(hosts=(HOST,))

    with host_socket(tmp_path / "hosts.sock", answer):
        yield tmp_path / "hosts.sock"


def connect(path: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(DEADLINE_S)
    client.connect(str(path))
    return client


def ask(path: Path, sent: bytes) -> Any:
    """The answer to these bytes, which are all that this client sends."""
    with connect(path) as client, client.makefile("rb") as answers:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        answer = answers.read()
    assert answer.endswith(b"\n")
    assert answer.count(b"\n") == 1
    return json.loads(answer)


def test_each_request_is_one_line_and_so_is_its_answer(path: Path, requests: list[HostRequest]) -> None:
    for request in (
        {"verb": "list", "pool": "chat"},
        {"verb": "start", "pool": "chat", "host_id": "h-1"},
        {"verb": "stop", "pool": "chat", "host_id": "h-1"},
    ):
        answer = ask(path, json.dumps(request).encode() + b"\n")
        assert answer == {"hosts": [{"host_id": "h-1", "state": "running"}]}
    assert requests == [
        ListHosts(pool="chat"),
        StartHost(pool="chat", host_id="h-1"),
        StopHost(pool="chat", host_id="h-1"),
    ]


def test_a_refusal_is_an_answer(path: Path) -> None:
    assert ask(path, b'{"verb": "list", "pool": "code"}\n') == {"hosts": [], "error": "Not this pool."}


def start(host_id: object) -> bytes:
    return json.dumps({"verb": "start", "pool": "chat", "host_id": host_id}).encode() + b"\n"


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (b"", "one line"),
        (b'{"verb": "list", "pool": "ch', "one line"),
        (b"x" * (MAX_REQUEST_BYTES + 1), "one line"),
        (b"\xff\x00\xfe\n", "not valid"),
        (b"\n", "not valid"),
        (b"[]\n", "not valid"),
        (b"[" * 4000 + b"\n", "not valid"),
        (b"{}\n", "verb"),
        (b'{"verb": "kill", "pool": "chat", "host_id": "h-1"}\n', "verb"),
        (b'{"verb": "start", "pool": "chat"}\n', "host_id"),
        (b'{"verb": "start", "pool": "chat", "host_id": "h-1", "argv": ["sh"]}\n', "argv"),
        *(
            (start(host_id), "host_id")
            for host_id in (
                *(
                    "",
                    "/etc/passwd",
                    "../h",
                    "a/b",
                    "..",
                    ".h",
                    "-h",
                    "h;id",
                    "$(id)",
                    "h h",
                    "h\n",
                    "h\x00",
                    "ü",
                    "%h",
                ),
                *("h" * 101, 1, None, ["h"]),
            )
        ),
    ],
)
def test_what_is_no_request_is_refused_with_its_fault(
    path: Path, requests: list[HostRequest], sent: bytes, error: str
) -> None:
    assert error in ask(path, sent)["error"]
    assert requests == []
    assert ask(path, b'{"verb": "list", "pool": "chat"}\n')["hosts"]


def test_a_client_that_sends_without_end_is_cut_off(path: Path) -> None:
    # Far more than the kernel buffers between the two.
    with connect(path) as client, pytest.raises((BrokenPipeError, ConnectionResetError)):
        client.sendall(b"x" * (16 << 20))


def test_clients_that_stall_or_leave_keep_nobody_waiting(path: Path) -> None:
    with ExitStack() as open_ones:
        for _ in range(20):
            open_ones.enter_context(connect(path)).sendall(b'{"verb": ')
        for _ in range(20):
            with connect(path) as leaving:
                leaving.sendall(b'{"verb": "list", "pool": "chat"}\n')
        assert ask(path, b'{"verb": "list", "pool": "chat"}\n')["hosts"]


def test_a_client_that_stalls_is_given_up(path: Path) -> None:
    with connect(path) as client:
        client.sendall(b'{"verb": ')
        assert client.recv(1) == b""


def test_only_this_user_may_connect_from_the_first_moment_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[int] = []
    real: Callable[..., None] = socket.socket.listen

    def listen(self: socket.socket, *arguments: int) -> None:
        modes.append(stat.S_IMODE((tmp_path / "hosts.sock").stat().st_mode))
        real(self, *arguments)

    monkeypatch.setattr(socket.socket, "listen", listen)
    with host_socket(tmp_path / "hosts.sock", lambda _: NONE):
        assert modes == [0o600]


def test_a_socket_that_a_killed_stack_left_is_replaced_and_none_is_left(tmp_path: Path) -> None:
    path = tmp_path / "hosts.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with host_socket(path, lambda _: NONE):
        assert ask(path, b'{"verb": "list", "pool": "chat"}\n') == {"hosts": []}
    assert not path.exists()
    assert not [thread for thread in threading.enumerate() if thread.name == "hosts"]


def test_a_path_that_is_too_long_for_a_socket_is_refused_with_what_to_do(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 100) / "hosts.sock"
    with (
        pytest.raises(StackError, match="too long: set HEADRACE_STATE"),
        host_socket(long, lambda _: NONE),
    ):
        pass


def test_a_folder_that_takes_no_socket_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "missing" / "hosts.sock"
    with (
        pytest.raises(StackError, match=r"missing/hosts.sock cannot be made"),
        host_socket(missing, lambda _: NONE),
    ):
        pass
