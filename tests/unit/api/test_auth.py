"""For how long an API key is believed, what it may be used for, and how many calls its app may make."""

import threading
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from api import auth
from api.auth import (
    BAD_KEY_TTL_S,
    CALL_BYTES,
    HOLDS_S,
    KEY_TTL_S,
    Authenticator,
    Callers,
    CallRates,
    calls_of,
    check_scope,
)
from api.turns import Turn
from headrace.domain.apps import App, AppLimits, Scope
from headrace.domain.ids import new_id
from headrace.domain.limits import RateLeft, RatesLeft
from headrace.errors import AppLimited, HeadraceError, PermissionDenied, StoreUnavailable, Unauthenticated
from headrace.store import Store, keys

PEPPER = "pepper"


def header(name: str) -> str:
    """An Authorization header whose key has this name in it, and a checksum."""
    plain = f"hr-{name}".ljust(keys.PLAIN_CHARS, ".")
    return f"Bearer {plain}{keys._checksum(plain, PEPPER)}"


GOOD, BAD = header("good"), header("bad")


class Asked:
    """Stands for `keys.authenticate_all`; `failure` is what it raises instead, or an Unauthenticated for no app.

    Attributes:
        keys: the names of the keys that were asked for.
    """

    def __init__(self, app: App) -> None:
        self.app = app
        self.keys: list[str] = []
        self.failure: HeadraceError | None = None
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.batches: list[int] = []
        self._names: dict[bytes, str] = {}

    def header(self, name: str) -> str:
        """An app whose key is its name."""
        self.know(made := header(name), name)
        return made

    def know(self, sent: str, name: str) -> None:
        """Recognise the key of a header."""
        self._names[keys.digest(sent.removeprefix("Bearer "), PEPPER)] = name

    def __call__(self, _db: Any, digests: Collection[bytes]) -> dict[bytes, App]:
        self.batches.append(len(digests))
        names = {digest: self._names.get(digest, "?") for digest in digests}
        self.keys += names.values()
        assert self.may_answer.wait(20)
        if isinstance(self.failure, Unauthenticated):
            return {}
        if self.failure:
            raise self.failure
        return {digest: self.app for digest, name in names.items() if name.startswith("good")}


class Clock:
    """A clock that moves when told to."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def asked(app: App, monkeypatch: pytest.MonkeyPatch) -> Iterator[Asked]:
    asked = Asked(app)
    asked.know(GOOD, "good")
    monkeypatch.setattr("headrace.store.keys.authenticate_all", asked)
    yield asked
    asked.may_answer.set()


class AnyStore:
    """A Store whose transactions do nothing."""

    @contextmanager
    def autocommit(self) -> Iterator[None]:
        yield


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("api.auth.time", SimpleNamespace(monotonic=clock))
    return clock


@pytest.fixture
def known(asked: Asked) -> Authenticator:
    return Authenticator(cast(Store, AnyStore()), PEPPER)


def refuse(known: Authenticator, header: str | None) -> str:
    with pytest.raises(Unauthenticated) as refused:
        known.authenticate(header)
    return str(refused.value)


def test_a_good_key_is_asked_for_once(known: Authenticator, asked: Asked, app: App) -> None:
    assert [known.authenticate(header) for header in (GOOD, GOOD.replace("Bearer ", "bearer  "))] == [app, app]
    assert asked.keys == ["good"]


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


def test_a_failed_question_is_asked_again(known: Authenticator, asked: Asked) -> None:
    asked.failure = StoreUnavailable()
    with pytest.raises(StoreUnavailable):
        known.authenticate(GOOD)
    asked.failure = None
    assert known.authenticate(GOOD) == asked.app


def test_a_bad_key_is_refused_unasked_for_a_second(known: Authenticator, asked: Asked, clock: Clock) -> None:
    for _ in range(5):
        refuse(known, BAD)
    assert len(asked.keys) == 1
    clock.now_s += BAD_KEY_TTL_S
    refuse(known, BAD)
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
        refuse(known, header(f"random-{number}"))
    assert (len(known._good), len(known._bad)) == (1, auth.BAD_KEYS_LIMIT)
    asked.keys.clear()
    known.authenticate(GOOD)
    refuse(known, header(f"random-{number}"))
    assert asked.keys == []


def test_the_oldest_good_key_makes_room(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.auth.KEYS_LIMIT", 2)
    known = Authenticator(cast(Store, AnyStore()), PEPPER)
    for name in ("a", "b", "c", "c", "b", "a"):
        known.authenticate(asked.header(f"good-{name}"))
    assert asked.keys == ["good-a", "good-b", "good-c", "good-a"]


def test_nothing_that_is_remembered_is_a_key(known: Authenticator) -> None:
    known.authenticate(GOOD)
    refuse(known, BAD)
    assert {len(digest) for digest in (*known._good, *known._bad)} == {32}
    assert "hr-" not in repr(vars(known))


def test_a_random_key_is_refused_without_postgres(known: Authenticator, asked: Asked) -> None:
    real = header("random").removeprefix("Bearer ")
    wrong = [real[:-1] + ("A" if real[-1] != "A" else "B"), real[:-1], real + "A", real[: keys.PLAIN_CHARS - 1]]
    of_another_pepper = real[: keys.PLAIN_CHARS] + keys._checksum(real[: keys.PLAIN_CHARS], "another")
    for key in (*wrong, of_another_pepper, "sk-" + real[3:]):
        assert refuse(known, f"Bearer {key}") == refuse(known, BAD)
    assert asked.keys == ["?"]


def test_keys_without_a_checksum_still_work_and_random_ones_share_one_query_at_a_time(
    known: Authenticator, asked: Asked
) -> None:
    plain = "Bearer hr-" + "g" * 43
    asked.know(plain, "good, without a checksum")
    assert known.authenticate(plain) == asked.app
    asked.may_answer.clear()
    with ThreadPoolExecutor(33) as threads:
        first = threads.submit(refuse, known, f"Bearer hr-{0:043}")
        until(lambda: len(asked.batches) == 2)
        others = [threads.submit(refuse, known, f"Bearer hr-{number:043}") for number in range(1, 33)]
        until(lambda: known._batching.waiting == 32)
        asked.may_answer.set()
        for each in (first, *others):
            each.result(20)
    assert asked.batches == [1, 1, 32]


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


#: A call a second, and a bucket of ten.
LIMIT = 60
SHOP, OTHER = (App(new_id(), name, "whsec_test") for name in ("shop", "other"))


@pytest.fixture
def rates(clock: Clock) -> CallRates:
    return CallRates(LIMIT, clock)


def use(rates: CallRates, app: App, number: int) -> None:
    for _ in range(number):
        rates.use(app)


def test_an_app_that_used_its_calls_up_is_refused_and_no_other(rates: CallRates, clock: Clock) -> None:
    use(rates, SHOP, 10)
    with pytest.raises(AppLimited, match="60 calls a minute") as refused:
        rates.use(SHOP)
    assert (refused.value.reason, refused.value.retry_after_s) == ("calls_per_minute", 1)
    assert RatesLeft.of(refused.value.rates_left) == RatesLeft(calls=RateLeft(LIMIT, 0, HOLDS_S))
    use(rates, OTHER, 10)
    clock.now_s += 3
    use(rates, SHOP, 3)
    with pytest.raises(AppLimited):
        rates.use(SHOP)


def test_an_apps_own_limit_replaces_that_of_all(rates: CallRates) -> None:
    more = App(new_id(), "more", "whsec_test", AppLimits(calls_per_minute=600))
    use(rates, more, 100)
    less = App(new_id(), "less", "whsec_test", AppLimits(calls_per_minute=1))
    rates.use(less)
    with pytest.raises(AppLimited) as refused:
        rates.use(less)
    assert refused.value.retry_after_s == 60


def test_polls_keep_no_submit_out_and_refused_submits_do(rates: CallRates, clock: Clock) -> None:
    use(rates, SHOP, 10)
    rates.check(SHOP)
    rates.charge(SHOP, 2)
    with pytest.raises(AppLimited) as refused:
        rates.check(SHOP)
    assert refused.value.retry_after_s == 2
    clock.now_s += 2
    rates.check(SHOP)


def test_the_largest_body_keeps_an_app_out_for_a_minute_at_most(rates: CallRates, clock: Clock) -> None:
    assert (calls_of(100), calls_of(CALL_BYTES), calls_of(2**23)) == (0, 1, 2048)
    rates.charge(SHOP, calls_of(2**23))
    with pytest.raises(AppLimited) as refused:
        rates.check(SHOP)
    assert refused.value.retry_after_s == 60
    clock.now_s += 60
    rates.check(SHOP)


def test_a_key_that_may_not_submit_uses_a_call(rates: CallRates) -> None:
    reader = App(SHOP.id, "shop", "whsec_test", scopes=frozenset({Scope.READ}))
    callers, turn = Callers(cast(Authenticator, None), rates), Turn()
    for _ in range(10):
        with pytest.raises(PermissionDenied):
            callers.admit(turn, "POST", reader, submits=True)
    with pytest.raises(AppLimited):
        callers.admit(turn, "POST", reader, submits=True)
