"""A peer in a process of its own, which reads one JSON object a line and answers each with another.

Its first line says that it is ready. What it is asked, and what it answers, is not known here.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import IO, Any

import click

from headrace.config import PROJECT_ROOT
from peers import python_path


class JsonPeer:
    """The process; made once it is ready."""

    def __init__(self, module: str, env: Mapping[str, str]) -> None:
        """Start it.

        Args:
            module: what the process runs, such as `peers.async_engine`.
            env: settings, on top of this process's own environment.
        """
        self._name = module
        inherited = dict(os.environ)  # noqa: TID251 - it is handed on whole; nothing is read from it here.
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            env={**inherited, **env, "PYTHONPATH": python_path(inherited)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=PROJECT_ROOT,
        )
        self._answer()

    def ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Its answer to this line."""
        assert self._process.stdin is not None
        print(json.dumps(question), file=self._process.stdin, flush=True)
        return self._answer()

    def close(self) -> None:
        """End it."""
        self._process.communicate()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise click.ClickException(f"The peer {self._name} has ended by itself.")
        answer: dict[str, Any] = json.loads(line)
        return answer


def answering() -> IO[str]:
    """In the peer's process: where its answers go. What anybody else prints, its children too, is taken elsewhere."""
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return out
