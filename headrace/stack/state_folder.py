"""A stack's state folder: the lock that allows one stack, secrets, and the report of a running stack."""

import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from headrace.config import Settings
from headrace.errors import StackError


def persistent_secret(path: Path) -> str:
    """Read the secret in this file. Without one, make it, with mode 0600."""
    try:
        if kept := path.read_text().strip():
            return kept
    except FileNotFoundError:
        pass
    value = secrets.token_urlsafe(32)
    write_private(path, value)
    return value


def write_private(path: Path, text: str) -> None:
    """Replace a whole file, with mode 0600 from its first byte on."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    draft.replace(path)


#: Seconds to wait for the lock. A killed stack's watchdog keeps it until the stack's last process has ended. That takes
#: less time.
PATIENCE_S = 10.0


@contextmanager
def state_lock(folder: Path) -> Iterator[int]:
    """Lock this state folder. Yields: the lock's descriptor; a child that inherits it holds the lock too.

    Raises: StackError.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock_file = (folder / "lock").open("a+")
    except OSError as error:
        raise StackError(f"The state folder {folder} cannot be used: {error.strerror}. Set HEADRACE_STATE.") from error
    with lock_file as file:
        _acquire(file.fileno(), folder)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield file.fileno()


def _acquire(descriptor: int, folder: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            holder = (folder / "lock").read_text()
            if _is_alive(holder) or time.monotonic() > deadline:
                raise StackError(
                    f"Another stack (pid {holder}) uses the state folder {folder}. "
                    f"Stop it, or set HEADRACE_STATE to another folder."
                ) from error
        time.sleep(0.05)


def _is_alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True


def no_stack(settings: Settings) -> str:
    """That no stack runs where this command looks for one, as the beginning of a sentence."""
    return f"No stack runs in {settings.state_dir}"


@dataclass(frozen=True, slots=True)
class StackReport:
    """The addresses, secrets and processes of a stack.

    Attributes:
        api_key: the key of an app without limits.
        ops_url: of the process that serves the operators' pages, which are at its `/ops`.
        flower_auth: Flower's login, as `USER:PASSWORD`.
        engine: the engine that answers; `simulator` makes its answers up.
        model_source: where the weights came from; None without weights.
        left_out: processes of the Procfile that do not run, and why.
        metrics_urls: by process name, the URL of each process's Prometheus metrics.
        pids: by process name, the embedded servers included.
        analyst_url: Postgres as a role that reads figures only; None if the stack does not run Postgres itself.
    """

    url: str
    api_key: str
    ops_url: str
    flower_url: str
    flower_auth: str
    database_url: str
    redis_url: str
    engine: str
    model: str
    model_source: str | None
    left_out: dict[str, str]
    metrics_urls: dict[str, str]
    pids: dict[str, int]
    analyst_url: str | None = None

    def write(self, path: Path) -> None:
        """Replace the whole file. Only its owner can read it, because it holds secrets."""
        write_private(path, json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def read(cls, path: Path) -> Self:
        """The report in a file. Raises: OSError: the file is missing. StackError: it is not a report."""
        try:
            return cls(**json.loads(path.read_text()))
        except (ValueError, TypeError) as error:
            raise StackError(f"{path} is damaged: remove it, and start the stack again.") from error
