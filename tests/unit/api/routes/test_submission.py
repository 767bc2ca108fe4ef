"""What a submit's headers say: the key, how long to hold on, and what an accept adds to its answer."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest
from flask import Flask, g
from werkzeug.exceptions import RequestEntityTooLarge

from api.bodies.in_flight import Bodies
from api.deps import EXTENSION, Due
from api.door.accepted import Accepted
from api.routes.submission import body, headers_of, idempotency, preferred_wait_s
from headrace.broker.app_rates import AppRates
from headrace.domain.apps import App
from headrace.domain.ids import new_id
from headrace.domain.limits.rates import RateLeft, RatesLeft
from headrace.domain.queues import Lane
from headrace.domain.states import JobState
from headrace.errors import InvalidRequest
from headrace.store import Store

LIMIT_S = 60.0
APP = App(new_id(), "test", "whsec_test")


@contextmanager
def request(headers: Mapping[str, str], data: bytes = b"{}", path: str = "/v1/jobs") -> Iterator[None]:
    app = Flask("test")
    settings = SimpleNamespace(wait_limit_s=LIMIT_S, body_limit_bytes=100)
    bodies = Bodies(cast(AppRates, None), cast(Store, None), in_flight_bytes=1000, grace_s=20)
    app.extensions[EXTENSION] = SimpleNamespace(settings=settings, bodies=bodies)
    with app.test_request_context(path, method="POST", headers=headers, data=data):
        g.due = Due(APP, 1)
        yield


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
    with request({"Prefer": prefer}):
        assert preferred_wait_s() == wait_s


@pytest.mark.parametrize("prefer", ["wait", "wait=", "wait=-1", "wait=1.5", "wait=x", "wait=٣", "wait=" + "9" * 5000])
def test_a_wait_that_is_no_whole_number_is_refused(prefer: str) -> None:
    # As a server passes bytes on that are not ASCII.
    header = prefer.encode().decode("latin-1")
    with request({"Prefer": header}), pytest.raises(InvalidRequest) as raised:
        preferred_wait_s()
    assert raised.value.param == "Prefer"


def keyed(key: str = "a", data: bytes = b"{}", path: str = "/v1/jobs") -> Any:
    with request({"Idempotency-Key": key}, data, path):
        body(APP)
        return idempotency()


def test_a_key_stands_for_its_path_and_body() -> None:
    assert keyed() == keyed('"a"') == keyed(" a ")
    assert keyed().key == "a"
    assert len({keyed().request_hash, keyed(data=b"{ }").request_hash, keyed(path="/v1/responses").request_hash}) == 3


def test_without_the_header_there_is_no_key() -> None:
    with request({}):
        assert idempotency() is None


@pytest.mark.parametrize("key", ["", '""', "x" * 256, "a\tb", "ü"])
def test_a_key_that_cannot_be_kept_is_refused(key: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        keyed(key.encode().decode("latin-1"))
    assert raised.value.param == "Idempotency-Key"


@pytest.mark.parametrize(("size", "is_too_large"), [(100, False), (101, True)])
def test_a_body_is_read_up_to_its_limit(size: int, is_too_large: bool) -> None:
    data = b'{"a": 1}'.ljust(size)
    with request({}, data):
        if is_too_large:
            with pytest.raises(RequestEntityTooLarge):
                body(APP)
        else:
            assert body(APP) == {"a": 1}


def accepted(**changes: Any) -> Accepted:
    return Accepted(new_id(), JobState.QUEUED, Lane.NORMAL, "chat.normal", datetime.now(UTC), 64, 30.0, **changes)


def test_an_accept_names_its_job_and_the_rates_that_are_limited() -> None:
    plain = accepted()
    assert headers_of(plain) == {"x-job-id": f"job_{plain.job_id.hex}"}
    limited = headers_of(accepted(rates_left=RatesLeft(RateLeft(60, 59))))
    assert limited["x-ratelimit-remaining-requests"] == "59"
    assert "Idempotent-Replayed" not in limited
    assert headers_of(accepted(is_replay=True))["Idempotent-Replayed"] == "true"
