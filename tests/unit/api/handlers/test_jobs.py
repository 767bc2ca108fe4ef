"""A long poll is answered once its job has ended, its time is up, or its client has gone; without a slot, at once."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from api.call import Call, Reply, Wait
from api.deps import WebDeps
from api.handlers import jobs
from api.reading import ClientGone
from headrace.domain.apps import App
from headrace.domain.ids import new_id
from headrace.domain.jobs import Job
from headrace.domain.states import JobState
from headrace.errors import InvalidRequest, StoreUnavailable

APP = App(new_id(), "test", "whsec_test")
LIMIT_S = 60.0


class World:
    """Attributes: slot: the free one. job: as it stands. reads: how often it was read."""

    def __init__(self) -> None:
        self.slot: Any = SimpleNamespace(release=lambda: None)
        self.job = cast(Job, SimpleNamespace(id=new_id(), state=JobState.RUNNING))
        self.reads = 0
        waits, settings = SimpleNamespace(take=lambda *_: self.slot), SimpleNamespace(wait_limit_s=LIMIT_S)
        self.web = cast(WebDeps, SimpleNamespace(settings=settings, waits=waits, reader=self))
        self.call = Call("GET", "/v1/jobs", "", {}, caller=APP)

    def read(self, *_: object) -> Job:
        self.reads += 1
        return self.job

    def poll(self, wait_s: float) -> Reply | Wait:
        return jobs.when_ended(self.web, self.call, self.job.id, wait_s, reply_of)


def reply_of(job: Job) -> Reply:
    return Reply(200, str(job.state).encode(), {})


@pytest.fixture
def world() -> World:
    return World()


def test_a_poll_without_a_wait_is_answered_at_once(world: World) -> None:
    reply = world.poll(0)
    assert isinstance(reply, Reply)
    assert (reply.body, world.reads, world.call.kind) == (b"running", 1, "plain")


def test_without_a_free_slot_a_long_poll_is_answered_at_once(world: World) -> None:
    world.slot = None
    reply = world.poll(60)
    assert isinstance(reply, Reply)
    assert (reply.body, world.reads, world.call.kind) == (b"running", 1, "wait")


def test_a_long_poll_waits_for_the_end_and_holds_a_slot(world: World) -> None:
    wait = world.poll(30)
    assert isinstance(wait, Wait)
    assert (wait.job_id, wait.for_s, wait.slot, world.reads) == (world.job.id, 30, world.slot, 0)
    assert wait.reply(cast(Job, SimpleNamespace(state=JobState.SUCCEEDED))).body == b"succeeded"
    assert wait.reply(ClientGone()).body == b"running", "no client reads it"
    with pytest.raises(StoreUnavailable):
        wait.reply(StoreUnavailable("It is away."))


def test_a_wait_beyond_the_limit_is_refused(world: World) -> None:
    with pytest.raises(InvalidRequest) as raised:
        world.poll(LIMIT_S + 1)
    assert raised.value.param == "wait"
