"""A cascade on real processes: the small pool answers first, and a bad answer is made again by a better one."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from headrace.domain.ids import parse_id
from headrace.stack.loopback import Receiver
from tests.contracts.conftest import StandIn
from workers.engines.simulator.answer import REFUSAL

SETTINGS = """
[pools.chat]
model = "large"

[pools.fast]
model = "small"
cache_s = 600
single_flight = true

[pools.idle]
model = "nobody"

[pools.paid]
model = "gpt-4o"
engine = "openai"

[prices."gpt-4o"]
input_usd_per_mtok = "2.5"
output_usd_per_mtok = "10"
version = "test"
source = "test"

[overflow.models]
gpt-4o = "gpt-4o"

[rules.paid]
tasks = ["paid"]
pools = ["fast", "paid"]
cascade = true

[rules.lost]
tasks = ["lost"]
pools = ["fast", "idle"]
cascade = true
escalation_wait_s = 1

[rules.watched]
tasks = ["watched"]
pools = ["fast", "chat"]
shadow_share = 1

[rules.all]
pools = ["fast", "chat"]
cascade = true
min_logprob = -2

[simulator]
decode_tokens_per_s = 2000
output_tokens = 40
declines = "hemlock"
unsure = "maybe"
"""
DECLINED = "How much hemlock?"


@pytest.fixture(scope="module")
def provider() -> Iterator[StandIn]:
    server = StandIn()
    yield server
    server.close()


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("settings") / "headrace.toml"
    path.write_text(SETTINGS)
    return path


@pytest.fixture(scope="module")
def system(start: Callable[..., Any], config: Path, provider: StandIn) -> Any:
    return start("--without", "gpu-idle", config=str(config), drain_s="1", paid_api=provider.url)


@pytest.fixture
def client(system: Any) -> Iterator[openai.OpenAI]:
    report = system.stack.report
    with openai.OpenAI(base_url=f"{report.url}/v1", api_key=report.api_key, max_retries=0) as client:
        yield client


def ask(system: Any, prompt: str, **fields: Any) -> dict[str, Any]:
    """A job of the model `auto` once it has ended."""
    job: dict[str, Any] = system.ended(system.submit(prompt=prompt, model="auto", **fields))
    assert job["status"] == "succeeded", job
    return job


def entries(system: Any, job: dict[str, Any]) -> list[tuple[str, str | None, str]]:
    rows = system.sql("SELECT kind, reason, pool FROM ledger WHERE job_id = %s ORDER BY id", parse_id(job["id"]))
    return [tuple(row.values()) for row in rows]


@pytest.mark.parametrize(
    ("fields", "signal"),
    [
        ({"prompt": DECLINED}, "refusal"),
        ({"prompt": "Is it so, maybe?"}, "logprob"),
        ({"prompt": "Say a lot.", "max_tokens": 5}, "length"),
        ({"prompt": "As JSON, please.", "response_format": {"type": "json_object"}, "stop": ["}"]}, "format"),
    ],
    ids=str,
)
def test_a_bad_answer_is_made_again_by_the_next_pool(system: Any, fields: dict[str, Any], signal: str) -> None:
    job = ask(system, **fields)

    assert (job["model_served"], job["attempts"]) == ("simulator of large", 2)
    assert entries(system, job) == [("waste", "escalated", "fast"), ("compute", None, "chat")]
    assert job["logprobs"] is None
    judged = system.sql("SELECT escalated_by FROM attempts WHERE job_id = %s ORDER BY number", parse_id(job["id"]))
    assert [row["escalated_by"] for row in judged] == [signal, None]


def test_a_good_answer_of_the_small_pool_is_given(system: Any) -> None:
    job = ask(system, "Is it so?")
    assert (job["model_served"], job["attempts"]) == ("simulator of small", 1)
    assert entries(system, job) == [("compute", None, "fast")]


def test_a_caller_who_waits_and_one_who_streams_get_the_better_answer(system: Any, client: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": DECLINED}]
    waited = client.chat.completions.create(model="auto", messages=messages)
    assert waited.model == "large"
    streamed = list(client.chat.completions.create(model="auto", messages=messages, stream=True))
    assert {chunk.model for chunk in streamed} == {"large"}
    rows = system.sql("SELECT attempt, route_reason FROM jobs WHERE id = %s", parse_id(streamed[0].id))
    assert [tuple(row.values()) for row in rows] == [(1, "rule 'all': chat, for a stream; own pool")]


def test_high_quality_skips_the_small_pool(system: Any, client: openai.OpenAI) -> None:
    assert ask(system, "Is it so?", quality="high")["model_served"] == "simulator of large"
    options = {"job": {"quality": "high"}}
    response = client.responses.create(model="auto", input="Is it so?", background=True, extra_body=options)
    assert system.ended(response.id)["model_served"] == "simulator of large"
    refused = system.http.post("/v1/jobs", json={"prompt": "x", "model": "small", "quality": "high"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "quality")


def test_the_better_answer_is_what_is_cached_and_for_the_cascade_alone(system: Any) -> None:
    same = {"prompt": f"{DECLINED} Again.", "seed": 7}
    first, hit = ask(system, **same), ask(system, **same)

    assert (first["model_served"], hit["model_served"], hit["cache"]) == (*["simulator of large"] * 2, "hit")
    assert (hit["served_by"], entries(system, hit)) == (first["id"], [("cache", None, "fast")])
    of_small = system.ended(system.submit(model="small", **same))
    assert (of_small["cache"], of_small["model_served"]) == ("miss", "simulator of small")


def test_jobs_that_come_together_share_the_escalation(system: Any) -> None:
    same = {"prompt": f"{DECLINED} Together.", "seed": 8, "model": "auto"}
    jobs = system.all_ended([system.submit(**same) for _ in range(5)])
    assert {job["model_served"] for job in jobs} == {"simulator of large"}
    made = [job for job in jobs if job["attempts"]]
    assert len(made) == 1
    assert entries(system, made[0]) == [("waste", "escalated", "fast"), ("compute", None, "chat")]


def test_the_paid_api_may_be_the_better_pool(system: Any, provider: StandIn) -> None:
    job = ask(system, DECLINED, metadata={"task": "paid"})

    assert (job["text"], job["queue"]) == (f"echo: {DECLINED}", "overflow.normal")
    assert entries(system, job) == [("waste", "escalated", "fast"), ("api", None, "paid")]
    [account] = system.sql("SELECT reserved_usd FROM budgets WHERE app_id IS NULL AND period = 'month'")
    assert account["reserved_usd"] == 0


def test_without_the_money_for_it_the_first_answer_is_given_and_billed(system: Any, receiver: Receiver) -> None:
    job = ask(system, DECLINED, metadata={"task": "paid"}, max_cost_usd=0.000001, webhook=receiver.url)

    assert job["text"].endswith(REFUSAL)
    assert (job["model_served"], job["queue"]) == ("simulator of small", "fast.normal")
    found = entries(system, job)
    assert sorted(found, key=str) == sorted(
        [("waste", "escalated", "fast"), ("waste", "kept", "fast"), ("compute", None, "fast"), ("waste", None, "paid")],
        key=str,
    )
    [row] = system.sql("SELECT route_reason FROM jobs WHERE id = %s", parse_id(job["id"]))
    assert row["route_reason"] == "rule 'paid': the answer of fast stands: too_dear"
    assert system.paid([job["id"]]) == [("compute", 1)]


def test_a_job_that_must_not_leave_is_not_sent_to_the_paid_api(system: Any) -> None:
    job = ask(system, DECLINED, metadata={"task": "paid"}, overflow="never")
    assert entries(system, job) == [("compute", None, "fast")]


def test_where_the_better_pool_has_no_workers_the_first_answer_is_given(system: Any) -> None:
    job = ask(system, DECLINED, metadata={"task": "lost"})
    assert (job["model_served"], job["queue"]) == ("simulator of small", "fast.normal")
    assert entries(system, job) == [
        ("waste", "escalated", "fast"),
        ("waste", "kept", "fast"),
        ("compute", None, "fast"),
    ]


def test_a_repeat_under_its_key_finds_the_escalated_job(system: Any) -> None:
    headers = {"Idempotency-Key": "cascade-1"}
    body = {"prompt": DECLINED, "model": "auto", "max_wait": 300}
    ids = set()
    for _ in range(2):
        ids.add(system.http.post("/v1/jobs", json=body, headers=headers).json()["id"])
        system.ended(next(iter(ids)))
    assert len(ids) == 1


def test_a_shadow_runs_in_the_other_pool_and_its_agreement_is_counted(
    system: Any, wait_until: Callable[..., None]
) -> None:
    job = ask(system, "Is it so?", metadata={"task": "watched"})

    def row() -> dict[str, Any]:
        [found] = system.sql("SELECT * FROM routing_per_day WHERE task = 'watched'")
        return dict(found)

    wait_until(lambda: row()["compared"] == 1, "a compared shadow")
    assert (row()["jobs"], row()["agreed"], row()["waste_usd"]) == (1, 1, 0)
    assert row()["shadow_usd"] > 0
    pools = {"fast", "chat"}
    ran = system.sql("SELECT pool FROM jobs WHERE id = %s OR shadow_of = %s", *[parse_id(job["id"])] * 2)
    assert {each["pool"] for each in ran} == pools
    assert job["id"] in {each["id"] for each in system.http.get("/v1/jobs", params={"limit": 100}).json()["data"]}
    assert len(entries(system, job)) == 1


def test_the_view_has_the_escalations_of_each_rule(system: Any) -> None:
    ask(system, DECLINED, metadata={"task": "seen"})
    [row] = system.sql("SELECT * FROM routing_per_day WHERE task = 'seen'")
    assert (row["rule"], row["jobs"], row["escalated"], row["by_refusal"], row["kept"]) == ("all", 1, 1, 1, 0)
    assert row["usd"] > 0
    assert row["waste_usd"] > 0
