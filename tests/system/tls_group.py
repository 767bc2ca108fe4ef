"""A master, its replica and two Sentinels that take TLS alone, and ask each client for a certificate."""

import signal
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode

from redis import Redis, RedisError

from headrace.stack.child import Child, Command
from headrace.stack.ports import LOOPBACK, free_port
from tests.chaos.certificates import Certificates
from tests.waiting import until

MASTER_NAME = "headrace"
PASSWORD = "of-the-group"
DEADLINE_S = 30.0


class TlsGroup(AbstractContextManager["TlsGroup"]):
    """All four, for the length of a `with` block. Start it from a thread that lives as long.

    Attributes:
        url: `REDIS_URL`.
    """

    def __init__(self, binary: str, folder: Path, certificates: Certificates) -> None:
        """Plan it. Args: binary: a server that was built with TLS."""
        self._binary, self._folder, self._certificates = binary, folder, certificates
        self._servers = [free_port(), free_port()]
        self._sentinels = [free_port(), free_port()]
        self._children: dict[int, Child] = {}
        self._exits = ExitStack()
        self.url = self.url_with(ssl_ca_certs=certificates.authority, ssl_certfile=certificates.own)

    def url_with(self, **options: object) -> str:
        """`REDIS_URL` with these options of TLS."""
        hosts = ",".join(f"{LOOPBACK}:{port}" for port in self._sentinels)
        query = urlencode({"master_name": MASTER_NAME, **options})
        return f"sentinels://:{PASSWORD}@{hosts}/0?{query}"

    def __enter__(self) -> Self:
        try:
            master, replica = self._servers
            self._start(master, f"requirepass {PASSWORD}")
            self._start(replica, f"requirepass {PASSWORD}", f"replicaof {LOOPBACK} {master}")
            for port in self._sentinels:
                self._start(port, *self._watching(master), is_sentinel=True)
            until(lambda: self._followers() == [replica], "The Sentinel knows no replica.")
        except BaseException:
            self._exits.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._exits.close()

    def kill_first_sentinel(self) -> None:
        """Let the Sentinel die that `url` names first."""
        first = self._children[self._sentinels[0]]
        first.signal(signal.SIGKILL)
        first.wait(DEADLINE_S)

    def switch(self) -> None:
        """Promote the replica; returns once the last Sentinel names it."""
        master, replica = self._servers
        last = self._sentinels[-1]
        until(lambda: self.ask(last, "SENTINEL", "FAILOVER", MASTER_NAME), "The Sentinel promotes no replica.")
        until(lambda: self._master() == replica, "The Sentinel does not name the new master.")
        self._servers = [replica, master]

    def ask(self, port: int, *command: str) -> Any:
        """What this server or Sentinel answers; None where it does not."""
        files = {"ssl_ca_certs": str(self._certificates.authority), "ssl_certfile": str(self._certificates.own)}
        password = PASSWORD if port in self._servers else None
        client = Redis(LOOPBACK, port, password=password, ssl=True, decode_responses=True, retry=None, **files)
        with suppress(RedisError), client:
            return client.execute_command(*command)
        return None

    def _master(self) -> int:
        found = self.ask(self._sentinels[-1], "SENTINEL", "MASTER", MASTER_NAME) or {}
        return int(found.get("port", 0))

    def _followers(self) -> list[int]:
        found = self.ask(self._sentinels[-1], "SENTINEL", "REPLICAS", MASTER_NAME) or []
        return [int(each["port"]) for each in found if each["flags"] == "slave"]

    @staticmethod
    def _watching(master: int) -> tuple[str, ...]:
        return (
            f"sentinel monitor {MASTER_NAME} {LOOPBACK} {master} 1",
            f"sentinel auth-pass {MASTER_NAME} {PASSWORD}",
            f"sentinel failover-timeout {MASTER_NAME} 5000",
        )

    def _start(self, port: int, *lines: str, is_sentinel: bool = False) -> None:
        folder = self._folder / str(port)
        folder.mkdir(mode=0o700, parents=True)
        files = self._certificates
        tls = ("port 0", f"tls-port {port}", "tls-replication yes", f"tls-ca-cert-file {files.authority}")
        tls += (f"tls-cert-file {files.own}", f"tls-key-file {files.own}")
        place = (f"bind {LOOPBACK}", f"dir {folder}")
        if not is_sentinel:
            place += ('save ""', f"masterauth {PASSWORD}", "repl-diskless-sync-delay 0")
        (folder / "conf").write_text("\n".join((*place, *tls, *lines)) + "\n")
        argv = (self._binary, str(folder / "conf"), *(("--sentinel",) if is_sentinel else ()))
        child = Child(Command(f"valkey-{port}", argv, {"PATH": "/usr/bin:/bin"}, folder), folder / "log")
        self._exits.callback(child.stop)
        self._children[port] = child
        child.wait_until(lambda: self.ask(port, "PING"), DEADLINE_S)
