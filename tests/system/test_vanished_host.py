"""A host that vanishes: no packet comes from it any more, and none says that it is gone. In a network namespace.

Needs the right to make one. Postgres stays outside, and is served no packet of the namespace any more.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import psycopg
import pytest

from headrace import connections
from headrace.config import PROJECT_ROOT, Settings
from headrace.stack.child import Command
from headrace.stack.ports import free_port
from headrace.stack.postgres import OPTIONS, Postgres
from headrace.store import Store
from tests.waiting import until

NAMESPACE, LINK, PEER = f"hr{os.getpid()}", f"hra{os.getpid()}"[:15], f"hrb{os.getpid()}"[:15]
#: From the block for documentation, which leads nowhere.
HERE, THERE = "198.51.100.1", "198.51.100.2"
#: A busy machine may take longer to notice.
SLACK_S = 5.0

CLIENT = """
import sys
import sqlalchemy as sa
from headrace import connections
from headrace.config import Settings
from headrace.store import Store

store = Store(connections.postgres(Settings.load(database_url=sys.argv[1])))
with store.begin() as db:
    if sys.argv[2] == "locks":
        db.execute(sa.text("UPDATE money SET usd = 2"))
        print(db.scalar(sa.text("SELECT pg_backend_pid()")), flush=True)
        sys.stdin.read()
    pid = db.scalar(sa.text("SELECT pg_backend_pid()"))
print(pid, flush=True)
sys.stdin.read()
"""


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture(scope="module")
def namespace() -> Iterator[None]:
    """A namespace with a link to this one."""
    ip("netns", "add", NAMESPACE)
    try:
        ip("link", "add", LINK, "type", "veth", "peer", "name", PEER, "netns", NAMESPACE)
        ip("addr", "add", f"{HERE}/30", "dev", LINK)
        ip("link", "set", LINK, "up")
        ip("-n", NAMESPACE, "addr", "add", f"{THERE}/30", "dev", PEER)
        ip("-n", NAMESPACE, "link", "set", PEER, "up")
        yield
    finally:
        ip("netns", "delete", NAMESPACE)


class Reachable(Postgres):
    """Also listens on the link."""

    def command(self) -> Command:
        made = super().command()
        argv = [
            each.replace(OPTIONS["listen_addresses"], f"{OPTIONS['listen_addresses']},{HERE}")
            if each.startswith("listen_addresses=")
            else each
            for each in made.argv
        ]
        return Command(made.name, tuple(argv), made.env, made.cwd, made.stop_signal, made.identity)

    def prepare(self) -> None:
        super().prepare()
        with Path(self.data, "pg_hba.conf").open("a", encoding="utf-8") as file:
            file.write(f"host all all {THERE}/32 scram-sha-256\n")


@pytest.fixture(scope="module")
def postgres(namespace: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    postgres = Reachable(tmp_path_factory.mktemp("postgres"), free_port())
    with postgres.running():
        with psycopg.connect(postgres.url.replace("+psycopg", ""), autocommit=True) as db:
            db.execute("CREATE TABLE money AS SELECT 1 AS usd")
        yield postgres


@contextmanager
def client_there(postgres: Postgres, does: str) -> Iterator[int]:
    """A client in the namespace; yields the process of Postgres that serves it."""
    url = postgres.url.replace("127.0.0.1", HERE)
    argv = ["ip", "netns", "exec", NAMESPACE, sys.executable, "-c", CLIENT, url, does]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=PROJECT_ROOT)
    stdout: IO[str] = process.stdout  # type: ignore[assignment]
    try:
        yield int(stdout.readline())
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def vanish(namespace: None) -> Iterator[Callable[[], None]]:
    """Drops whatever the namespace sends: answers to the server's packets, too."""
    yield lambda: ip("-n", NAMESPACE, "route", "add", "blackhole", f"{HERE}/32")
    ip("-n", NAMESPACE, "route", "delete", "blackhole", f"{HERE}/32")


def test_the_lock_of_a_host_that_vanished_in_a_transaction_is_free_before_others_give_up(
    postgres: Postgres, vanish: Callable[[], None]
) -> None:
    engine = connections.postgres(Settings.load(database_url=postgres.url))
    with client_there(postgres, "locks"):
        vanish()
        began = time.monotonic()
        with Store(engine).begin() as db:
            assert db.exec_driver_sql("UPDATE money SET usd = usd + 2 RETURNING usd").scalar() == 3
        assert time.monotonic() - began < connections.LOCK_TIMEOUT_MS / 1000
    engine.dispose()


def test_the_session_of_a_host_that_vanished_ends_within_half_a_minute(
    postgres: Postgres, vanish: Callable[[], None]
) -> None:
    bound_s = connections.KEEPALIVES_IDLE_S + connections.KEEPALIVES_COUNT * connections.KEEPALIVES_INTERVAL_S
    with (
        psycopg.connect(postgres.url.replace("+psycopg", ""), autocommit=True) as db,
        client_there(postgres, "idles") as pid,
    ):

        def is_there() -> bool:
            return db.execute("SELECT FROM pg_stat_activity WHERE pid = %s", [pid]).fetchone() is not None

        assert is_there()
        vanish()
        until(lambda: not is_there(), deadline_s=bound_s + SLACK_S)
