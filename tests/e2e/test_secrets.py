"""Prompts, answers, keys and secrets stay where they belong: in no log, message, metric, page of Flower or other table.

Of an answer that is streamed, Redis holds the tokens for its readers; of a prompt it holds nothing.
"""

import secrets
import threading
from collections.abc import Callable, Iterator
from typing import Any, Self

import httpx2
import pytest
from redis import Redis

from headrace.stack.loopback import Receiver
from tests.contracts.conftest import StandIn

FLOWER_PAGES = ("tasks", "workers", "broker", "api/tasks", "api/workers", "api/queues/length")
#: What its page of tasks asks for in the background.
FLOWER_TABLE = (
    "tasks/datatable?draw=1&start=0&length=100&search[value]=&order[0][column]=0&order[0][dir]=asc"
    "&columns[0][data]=name"
)

#: Where prompts, answers and what a provider says of them are kept, and secrets that webhooks are signed with.
THEIR_PLACES = {"job_texts", "jobs", "apps"}


class Wiretap:
    """Everything that Valkey is told, from the start of a `with` block to its end."""

    LAST_WORD = "the wiretap ends here"

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._heard: list[str] = []
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def text(self) -> str:
        return "\n".join(self._heard)

    def _listen(self) -> None:
        with self._redis.monitor() as monitor:  # type: ignore[no-untyped-call]
            self._listening.set()
            for command in monitor.listen():
                self._heard.append(command["command"])
                if self.LAST_WORD in command["command"]:
                    return

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._listening.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._redis.echo(self.LAST_WORD)
        self._thread.join(10)
        assert not self._thread.is_alive()


def everything_in(redis: Redis) -> Iterator[str]:
    """Every key with its value, whatever its type."""
    for key in redis.scan_iter():
        match redis.type(key):
            case "string":
                value: object = redis.get(key)
            case "list":
                value = redis.lrange(key, 0, -1)
            case "set":
                value = redis.smembers(key)
            case "zset":
                value = redis.zrange(key, 0, -1)
            case "hash":
                value = redis.hgetall(key)
            case "stream":
                value = redis.xrange(key)
            case "none":  # It has gone since it was listed.
                continue
            case other:
                raise AssertionError(f"{key!r} is a {other!r}: read it here too")
        yield f"{key!r} {value!r}"


def every_table(system: Any) -> dict[str, str]:
    """The rows of each table, as text; but for those that such things are kept in."""
    # A partition is read with its table.
    found = system.sql(
        "SELECT relname AS name FROM pg_class WHERE relkind IN ('r', 'p') AND NOT relispartition"
        " AND relnamespace = 'public'::regnamespace"
    )
    tables = sorted({row["name"] for row in found} - THEIR_PLACES)
    rows = {name: system.sql(f'SELECT t::text AS row FROM "{name}" t') for name in tables}
    return {name: "\n".join(row["row"] for row in rows[name]) for name in tables}


@pytest.fixture(scope="module")
def provider() -> Iterator[StandIn]:
    server = StandIn()
    yield server
    server.close()


@pytest.fixture(scope="module")
def paid_key() -> str:
    """The key for the paid API."""
    return canary()


@pytest.fixture(scope="module")
def system(start: Callable[..., Any], provider: StandIn, paid_key: str) -> Any:
    """Every third attempt fails, so that what is said of failures is heard too."""
    faults = {"simulator__output_tokens": "8", "simulator__fault": "fault", "simulator__fault_every": "3"}
    return start(also=["flower", "ops", "webhooks"], paid_api=provider.url, paid_key=paid_key, **faults)


def canary() -> str:
    return f"canary-{secrets.token_hex(8)}"


def paid_jobs(system: Any, provider: StandIn, prompt: str, answer: str, key: str) -> list[dict[str, Any]]:
    """One that the paid API answers, one that it rejects, and one whose key it does not know; it quotes both."""
    rejected = {"error": {"message": f"Not this: {prompt}", "type": "invalid_request_error", "code": "bad"}}
    unknown = {"error": {"message": f"Incorrect API key provided: {key}", "type": "invalid", "code": "invalid_api_key"}}
    ended = []
    for act in ((200, provider.completion(answer)), (400, rejected), (401, unknown)):
        provider.script.append(act)
        ended.append(system.ended(system.submit(prompt=f"{prompt} for the paid API", overflow="only")))
    return ended


def test_no_prompt_answer_key_or_secret_leaves_its_place(
    system: Any,
    processes: Any,
    receiver: Receiver,
    provider: StandIn,
    paid_key: str,
    wait_until: Callable[..., None],
) -> None:
    prompt, answer, wrong_key = (canary() for _ in range(3))
    report = system.stack.report
    with Wiretap(system.redis) as wire:
        jobs = [system.submit(prompt=f"{prompt} {no}", webhook=receiver.url) for no in range(6)]
        jobs.append(system.submit(prompt=None, messages=[{"role": "user", "content": prompt}], end_user="somebody"))
        refused = [
            system.http.post("/v1/jobs", json={"prompt": f"{prompt} " * 5000}),
            system.http.post("/v1/jobs", json={"prompt": prompt, "max_tokens": -1}),
            system.http.post("/v1/jobs", content=f'{{"prompt": "{prompt}'),
            system.http.get("/v1/jobs", headers={"Authorization": f"Bearer {wrong_key}"}),
        ]
        streamed = system.http.post("/v1/responses", json={"input": f"{prompt} in pieces", "stream": True})
        paid = paid_jobs(system, provider, prompt, answer, paid_key)
        ended = system.all_ended(jobs)
        receiver.wait_for(6, 30)
        system.sql("UPDATE apps SET queued_jobs = 0 RETURNING id")
        wait_until(lambda: system.http.post("/v1/jobs", json={"prompt": prompt}).status_code == 429, "a refusal")
        wait_until(lambda: system.sql("SELECT 1 FROM refusals"), "the refusal is counted")
        wait_until(lambda: system.sql("SELECT 1 FROM queue_samples"), "a sample of the queues")
        flower = httpx2.Client(base_url=report.flower_url, auth=tuple(report.flower_auth.split(":")), timeout=30)
        with flower:
            wait_until(lambda: has_ended(flower) >= set(jobs), "Flower has heard of all how they ended")
            pages = {page: flower.get(f"/{page}").text for page in (*FLOWER_PAGES, FLOWER_TABLE)}
            tasks = flower.get("/api/tasks").json()
            pages |= {f"task/{task}": flower.get(f"/task/{task}").text for task in tasks}

    [app] = system.sql("SELECT webhook_secret FROM apps WHERE name = 'development'")
    secret = app["webhook_secret"].removeprefix("whsec_")
    [simulated] = {job["text"].split()[1] for job in ended if job["id"] == jobs[0]}
    hidden = {
        "a prompt": prompt,
        "an answer": answer,
        "a simulated answer": simulated,
        "a wrong key": wrong_key,
        "the API key": report.api_key,
        "the paid API's key": paid_key,
        "the webhook secret": secret,
        "the pepper": (system.stack.state_dir / "pepper").read_text().strip(),
        "Flower's password": report.flower_auth.partition(":")[2],
        "the analysts' password": (system.stack.state_dir / "analyst").read_text().strip(),
    }
    # What `headrace up` says is for the terminal: it shows the key and the password there, to be used.
    logs = {path.name: path.read_text() for path in (system.stack.state_dir / "logs").iterdir() if path.stem != "up"}
    heard = {
        **{f"the log {name}": text for name, text in logs.items()},
        **{f"Flower's {page}": text for page, text in pages.items()},
        **{f"the metrics of {name}": httpx2.get(url).text for name, url in report.metrics_urls.items()},
        **{f"the table {name}": text for name, text in every_table(system).items()},
        "Redis": "\n".join(everything_in(system.redis)),
        "what Redis was told": wire.text(),
        "the list of processes": "\n".join(processes.tree(system.stack.pid).values()),
    }

    # Each place is really listened to: it has what it may have.
    assert [answer.status_code for answer in refused] == [400, 400, 400, 401]
    assert "succeeded" in {job["status"] for job in ended}
    assert max(job["attempts"] for job in ended) > 1
    assert "attempt_failed" in heard["the log gpu.log"]
    assert "overflow_is_locked_out" in heard["the log overflow.log"]
    assert [job["text"] for job in paid] == [answer, None, None]
    assert prompt in paid[1]["error"]["message"], "its owner is told what the paid API said"
    assert {headers["authorization"] for headers, _ in provider.requests} == {f"Bearer {paid_key}"}
    for place in ("what Redis was told", "Flower's api/tasks", f"Flower's {FLOWER_TABLE}"):
        assert jobs[0] in heard[place], place
    assert "chat.normal" in heard["Redis"]
    assert "response.completed" in streamed.text
    assert streamed.text.split("[simulated] ")[1].split()[0][:32] in heard["Redis"]
    for place in ("metrics of gpu", "metrics of overflow"):
        assert "headrace_worker_running" in heard[f"the {place}"], place
    for place in ("refusals", "queue_samples", "worker_samples", "ledger", "deliveries"):
        assert heard[f"the table {place}"], place
    leaks = [f"{what} is in {place}" for what, text in hidden.items() for place, said in heard.items() if text in said]
    assert not leaks
    assert "canary" not in "".join(logs.values())


def has_ended(flower: httpx2.Client) -> set[str]:
    """The tasks that Flower shows as ended, well or not."""
    tasks = flower.get("/api/tasks").json().items()
    return {task for task, facts in tasks if facts["state"] in ("SUCCESS", "FAILURE")}


@pytest.mark.parametrize("name", ["api-key", "pepper", "flower-password", "ready.json", "stack.json"])
def test_a_file_with_a_secret_is_its_owners_alone(system: Any, name: str) -> None:
    assert (system.stack.state_dir / name).stat().st_mode & 0o077 == 0
