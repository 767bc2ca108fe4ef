"""The paid API, called by a real overflow worker over real HTTP: what comes back, what it costs, and what fails."""

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest

from tests.contracts.conftest import StandIn

LEASE_S = 3


@pytest.fixture(scope="module")
def provider() -> Iterator[StandIn]:
    server = StandIn()
    yield server
    server.close()


@pytest.fixture(scope="module")
def system(start: Callable[..., Any], provider: StandIn) -> Any:
    return start(paid_api=provider.url, lease_s=str(LEASE_S), budgets__day_usd="1")


ONLY = {"prompt": "What is a headrace?", "overflow": "only"}


def asked(system: Any) -> int:
    """The status of a submit that insists on the paid API; what is accepted has ended by then."""
    response = system.http.post("/v1/jobs", json=ONLY)
    if response.status_code == 202:
        system.ended(response.json()["id"])
    return int(response.status_code)


def money(system: Any) -> tuple[Decimal, Decimal, Decimal]:
    """Of all apps together today: reserved and spent; and what the ledger says was spent."""
    [account] = system.sql("SELECT reserved_usd, spent_usd FROM budgets WHERE app_id IS NULL AND period = 'day'")
    [booked] = system.sql("SELECT sum(usd) AS usd FROM ledger WHERE kind = 'api' OR estimated")
    return account["reserved_usd"], account["spent_usd"], booked["usd"]


def test_a_job_for_the_paid_api_is_answered_and_costs_what_it_counted(system: Any, provider: StandIn) -> None:
    job = system.ended(system.submit(prompt="hello there", overflow="only"))

    assert (job["status"], job["text"]) == ("succeeded", "echo: hello there")
    assert (job["queue"], job["model_served"]) == ("overflow.normal", "gpt-4o-mini-2024-07-18")
    assert system.paid([job["id"]]) == [("api", 1)]
    reserved_usd, spent_usd, booked_usd = money(system)
    assert reserved_usd == 0
    assert spent_usd == booked_usd > 0


def test_a_call_whose_worker_was_killed_is_spent_and_the_job_is_paid_once(
    system: Any, provider: StandIn, wait_until: Callable[..., None]
) -> None:
    provider.hold()
    job_id = system.submit(prompt=provider.HOLD, overflow="only")
    wait_until(provider.held.is_set, "the provider works on it")
    system.stack.kill("overflow")
    provider.release.set()
    job = system.ended(job_id)

    assert (job["status"], job["attempts"]) == ("succeeded", 2)
    assert system.bills([job_id]) == [("api", 2), ("waste", 1)]
    reserved_usd, spent_usd, booked_usd = money(system)
    assert reserved_usd == 0
    assert spent_usd == booked_usd


def test_a_stream_that_is_cut_off_is_tried_again_and_never_an_answer(system: Any, provider: StandIn) -> None:
    chunks = provider.completion("half of an answer")
    provider.script.append((200, provider.events(chunks[:3])[: -len("data: [DONE]\n\n")]))
    job = system.ended(system.submit(prompt="cut me off", overflow="only"))

    assert (job["status"], job["text"], job["attempts"]) == ("succeeded", "echo: cut me off", 2)
    assert system.bills([job["id"]]) == [("api", 2), ("waste", 1)]
    reserved_usd, spent_usd, booked_usd = money(system)
    assert reserved_usd == 0
    assert spent_usd == booked_usd


def test_a_rate_limit_of_the_provider_costs_nothing_and_is_not_counted(system: Any, provider: StandIn) -> None:
    limited = {"error": {"message": "slow down", "type": "requests", "param": None, "code": "rate_limit_exceeded"}}
    provider.script += [(429, limited, {"retry-after": "0.2"})] * 4
    job = system.ended(system.submit(prompt="patience", overflow="only"))

    assert (job["status"], job["attempts"]) == ("succeeded", 1)
    assert system.bills([job["id"]]) == [("api", 1)]


def test_an_error_of_the_provider_is_on_the_attempt_for_every_operator_and_its_words_are_not(
    system: Any, provider: StandIn
) -> None:
    error = {"message": "hello there, sk-test!", "type": "server_error", "param": None, "code": "engine_overloaded"}
    provider.script += [(500, {"error": error})]
    job = system.ended(system.submit(prompt="hello there", overflow="only"))

    assert (job["status"], job["attempts"]) == ("succeeded", 2)
    shown = system.operate("jobs", "show", job["id"])
    assert shown.returncode == 0, shown.stderr
    assert "error_code=engine_fault error_cause=500 engine_overloaded" in " ".join(shown.stdout.split())
    assert "hello there" not in shown.stdout
    assert "sk-test" not in shown.stdout


def test_without_money_the_door_says_so_and_other_jobs_stay_in_their_pool(
    system: Any, wait_until: Callable[..., None]
) -> None:
    system.sql("UPDATE apps SET day_usd = 0 RETURNING id")
    wait_until(lambda: asked(system) == 429, "the limit is known")
    refused = system.http.post("/v1/jobs", json=ONLY)

    assert refused.headers["x-should-retry"] == "false"
    error = refused.json()["error"]
    assert (error["type"], error["code"], error["reason"]) == ("insufficient_quota", "budget_exceeded", "budget")
    assert "this app's budget, 0 USD a day, has 0 USD left" in error["message"]
    assert system.ended(system.submit())["queue"] == "chat.normal"
    system.sql("UPDATE apps SET day_usd = NULL RETURNING id")
    wait_until(lambda: asked(system) == 202, "the limit is gone")


def test_an_account_without_quota_fails_what_insists_and_closes_the_way(
    system: Any, provider: StandIn, wait_until: Callable[..., None]
) -> None:
    quota = {"error": {"message": "pay", "type": "insufficient_quota", "param": None, "code": "insufficient_quota"}}
    provider.script += [(429, quota)]
    job = system.ended(system.submit(prompt="no money there", overflow="only"))

    assert (job["status"], job["error"]["code"]) == ("failed", "engine_unavailable")
    assert Decimal(job["cost"]["usd"]) == 0
    wait_until(lambda: asked(system) == 503, "overflow is closed")
    wait_until(lambda: asked(system) == 202, "and open to a probe")
    wait_until(lambda: system.ended(system.submit(**ONLY))["status"] == "succeeded", "the probe has closed the breaker")


def test_a_job_that_its_own_pool_would_let_expire_is_answered_by_the_paid_api(
    start: Callable[..., Any], provider: StandIn
) -> None:
    system = start("--without", "gpu", paid_api=provider.url)
    response = system.http.post("/v1/jobs", json={"prompt": "nobody is here", "max_wait": 7})
    assert response.json()["queue"] == "chat.normal"
    job = system.ended(response.json()["id"])

    assert (job["status"], job["text"], job["queue"]) == ("succeeded", "echo: nobody is here", "overflow.normal")
    assert system.paid([job["id"]]) == [("api", 1)]
    system.stack.stop()
