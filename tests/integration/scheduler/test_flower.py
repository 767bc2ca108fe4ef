"""Flower's pages of the broker. Flower is started by its line of the Procfile."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx2

from headrace.broker.messages import list_key
from headrace.config import PROJECT_ROOT, Settings
from headrace.connections.redis import redis_client
from headrace.domain.queues import CONTROL
from headrace.stack.child import Child, Command, read_procfile, shell
from headrace.stack.ports import LOOPBACK, free_port
from tests.chaos import certificates
from tests.chaos.redis_group import RedisGroup
from tests.chaos.tls_proxy import TlsProxy
from tests.waiting import until

DEADLINE_S = 60.0


@contextmanager
def flower(redis_url: str, log: Path) -> Iterator[httpx2.Client]:
    """Flower on this Redis, whose queue of the control worker has three messages."""
    with redis_client(Settings.load(redis_url=redis_url)) as redis:
        redis.delete(list_key(CONTROL))
        redis.rpush(list_key(CONTROL), "one", "two", "three")
    port = str(free_port())
    env = {"PATH": f"{Path(sys.executable).parent}:{os.defpath}", "FLOWER_BASIC_AUTH": "u:p"}
    env |= {"REDIS_URL": redis_url, "FLOWER_PORT": port}
    line = shell(read_procfile(PROJECT_ROOT / "Procfile")["flower"])
    child = Child(Command("flower", line, env, PROJECT_ROOT), log)
    try:
        with httpx2.Client(base_url=f"http://{LOOPBACK}:{port}", auth=("u", "p"), timeout=DEADLINE_S) as client:
            child.wait_until(lambda: serves(client), DEADLINE_S)
            yield client
    finally:
        child.stop()


def serves(client: httpx2.Client) -> bool:
    with suppress(httpx2.TransportError):
        return client.get("/healthcheck").status_code == 200
    return False


def shows_three(client: httpx2.Client) -> bool:
    answer = client.get("/api/queues/length")
    if answer.status_code == 500:
        return False  # So Flower says that Redis did not answer in time.
    found = answer.raise_for_status().json()["active_queues"]
    assert "No queue data" not in client.get("/broker").text
    return {each["name"]: each["messages"] for each in found}[CONTROL] == 3


def test_lengths_of_queues_are_shown_while_the_first_sentinel_is_down(tmp_path: Path) -> None:
    with RedisGroup(tmp_path / "group", sentinels=2) as group, flower(group.url, tmp_path / "log") as client:
        group.kill_first_sentinel()
        until(lambda: shows_three(client), "the lengths are shown")


def test_lengths_of_queues_are_those_of_the_database_that_the_url_names(tmp_path: Path) -> None:
    with (
        RedisGroup(tmp_path / "group") as group,
        flower(group.url.replace("/0?", "/3?"), tmp_path / "log") as client,
    ):
        until(lambda: shows_three(client), "the lengths are shown")


def test_lengths_of_queues_are_shown_by_an_authority_that_the_url_names(settings: Settings, tmp_path: Path) -> None:
    made = certificates.make(tmp_path / "certificates")
    scheme, _, rest = settings.redis_url.partition("://")
    login, _, place = rest.rpartition("@")
    port, _, db = place.rpartition(":")[2].partition("/")
    with TlsProxy(int(port), made) as proxy:
        url = f"{scheme}s://{login}@{LOOPBACK}:{proxy.port}/{db}?ssl_ca_certs={made.authority}"
        with flower(url, tmp_path / "log") as client:
            until(lambda: shows_three(client), "the lengths are shown")
        assert proxy.plain == 0
