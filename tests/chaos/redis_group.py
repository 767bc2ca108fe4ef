"""A master of Valkey, a replica, and Sentinels: the master dies, the replica is promoted, the dead one comes back.

Knows the binaries, and none of our keys.
"""

import signal
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from redis import Redis, RedisError

from headrace.stack.child import Child, Command
from headrace.stack.ports import LOOPBACK, free_port
from headrace.stack.valkey import Valkey, binary
from tests.chaos.certificates import Certificates
from tests.chaos.proxy import Mode, Proxy
from tests.chaos.tls_proxy import TlsProxy
from tests.waiting import until

MASTER_NAME = "headrace"
PASSWORD = "of-the-group"
DEADLINE_S = 30.0
#: How long the Sentinel waits before it takes a silent master for dead. `promote` tells it at once.
DOWN_AFTER_MS = 60_000


class Node:
    """One of the two servers.

    Attributes:
        proxy: what all go through who speak to it: clients, the Sentinel, and the replica.
        link: what the other one hears it by, while it is made late.
    """

    def __init__(self, folder: Path, certificates: Certificates | None) -> None:
        self.valkey = Valkey(folder, free_port(), PASSWORD)
        self.proxy, self.link = _proxy(self.valkey.port, certificates), Proxy(self.valkey.port)
        self._child: Child | None = None

    def start(self, master_port: int | None) -> None:
        """Return once it serves. Args: master_port: of its master; None: it has none. Raises: StackError."""
        self.valkey.prepare()
        options = ["--masterauth", PASSWORD, "--replica-announce-ip", LOOPBACK]
        options += ["--replica-announce-port", str(self.proxy.port), "--repl-diskless-sync-delay", "0"]
        if master_port is not None:
            options += ["--replicaof", LOOPBACK, str(master_port)]
        command = self.valkey.command()
        self._child = Child(replace(command, argv=(*command.argv, *options)), self.valkey.folder / "server.log")
        self._child.wait_until(self.valkey.is_ready, DEADLINE_S)

    def signal(self, number: int) -> None:
        """Send a signal to it."""
        assert self._child is not None
        self._child.signal(number)

    def end(self, number: int) -> None:
        """End it by this signal."""
        assert self._child is not None
        self._child.signal(number)
        self._child.wait(DEADLINE_S)

    def restart(self, number: int) -> None:
        """End it by this signal, and start it again as a master."""
        self.end(number)
        self.start(None)

    def stop(self) -> None:
        """End it, cleanly, if it was started."""
        if self._child is not None:
            self._child.signal(signal.SIGCONT)
            self._child.stop()

    def ask(self, *command: Any) -> Any:
        """What it answers, with no proxy on the way; None where it does not."""
        with suppress(RedisError), Redis.from_url(self.valkey.url, decode_responses=True, socket_timeout=2) as client:
            return client.execute_command(*command)
        return None

    def replication(self) -> dict[str, Any]:
        """Its side of the replication."""
        found: dict[str, Any] = self.ask("INFO", "replication") or {}
        return found


class RedisGroup(AbstractContextManager["RedisGroup"]):
    """All of them, for the length of a `with` block. Start it from a thread that lives as long.

    Attributes:
        master, replica: as they are now.
        doors: what clients reach the Sentinels through.
    """

    def __init__(self, folder: Path, sentinels: int = 1, certificates: Certificates | None = None) -> None:
        """Plan it.

        Args:
            sentinels: how many.
            certificates: clients speak TLS, which ends at the proxies: the embedded Valkey is built without it.
        """
        self._folder, self._certificates = folder, certificates
        self.master, self.replica = (Node(folder / f"valkey-{number}", certificates) for number in (1, 2))
        self._sentinel_ports = [free_port() for _ in range(sentinels)]
        self._sentinels: list[Child] = []
        self.doors = [_proxy(port, certificates) for port in self._sentinel_ports]
        self._exits = ExitStack()

    @property
    def url(self) -> str:
        """`REDIS_URL`, once it runs."""
        hosts = ",".join(f"{LOOPBACK}:{door.port}" for door in self.doors)
        url = f"sentinel://:{PASSWORD}@{hosts}/0?master_name={MASTER_NAME}"
        if self._certificates is None:
            return url
        return url.replace("sentinel:", "sentinels:") + f"&ssl_ca_certs={self._certificates.authority}"

    def __enter__(self) -> Self:
        try:
            for node in (self.master, self.replica):
                self._exits.callback(node.stop)
                self._exits.enter_context(node.proxy)
                self._exits.enter_context(node.link)
            self.master.start(None)
            self.replica.start(self.master.proxy.port)
            for port, door in zip(self._sentinel_ports, self.doors, strict=True):
                self._start_sentinel(port)
                self._exits.enter_context(door)
            until(self._is_whole, "The Sentinel knows no good replica.")
        except BaseException:
            self._exits.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._exits.close()

    def lag(self, seconds: float) -> None:
        """Let the replica hear of the master's writes so late from now on."""
        link = self.master.link
        link.turn(Mode.OK)
        self.replica.ask("REPLICAOF", LOOPBACK, link.port)
        until(lambda: self.replica.replication().get("master_link_status") == "up", "The replica does not follow.")
        link.delay_s = seconds
        link.turn(Mode.DELAY)

    def promote(self) -> None:
        """Let the master die with what it has not sent, and promote the replica; returns once that takes writes."""
        self.master.link.turn(Mode.REFUSE)
        self.master.proxy.turn(Mode.REFUSE)
        self.master.end(signal.SIGKILL)
        until(lambda: self._ask_sentinel("SENTINEL", "FAILOVER", MASTER_NAME), "the Sentinel promotes a replica")
        until(lambda: self.replica.replication().get("role") == "master", "The replica was not promoted.")
        until(lambda: self._knows(self.replica), "The Sentinel does not name the new master.")
        self.master, self.replica = self.replica, self.master

    def switch(self) -> None:
        """Promote the replica while the master lives, which becomes its replica."""
        until(lambda: self._ask_sentinel("SENTINEL", "FAILOVER", MASTER_NAME), "the Sentinel promotes a replica")
        until(lambda: self._knows(self.replica), "The Sentinel does not name the new master.")
        self.master, self.replica = self.replica, self.master
        until(lambda: self.replica.replication().get("role") == "slave", "The old master was not demoted.")

    def rejoin(self) -> None:
        """Bring the dead one back as the replica; returns once it has all."""
        self.replica.proxy.turn(Mode.OK)
        self.replica.start(self.master.proxy.port)
        until(self._is_whole, "The dead one did not come back as a replica.")

    def kill_first_sentinel(self) -> None:
        """Let the Sentinel die that `url` names first. The last one is asked here."""
        self.doors[0].turn(Mode.REFUSE)
        first = self._sentinels[0]
        first.signal(signal.SIGKILL)
        first.wait(DEADLINE_S)

    def _start_sentinel(self, port: int) -> None:
        folder = self._folder / f"sentinel-{port}"
        folder.mkdir(mode=0o700, parents=True)
        lines = (
            f"sentinel monitor {MASTER_NAME} {LOOPBACK} {self.master.proxy.port} 1",
            f"sentinel auth-pass {MASTER_NAME} {PASSWORD}",
            f"sentinel down-after-milliseconds {MASTER_NAME} {DOWN_AFTER_MS}",
            f"sentinel failover-timeout {MASTER_NAME} 5000",
        )
        (folder / "sentinel.conf").write_text("\n".join(lines) + "\n")
        address = ("--port", str(port), "--bind", LOOPBACK, "--dir", str(folder))
        argv = (str(binary()), str(folder / "sentinel.conf"), "--sentinel", *address)
        child = Child(Command("sentinel", argv, {"PATH": "/usr/bin:/bin"}, folder), folder / "sentinel.log")
        self._exits.callback(child.stop)
        self._sentinels.append(child)
        child.wait_until(lambda: self._ask(port, "PING"), DEADLINE_S)

    def _ask_sentinel(self, *command: str) -> Any:
        return self._ask(self._sentinel_ports[-1], *command)

    @staticmethod
    def _ask(port: int, *command: str) -> Any:
        with suppress(RedisError), Redis(LOOPBACK, port, decode_responses=True, retry=None) as client:
            return client.execute_command(*command)
        return None

    def _knows(self, node: Node) -> bool:
        # As redis-py asks it: `GET-MASTER-ADDR-BY-NAME` names the new one a moment earlier.
        master = self._ask_sentinel("SENTINEL", "MASTER", MASTER_NAME) or {}
        return int(master.get("port", 0)) == node.proxy.port

    def _is_whole(self) -> bool:
        if self.replica.replication().get("master_link_status") != "up" or not self._knows(self.master):
            return False
        known = self._ask_sentinel("SENTINEL", "REPLICAS", MASTER_NAME) or []
        return any(int(each["port"]) == self.replica.proxy.port and each["flags"] == "slave" for each in known)


def _proxy(port: int, certificates: Certificates | None) -> Proxy:
    return Proxy(port) if certificates is None else TlsProxy(port, certificates)
