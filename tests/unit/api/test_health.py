"""A report on readiness is shared for a second, and the metrics count every request once."""

import secrets
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from api.health import JUDGED_S, REPORT_TTL_S, START_S, WAITERS_LIMIT, ReadinessCheck, Report, WebMetrics, WebProblems
from api.reading import Waits
from headrace.broker.admission import Admission
from headrace.config import Settings
from headrace.domain.fleet import Fleet, Vacancy
from headrace.domain.ids import new_id
from headrace.errors import BrokerUnavailable
from headrace.store import Store
from tests.waiting import until
from tests.web import Web


class Servers:
    """What is checked. Attributes: is_away: Redis fails. may_end: the check of the tokenizers hangs until it is set."""

    def __init__(self) -> None:
        self.checks, self.is_away = 0, False
        self.fleets = {"chat": Fleet("chat", 1, 1, 8, 0, None, None)}
        self.may_end = threading.Event()
        self.may_end.set()

    def check_writable(self) -> None:
        if self.is_away:
            raise BrokerUnavailable("Redis does not answer: at 10.0.0.1")

    def read_fleets(self) -> dict[str, Fleet]:
        return self.fleets

    def unserved(self, fleets: dict[str, Fleet]) -> list[str]:
        return [] if "chat" in fleets else ["chat"]

    def next_worker(self, pool: str) -> Vacancy:
        return Vacancy(pool, None)

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
def readiness(servers: Servers, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> ReadinessCheck:
    monkeypatch.setattr("api.health._check_postgres", lambda _: None)
    monkeypatch.setattr("api.health._silent", lambda _: {})
    store = SimpleNamespace(begin=lambda: nullcontext())
    return ReadinessCheck(
        settings, cast(Store, store), cast(Admission, servers), cast(Any, servers), cast(Any, servers)
    )


READY, AWAY = Report({}, {}), Report({"redis": "Redis does not answer."}, {})


def test_a_report_is_a_second_old_at_most(readiness: ReadinessCheck, servers: Servers, clock: SimpleNamespace) -> None:
    assert (readiness.report(), readiness.report(), servers.checks) == (READY, READY, 1)
    servers.is_away = True
    clock.now_s += REPORT_TTL_S / 2
    assert (readiness.report(), servers.checks) == (READY, 1)
    clock.now_s += REPORT_TTL_S
    assert (readiness.report(), readiness.report(), servers.checks) == (AWAY, AWAY, 2)
    servers.is_away = False
    clock.now_s += 2 * REPORT_TTL_S
    assert readiness.report() == READY


def test_a_process_that_is_not_seen_is_a_warning_once_this_process_is_old_enough(
    readiness: ReadinessCheck, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now_s=time.monotonic() + START_S - 1)
    monkeypatch.setattr("api.health.time", SimpleNamespace(monotonic=lambda: clock.now_s))
    monkeypatch.setattr("api.health._silent", lambda _: {"control": "not seen for 9 s"})
    assert readiness.check() == READY, "control starts beside it"
    clock.now_s += 2
    assert readiness.check() == Report({}, {"control": "not seen for 9 s"})


def test_a_check_that_hangs_holds_few_callers(
    readiness: ReadinessCheck, servers: Servers, clock: SimpleNamespace
) -> None:
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


def test_a_process_is_not_ready_before_its_first_check(readiness: ReadinessCheck, servers: Servers) -> None:
    servers.may_end.clear()
    with ThreadPoolExecutor(WAITERS_LIMIT) as threads:
        waiting = [threads.submit(readiness.report) for _ in range(WAITERS_LIMIT)]
        until(lambda: readiness._waiters._value == 0, "all of them wait")
        assert readiness.report().failures
        servers.may_end.set()
        assert [each.result() for each in waiting] == [READY] * WAITERS_LIMIT


def test_workers_of_an_older_release_are_a_warning(readiness: ReadinessCheck, servers: Servers) -> None:
    servers.fleets["chat"] = Fleet("chat", 1, 1, 8, 0, None, None, payload_version=0)
    warnings = readiness.check().warnings
    assert list(warnings) == ["workers"]
    assert warnings["workers"].startswith("Workers of an older release serve chat: jobs that need version ")


def test_a_pool_without_workers_is_a_warning(readiness: ReadinessCheck, servers: Servers) -> None:
    servers.fleets.clear()
    warning = "No worker serves chat: jobs wait there, and expire. Start one."
    assert readiness.check() == Report({}, {"no_worker": warning})


@pytest.fixture
def web(settings: Settings) -> Web:
    return Web.of(settings)


def page(web: Web) -> str:
    registry = CollectorRegistry()
    registry.register(web.deps.metrics)
    return generate_latest(registry).decode()


def requests(web: Web) -> set[str]:
    """The labels of all requests, with their numbers."""
    name = "headrace_http_request_seconds_count"
    return {line.removeprefix(name) for line in page(web).splitlines() if line.startswith(name)}


def test_requests_are_counted_by_method_route_and_status(web: Web) -> None:
    client = web.test_client()
    for _ in range(2):
        client.get("/healthz")
    client.get("/v1/jobs/job_secret")
    client.put("/healthz")
    assert requests(web) == {
        '{kind="plain",method="GET",route="/healthz",status="200"} 2.0',
        '{kind="plain",method="GET",route="/v1/jobs/{public_id}",status="401"} 1.0',
        '{kind="plain",method="PUT",route="none",status="405"} 1.0',
    }


def test_what_clients_choose_makes_no_label(web: Web) -> None:
    canary = secrets.token_hex(8)
    client = web.test_client()
    for number in range(50):
        client.get(f"/{canary}/{number}")
        client.get(f"/v1/jobs/{canary}{number}?wait={number}", headers={"Authorization": f"Bearer {canary}"})
        client.open("/healthz", method=f"{canary.upper()}{number}")
        client.get(f"/v1/threads/{canary}{number}")
    assert len(requests(web)) == 3
    assert canary not in page(web).lower()


def test_open_waits_and_streams_stand_beside_what_may_be_open(settings: Settings) -> None:
    web = Web.of(settings.model_copy(update={"wait_slots": 7, "stream_slots": 9}))
    waits = web.deps.waits
    with waits.hold("stream", new_id()):
        served = page(web)
    assert 'headrace_http_open{kind="wait"} 0.0' in served
    assert 'headrace_http_open{kind="stream"} 1.0' in served
    assert 'headrace_http_slots{kind="wait"} 7.0' in served
    assert 'headrace_http_slots{kind="stream"} 9.0' in served
    assert 'headrace_http_open{kind="stream"} 0.0' in page(web)


class Held:
    """The slots of waits. Attributes: held: of 100."""

    held = 0

    def slots(self) -> dict[str, SimpleNamespace]:
        return {"wait": SimpleNamespace(held=self.held, count=100)}


def test_a_web_process_says_what_is_wrong_with_its_answers_of_the_last_minutes() -> None:
    clock, held = SimpleNamespace(now_s=0.0), Held()
    metrics = WebMetrics(cast(Waits, held))
    problems = WebProblems(metrics, cast(Waits, held), lambda: clock.now_s)

    def answer(number: int, status: int, took_s: float = 0.01) -> None:
        for _ in range(number):
            metrics.note("POST", "/v1/jobs", status, took_s)

    answer(100, 202)
    answer(4, 503)
    assert problems() == {}, "a few are no alert"
    answer(1, 503)
    answer(8, 202, 1.5)
    held.held = 95
    clock.now_s = 10.0
    assert problems() == {
        "HeadraceHttpErrors": "5 of 113 requests were answered with 5xx lately.",
        "HeadraceHttpSlow": "8 of 113 requests that do not wait took more than 1 s lately.",
        "HeadraceHttpSlotsFull": "95 of 100 slots of the kind 'wait' are taken.",
    }
    held.held = 0
    clock.now_s = 10.0 + JUDGED_S
    assert problems() == {}, "they are long over"
