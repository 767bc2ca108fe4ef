"""Lines of a batch at a provider's batch tier, by the unchanged SDK, while the worker that sent them is killed."""

import io
import json
from collections import Counter
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import openai
import pytest

from plugins.batches.tests.batch_provider import BatchProvider
from plugins.batches.tests.e2e.test_batches import results
from tests.contracts.conftest import StandIn

LINES = 60
PRICE = {
    **{"input_usd_per_mtok": "0.15", "output_usd_per_mtok": "0.60", "tiers": {"batch": "0.5"}},
    **{"version": "test", "source": "test"},
}
SETTINGS = {
    "batches__provider_tier": "true",
    "batches__provider_poll_s": "0.5",
    "prices": json.dumps({"gpt-4o-mini": PRICE}),
    "budgets__day_usd": "1",
    "batches__lease_s": "2",
}


@pytest.fixture
def provider() -> Iterator[BatchProvider]:
    server = StandIn()
    provider = BatchProvider(url=server.url)
    server.also = provider.answer
    yield provider
    server.close()


def file_of(lines: int) -> bytes:
    """Its last line asks for what no provider takes."""
    bodies: list[dict[str, Any]] = [
        {"messages": [{"role": "user", "content": f"Number {no}?"}], "max_tokens": 8} for no in range(lines)
    ]
    bodies[-1]["temperature"] = 9
    url = "/v1/chat/completions"
    made = [{"custom_id": f"line-{no}", "method": "POST", "url": url, "body": body} for no, body in enumerate(bodies)]
    return "\n".join(map(json.dumps, made)).encode()


def test_a_day_of_time_costs_half_and_each_line_is_answered_and_paid_once(
    start: Callable[..., Any], provider: BatchProvider, wait_until: Callable[..., None]
) -> None:
    system = start(also=["plugins"], paid_api=provider.url, **SETTINGS)
    report = system.stack.report
    client = openai.OpenAI(base_url=f"{report.url}/v1", api_key=report.api_key)
    provider.is_held, provider.faults = True, {"drops", "unknown", "bills_more"}
    upload = client.files.create(file=("lines.jsonl", io.BytesIO(file_of(LINES))), purpose="batch")
    batch = client.batches.create(
        input_file_id=upload.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        extra_body={"job": {"overflow": "only"}},
    )

    wait_until(lambda: system.count("running") == LINES - 1, "all good lines are at the provider")
    pid = system.stack.kill("overflow")
    system.restarted("overflow", pid)
    provider.is_held = False
    wait_until(lambda: client.batches.retrieve(batch.id).status == "completed", "the end of the batch")

    last = client.batches.retrieve(batch.id)
    answered, refused = results(client, last.output_file_id), results(client, last.error_file_id)
    client.close()
    assert Counter(each["custom_id"] for each in answered + refused) == {f"line-{no}": 1 for no in range(LINES)}
    assert [each["custom_id"] for each in refused] == [f"line-{LINES - 1}"]
    texts = {each["custom_id"]: each["response"]["body"]["choices"][0]["message"]["content"] for each in answered}
    assert texts == {f"line-{no}": f"echo: Number {no}?" for no in range(LINES - 1)}
    assert provider.calls.count("POST /v1/batches") == 1
    assert not provider.files

    # One line that the provider left out was answered by a call of its own, at the full price.
    entries = system.sql("SELECT kind, price_version, count(*) AS number, sum(usd) AS usd FROM ledger GROUP BY 1, 2")
    found = {(each["kind"], each["price_version"]): each for each in entries}
    assert {key: each["number"] for key, each in found.items()} == {
        ("api", "test/batch"): LINES - 2,
        ("api", "test"): 1,
        ("waste", "test/batch"): 1,
    }
    prompt_tokens, output_tokens = provider.billed
    billed_usd = (prompt_tokens * Decimal("0.15") + output_tokens * Decimal("0.60")) / 2 / 1_000_000
    assert found["api", "test/batch"]["usd"] + found["waste", "test/batch"]["usd"] == billed_usd
    wait_until(lambda: system.sql("SELECT state FROM provider_batches")[0]["state"] == "ended", "its end")
    accounts = system.sql("SELECT DISTINCT reserved_usd, spent_usd FROM budgets WHERE app_id IS NULL")
    assert [tuple(each.values()) for each in accounts] == [(0, sum(each["usd"] for each in entries))]
    charged = Decimal(last.model_dump()["job"]["usd"])
    assert charged == found["api", "test/batch"]["usd"] + found["api", "test"]["usd"]
    [jobs] = system.sql(
        "SELECT count(*) AS jobs FROM jobs WHERE notes->>'batches' = %s AND state = 'succeeded'",
        batch.id,
    )
    assert jobs["jobs"] == LINES - 1
