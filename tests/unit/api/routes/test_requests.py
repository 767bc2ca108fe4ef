"""The headers of a submit: the key, how long to hold on, what an accept adds to its reply; and a stream's own."""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest
from flask import Response

from api.door.drafts import Accepted
from api.routes.replies import with_job_headers
from api.routes.requests import idempotency, preferred_wait_s, query, streamed
from api.schemas.jobs import JobsQuery
from api.slots import Slots
from api.streams.sse import JobStream
from headrace.domain.ids import new_id
from headrace.domain.limits import RateLeft, RatesLeft
from headrace.domain.queues import Lane
from headrace.domain.states import JobState
from headrace.errors import InvalidRequest
from tests.unit.api.routes.conftest import APP, in_call

LIMIT_S = 60.0


@pytest.mark.parametrize(
    ("prefer", "wait_s"),
    [
        ("", LIMIT_S),
        ("respond-async", LIMIT_S),
        ("wait=5", 5.0),
        ("wait = 5", 5.0),
        ('WAIT="7"', 7.0),
        ("wait=0", 0.0),
        ("respond-async, wait=10", 10.0),
        ("wait=3, wait=9", 3.0),
        ("wait=61", LIMIT_S),
        ("wait=999999999", LIMIT_S),
    ],
)
def test_a_wait_is_as_long_as_preferred_and_no_longer_than_the_limit(prefer: str, wait_s: float) -> None:
    with in_call(headers={"Prefer": prefer}):
        assert preferred_wait_s(LIMIT_S) == wait_s


@pytest.mark.parametrize("prefer", ["wait", "wait=", "wait=-1", "wait=1.5", "wait=x", "wait=٣", "wait=" + "9" * 5000])
def test_a_wait_that_is_no_whole_number_is_refused(prefer: str) -> None:
    # As a server passes bytes on that are not ASCII.
    header = prefer.encode().decode("latin-1")
    with in_call(headers={"Prefer": header}), pytest.raises(InvalidRequest) as raised:
        preferred_wait_s(LIMIT_S)
    assert raised.value.param == "Prefer"


def keyed(key: str = "a", body: bytes = b"{}", path: str = "/v1/jobs") -> Any:
    with in_call(path, headers={"Idempotency-Key": key}, body=body):
        return idempotency()


def test_a_key_stands_for_its_path_and_body() -> None:
    assert keyed() == keyed('"a"') == keyed(" a ")
    assert keyed().key == "a"
    assert keyed() == keyed(path="/v1/jobs/")
    assert len({keyed().request_hash, keyed(body=b"{ }").request_hash, keyed(path="/v1/responses").request_hash}) == 3


def test_without_the_header_there_is_no_key() -> None:
    with in_call():
        assert idempotency() is None


@pytest.mark.parametrize("key", ["", '""', "x" * 256, "a\tb", "ü"])
def test_a_key_that_cannot_be_kept_is_refused(key: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        keyed(key.encode().decode("latin-1"))
    assert raised.value.param == "Idempotency-Key"


@pytest.mark.parametrize(
    ("text", "param"),
    [
        ("limit=1&limit=2", "limit"),
        ("limit=x", "limit"),
        ("limit=2.0", "limit"),
        ("limit=1_0", "limit"),
        ("other=1", "other"),
        ("%ff=1", "\ufffd"),
    ],
)
def test_a_query_string_that_is_wrong_is_refused(text: str, param: str) -> None:
    with in_call(f"/v1/jobs?{text}", method="GET"), pytest.raises(InvalidRequest) as raised:
        query(JobsQuery)
    assert raised.value.param == param


def accepted(**changes: Any) -> Accepted:
    return Accepted(new_id(), JobState.QUEUED, Lane.NORMAL, "chat.normal", datetime.now(UTC), 64, 30.0, **changes)


def headers_of(accepted: Accepted) -> dict[str, str]:
    """The headers of the reply, without those of its body."""
    headers = with_job_headers(Response(b"", 202), accepted).headers
    return {name: value for name, value in headers if not name.startswith("Content-")}


def test_an_accept_names_its_job_and_the_rates_that_are_limited() -> None:
    plain = accepted()
    assert headers_of(plain) == {"x-job-id": f"job_{plain.job_id.hex}"}
    limited = headers_of(accepted(rates_left=RatesLeft(RateLeft(60, 59))))
    assert limited["x-ratelimit-remaining-requests"] == "59"
    assert "Idempotent-Replayed" not in limited
    assert headers_of(accepted(is_replay=True))["Idempotent-Replayed"] == "true"


def test_a_stream_is_a_reply_that_no_proxy_may_hold_back_and_takes_its_slot_over() -> None:
    slot = Slots(1).take(APP.id)
    assert slot is not None
    stream = SimpleNamespace(slot=slot, steps=lambda _: iter(()), close=slot.release)
    with in_call() as turn:
        reply = streamed(cast(JobStream, stream))
    assert (reply.status_code, reply.is_download) == (200, False)
    assert reply.headers["Content-Type"].startswith("text/event-stream")
    assert reply.headers["X-Accel-Buffering"] == "no"
    assert "Content-Length" not in reply.headers
    assert reply.steps is stream.steps
    assert slot.is_handed_over
    assert (turn.kind, turn.closing) == ("stream", [stream.close])
