"""What the door refuses for its wait: it goes by how long answers get, and not by how long they may get."""

from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from redis import Redis

from headrace.broker.admission import Admission
from headrace.broker.rates import Pace
from headrace.config import LaneSettings, Settings
from headrace.domain.attempts import Usage
from headrace.domain.fleet import WorkerInfo
from headrace.domain.ids import new_id
from headrace.domain.queues import Lane
from headrace.policies.forecasting import PoolRates, to_json
from headrace.store import Store
from headrace.store.fleet import workers
from scheduler.deps import ControlDeps
from scheduler.observe import observe
from tests import one_attempt
from tests.waiting import until
from tests.web import ApiClient, Web
from workers.engines.base import EngineLimits, Generation
from workers.taking.kv_budget import KvBudget

LIMITS = EngineLimits(max_model_tokens=2048, max_running=8, kv_tokens=65_536, kv_block_tokens=16)
#: Of every answer, whatever it may have.
ANSWER = 24


@pytest.fixture
def parts(settings: Settings, store: Store, admission: Admission, redis: Redis) -> ControlDeps:
    return ControlDeps(settings, store, admission, Pace(redis))


@pytest.fixture
def submit(client: ApiClient) -> Callable[..., Any]:
    return lambda **changes: client.post("/v1/jobs", json={"prompt": "Why is the sky blue?", "max_wait": 60, **changes})


@pytest.fixture
def worker(store: Store) -> WorkerInfo:
    worker = WorkerInfo(new_id(), "gpu@test", "host-1", "chat", "simulator", "served", 8, 2048, 65_536, 16)
    with store.begin() as db:
        workers.register(db, worker, 600)
    return worker


def learned(answers: int) -> KvBudget:
    """A KV budget after this number of answers. Each was allowed `ANSWER` tokens and ended by itself there."""
    engine: Any = SimpleNamespace(progress=dict)
    budget = KvBudget(engine, "expected", 0.05, freed=lambda: None)
    budget.open(LIMITS)
    for _ in range(answers):
        job = new_id()
        assert budget.hold(job, Lane.NORMAL, 7, ANSWER)
        budget.release(job, Generation("text", Usage(7, ANSWER), "stop", "served"))
    return budget


def start(store: Store, admission: Admission, worker: WorkerInfo, job_id: UUID) -> None:
    with store.begin() as db:
        assert one_attempt.claim(db, job_id, 1, worker.id, "simulator")
    admission.leave([(job_id, 1)])


def test_a_change_of_max_tokens_from_24_to_256_refuses_nothing_for_a_wait_that_will_not_be(
    client: ApiClient,
    submit: Callable[..., Any],
    parts: ControlDeps,
    store: Store,
    admission: Admission,
    worker: WorkerInfo,
) -> None:
    outputs = learned(200).expected_outputs()
    assert outputs
    with store.begin() as db:
        workers.learn(db, worker.id, outputs)
    # Eight jobs run and others wait. 40 start in ten seconds or a little more, and take the places of those that end.
    ids = [UUID(submit(max_tokens=ANSWER).get_json()["id"].removeprefix("job_")) for _ in range(60)]
    for job_id in ids[:8]:
        start(store, admission, worker, job_id)
    observe(parts)
    for job_id in ids[8:48]:
        start(store, admission, worker, job_id)
    with store.begin() as db:
        ended = "UPDATE jobs SET state = 'succeeded', worker_id = NULL, ended_at = now() WHERE id = ANY(:ids)"
        db.execute(sa.text(ended), {"ids": ids[:40]})
        db.execute(sa.text("UPDATE queue_samples SET at = at - interval '10 s'"))
    observe(parts)
    until(lambda: client.get("/v1/queues").get_json()["data"][1]["drain_tokens_per_s"] is not None)

    answers = [submit(max_tokens=256) for _ in range(100)]

    assert Counter(answer.status_code for answer in answers) == {202: 100}, answers[-1].get_json()
    # Some 111 are before it, whatever they may take.
    with store.begin() as db:
        seconds = float(db.scalar(sa.text("SELECT extract(epoch FROM max(at) - min(at)) FROM queue_samples")))
    assert answers[-1].get_json()["expected_wait_s"] == pytest.approx(112 * seconds / 40, rel=0.2)


def test_a_retry_after_comes_from_what_runs(
    build_web: Callable[..., Web],
    client_of: Any,
    key: str,
    settings: Settings,
    store: Store,
    admission: Admission,
    worker: WorkerInfo,
) -> None:
    def server() -> ApiClient:
        web = build_web(lanes={**settings.lanes, Lane.NORMAL: LaneSettings(depth_cap=1)})
        client: ApiClient = client_of(key, web)
        return client

    def submit(to: ApiClient) -> Any:
        return to.post("/v1/jobs", json={"prompt": "Why is the sky blue?", "max_wait": 60})

    first = server()
    for _ in range(8):
        start(store, admission, worker, UUID(submit(first).get_json()["id"].removeprefix("job_")))
    assert submit(first).status_code == 202
    # Each runs for 30 s: one ends each 3.75 s in the long run, and none for 30 s, since all began just now.
    mean_tokens = admission.loads(["chat.normal"])["chat.normal"].expected_tokens
    admission.publish_outlook(to_json({"chat": PoolRates(mean_tokens / 30)}), 600)
    second = server()
    until(lambda: second.get("/v1/queues").get_json()["data"][1]["running"] == 8)
    refused = submit(second)
    assert refused.get_json()["error"]["reason"] == "depth"
    assert 10 <= int(refused.headers["Retry-After"]) <= 30
