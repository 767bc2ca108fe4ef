"""A command of `headrace` in a real terminal: what it shows, and what keys do to it."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence

SOON_S = 30.0


class Terminal:
    """`headrace` with these arguments, in a terminal of 80 x 30. Attributes: text: all that it wrote."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        self._fd, other = pty.openpty()
        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 80, 0, 0))
        # The terminal is the process's own, so that its Ctrl-C reaches it.
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from headrace.cli import main; main()", *arguments],
            *(-1, None, other, other, other),
            env={**os.environ, **environment, "TERM": "xterm-256color"},  # noqa: TID251
            preexec_fn=_own_terminal,
        )
        os.close(other)
        self.text = ""

    def read_until(self, words: str, count: int = 1) -> None:
        """Read until it has written these words."""
        until = time.monotonic() + SOON_S
        while self.text.count(words) < count:
            assert time.monotonic() < until, self.text
            self.read()

    def press(self, key: bytes) -> int:
        """Press a key; returns the status with which the command ends."""
        os.write(self._fd, key)
        return self.end()

    def send(self, number: signal.Signals) -> int:
        """Send a signal; returns the status with which the command ends."""
        self._process.send_signal(number)
        return self.end()

    def end(self) -> int:
        """Wait for its end, and return its status."""
        until = time.monotonic() + SOON_S
        while self._process.poll() is None:
            assert time.monotonic() < until, self.text
            self.read()
        self.read()
        return self._process.returncode

    def read(self) -> None:
        """Read what it has written, if anything."""
        if select.select([self._fd], [], [], 0.1)[0]:
            try:
                self.text += os.read(self._fd, 65_536).decode(errors="replace")
            except OSError:
                # The process has closed its side.
                return

    def close(self) -> None:
        """End it, whatever it does."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        os.close(self._fd)


def _own_terminal() -> None:
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
