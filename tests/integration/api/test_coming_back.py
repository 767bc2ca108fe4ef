"""A client that breaks off and comes back, while Redis loses what it was told, has the stored answer in the end.

The invariants: a number stands for one thing, for all readers; what a reader has is known from its number, or void.
"""

from collections.abc import Iterable
from dataclasses import replace
from itertools import islice
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from api.streams.events import Event, ResponseEvents
from headrace.broker.streams import Streams
from headrace.domain.jobs import StreamPiece
from headrace.domain.queues import KEY_PREFIX
from tests.unit.api.streams.test_events import QUEUED, SUCCEEDED


@pytest.fixture
def streams(redis: Redis) -> Streams:
    return Streams(redis)


def publish(streams: Streams, job_id: UUID, claim: int, before: str, text: str) -> None:
    streams.publish([StreamPiece(job_id, claim, len(before.encode()), text)])


class Client:
    """Follows a stream of the Responses API, and breaks off and comes back, as its `starting_after` says it."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self.come_anew()

    def come_anew(self) -> None:
        self.text, self.last = "", -1
        self.come_back()

    def come_back(self) -> None:
        self._teller, self._entry_number = ResponseEvents(QUEUED, after=self.last), 0
        self._hear(self._teller.opening())

    def read(self) -> None:
        entries = self._streams.read(QUEUED.id, self._entry_number)
        self._entry_number = entries[-1].number if entries else self._entry_number
        self._hear(self._teller.more(entries))

    def hear_the_end(self, answer: str, claim: int, most: int | None = None) -> str:
        """The type of the last event that was heard. Args: most: after this number of events the client breaks off."""
        return self._hear(islice(self._teller.ending(replace(SUCCEEDED, answer=answer, enqueue_no=claim)), most))

    def _hear(self, events: Iterable[Event]) -> str:
        kind = ""
        for event in events:
            kind = event["type"]
            assert event["sequence_number"] > self.last
            self.last = event["sequence_number"]
            if kind == "error":
                self.text = ""
            elif kind == "response.output_text.delta":
                self.text += event["delta"]
        return kind


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            [*["publish", "read"] * 3, *["come_back", "claim", "keep", "promote"] * 2, "anew", "wipe", "come_anew"]
        ),
        st.text("ab", min_size=1, max_size=2),
    ),
    max_size=25,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS, st.integers(0, 8), st.booleans(), st.booleans())
def test_a_client_that_comes_back_has_the_stored_answer_in_the_end_whatever_redis_has_lost(
    streams: Streams, redis: Redis, steps: list[tuple[str, str]], breaks_off_after: int, is_blind: bool, is_late: bool
) -> None:
    """Args: is_blind: Redis does not answer as the job ends; is_late: a replica is promoted after that."""
    redis.flushall()
    client, claim, written, key = Client(streams), 1, "", f"{KEY_PREFIX}stream:{QUEUED.id.hex}"
    streams.begin(QUEUED.id, 1)
    for step, text in steps:
        match step:
            case "publish":
                publish(streams, QUEUED.id, claim, written, text)
                written += text
            case "claim" | "anew":
                claim += 1
                prefix = streams.begin(QUEUED.id, claim, anew=step == "anew")
                assert prefix is not None
                written = prefix
            case "keep":
                redis.copy(key, "kept", replace=True)
            case "promote" if redis.exists("kept"):
                redis.copy("kept", key, replace=True)
            case "wipe":
                redis.delete(key)
            case "read":
                client.read()
            case "come_back" | "come_anew":
                getattr(client, step)()

    if not is_blind:
        client.read()
    if client.hear_the_end(written, claim, breaks_off_after) != "response.completed":
        if is_late and redis.exists("kept"):
            redis.copy("kept", key, replace=True)
        client.come_back()
        client.read()
        assert client.hear_the_end(written, claim) == "response.completed"
    assert client.text == written
