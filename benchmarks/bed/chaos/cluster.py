"""A primary of Postgres and its standby: one dies, the other is promoted, and the dead one comes back as a standby.

Knows the binaries and SQL, and none of our tables. Production leaves all of this to Patroni, or to its cloud.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any, Self

import psycopg

from bed.chaos.server import SERVER_TIMEOUT_S, Server
from headrace.errors import StackError
from headrace.stack.ports import LOOPBACK, free_port
from headrace.stack.postgres import Postgres
from tests.chaos.proxy import Mode, Proxy

#: How the standby calls itself: `synchronous_standby_names` has this.
STANDBY = "standby"
#: In the file, where what `pg_rewind` starts for the crash recovery finds it too: it needs hint bits in the log, and
#: the log since before the two went apart.
CONFIGURATION = "wal_log_hints = on\nwal_keep_size = 256MB\nwal_retrieve_retry_interval = 200ms\n"


class Node(Server):
    """One of the two, and the way by which it hears of the other's log.

    Attributes:
        proxy: what the system's connections to it go through.
        link: what it goes through itself, while it is the standby.
    """

    def __init__(self, folder: Path, port: int, other_port: int, *, is_proxied: bool) -> None:
        self.kind: Postgres
        super().__init__(Postgres(folder, port))
        self.is_proxied, self.other_port = is_proxied, other_port
        self.proxy, self.link = Proxy(port), Proxy(other_port)

    @property
    def url(self) -> str:
        """Where it is, with no proxy on the way."""
        return self.kind.url.replace("+psycopg", "")

    def start(self) -> None:
        """Return once it serves. Raises: StackError."""
        port = self.link.port if self.is_proxied else self.other_port
        way = psycopg.conninfo.make_conninfo(self.url, port=port, application_name=STANDBY)
        self.options = ("-c", f"primary_conninfo={way}")
        super().start()

    def sql(self, query: str) -> Any:
        """The first value of the first row; None without a row."""
        with psycopg.connect(self.url, autocommit=True) as db:
            found = db.execute(query.encode())
            row = found.fetchone() if found.description else None
        return row[0] if row else None


class Cluster(AbstractContextManager["Cluster"]):
    """Both, for the length of a `with` block. Start it from a thread that lives as long.

    Attributes:
        primary, standby: as they are now.
    """

    def __init__(self, folder: Path, *, is_synchronous: bool = True, is_proxied: bool = True) -> None:
        """Plan it.

        Args:
            is_synchronous: a commit returns once the standby has it on its disk.
            is_proxied: False where no network fault happens: the system and the standby connect to the servers.
        """
        self._is_synchronous = is_synchronous
        ports = free_port(), free_port()
        self.primary = Node(folder / "postgres-1", *ports, is_proxied=is_proxied)
        self.standby = Node(folder / "postgres-2", *reversed(ports), is_proxied=is_proxied)
        self._nodes = self.primary, self.standby
        self._exits = ExitStack()

    @property
    def url(self) -> str:
        """`DATABASE_URL`: both nodes, in an order that stays."""
        ports = (node.proxy.port if node.is_proxied else node.kind.port for node in self._nodes)
        first, second = (f"{LOOPBACK}:{port}" for port in ports)
        here = f"{LOOPBACK}:{self._nodes[0].kind.port}"
        return self._nodes[0].kind.url.replace("+psycopg", "").replace(here, f"{first},{second}")

    def __enter__(self) -> Self:
        try:
            for node in self._nodes:
                self._exits.callback(node.stop)
                self._exits.enter_context(node.proxy)
                self._exits.enter_context(node.link)
            self.primary.kind.prepare()
            (self.primary.kind.data / "postgresql.auto.conf").write_text(CONFIGURATION)
            self.primary.start()
            self._copy()
            self.standby.start()
            self._protect()
        except BaseException:
            self._exits.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._exits.close()

    def lag(self, seconds: float) -> None:
        """Let the standby hear of the primary's log so late from now on, and the primary so late of the standby."""
        self.standby.link.delay_s = seconds
        self.standby.link.turn(Mode.DELAY)

    def promote(self) -> None:
        """Let the primary die with what it has not sent, and promote the standby; returns once it takes writes."""
        self.standby.link.turn(Mode.REFUSE)
        self.primary.end(signal.SIGKILL)
        self.standby.sql("SELECT pg_promote(true, 30)")
        self.primary, self.standby = self.standby, self.primary
        self._until(lambda: not self.primary.sql("SELECT pg_is_in_recovery()"), "The standby was not promoted.")

    def rejoin(self) -> None:
        """Bring the dead one back as the standby."""
        # Until then the new primary's control file has the old timeline, and `pg_rewind` sees nothing to do.
        self.primary.sql("CHECKPOINT")
        data = str(self.standby.kind.data)
        self._run(self.standby, "pg_rewind", "-D", data, "--source-server", self.primary.url, "-R", "--no-sync")
        self.standby.link.turn(Mode.OK)
        self.standby.start()
        self._protect()

    def _copy(self) -> None:
        folder = self.standby.kind.folder
        folder.mkdir(mode=0o700)
        shutil.copy(self.primary.kind.folder / "password", folder / "password")
        options = ("-D", str(folder / "data"), "-X", "stream", "-c", "fast", "-R", "--no-sync")
        self._run(self.primary, "pg_basebackup", "-d", self.primary.url, *options)

    def _protect(self) -> None:
        """Let commits wait for the standby, once it is there: what it is copied from must not have that setting."""
        where = f"FROM pg_stat_replication WHERE application_name = '{STANDBY}' AND state = 'streaming'"
        self._until(lambda: self.primary.sql(f"SELECT count(*) {where}") == 1, "The standby does not follow.")
        if self._is_synchronous:
            self.primary.sql(f"ALTER SYSTEM SET synchronous_standby_names = '{STANDBY}'")
            self.primary.sql("SELECT pg_reload_conf()")
            self._until(lambda: self.primary.sql(f"SELECT sync_state {where}") == "sync", "It is not synchronous.")

    @staticmethod
    def _run(node: Node, name: str, *options: str) -> None:
        env = {"PATH": os.defpath, "LC_ALL": "C.UTF-8"}
        done = subprocess.run(node.kind.tool(name, *options), env=env, cwd="/", capture_output=True, text=True)
        if done.returncode:
            raise StackError(f"{name} failed:\n{done.stderr}")

    @staticmethod
    def _until(is_so: Callable[[], bool], otherwise: str) -> None:
        give_up_at = time.monotonic() + SERVER_TIMEOUT_S
        while not is_so():
            if time.monotonic() > give_up_at:
                raise StackError(otherwise)
            time.sleep(0.05)
