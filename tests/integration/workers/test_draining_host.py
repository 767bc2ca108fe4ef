"""Workers whose host drains: processes of their own, with the simulator, on real Postgres and Valkey."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from celery import Celery

from headrace.broker.admission import Admission
from headrace.config import PROJECT_ROOT, Settings
from headrace.domain.prompts import Sampling
from headrace.domain.queues import Ticket
from headrace.stack.child import Child, Command, read_procfile, shell
from headrace.store import Store
from tests.waiting import until

DEADLINE_S = 60.0
#: A job takes two seconds.
CONFIG = """
[pools.chat]
model = "test-model"
engine = "simulator"
max_running = 4

[simulator]
decode_tokens_per_s = 8
"""
#: The host of each worker, by its number. The autoscaler's provider calls the second host by a name of its own.
HOSTS = ("one", "one", "i-0abc")
OF_ONE, OF_TWO = ("gpu-0", "gpu-1"), ("gpu-2",)


class Bed:
    """Three workers on two hosts, and their jobs."""

    def __init__(self, store: Store, celery: Celery, submit: Callable[[int], None]) -> None:
        self.store, self.celery, self.submit = store, celery, submit
        self.children = list[Child]()

    def sql(self, statement: str, **values: Any) -> Sequence[sa.Row[Any]]:
        with self.store.begin() as db:
            result = db.execute(sa.text(statement), values)
            return result.all() if result.returns_rows else ()

    def wait_until(self, statement: str, **values: Any) -> None:
        """Wait until the statement's only value is true."""

        def is_true() -> bool:
            for child in self.children:
                child.check_alive()
            return bool(self.sql(statement, **values)[0][0])

        until(is_true, statement)

    def drain(self, host_id: str) -> None:
        self.sql("UPDATE hosts SET drain_at = now(), end_reason = 'by_hand' WHERE id = :id", id=host_id)

    def call_back(self, host_id: str) -> None:
        self.sql("UPDATE hosts SET drain_at = NULL, end_reason = NULL WHERE id = :id", id=host_id)

    def wait_for(self, names: Sequence[str], *, draining: bool) -> None:
        """Wait until these workers say that they drain, or that they take jobs."""
        state = "draining AND NOT ready" if draining else "ready AND NOT draining"
        self.wait_until(
            f"SELECT count(*) = :count FROM workers WHERE split_part(name, '@', 1) = ANY(:names) AND {state}"
            " AND lease_until > now()",
            names=list(names),
            count=len(names),
        )

    def wait_until_all_ended(self) -> None:
        self.wait_until("SELECT count(*) FILTER (WHERE ended_at IS NULL) = 0 FROM jobs")

    def shown_by_flower(self, name: str) -> dict[str, Any] | None:
        """What Flower's page of this worker says of its host; None if the worker does not answer."""
        node = f"{name}@{HOSTS[int(name[-1])]}"
        replies = self.celery.control.inspect([node], timeout=1.0, limit=1).stats() or {}
        return {key: replies[node][key] for key in ("host_id", "draining")} if node in replies else None

    def started(self) -> dict[str, int]:
        """How many attempts each worker has started."""
        counted = "SELECT split_part(w.name, '@', 1), count(a.job_id) FROM workers w"
        rows = self.sql(f"{counted} LEFT JOIN attempts a ON a.worker_id = w.id GROUP BY 1")
        return {name: count for name, count in rows}  # noqa: C416 - mypy takes no rows for pairs.


@pytest.fixture
def bed(
    store: Store,
    settings: Settings,
    celery: Celery,
    admission: Admission,
    queued: Callable[..., Ticket],
    tmp_path: Path,
) -> Iterator[Bed]:
    config = tmp_path / "headrace.toml"
    config.write_text(CONFIG)
    line = shell(read_procfile(PROJECT_ROOT / "Procfile")["gpu"])
    common = {"PATH": f"{Path(sys.executable).parent}:{os.defpath}", "HEADRACE_CONFIG": str(config)}
    common |= {"DATABASE_URL": settings.database_url, "REDIS_URL": settings.redis_url}
    bed = Bed(store, celery, lambda count: admission.commit([queued(**JOB) for _ in range(count)]))
    for number, host_id in enumerate(HOSTS):
        env = common | {"CUDA_VISIBLE_DEVICES": str(number), "HEADRACE_HOST_ID": host_id}
        bed.children.append(Child(Command(f"gpu-{number}", line, env, PROJECT_ROOT), tmp_path / f"{number}.log"))
    try:
        bed.sql("INSERT INTO hosts (id, pool, requested_at, provider_id) VALUES ('one', 'chat', now(), NULL)")
        bed.sql("INSERT INTO hosts (id, pool, requested_at, provider_id) VALUES ('two', 'chat', now(), 'i-0abc')")
        for child in bed.children:
            child.wait_until(lambda name=child.command.name: bed.shown_by_flower(name) is not None, DEADLINE_S)
        yield bed
    finally:
        for child in bed.children:
            child.stop()


JOB = {"sampling": Sampling(max_tokens=16), "max_wait_s": 300.0}


def test_workers_of_a_draining_host_take_nothing_more_and_take_again_when_it_is_called_back(bed: Bed) -> None:
    bed.submit(24)
    bed.wait_until("SELECT count(DISTINCT worker_id) = 3 FROM jobs WHERE state = 'running'")
    bed.drain("one")
    bed.wait_for(OF_ONE, draining=True)
    assert bed.shown_by_flower("gpu-0") == {"host_id": "one", "draining": True}
    before = bed.started()
    # More than the other worker can run at once, so that some wait while two idle workers might take them.
    bed.submit(8)
    bed.wait_until_all_ended()
    after = bed.started()
    assert {name: after[name] - before[name] for name in OF_ONE} == {"gpu-0": 0, "gpu-1": 0}

    bed.drain("two")
    bed.wait_for(OF_TWO, draining=True)
    bed.submit(2)
    bed.call_back("one")
    bed.wait_for(OF_ONE, draining=False)
    bed.wait_until_all_ended()
    assert bed.started()["gpu-2"] == after["gpu-2"]

    assert set(bed.sql("SELECT state, attempt, enqueue_no FROM jobs")) == {("succeeded", 1, 1)}
    [counts] = bed.sql("SELECT count(*), count(DISTINCT job_id), count(*) FILTER (WHERE kind = 'compute') FROM ledger")
    assert tuple(counts) == (34, 34, 34)


def test_a_draining_worker_that_is_stopped_finishes_its_jobs_and_leaves(bed: Bed) -> None:
    # Enough for all workers, also if one of them begins a few seconds later.
    bed.submit(36)
    bed.wait_until("SELECT count(*) > 0 FROM jobs j JOIN workers w ON w.id = j.worker_id WHERE host_id = 'i-0abc'")
    bed.drain("two")
    bed.wait_for(OF_TWO, draining=True)
    leaving = bed.children.pop()
    try:
        leaving.signal(leaving.command.stop_signal)
        assert leaving.wait(DEADLINE_S)
    finally:
        leaving.stop()
    bed.wait_until_all_ended()

    assert leaving.poll() == 0
    assert set(bed.sql("SELECT state, attempt, enqueue_no FROM jobs")) == {("succeeded", 1, 1)}
    bed.wait_until("SELECT stopped_at IS NOT NULL FROM workers WHERE host_id = 'i-0abc'")
