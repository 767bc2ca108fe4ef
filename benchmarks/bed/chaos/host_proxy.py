"""Stands before the socket on which a supervisor is asked for hosts, and fails as providers of hosts do.

Knows the lines of the socket, and neither who asks nor why.
"""

import json
import os
import socket
import socketserver
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from threading import Condition, Thread
from typing import Any, Self


class CallMode(StrEnum):
    """What happens to calls.

    `FAIL`: they are cut off undone. `HANG`: they are not done, and end with the mode. `LIE`: the list is empty. `HOLD`:
    a host is started, and the answer that says so ends with the mode, unsaid.
    """

    OK = "ok"
    FAIL = "fail"
    HANG = "hang"
    LIE = "lie"
    HOLD = "hold"


class HostProxy(AbstractContextManager["HostProxy"]):
    """Takes the socket's place for the length of a `with` block.

    Attributes:
        started: the ids of all hosts that were ever started.
    """

    def __init__(self, path: Path) -> None:
        """Plan it. Args: path: of the supervisor's socket, which exists by the start of the block."""
        self._path, self._behind = path, path.with_name("supervisor.sock")
        self._mode, self._met, self._changed = CallMode.OK, 0, Condition()
        self.started = set[str]()

    def __enter__(self) -> Self:
        proxy = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                with suppress(OSError):
                    self.wfile.write(proxy._answer(self.rfile.readline()))

        os.link(self._path, self._behind)
        before = self._path.with_name("proxy.sock")
        self._server = socketserver.ThreadingUnixStreamServer(str(before), Handler)
        self._server.daemon_threads, self._server.block_on_close = True, False
        # In one step, so that every call finds a supervisor.
        before.rename(self._path)
        self._thread = Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._turn(CallMode.OK)
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @contextmanager
    def failing(self, mode: CallMode) -> Iterator[None]:
        """Let calls fail like that for the length of a block."""
        self._turn(mode)
        try:
            yield
        finally:
            self._turn(CallMode.OK)

    def until_met(self, timeout_s: float) -> bool:
        """Wait until a call has met the present mode; returns whether one has."""
        with self._changed:
            return self._changed.wait_for(lambda: self._met > 0, timeout_s)

    def _turn(self, mode: CallMode) -> None:
        with self._changed:
            self._mode, self._met = mode, 0
            self._changed.notify_all()

    def _meet(self, *, is_kept: bool) -> None:
        """Note that a call meets the present mode. Args: is_kept: return when the mode ends."""
        with self._changed:
            mode, self._met = self._mode, self._met + 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: not is_kept or self._mode is not mode)

    def _answer(self, line: bytes) -> bytes:
        """What the caller hears; nothing if the call fails."""
        request, mode = json.loads(line), self._mode
        if mode in (CallMode.FAIL, CallMode.HANG):
            self._meet(is_kept=mode is CallMode.HANG)
            return b""
        answer = self.ask(request)
        if request["verb"] == "start" and answer.get("error") is None:
            self.started.add(request["host_id"])
            if mode is CallMode.HOLD:
                self._meet(is_kept=True)
                return b""
        if request["verb"] == "list" and mode is CallMode.LIE:
            self._meet(is_kept=False)
            answer = {"hosts": []}
        return json.dumps(answer).encode() + b"\n"

    def ask(self, request: dict[str, str]) -> dict[str, Any]:
        """The supervisor's own answer."""
        with socket.socket(socket.AF_UNIX) as behind:
            behind.connect(str(self._behind))
            behind.sendall(json.dumps(request).encode() + b"\n")
            with behind.makefile("rb") as answers:
                answer: dict[str, Any] = json.loads(answers.readline())
        return answer
