"""A webhook worker as it is really started, beside receivers that drip and hang."""

import base64
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2
import pytest
import sqlalchemy as sa
from redis import Redis

from headrace.broker.admission import Admission
from headrace.broker.messages import list_key
from headrace.config import PROJECT_ROOT, Settings
from headrace.domain.ids import new_id
from headrace.domain.queues import WEBHOOKS, bell_key
from headrace.policies.webhooks import new_secret
from headrace.stack.child import Child, Command
from headrace.stack.ports import free_port
from headrace.store import Store, apps
from tests.integration import receivers

START_TIMEOUT_S = 90.0
#: Far more than any of it takes on an idle machine, and less than a receiver that holds slots would cost.
GENEROUS_S = 10.0
DELIVER_TIMEOUT_S = 60.0
#: So long that a test that waits for it fails.
FOR_EVER_S = "600"
DRAIN_S = 2.0


@pytest.fixture
def start(settings: Settings, tmp_path: Path, redis: Redis) -> Iterator[Callable[..., Child]]:
    """Starts a webhook worker; ends it with the test."""
    children: list[Child] = []

    def run(**variables: str) -> Child:
        env = {"DATABASE_URL": settings.database_url, "REDIS_URL": settings.redis_url, "PATH": "/usr/bin:/bin"}
        env |= {"HEADRACE_WEBHOOKS__ALLOW_PRIVATE": "true", "HEADRACE_DRAIN_S": str(DRAIN_S)}
        env |= {"HEADRACE_BUDGETS__WEBHOOK_SECRET": new_secret(), **variables}
        argv = (sys.executable, "-m", "celery", "-A", "workers.app:webhooks", "worker", "-l", "INFO")
        child = Child(Command("webhooks", argv, env, PROJECT_ROOT), tmp_path / f"webhooks-{len(children)}.log")
        children.append(child)
        return child

    yield run
    for child in children:
        child.stop()


@pytest.fixture
def due(store: Store) -> Callable[..., list[UUID]]:
    """Writes deliveries that are due now, of an app of this name, and returns their ids."""

    def write(url: str, number: int = 1, app: str = "test") -> list[UUID]:
        with store.begin() as db:
            app_id = apps.ensure(db, app).id
            ids = [new_id() for _ in range(number)]
            db.execute(
                sa.text(
                    "INSERT INTO deliveries (id, app_id, event, url, data)"
                    " SELECT id, :app_id, 'test', :url, '{}' FROM unnest(:ids) id"
                ),
                {"app_id": app_id, "url": url, "ids": ids},
            )
        return ids

    return write


def is_ready(worker: Child) -> bool:
    return "ready." in worker.log.read_text()


def lines(worker: Child, event: str) -> list[dict[str, Any]]:
    """What the worker has logged of this."""
    told = [json.loads(line) for line in worker.log.read_text().splitlines() if line.startswith("{")]
    return [each for each in told if each["event"] == event]


def pages_of_good_ones(
    worker: Child, due: Callable[..., list[UUID]], receiver: receivers.GoodReceiver, admission: Admission
) -> list[float]:
    """Writes 60 good deliveries, each when the one before has come, and returns the seconds until each came."""
    took = []
    for _ in range(60):
        at = time.time()
        [delivery_id] = due(receiver.url, app="good")
        admission.announce_ended([], has_webhooks=True)
        name = f"evt_{delivery_id.hex}"
        worker.wait_until(lambda name=name: name in receiver.came, DELIVER_TIMEOUT_S)
        took.append(receiver.came[name] - at)
    return took


def p95(seconds: list[float]) -> float:
    return statistics.quantiles(seconds, n=20)[-1]


@pytest.mark.parametrize("kind", ["nothing", "dripping", "hanging"])
def test_good_receivers_get_theirs_beside_twenty_deliveries_to_one_that_drips_or_hangs(
    kind: str,
    start: Callable[..., Child],
    due: Callable[..., list[UUID]],
    admission: Admission,
    query: Callable[[str], Any],
) -> None:
    with receivers.dripping() as drips, receivers.hanging() as hangs, receivers.good() as good:
        bad = {"dripping": drips, "hanging": hangs}.get(kind)
        if bad is not None:
            due(bad.url, 20, app="bad")
        worker = start(HEADRACE_WEBHOOKS__MAX_RUNNING="16", HEADRACE_WEBHOOKS__TIMEOUT_S=FOR_EVER_S)
        worker.wait_until(lambda: is_ready(worker) and (bad is None or len(bad.came) == 8), START_TIMEOUT_S)
        took = pages_of_good_ones(worker, due, good, admission)

        print(f"{kind}: p95 {p95(took):.3f} s, longest {max(took):.3f} s")
        assert p95(took) < GENEROUS_S
        if bad is not None:
            assert len(bad.came) == 8, "a receiver has its own slots and no others"
            assert query(f"SELECT sum(tries), count(*) FROM deliveries WHERE url = '{bad.url}'") == [(8, 20)]


def test_a_receiver_that_drips_is_given_up_at_the_deadline_of_the_whole_try_and_is_logged(
    start: Callable[..., Child], due: Callable[..., list[UUID]], query: Callable[[str], Any]
) -> None:
    with receivers.dripping() as bad:
        [delivery_id] = due(bad.url)
        worker = start(HEADRACE_WEBHOOKS__TIMEOUT_S="1", HEADRACE_WEBHOOKS__RETRY_DELAYS_S="[0.1]")
        worker.wait_until(lambda: query("SELECT state FROM deliveries") == [("failed",)], START_TIMEOUT_S)

    error = "The webhook's receiver did not answer within 1 s."
    assert query("SELECT tries, last_status, last_error FROM deliveries") == [(2, None, error)]
    told = lines(worker, "delivery_failed")
    assert [(each["delivery_id"], each["receiver"], each["error"], each["tries"]) for each in told] == [
        (str(delivery_id), "127.0.0.1", error, 1),
        (str(delivery_id), "127.0.0.1", error, 2),
    ]


def test_sigterm_ends_a_worker_within_its_drain_time_while_receivers_drip(
    start: Callable[..., Child], due: Callable[..., list[UUID]], query: Callable[[str], Any]
) -> None:
    with receivers.dripping() as bad:
        due(bad.url, 8)
        worker = start(HEADRACE_WEBHOOKS__TIMEOUT_S=FOR_EVER_S)
        worker.wait_until(lambda: len(bad.came) == 8, START_TIMEOUT_S)
        worker.signal(worker.command.stop_signal)
        assert worker.wait(DRAIN_S + GENEROUS_S)
    assert worker.poll() == 0
    error = "The worker was told to stop before the webhook's receiver answered."
    assert query("SELECT DISTINCT state, last_error FROM deliveries") == [("pending", error)]


def test_every_delivery_runs_although_every_ring_is_lost_and_none_leaves_a_message_in_redis(
    start: Callable[..., Child], due: Callable[..., list[UUID]], query: Callable[[str], Any], redis: Redis
) -> None:
    redis.lpush(list_key(WEBHOOKS), "the message of an older release")
    with receivers.good() as good:
        worker = start()
        worker.wait_until(lambda: is_ready(worker), START_TIMEOUT_S)
        due(good.url, 100)
        worker.wait_until(lambda: len(good.came) == 100, DELIVER_TIMEOUT_S)
        worker.wait_until(
            lambda: query("SELECT DISTINCT state, tries FROM deliveries") == [("delivered", 1)], DELIVER_TIMEOUT_S
        )
    assert redis.exists(list_key(WEBHOOKS)) == 0
    worker.signal(worker.command.stop_signal)
    assert worker.wait(DRAIN_S + GENEROUS_S)
    assert worker.poll() == 0


def test_deliveries_that_wait_with_no_worker_leave_one_entry_in_redis_however_often_they_are_rung_for(
    due: Callable[..., list[UUID]], admission: Admission, redis: Redis
) -> None:
    due("https://receiver.example", 500)
    for _ in range(1000):
        admission.announce_ended([], has_webhooks=True)
    assert redis.xlen(bell_key(WEBHOOKS)) == 1
    assert [redis.type(key) for key in redis.scan_iter("*webhooks*")] == ["stream"]


#: Celery's events of a task's end.
ENDS = {"task-retried", "task-failed", "task-succeeded", "task-revoked"}


class Events:
    """What Celery sends to Flower, from now on."""

    def __init__(self, redis: Redis) -> None:
        self._channel = redis.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
        self._channel.psubscribe("*celeryev*")
        self._found: list[dict[str, Any]] = []

    def kinds(self, task_id: str) -> set[str]:
        """The kinds of a task's events so far."""
        while (message := self._channel.get_message(timeout=0.1)) is not None:
            body = json.loads(base64.b64decode(json.loads(message["data"])["body"]))
            self._found += body if isinstance(body, list) else [body]
        return {each["type"] for each in self._found if each.get("uuid") == task_id}


def test_a_failed_try_is_no_failed_task_and_two_workers_share_what_is_due(
    start: Callable[..., Child], due: Callable[..., list[UUID]], query: Callable[[str], Any], redis: Redis
) -> None:
    events = Events(redis)
    first, second = start(), start()
    for worker in (first, second):
        worker.wait_until(lambda worker=worker: is_ready(worker), START_TIMEOUT_S)
    with receivers.good() as good:
        ids = due(good.url, 200) + due("http://127.0.0.1:1/", 1, app="bad")
        first.wait_until(lambda: len(good.came) == 200, DELIVER_TIMEOUT_S)
        first.wait_until(
            lambda: (
                query("SELECT state, tries FROM deliveries GROUP BY 1, 2 ORDER BY 1")
                == [("delivered", 1), ("pending", 1)]
            ),
            DELIVER_TIMEOUT_S,
        )
        # A worker logs a delivery after its commit.
        first.wait_until(
            lambda: sum(len(lines(worker, "delivered")) for worker in (first, second)) >= 200, DELIVER_TIMEOUT_S
        )
    delivered = [each["delivery_id"] for worker in (first, second) for each in lines(worker, "delivered")]
    assert sorted(delivered) == sorted(map(str, ids[:200]))
    first.wait_until(lambda: events.kinds(f"evt_{ids[200].hex}.1") & ENDS, DELIVER_TIMEOUT_S)
    assert events.kinds(f"evt_{ids[200].hex}.1") & ENDS == {"task-retried"}


def test_a_worker_tells_prometheus_how_tries_end_and_what_is_due(
    start: Callable[..., Child], due: Callable[..., list[UUID]], query: Callable[[str], Any]
) -> None:
    port = free_port()
    with receivers.good() as good, receivers.hanging() as bad:
        due(good.url, 3)
        due("http://127.0.0.1:1/", 2, app="bad")
        due(bad.url, 9, app="slow")
        worker = start(
            HEADRACE_METRICS_PORT=str(port),
            HEADRACE_WEBHOOKS__TIMEOUT_S=FOR_EVER_S,
            HEADRACE_WEBHOOKS__RETRY_DELAYS_S="[]",
        )
        worker.wait_until(lambda: len(good.came) == 3 and len(bad.came) == 8, START_TIMEOUT_S)
        over = "SELECT count(*) FROM deliveries WHERE state <> 'pending'"
        worker.wait_until(lambda: query(over) == [(5,)], DELIVER_TIMEOUT_S)
        told = httpx2.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
    assert 'headrace_webhook_tries_total{outcome="delivered"} 3.0' in told
    assert 'headrace_webhook_tries_total{outcome="failed"} 0.0' in told
    assert 'headrace_webhook_tries_total{outcome="given_up"} 2.0' in told
    assert "headrace_webhooks_running 8.0" in told
    assert "headrace_webhooks_due 1.0" in told
    assert "headrace_webhooks_late_seconds" in told
