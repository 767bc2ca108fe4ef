"""The intake on real servers: who may start a job before its row is on disk, and who is told of it."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

import pytest
from redis import Redis

from api.door.drafts import Bid, Draft, Spelling
from api.door.intake import Intake
from headrace.broker.admission import Admission
from headrace.broker.messages import list_key
from headrace.domain.apps import App
from headrace.domain.fleet import WorkerInfo
from headrace.domain.ids import new_id
from headrace.domain.jobs import JobSpec
from headrace.domain.places import Place
from headrace.domain.queues import Candidate
from headrace.store import Store
from headrace.store.fleet import workers
from tests import one_attempt
from tests.integration.conftest import waiting_for_disk
from tests.waiting import until

DEADLINE_S = 20
QUEUE = Candidate("chat.normal", 500, 1_000_000, None, "own pool")


def bid(spec: JobSpec) -> Bid:
    draft, app = Draft(Spelling("prompt"), spec.messages), App(spec.app_id, "app", "whsec_test")
    return Bid(spec.id, spec.app_id, spec.kv_tokens, (QUEUE,), spec=spec, draft=draft, app=app)


@pytest.mark.parametrize("is_stream", [True, False])
def test_a_lone_streams_message_is_in_its_queue_before_its_row_is_on_disk_but_nobody_is_told(
    store: Store,
    admission: Admission,
    redis: Redis,
    make_spec: Callable[..., JobSpec],
    disk_is_away: Callable[[], AbstractContextManager[None]],
    is_stream: bool,
) -> None:
    intake = Intake(store, admission, lambda _: None)
    with ThreadPoolExecutor(1) as threads:
        with disk_is_away():
            accepted = threads.submit(intake.accept, bid(make_spec(stream=is_stream)))
            until(lambda: waiting_for_disk(store) == 1, "it waits for the disk")
            assert redis.llen(list_key(QUEUE.queue)) == is_stream
            assert not accepted.done()
        assert isinstance(accepted.result(DEADLINE_S), Place)
    assert redis.llen(list_key(QUEUE.queue)) == 1


def test_a_worker_claims_such_a_job_and_its_claim_waits_for_the_disk_too(
    store: Store,
    admission: Admission,
    make_spec: Callable[..., JobSpec],
    disk_is_away: Callable[[], AbstractContextManager[None]],
) -> None:
    intake, spec = Intake(store, admission, lambda _: None), make_spec(stream=True)
    worker = WorkerInfo(new_id(), "gpu@test", "host-1", "chat", "simulator", "served", 8, 2048, 65_536, 16)
    with store.begin() as db:
        workers.register(db, worker, 30)

    def claim() -> bool:
        with store.autocommit() as db:
            return one_attempt.claim(db, spec.id, 1, worker.id, "simulator") is not None

    with ThreadPoolExecutor(2) as threads:
        with disk_is_away():
            accepted = threads.submit(intake.accept, bid(spec))
            until(lambda: waiting_for_disk(store) == 1, "the door waits for the disk")
            claimed = threads.submit(claim)
            until(lambda: waiting_for_disk(store) == 2, "the worker waits for the disk")
        assert claimed.result(DEADLINE_S)
        assert isinstance(accepted.result(DEADLINE_S), Place)
