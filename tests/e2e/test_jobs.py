"""What an app sees of a running system: answers, prices, webhooks, refusals, through HTTP and the unchanged SDK."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import httpx2
import openai
import pytest
from openai import OpenAI

from headrace.domain.ids import parse_id
from headrace.stack.loopback import Receiver

#: Tokens of an answer that is not cut.
WHOLE = 40
LOW_CAP = 5
#: The engine's batch.
ENGINE_HOLDS = 4


@pytest.fixture(scope="module")
def system(start: Callable[..., Any]) -> Any:
    """Four answers at once, of 40 tokens in 2 s where the job allows it."""
    return start(
        also=["webhooks"],
        simulator__output_tokens=str(WHOLE),
        simulator__decode_tokens_per_s="20",
        lease_renew_every_s="0.2",
        pools__chat__max_running=str(ENGINE_HOLDS),
        lanes__low__depth_cap=str(LOW_CAP),
        sample_every_s="0.5",
    )


@pytest.fixture
def sdk(system: Any) -> Iterator[OpenAI]:
    report = system.stack.report
    url, key = f"{report.url}/v1", report.api_key
    with OpenAI(api_key=key, base_url=url, _strict_response_validation=True, max_retries=0) as client:
        yield client


def test_a_job_is_answered_priced_and_announced(system: Any, receiver: Receiver, sdk: OpenAI) -> None:
    job_id = system.submit(webhook=receiver.url)
    job = system.ended(job_id)
    assert (job["status"], job["engine"], job["attempts"]) == ("succeeded", "simulator", 1)
    assert job["text"].startswith("[simulated] ")
    assert job["usage"]["output_tokens"] == WHOLE

    [entry] = system.sql("SELECT * FROM ledger WHERE job_id = %s", parse_id(job_id))
    assert (entry["kind"], entry["attempt"], entry["output_tokens"]) == ("compute", 1, WHOLE)
    # headrace.toml: 0.05 USD for 1,000,000 tokens of a prompt, 0.20 for those of an answer.
    prompt_tokens = job["usage"]["prompt_tokens"]
    assert entry["usd"] == (prompt_tokens * Decimal("0.05") + WHOLE * Decimal("0.20")) / 1_000_000 > 0
    assert Decimal(job["cost"]["usd"]) == entry["usd"]
    [view] = system.sql("SELECT usd FROM cost_per_request WHERE job_id = %s", parse_id(job_id))
    assert view["usd"] == entry["usd"]

    [webhook] = receiver.wait_for(1, 30)
    [app] = system.sql("SELECT webhook_secret FROM apps WHERE name = 'development'")
    event = sdk.webhooks.unwrap(webhook.body, webhook.headers, secret=app["webhook_secret"])
    assert event.type == "response.completed"
    assert event.data.id == job_id.replace("job_", "resp_")
    assert sdk.responses.retrieve(event.data.id).output_text == job["text"]
    with pytest.raises(openai.InvalidWebhookSignatureError):
        sdk.webhooks.unwrap(webhook.body + " ", webhook.headers, secret=app["webhook_secret"])


def test_what_a_worker_does_is_sampled_and_served(system: Any, wait_until: Callable[..., None]) -> None:
    query = "SELECT coalesce(sum(output_tokens), 0) AS tokens FROM worker_samples"
    before = system.sql(query)[0]["tokens"]
    system.ended(system.submit())
    wait_until(lambda: system.sql(query)[0]["tokens"] >= before + WHOLE, "its tokens are in the samples", 10)

    [busiest] = system.sql("SELECT * FROM worker_samples ORDER BY output_tokens DESC, id LIMIT 1")
    assert busiest["worker_id"] in {row["id"] for row in system.sql("SELECT id FROM workers")}
    assert (busiest["pool"], busiest["waiting"], busiest["preemptions"]) == ("chat", 0, 0)
    assert busiest["interval_s"] > 0.4
    assert busiest["running"] >= 1
    assert 0 < busiest["kv_use"] < 0.1
    assert 0 <= busiest["kv_reserved"] < 0.1

    text = httpx2.get(system.stack.report.metrics_urls["gpu"]).text
    served = {line.split()[0]: float(line.split()[1]) for line in text.splitlines() if line.startswith("headrace_")}
    assert served['headrace_worker_ready{pool="chat"}'] == 1
    assert served['headrace_output_tokens_total{pool="chat"}'] >= WHOLE


def test_the_sdk_creates_a_response_and_retrieves_it_until_it_is_there(sdk: OpenAI) -> None:
    model = next(iter(sdk.models.list())).id
    made = sdk.responses.create(model=model, input="What is a weir?", background=True)
    assert made.status in ("queued", "in_progress")
    while made.status in ("queued", "in_progress"):
        made = sdk.responses.retrieve(made.id, extra_query={"wait": "20"})
    assert made.status == "completed"
    assert made.output_text.startswith("[simulated] ")


def test_the_sdk_cancels_a_response_that_runs(system: Any, sdk: OpenAI, wait_until: Callable[..., None]) -> None:
    made = sdk.responses.create(input="Count to a million.", background=True)
    wait_until(lambda: sdk.responses.retrieve(made.id).status == "in_progress", "it runs")
    sdk.responses.cancel(made.id)
    wait_until(lambda: sdk.responses.retrieve(made.id).status == "cancelled", "it is cancelled")
    [entry] = system.sql("SELECT kind, output_tokens FROM ledger WHERE job_id = %s", parse_id(made.id))
    assert entry["kind"] == "compute"
    assert 0 <= entry["output_tokens"] < WHOLE


def test_a_full_lane_refuses_what_exceeds_its_cap(system: Any, wait_until: Callable[..., None]) -> None:
    busy = system.submit_many(ENGINE_HOLDS)
    wait_until(lambda: system.count("running") == ENGINE_HOLDS, "the engine is busy")
    body = {"prompt": "One more?", "lane": "low", "max_tokens": 1}
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda _: system.http.post("/v1/jobs", json=body), range(16)))
    refused = [answer for answer in answers if answer.status_code == 429]
    accepted = [answer.json()["id"] for answer in answers if answer.status_code == 202]
    assert (len(accepted), len(refused)) == (LOW_CAP, 16 - LOW_CAP)
    for answer in refused:
        # A machine that starts few jobs a minute says that a retry is of no use soon.
        is_too_long = answer.headers.get("x-should-retry") == "false"
        assert is_too_long or 1 <= int(answer.headers["Retry-After"]) <= 120
        error = answer.json()["error"]
        assert error["code"] == "queue_full"
        assert str(LOW_CAP) in error["message"]
    assert {job["status"] for job in system.all_ended([*busy, *accepted])} == {"succeeded"}
    query = "SELECT coalesce(sum(jobs), 0) AS jobs FROM refusals WHERE queue = 'chat.low'"
    wait_until(lambda: system.sql(query)[0]["jobs"] == len(refused), "the refusals are counted", 10)
