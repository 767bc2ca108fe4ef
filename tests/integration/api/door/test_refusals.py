"""Refused jobs are counted once each, whichever limit refused them."""

from collections.abc import Callable
from typing import Any

from headrace.config import Settings
from headrace.domain.fleet import WorkerInfo
from headrace.domain.ids import new_id
from headrace.store.fleet import workers
from tests.waiting import until
from tests.web import ApiClient, Web


def test_a_job_without_money_has_its_row_among_the_refusals(
    build_web: Callable[..., Web], client_of: Any, key: str, query: Callable[..., Any], settings: Settings
) -> None:
    paid_alone = {"chat": settings.pools["chat"].model_copy(update={"engine": "openai", "drain_jobs_per_s": 0.0})}
    client: ApiClient = client_of(key, build_web(openai_api_key="sk-test", pools=paid_alone))
    with client.web.deps.store.begin() as db:
        workers.register(db, WorkerInfo(new_id(), "overflow@test", "h", "overflow", "openai", "gpt-4o-mini", 8), 600)

    refused = [client.post("/v1/jobs", json={"prompt": str(number), "max_tokens": 16}) for number in range(3)]

    assert [each.get_json()["error"]["code"] for each in refused] == ["budget_exceeded"] * 3
    counted = "SELECT queue, reason, is_repeat, sum(jobs) FROM refusals GROUP BY 1, 2, 3"
    until(lambda: query(counted) == [("overflow.normal", "budget", False, 3)], "the process has written its counts", 15)
