"""Postgres or Valkey by itself: killed, hung and started again at will. Knows no system around it."""

import signal
from collections.abc import Sequence
from dataclasses import replace

from headrace.stack.child import Child
from headrace.stack.postgres import Postgres
from headrace.stack.valkey import Valkey

SERVER_TIMEOUT_S = 30.0


class Server:
    """One server process. Attributes: options: added to its command line."""

    def __init__(self, kind: Postgres | Valkey, options: Sequence[str] = ()) -> None:
        self.kind = kind
        self.options = tuple(options)
        self._child: Child | None = None

    def start(self) -> None:
        """Return once it serves. Raises: StackError."""
        self.kind.prepare()
        command = self.kind.command()
        self._child = Child(replace(command, argv=(*command.argv, *self.options)), self.kind.folder / "server.log")
        self._child.wait_until(self.kind.is_ready, SERVER_TIMEOUT_S)

    def signal(self, number: int) -> None:
        """Send a signal to it."""
        assert self._child is not None
        self._child.signal(number)

    def end(self, number: int) -> None:
        """End it by this signal, with all its processes."""
        assert self._child is not None
        self._child.signal(number)
        self._child.wait(SERVER_TIMEOUT_S)
        self._child.kill_group()

    def restart(self, number: int) -> None:
        """End it by this signal, and start it again."""
        self.end(number)
        self.start()

    def stop(self) -> None:
        """End it, cleanly."""
        if self._child is not None:
            self._child.signal(signal.SIGCONT)
            self._child.stop()
        self.kind.release()
