"""The intake on real servers: no job starts before its row is on disk, and nobody is told of it."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

from redis import Redis

from api.door.drafts import Bid
from api.door.intake import Intake
from headrace.broker.admission import Admission
from headrace.broker.messages import list_key
from headrace.domain.apps import App
from headrace.domain.jobs import JobSpec
from headrace.domain.places import Place
from headrace.domain.queues import Candidate
from headrace.store import Store
from tests.integration.conftest import waiting_for_disk
from tests.waiting import until

DEADLINE_S = 20
QUEUE = Candidate("chat.normal", 500, 1_000_000, None, "own pool")


def bid(spec: JobSpec) -> Bid:
    app = App(spec.app_id, "app", "whsec_test")
    return Bid(spec.id, spec.app_id, spec.kv_tokens, (QUEUE,), spec=spec, app=app)


def test_a_message_is_pushed_and_a_caller_told_once_the_row_is_on_the_disk(
    store: Store,
    admission: Admission,
    redis: Redis,
    make_spec: Callable[..., JobSpec],
    disk_is_away: Callable[[], AbstractContextManager[None]],
) -> None:
    intake = Intake(store, admission, lambda _: None)
    with ThreadPoolExecutor(1) as threads:
        with disk_is_away():
            accepted = threads.submit(intake.accept, bid(make_spec(stream=True)))
            until(lambda: waiting_for_disk(store) == 1, "it waits for the disk")
            assert redis.llen(list_key(QUEUE.queue)) == 0
            assert not accepted.done()
        assert isinstance(accepted.result(DEADLINE_S), Place)
    assert redis.llen(list_key(QUEUE.queue)) == 1
