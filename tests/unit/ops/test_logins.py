"""Which logins wait, which are refused at once, and how much of a CPU guesses get."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from typing import Any, cast

import pytest

from headrace.policies import passwords
from headrace.store import Store, operators
from ops import logins
from ops.logins import ADDRESS_REST, REST, WAITING, WAITING_PER_ADDRESS, Logins, LoginsFull

DEADLINE_S = 10.0


class Passwords:
    """Comparisons that wait until the test lets them go on. The right password is `right`."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.compared: list[str] = []

    def matches(self, password: str, _: str) -> bool:
        assert self.gate.wait(DEADLINE_S)
        self.compared.append(password)
        return password == "right"


class NoStore:
    """A store whose transactions do nothing."""

    @contextmanager
    def begin(self) -> Iterator[None]:
        yield


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> Iterator[Passwords]:
    made = Passwords()
    operator: Any = type("Operator", (), {"name": "ada", "password_hash": "x"})()
    monkeypatch.setattr(passwords, "matches", made.matches)
    monkeypatch.setattr(operators, "count_try", lambda *_: True)
    monkeypatch.setattr(operators, "named", lambda *_: operator)
    monkeypatch.setattr(logins, "acting", lambda *_: nullcontext())
    monkeypatch.setattr(logins.actions, "log_in", lambda *_: None)
    yield made
    made.gate.set()


@pytest.fixture
def rests() -> list[float]:
    return []


@pytest.fixture
def under_test(compared: Passwords, rests: list[float]) -> Iterator[Logins]:
    made = Logins(cast(Store, NoStore()), rests.append)
    yield made
    compared.gate.set()
    made.close()


class Clients:
    """Logins from many addresses, each in a thread."""

    def __init__(self, under_test: Logins, threads: ThreadPoolExecutor) -> None:
        self._logins, self._threads = under_test, threads

    def begin(self, address: str | None, password: str = "wrong") -> "Future[Any]":
        """Begin a login; returns once it waits, or was refused."""
        before = self._logins._waiting.total()
        future = self._threads.submit(self._logins.check, "ada", password, address)
        give_up = threading.Event()
        timer = threading.Timer(DEADLINE_S, give_up.set)
        timer.start()
        while not (future.done() or self._logins._waiting.total() > before):
            assert not give_up.is_set()
        timer.cancel()
        return future


@pytest.fixture
def clients(under_test: Logins, compared: Passwords) -> Iterator[Clients]:
    with ThreadPoolExecutor(WAITING + 4) as threads:
        yield Clients(under_test, threads)
        compared.gate.set()


@pytest.mark.parametrize(
    ("addresses", "other"),
    [
        (["192.0.2.1"], "192.0.2.2"),
        (["2001:db8::1", "2001:db8::ffff:2", "2001:db8:0:0:3::3"], "2001:db8:0:1::1"),
        (["::ffff:192.0.2.1"], "::ffff:192.0.2.2"),
        ([None], "192.0.2.1"),
    ],
)
def test_an_address_with_logins_under_way_is_refused_at_once_and_another_waits(
    clients: Clients, compared: Passwords, addresses: list[str | None], other: str
) -> None:
    waiting = [clients.begin(addresses[number % len(addresses)]) for number in range(WAITING_PER_ADDRESS)]
    refused = clients.begin(addresses[-1])
    with pytest.raises(LoginsFull, match="from this address") as error:
        refused.result(DEADLINE_S)
    assert error.value.retry_after_s == logins.RETRY_AFTER_S
    assert not any(each.done() for each in waiting)

    right = clients.begin(other, "right")
    compared.gate.set()
    assert right.result(DEADLINE_S) is not None
    assert [each.result(DEADLINE_S) for each in waiting] == [None] * WAITING_PER_ADDRESS


def test_logins_from_many_addresses_are_bounded_in_all(clients: Clients, compared: Passwords) -> None:
    waiting = [clients.begin(f"192.0.2.{number}") for number in range(WAITING)]
    with pytest.raises(LoginsFull, match="Many log in"):
        clients.begin("198.51.100.1").result(DEADLINE_S)
    compared.gate.set()
    assert [each.result(DEADLINE_S) for each in waiting] == [None] * WAITING
    assert clients.begin("198.51.100.1", "right").result(DEADLINE_S) is not None, "the places are free again"


def test_passwords_are_compared_in_the_order_in_which_they_came(clients: Clients, compared: Passwords) -> None:
    waiting = [clients.begin(f"192.0.2.{number}", f"guess {number}") for number in range(WAITING)]
    compared.gate.set()
    for each in waiting:
        each.result(DEADLINE_S)
    assert compared.compared == [f"guess {number}" for number in range(WAITING)]


def test_a_wrong_password_is_followed_by_a_rest_and_a_right_one_is_not(
    under_test: Logins, compared: Passwords, rests: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    compared.gate.set()
    times = iter([10.0, 10.2])
    monkeypatch.setattr(logins, "time", type("Clock", (), {"thread_time": staticmethod(lambda: next(times, 20.0))}))
    assert under_test.check("ada", "wrong", None) is None
    assert rests == [pytest.approx(REST * 0.2), pytest.approx(ADDRESS_REST * 0.2)]
    assert under_test.check("ada", "right", None) is not None
    assert len(rests) == 2
