"""A report on readiness is shared for a second, and a check that hangs holds few callers."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, cast

import pytest

from api.readiness import REPORT_TTL_S, WAITERS_LIMIT, Readiness, Report
from headrace.broker.admission import Admission
from headrace.config import Settings
from headrace.errors import BrokerUnavailable
from headrace.store import Store
from tests.waiting import until


class Servers:
    """What is checked. Attributes: is_away: Redis fails. may_end: the check of the tokenizers hangs until it is set."""

    too_old = ""

    def __init__(self) -> None:
        self.checks, self.is_away = 0, False
        self.may_end = threading.Event()
        self.may_end.set()

    def check_writable(self) -> None:
        if self.is_away:
            raise BrokerUnavailable("Redis does not answer: at 10.0.0.1")

    def load(self) -> None:
        self.checks += 1
        assert self.may_end.wait(60)


@pytest.fixture
def servers() -> Iterator[Servers]:
    servers = Servers()
    yield servers
    servers.may_end.set()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    clock = SimpleNamespace(now_s=1000.0)
    monkeypatch.setattr("headrace.cached_value.time", SimpleNamespace(monotonic=lambda: clock.now_s))
    return clock


@pytest.fixture
def readiness(servers: Servers, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Readiness:
    monkeypatch.setattr("api.readiness._check_postgres", lambda _: None)
    return Readiness(settings, cast(Store, None), cast(Admission, servers), cast(Any, servers))


READY, AWAY = Report({}, {}), Report({"redis": "Redis does not answer."}, {})


def test_a_report_is_a_second_old_at_most(readiness: Readiness, servers: Servers, clock: SimpleNamespace) -> None:
    assert (readiness.report(), readiness.report(), servers.checks) == (READY, READY, 1)
    servers.is_away = True
    clock.now_s += REPORT_TTL_S / 2
    assert (readiness.report(), servers.checks) == (READY, 1)
    clock.now_s += REPORT_TTL_S
    assert (readiness.report(), readiness.report(), servers.checks) == (AWAY, AWAY, 2)
    servers.is_away = False
    clock.now_s += 2 * REPORT_TTL_S
    assert readiness.report() == READY


def test_a_check_that_hangs_holds_few_callers(readiness: Readiness, servers: Servers, clock: SimpleNamespace) -> None:
    assert readiness.report() == READY
    servers.may_end.clear()
    servers.is_away = True
    clock.now_s += 2 * REPORT_TTL_S
    with ThreadPoolExecutor(WAITERS_LIMIT) as threads:
        waiting = [threads.submit(readiness.report) for _ in range(WAITERS_LIMIT)]
        until(lambda: readiness._waiters._value == 0, "all of them wait")
        began = time.monotonic()
        assert [readiness.report() for _ in range(1000)] == [READY] * 1000, "the report before"
        assert time.monotonic() - began < 5
        servers.may_end.set()
        assert [each.result() for each in waiting] == [AWAY] * WAITERS_LIMIT
    assert servers.checks == 2


def test_a_process_is_not_ready_before_its_first_check(readiness: Readiness, servers: Servers) -> None:
    servers.may_end.clear()
    with ThreadPoolExecutor(WAITERS_LIMIT) as threads:
        waiting = [threads.submit(readiness.report) for _ in range(WAITERS_LIMIT)]
        until(lambda: readiness._waiters._value == 0, "all of them wait")
        assert readiness.report().failures
        servers.may_end.set()
        assert [each.result() for each in waiting] == [READY] * WAITERS_LIMIT


def test_workers_of_an_older_release_are_a_warning(readiness: Readiness, servers: Servers) -> None:
    servers.too_old = "Workers of an older release serve chat."
    assert readiness.check() == Report({}, {"workers": servers.too_old})
