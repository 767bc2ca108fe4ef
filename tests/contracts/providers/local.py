"""The provider behind the actuator `local`: a real supervisor, whose hosts are small programs in place of workers."""

import json
import socket
import threading
from pathlib import Path
from typing import Any

from scheduler.actuators.local import LocalActuator
from tests.contracts.providers.provider import MOST, PATIENCE_S, POOLS
from tests.integration.headrace.stack.host_stack import DEADLINE_S, HostStack

#: Serves the host that every supervisor begins with.
_FIRST_POOL = "first"
_HOST = b'{"host_id": "host-7", "state": "running"}'
_LIE = b'{"hosts": [' + _HOST + b", " + _HOST + b"]}\n"


class LocalStack:
    """A supervisor. In its bad moods another listener has the place of its socket, or none."""

    def __init__(self, folder: Path) -> None:
        self._path, self._real = folder / "hosts.sock", folder / "real.sock"
        self._stack = HostStack(folder, pools=(_FIRST_POOL, *POOLS), max_hosts=1 + MOST * len(POOLS)).__enter__()
        self._listener: socket.socket | None = None

    def actuator(self, timeout_s: float = PATIENCE_S) -> LocalActuator:
        return LocalActuator(self._path, timeout_s)

    def live(self, pool: str) -> set[str]:
        """Asks the supervisor itself, without the actuator."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(DEADLINE_S)
            connection.connect(str(self._real if self._real.exists() else self._path))
            connection.sendall(json.dumps({"verb": "list", "pool": pool}).encode() + b"\n")
            with connection.makefile("rb") as answers:
                hosts: list[dict[str, Any]] = json.loads(answers.read())["hosts"]
        return {host["host_id"] for host in hosts if host["state"] != "stopping"}

    def allow(self, pool: str, most: int) -> None:
        self._stack.allow(pool, most)

    def fail(self) -> None:
        self.work()
        self._path.rename(self._real)

    def hang(self) -> None:
        self.fail()
        self._listen()

    def lie(self) -> None:
        self.fail()
        threading.Thread(target=_answer, args=(self._listen(),), daemon=True).start()

    def work(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        if self._real.exists():
            self._real.replace(self._path)

    def stop(self) -> None:
        self._stack.process.terminate()
        self._stack.process.wait(DEADLINE_S)

    def _listen(self) -> socket.socket:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self._path))
        self._listener.listen()
        return self._listener


def _answer(listener: socket.socket) -> None:
    """Answer one request."""
    connection, _ = listener.accept()
    with connection:
        connection.recv(4096)
        connection.sendall(_LIE)
