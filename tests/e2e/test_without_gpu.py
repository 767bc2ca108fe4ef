"""No GPU, no model on disk: every job is answered by the paid API, through the same HTTP API and the unchanged SDK."""

import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from headrace.domain.ids import parse_id
from headrace.errors import StackError
from headrace.policies.webhooks import new_secret
from headrace.stack.loopback import Receiver
from headrace.stack.stack import Stack
from tests.contracts.conftest import StandIn

SETTINGS = """
[pools.chat]
engine = "openai"
model = "gpt-4o-mini"

[prices."gpt-4o-mini"]
input_usd_per_mtok = "0.15"
output_usd_per_mtok = "0.60"
version = "test"
source = "test"
"""
MODEL = "gpt-4o-mini"
SECRET = new_secret()
ASKED: Any = [{"role": "user", "content": "hello there"}]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("settings") / "headrace.toml"
    path.write_text(SETTINGS)
    return path


@pytest.fixture(scope="module")
def provider() -> Iterator[StandIn]:
    server = StandIn()
    yield server
    server.close()


@pytest.fixture(scope="module")
def operator() -> Iterator[Receiver]:
    """Gets the operator's webhooks."""
    with Receiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def system(start: Callable[..., Any], provider: StandIn, operator: Receiver, config: Path) -> Any:
    # Whoever looked for the model at the hub would not find it there.
    nowhere = "http://127.0.0.1:1"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", nowhere)
        return start(
            also=["webhooks"],
            engine="",
            paid_api=provider.url,
            config=str(config),
            budgets__webhook_url=operator.url,
            budgets__webhook_secret=SECRET,
        )


@pytest.fixture
def client(system: Any) -> Iterator[openai.OpenAI]:
    report = system.stack.report
    with openai.OpenAI(base_url=f"{report.url}/v1", api_key=report.api_key, max_retries=0) as client:
        yield client


def test_no_process_for_a_gpu_runs(system: Any, processes: Any) -> None:
    assert system.stack.report.left_out["gpu"] == "the paid API alone answers pool 'chat'"
    assert "gpu" not in system.stack.processes
    assert not [line for line in processes.tree(system.stack.pid).values() if "gpu" in line or "vllm" in line]
    assert system.sql("SELECT DISTINCT pool, engine FROM workers") == [{"pool": "overflow", "engine": "openai"}]


def test_a_chat_is_streamed_through_the_sdk_and_billed_as_the_paid_api_s(
    client: openai.OpenAI, system: Any, wait_until: Callable[..., None]
) -> None:
    answer = client.chat.completions.with_raw_response.create(model=MODEL, messages=ASKED, stream=True)
    job_id = answer.headers["x-job-id"]
    with answer.parse() as chunks:
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)

    assert text == "echo: hello there"
    assert system.paid([job_id]) == [("api", 1)]
    [job] = system.sql("SELECT queue, route, model_served, prompt_tokens FROM jobs WHERE id = %s", parse_id(job_id))
    # The provider counts two words; how many tokens they were taken for is forgotten.
    served = {"model_served": "gpt-4o-mini-2024-07-18", "prompt_tokens": 2}
    assert job == {"queue": "overflow.normal", "route": "overflow", **served}


def test_a_job_in_any_lane_and_the_default_model(system: Any) -> None:
    ended = system.all_ended([system.submit(prompt=lane, lane=lane) for lane in ("high", "normal", "low", "batch")])

    assert [(job["status"], job["queue"], job["text"]) for job in ended] == [
        ("succeeded", f"overflow.{lane}", f"echo: {lane}") for lane in ("high", "normal", "low", "batch")
    ]


def test_the_model_is_listed_and_only_its_queues_are_shown(client: openai.OpenAI, system: Any) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]
    pools = {queue["pool"] for queue in system.http.get("/v1/queues").json()["data"]}
    assert pools == {"overflow"}


def test_a_job_that_must_not_leave_is_refused_by_its_field(client: openai.OpenAI, system: Any) -> None:
    error = system.http.post("/v1/jobs", json={"prompt": "x", "overflow": "never"}).json()["error"]
    assert (error["param"], error["code"]) == ("overflow", "invalid_value")
    with pytest.raises(openai.BadRequestError, match="the paid API alone") as raised:
        client.responses.create(model=MODEL, input="x", extra_body={"job": {"overflow": "never"}})
    assert raised.value.param == "job.overflow"


def test_a_job_waits_while_the_api_has_locked_us_out_and_new_ones_are_told_to_come_back(
    system: Any, provider: StandIn, wait_until: Callable[..., None]
) -> None:
    quota = {"error": {"message": "pay", "type": "insufficient_quota", "param": None, "code": "insufficient_quota"}}
    provider.script += [(429, quota)]
    job_id = system.submit(prompt="patience")

    def status() -> int:
        return int(system.http.post("/v1/jobs", json={"prompt": "are you there?"}).status_code)

    wait_until(lambda: status() == 503, "the door reports that no worker can answer")
    assert system.http.post("/v1/jobs", json={"prompt": "x"}).json()["error"]["code"] == "overflow_unavailable"
    job = system.ended(job_id)
    assert (job["status"], job["attempts"], job["queue"]) == ("succeeded", 1, "overflow.normal")
    assert system.bills([job_id]) == [("api", 1)]


def test_a_budget_that_comes_to_its_end_is_told_to_the_operator_once(
    system: Any, operator: Receiver, wait_until: Callable[..., None]
) -> None:
    system.ended(system.submit())
    open_jobs = "SELECT id FROM jobs WHERE state IN ('waiting', 'queued', 'running')"
    wait_until(lambda: not system.sql(open_jobs), "nothing is reserved any more")
    [app] = system.sql(
        "SELECT a.name, b.spent_usd FROM budgets b JOIN apps a ON a.id = b.app_id WHERE b.period = 'day'"
    )
    told: list[Any] = []
    for number, limit_usd in enumerate((app["spent_usd"] * Decimal("1.2"), app["spent_usd"]), start=1):
        system.sql("UPDATE apps SET day_usd = %s RETURNING id", limit_usd)
        told = operator.wait_for(number, 30)

    assert len(told) == 2
    assert all(webhook.is_signed_with(SECRET) for webhook in told)
    events = [json.loads(webhook.body) for webhook in told]
    assert {event["type"] for event in events} == {"budget.threshold_reached"}
    assert [(each["data"]["app"], each["data"]["period"], each["data"]["threshold_percent"]) for each in events] == [
        (app["name"], "day", 80),
        (app["name"], "day", 100),
    ]
    page = httpx2.get(system.stack.report.metrics_urls["control"]).text
    assert f'headrace_budget_used_ratio{{app="{app["name"]}",period="day"}} 1.0' in page
    assert '"budget_used"' in (system.stack.state_dir / "logs" / "control.log").read_text()


def test_without_money_a_job_is_refused_at_the_door(system: Any, wait_until: Callable[..., None]) -> None:
    def asked() -> Any:
        return system.http.post("/v1/jobs", json={"prompt": "hello"})

    system.sql("UPDATE apps SET day_usd = 0 RETURNING id")
    wait_until(lambda: asked().status_code == 429, "the limit is known")
    assert asked().json()["error"]["code"] == "budget_exceeded"
    system.sql("UPDATE apps SET day_usd = NULL RETURNING id")
    wait_until(lambda: asked().status_code == 202, "the limit is gone")


def test_no_hosts_are_ordered(system: Any, wait_until: Callable[..., None]) -> None:
    wait_until(lambda: system.sql("SELECT 1 FROM queue_samples LIMIT 1"), "the queues are observed")
    assert system.sql("SELECT DISTINCT split_part(queue, '.', 1) AS pool FROM queue_samples") == [{"pool": "overflow"}]
    assert system.sql("SELECT * FROM decisions") == []


def test_without_a_key_nothing_starts_and_the_reason_is_named(config: Path, tmp_path: Path) -> None:
    told: list[str] = []
    env = {"OPENAI_API_KEY": "", "HEADRACE_CONFIG": str(config)}
    with pytest.raises(StackError):
        Stack(tmp_path, env=env, say=told.append).start()
    told += (tmp_path / "logs" / "up.log").read_text().splitlines()
    assert any("pool 'chat'" in line and "set OPENAI_API_KEY" in line for line in told)
