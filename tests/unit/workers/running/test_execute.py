from dataclasses import replace

import pytest

from headrace.domain.attempts import Claim
from headrace.domain.queues import Overflow, Route
from headrace.policies.overflow import Objection
from tests.unit.workers.running import claims
from workers.running.execute import next_queue

CLAIM = replace(claims.CLAIM, pool="mini", model="gpt-4o-mini", route=Route.OVERFLOW)
BROKE = Objection("budget_exceeded", "No money: none is left.")


def test_a_job_with_a_pool_of_ours_goes_back_there_at_once() -> None:
    reroute = next_queue(CLAIM, BROKE, paid_pools=())

    assert reroute is not None
    assert (reroute.queue, reroute.route, reroute.delay_s) == ("mini.low", Route.POOL, 0)


def test_a_job_without_one_waits_for_the_paid_api_longer_each_time() -> None:
    found = [next_queue(replace(CLAIM, enqueue_no=no), BROKE, ["mini"]) for no in (1, 2, 3, 10_000)]

    assert [reroute and (reroute.queue, reroute.route) for reroute in found] == [("overflow.low", Route.OVERFLOW)] * 4
    assert [reroute and reroute.delay_s for reroute in found] == [2, 4, 8, 60]
    later = next_queue(CLAIM, BROKE, ["mini"], 0.25)
    assert later is not None
    assert later.delay_s == 2.5


@pytest.mark.parametrize("code", ["budget_exceeded", "overflow_unavailable", "engine_unavailable"])
def test_it_waits_for_what_may_pass(code: str) -> None:
    assert next_queue(CLAIM, Objection(code, "Not now."), ["mini"]) is not None


@pytest.mark.parametrize(
    ("claim", "objection"),
    [
        (replace(CLAIM, overflow=Overflow.ONLY), BROKE),
        (replace(CLAIM, attempt=2), BROKE),
        (CLAIM, Objection("too_dear", "It may cost more.")),
        (CLAIM, Objection("unknown_price", "No price is listed.")),
    ],
    ids=["insists", "has started", "too dear", "no price"],
)
def test_a_job_whose_wait_would_be_for_nothing_or_for_ever_has_failed(claim: Claim, objection: Objection) -> None:
    assert next_queue(claim, objection, ["mini"]) is None
