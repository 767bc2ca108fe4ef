"""Two pools with workers of their own: each answers its own jobs, and a full one does not slow the other."""

from collections.abc import Callable
from typing import Any

import openai
import pytest

from headrace.domain.ids import parse_id

#: The simulator writes 50 tokens a second, so that a long answer runs for 4 s: longer than the goal.
SETTINGS = """
observe_every_s = 1

[pools.chat]
model = "large"
max_running = 2

[pools.fast]
model = "small"
max_running = 4
latency_goal_s = 3
[pools.fast.lanes.normal]
depth_cap = 3

[rules.short]
tasks = ["classify"]
max_output_tokens = 50
pools = ["fast"]

[simulator]
decode_tokens_per_s = 50
output_tokens = 200
"""
BATCH_JOBS, ASKED = 80, 6
ANSWER_TOKENS = 10
LONG_TOKENS = 2000


@pytest.fixture(scope="module")
def system(start: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("settings") / "headrace.toml"
    path.write_text(SETTINGS)
    return start(config=str(path), drain_s="1")


@pytest.fixture
def client(system: Any) -> Any:
    report = system.stack.report
    with openai.OpenAI(base_url=f"{report.url}/v1", api_key=report.api_key, max_retries=0) as client:
        yield client


def ask(client: Any, max_tokens: int = ANSWER_TOKENS) -> Any:
    """Ask the fast pool, and wait for the answer."""
    messages = [{"role": "user", "content": "hello there"}]
    return client.chat.completions.create(model="small", messages=messages, max_tokens=max_tokens)


def pools_of_workers(system: Any, job_ids: list[str]) -> set[str]:
    """The pools of the workers that ran these jobs."""
    query = "SELECT w.pool FROM attempts a JOIN workers w ON w.id = a.worker_id WHERE a.job_id = ANY(%s)"
    return {row["pool"] for row in system.sql(query, [parse_id(job_id) for job_id in job_ids])}


def test_each_pool_has_a_worker_and_lanes_of_its_own(system: Any) -> None:
    assert {"gpu", "gpu-fast"} <= system.stack.processes.keys()
    assert {"gpu", "gpu-fast"} <= system.stack.report.metrics_urls.keys()
    nodes = system.sql("SELECT pool, split_part(name, '@', 1) AS node, engine FROM workers ORDER BY pool")
    assert [tuple(row.values()) for row in nodes] == [("chat", "gpu", "simulator"), ("fast", "gpu-fast", "simulator")]

    queues = {queue["queue"]: queue for queue in system.http.get("/v1/queues").json()["data"]}
    assert [queues[name]["depth_cap"] for name in ("chat.normal", "fast.normal", "fast.high")] == [500, 3, 500]
    assert [queues[name]["latency_goal_s"] for name in ("chat.normal", "fast.normal")] == [None, 3]
    assert [queues[name]["interactive_max_wait_s"] for name in ("chat.high", "fast.high")] == [30, 3]
    assert [queues[name]["slots"] for name in ("chat.high", "fast.high")] == [2, 4]


def test_what_would_miss_the_fast_pool_s_goal_is_refused_at_once(
    system: Any, client: Any, wait_until: Callable[..., None]
) -> None:
    refusals: list[openai.RateLimitError] = []

    def is_refused() -> bool:
        ask(client)
        try:
            ask(client, LONG_TOKENS)
        except openai.RateLimitError as error:
            refusals.append(error)
        return bool(refusals)

    wait_until(is_refused, "a learned run time")

    [error] = refusals
    assert (error.code, error.body["reason"]) == ("latency_goal_missed", "latency_goal")
    assert error.response.headers["x-should-retry"] == "false"
    # In the background it may take its time.
    assert system.ended(system.submit(model="small", max_tokens=LONG_TOKENS))["status"] == "succeeded"


def test_the_rules_choose_the_pool_of_a_job_that_leaves_the_model_open(system: Any, client: Any) -> None:
    assert [model.id for model in client.models.list()] == ["large", "small", "auto"]
    easy = system.submit(model="auto", metadata={"task": "classify"}, max_tokens=ANSWER_TOKENS)
    others = [
        system.submit(model="auto", max_tokens=5),
        system.submit(model="auto", max_tokens=5, metadata={"task": "x"}),
    ]
    system.all_ended([easy, *others])

    assert pools_of_workers(system, [easy]) == {"fast"}
    assert pools_of_workers(system, others) == {"chat"}
    rows = system.sql("SELECT pool, route_reason FROM jobs WHERE id = ANY(%s)", [parse_id(easy), parse_id(others[0])])
    assert {row["pool"]: row["route_reason"] for row in rows} == {
        "fast": "rule 'short': fast has free slots; own pool",
        "chat": "no rule matches: chat; own pool",
    }


def test_a_pool_without_workers_leaves_the_other_alone(system: Any, client: Any) -> None:
    old = system.stack.kill("gpu")
    assert ask(client).choices[0].message.content
    system.restarted("gpu", old)
    assert system.ended(system.submit(model="large", max_tokens=5))["status"] == "succeeded"


def test_callers_of_the_fast_pool_do_not_wait_for_a_batch_of_the_other(
    system: Any, client: Any, wait_until: Callable[..., None]
) -> None:
    batch = system.submit_many(BATCH_JOBS, model="large", lane="batch", max_tokens=200, max_wait=3600)
    wait_until(lambda: system.count("running") >= 2, "a saturated pool")

    answers = [ask(client) for _ in range(ASKED)]

    assert system.count("queued") >= 1, "the other pool was saturated all the time"
    ids = [parse_id(answer.id) for answer in answers]
    asked = system.sql("SELECT extract(epoch FROM started_at - created_at) AS s FROM jobs WHERE id = ANY(%s)", ids)
    assert len(asked) == ASKED
    assert max(row["s"] for row in asked) < 2
    assert pools_of_workers(system, [answer.id for answer in answers]) == {"fast"}
    assert pools_of_workers(system, batch) == {"chat"}
