"""What is believed of an Authorization header, for how long, and what a key may be used for."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from api import auth
from api.auth import BAD_KEY_TTL_S, FRESH_SHARE, KEY_TTL_S, Authenticator, check_scope
from headrace.errors import HeadraceError, PermissionDenied, StoreUnavailable, Unauthenticated
from headrace.store import Store
from headrace.store.apps import App, AppLimits, Scope

GOOD = "Bearer hr-good"


class Asked:
    """Stands for `keys.authenticate`; `failure` is what it raises instead."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.keys: list[str] = []
        self.failure: HeadraceError | None = None
        self.may_answer = threading.Event()
        self.may_answer.set()

    def __call__(self, _db: Any, key: str, _pepper: str) -> App:
        self.keys.append(key)
        assert self.may_answer.wait(20)
        if self.failure:
            raise self.failure
        if not key.startswith("hr-good"):
            raise Unauthenticated
        return self.app


class Clock:
    """A clock that moves when told to."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def asked(app: App, monkeypatch: pytest.MonkeyPatch) -> Iterator[Asked]:
    asked = Asked(app)
    monkeypatch.setattr("headrace.store.keys.authenticate", asked)
    yield asked
    asked.may_answer.set()


class AnyStore:
    """A Store whose transactions do nothing."""

    @contextmanager
    def begin(self) -> Iterator[None]:
        yield


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("api.auth.time", SimpleNamespace(monotonic=clock))
    return clock


@pytest.fixture
def known(asked: Asked) -> Authenticator:
    return Authenticator(cast(Store, AnyStore()), "pepper")


def refuse(known: Authenticator, header: str | None) -> str:
    with pytest.raises(Unauthenticated) as refused:
        known.authenticate(header)
    return str(refused.value)


def test_a_good_key_is_asked_for_once(known: Authenticator, asked: Asked, app: App) -> None:
    assert [known.authenticate(header) for header in (GOOD, "bearer  hr-good")] == [app, app]
    assert asked.keys == ["hr-good"]


def test_a_revoked_key_is_refused_when_its_time_is_over(known: Authenticator, asked: Asked, clock: Clock) -> None:
    known.authenticate(GOOD)
    asked.failure = Unauthenticated()
    clock.now_s += KEY_TTL_S
    refuse(known, GOOD)


def test_a_new_limit_is_known_when_the_time_of_the_old_is_over(
    known: Authenticator, asked: Asked, clock: Clock
) -> None:
    known.authenticate(GOOD)
    asked.app = replace(asked.app, limits=AppLimits(queued_jobs=1))
    clock.now_s += KEY_TTL_S
    assert known.authenticate(GOOD).limits.queued_jobs == 1


def test_an_answer_is_as_old_as_its_question(known: Authenticator, asked: Asked, clock: Clock) -> None:
    asked.may_answer.clear()
    with ThreadPoolExecutor(1) as threads:
        slow = threads.submit(known.authenticate, GOOD)
        until(lambda: bool(asked.keys))
        clock.now_s += KEY_TTL_S
        asked.may_answer.set()
        slow.result(20)
    known.authenticate(GOOD)
    assert len(asked.keys) == 2


def test_one_caller_asks_again_while_the_others_go_on(known: Authenticator, asked: Asked, clock: Clock) -> None:
    known.authenticate(GOOD)
    asked.may_answer.clear()
    clock.now_s += KEY_TTL_S * FRESH_SHARE
    with ThreadPoolExecutor(1) as threads:
        asking = threads.submit(known.authenticate, GOOD)
        until(lambda: len(asked.keys) == 2)
        # The question is still open: none of these may wait for it.
        assert [known.authenticate(GOOD) for _ in range(20)] == [asked.app] * 20
        asked.may_answer.set()
        asking.result(20)
    assert len(asked.keys) == 2


@pytest.mark.parametrize("failure", [None, Unauthenticated(), StoreUnavailable()])
def test_callers_that_need_one_key_at_once_share_one_query_and_its_outcome(
    known: Authenticator, asked: Asked, failure: HeadraceError | None
) -> None:
    asked.may_answer.clear()
    asked.failure = failure
    joined: list[None] = []

    class Counted(Future[App]):
        def result(self, timeout: float | None = None) -> App:
            joined.append(None)
            return super().result(timeout)

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(16) as threads:
        patch.setattr(auth, "Future", Counted)
        callers = [threads.submit(known.authenticate, GOOD) for _ in range(16)]
        until(lambda: len(joined) == 15)
        asked.may_answer.set()
        outcomes = [caller.exception(20) for caller in callers]

    assert asked.keys == ["hr-good"]
    assert outcomes == [failure] * 16


def test_a_failed_question_is_asked_again(known: Authenticator, asked: Asked) -> None:
    asked.failure = StoreUnavailable()
    with pytest.raises(StoreUnavailable):
        known.authenticate(GOOD)
    asked.failure = None
    assert known.authenticate(GOOD) == asked.app


def test_a_bad_key_is_refused_unasked_for_a_second(known: Authenticator, asked: Asked, clock: Clock) -> None:
    for _ in range(5):
        refuse(known, "Bearer hr-bad")
    assert len(asked.keys) == 1
    clock.now_s += BAD_KEY_TTL_S
    refuse(known, "Bearer hr-bad")
    assert len(asked.keys) == 2


def test_a_key_that_was_bad_is_good_when_it_is_made_since(known: Authenticator, asked: Asked, clock: Clock) -> None:
    asked.failure = Unauthenticated()
    refuse(known, GOOD)
    asked.failure = None
    clock.now_s += BAD_KEY_TTL_S
    assert [known.authenticate(GOOD) for _ in range(2)] == [asked.app] * 2
    assert len(asked.keys) == 2


def test_what_is_remembered_is_bounded_and_random_keys_push_out_no_good_one(known: Authenticator, asked: Asked) -> None:
    known.authenticate(GOOD)
    for number in range(3 * auth.BAD_KEYS_LIMIT):
        refuse(known, f"Bearer hr-random-{number}")
    assert (len(known._good), len(known._bad), len(known._asking)) == (1, auth.BAD_KEYS_LIMIT, 0)
    asked.keys.clear()
    known.authenticate(GOOD)
    refuse(known, f"Bearer hr-random-{number}")
    assert asked.keys == []


def test_the_oldest_good_key_makes_room(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.auth.KEYS_LIMIT", 2)
    known = Authenticator(cast(Store, AnyStore()), "pepper")
    for name in ("a", "b", "c", "c", "b", "a"):
        known.authenticate(f"{GOOD}-{name}")
    assert asked.keys == ["hr-good-a", "hr-good-b", "hr-good-c", "hr-good-a"]


def test_nothing_that_is_remembered_is_a_key(known: Authenticator) -> None:
    known.authenticate(GOOD)
    refuse(known, "Bearer hr-bad")
    assert {len(digest) for digest in (*known._good, *known._bad)} == {32}
    assert "hr-" not in repr(vars(known))


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Basic hr-good", "hr-good", "Bearer " + "x" * 201, "Bearer ü"]
)
def test_what_cannot_be_a_key_costs_no_query(known: Authenticator, asked: Asked, header: str | None) -> None:
    refuse(known, header)
    assert asked.keys == []


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "DELETE", "PUT", "PATCH"])
def test_a_key_is_held_to_its_scopes(app: App, method: str) -> None:
    reads = method in {"GET", "HEAD", "OPTIONS"}
    allowed, other = (Scope.READ, Scope.SUBMIT) if reads else (Scope.SUBMIT, Scope.READ)
    check_scope(app, method)
    check_scope(replace(app, scopes=frozenset({allowed})), method)
    with pytest.raises(PermissionDenied, match=f"scope '{allowed}'; this one's: {other}"):
        check_scope(replace(app, scopes=frozenset({other})), method)


def until(condition: Any) -> None:
    """Return once it holds."""
    for _ in range(2000):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError("It never came to hold.")
