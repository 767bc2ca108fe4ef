"""Single flight on real servers: identical jobs that are under way at once share one attempt; each is a job still."""

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from redis import Redis

from headrace.broker.admission import Admission
from headrace.broker.streams import Streams
from headrace.config import LaneSettings, Settings
from headrace.domain.apps import App, Changes
from headrace.domain.ids import parse_id
from headrace.domain.jobs import StreamPiece
from headrace.domain.queues import KEY_PREFIX, Lane
from headrace.store import Store, apps
from tests.waiting import until
from tests.web import ApiClient, Web

CACHE = "x-headrace-cache"
ASKED: dict[str, Any] = {"prompt": "Why is the sky blue?", "temperature": 0}
TEXT = "Because of Rayleigh scattering."
DEADLINE_S = 20.0


def with_flight(settings: Settings, **changes: Any) -> dict[str, Any]:
    changes = {"single_flight": True, **changes}
    return {name: pool.model_copy(update=changes) for name, pool in settings.pools.items()}


@pytest.fixture
def web(build_web: Callable[..., Web], settings: Settings) -> Web:
    return build_web(pools=with_flight(settings))


@pytest.fixture
def query(store: Store) -> Callable[..., list[Any]]:
    def read(statement: str, **given: Any) -> list[Any]:
        with store.begin() as db:
            return [tuple(row) for row in db.execute(sa.text(statement), given)]

    return read


def submit(client: ApiClient, **changes: Any) -> dict[str, Any]:
    response = client.post("/v1/jobs", json={**ASKED, **changes})
    assert response.status_code == 202, response.get_data()
    told: dict[str, Any] = response.get_json()
    assert response.headers.get(CACHE) == told["cache"]
    return told


def read(client: ApiClient, told: dict[str, Any]) -> dict[str, Any]:
    job: dict[str, Any] = client.get(f"/v1/jobs/{told['id']}").get_json()
    return job


def test_a_job_follows_an_identical_one_under_way_and_shares_its_answer(
    client: ApiClient, finish: Callable[..., None], redis: Redis, query: Callable[..., list[Any]]
) -> None:
    leader = submit(client)
    follower = submit(client, metadata={"order": "2"}, end_user="ann")

    assert (leader["cache"], leader["status"]) == ("miss", "queued")
    assert (follower["cache"], follower["status"], follower["position"]) == ("shared", "waiting", None)
    assert redis.hlen(f"{KEY_PREFIX}waiting") == 1, "a follower takes no place"
    assert read(client, follower)["served_by"] == leader["id"]

    finish(parse_id(leader["id"]), TEXT)
    job = read(client, follower)
    assert (job["status"], job["text"], job["cache"], job["served_by"]) == ("succeeded", TEXT, "shared", leader["id"])
    assert (job["metadata"], job["attempts"], job["cost"]["usd"]) == ({"order": "2"}, 0, "0.000000000")
    assert job["usage"] == read(client, leader)["usage"]
    bill = "SELECT kind, usd, saved_usd, end_user, output_tokens FROM ledger WHERE job_id = :id"
    assert query(bill, id=parse_id(follower["id"])) == [("cache", 0, Decimal("0.00000123"), "ann", 7)]
    assert query("SELECT count(*) FROM attempts") == [(1,)]


def test_each_follower_has_a_webhook_and_a_cancel_of_its_own(
    client: ApiClient, finish: Callable[..., None], query: Callable[..., list[Any]]
) -> None:
    hooks = [f"https://hooks.example.com/{number}" for number in range(4)]
    told = [submit(client, webhook=hook) for hook in hooks]
    cancelled = client.post(f"/v1/jobs/{told[1]['id']}/cancel").get_json()
    assert cancelled["status"] == "cancelled"
    finish(parse_id(told[0]["id"]), TEXT, "length")

    assert [read(client, each)["status"] for each in told] == ["succeeded", "cancelled", "succeeded", "succeeded"]
    ends = ["response.incomplete", "response.cancelled", "response.incomplete", "response.incomplete"]
    assert query("SELECT url, event FROM deliveries ORDER BY url") == list(zip(hooks, ends, strict=True))


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        ({}, {}, "shared"),
        ({}, {"lane": "low"}, "shared"),
        ({"lane": "batch"}, {"lane": "high"}, "miss"),
        ({"overflow": "never"}, {}, "miss"),
        ({}, {"overflow": "never"}, "miss"),
        ({"overflow": "never"}, {"overflow": "never"}, "shared"),
        ({}, {"max_tokens": 9}, "miss"),
        ({"cache": "never"}, {}, "miss"),
        ({}, {"cache": "never"}, None),
        ({}, {"temperature": 0.5}, None),
        ({"temperature": 0.5, "cache": "exact"}, {"temperature": 0.5, "cache": "exact"}, "shared"),
    ],
    ids=str,
)
def test_a_job_follows_one_that_makes_its_very_answer_no_later(
    client: ApiClient, first: dict[str, Any], second: dict[str, Any], told: str | None
) -> None:
    submit(client, **first)
    assert submit(client, **second)["cache"] == told


def test_a_job_that_cannot_follow_leads_those_that_cannot_either(client: ApiClient) -> None:
    batch = submit(client, lane="batch")
    high = submit(client, lane="high")
    assert [batch["cache"], high["cache"]] == ["miss", "miss"]
    followers = [submit(client, lane=lane) for lane in ("high", "batch")]
    assert [each["cache"] for each in followers] == ["shared", "shared"]
    assert read(client, followers[0])["served_by"] == high["id"]


def test_a_job_of_a_better_lane_follows_one_that_runs(
    client: ApiClient, query: Callable[..., list[Any]], finish: Callable[..., None]
) -> None:
    leader = submit(client, lane="batch")
    query("UPDATE jobs SET started_at = now() RETURNING 1")
    assert submit(client, lane="high")["cache"] == "shared"
    assert query("SELECT count(*) FROM jobs WHERE served_by_job = :id", id=parse_id(leader["id"])) == [(1,)]


def test_a_stream_follows_a_stream_alone(client: ApiClient) -> None:
    def ask(stream: bool) -> str:
        body = {"input": "Why?", "temperature": 0, "background": True, "stream": stream}
        return str(client.post("/v1/responses", json=body).headers[CACHE])

    assert [ask(False), ask(True)] == ["miss", "miss"]
    assert ask(False) == "shared"


def test_a_job_of_another_app_follows_nobody(
    client: ApiClient, client_of: Any, make_key: Callable[[str], str], finish: Callable[..., None]
) -> None:
    leader = submit(client)
    other = client_of(make_key("other"))
    theirs = submit(other)
    assert (theirs["cache"], theirs["status"]) == ("miss", "queued")
    finish(parse_id(leader["id"]), "Said to one app.")
    assert read(other, theirs)["status"] == "queued"
    assert "Said" not in json.dumps(other.get("/v1/jobs").get_json())


def test_without_single_flight_nobody_follows(
    build_web: Callable[..., Web], settings: Settings, client_of: Any, key: str
) -> None:
    client = client_of(key, build_web(pools=with_flight(settings, single_flight=False, cache_s=60.0)))
    assert [submit(client)["cache"] for _ in range(2)] == ["miss", "miss"]


def test_of_many_identical_jobs_that_come_at_once_one_leads(
    build_web: Callable[..., Web],
    settings: Settings,
    client_of: Any,
    key: str,
    redis: Redis,
    finish: Callable[..., None],
    query: Callable[..., list[Any]],
) -> None:
    webs = [build_web(pools=with_flight(settings)) for _ in range(2)]
    together = threading.Barrier(12)

    def ask(number: int) -> dict[str, Any]:
        client = client_of(key, webs[number % 2])
        together.wait(DEADLINE_S)
        return submit(client)

    with ThreadPoolExecutor(12) as threads:
        told = list(threads.map(ask, range(12)))
    assert sorted(each["cache"] for each in told) == ["miss", *["shared"] * 11]
    assert redis.hlen(f"{KEY_PREFIX}waiting") == 1
    [leader] = [each for each in told if each["cache"] == "miss"]
    finish(parse_id(leader["id"]), TEXT)
    client = client_of(key, webs[0])
    assert {read(client, each)["text"] for each in told} == {TEXT}
    assert query("SELECT count(*) FROM attempts") == [(1,)]


def test_a_job_whose_leader_was_refused_leads(
    build_web: Callable[..., Web], settings: Settings, client_of: Any, key: str
) -> None:
    lanes = {**settings.lanes, Lane.NORMAL: LaneSettings(depth_cap=1)}
    client = client_of(key, build_web(pools=with_flight(settings), lanes=lanes))
    submit(client, prompt="Another")
    assert client.post("/v1/jobs", json=ASKED).status_code == 429
    assert submit(client, lane="high")["cache"] == "miss", "at once, not after the patience for the first"


def test_a_job_that_comes_after_a_fast_answer_does_not_wait_for_it(
    client: ApiClient, finish: Callable[..., None], redis: Redis
) -> None:
    finish(parse_id(submit(client)["id"]))
    assert redis.keys(f"{KEY_PREFIX}flight:*") == []
    assert submit(client)["cache"] == "miss"


def test_a_follower_counts_as_a_request_of_its_app(
    client: ApiClient, store: Store, app: App, finish: Callable[..., None]
) -> None:
    with store.begin() as db:
        apps.set_limits(db, app.name, Changes(requests_per_minute=2))
    submit(client)
    assert submit(client)["cache"] == "shared"
    refused = client.post("/v1/jobs", json=ASKED)
    assert (refused.status_code, refused.get_json()["error"]["reason"]) == (429, "requests_per_minute")


def test_a_follower_under_a_key_is_made_once(client: ApiClient, query: Callable[..., list[Any]]) -> None:
    submit(client)
    headers = {"Idempotency-Key": "a"}
    first, again = (client.post("/v1/jobs", json=ASKED, headers=headers) for _ in range(2))
    assert first.get_json()["id"] == again.get_json()["id"]
    assert (first.headers[CACHE], again.headers["Idempotent-Replayed"]) == ("shared", "true")
    assert query("SELECT count(*) FROM jobs") == [(2,)]


def test_a_caller_that_waits_gets_the_leader_s_answer(
    client: ApiClient, finish: Callable[..., None], query: Callable[..., list[Any]]
) -> None:
    leader = submit(client)
    body = {"messages": [{"role": "user", "content": ASKED["prompt"]}], "temperature": 0}
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(client.post, "/v1/chat/completions", json=body)
        until(lambda: query("SELECT count(*) FROM jobs WHERE state = 'waiting'") == [(1,)], "a follower")
        finish(parse_id(leader["id"]), TEXT)
        answer = waiting.result(DEADLINE_S)
    assert (answer.status_code, answer.headers[CACHE]) == (200, "shared")
    assert answer.get_json()["choices"][0]["message"]["content"] == TEXT


@pytest.mark.parametrize(("is_followed", "state"), [(True, "queued"), (False, "cancelled")])
def test_a_leader_whose_client_goes_is_cancelled_only_if_no_job_follows_it(
    client: ApiClient, query: Callable[..., list[Any]], is_followed: bool, state: str
) -> None:
    body = {"messages": [{"role": "user", "content": ASKED["prompt"]}], "temperature": 0, "stream": True}
    stream = client.post("/v1/chat/completions", json=body)
    leader = parse_id(stream.headers["x-job-id"])
    # Polled, or read by another process, so that this one has no watch on it.
    if is_followed:
        assert submit(client)["cache"] == "shared"
    stream.close()
    assert query("SELECT state FROM jobs WHERE id = :id", id=leader) == [(state,)]


class Listener:
    """Reads a stream in a thread."""

    def __init__(self, client: ApiClient) -> None:
        body = {"input": ASKED["prompt"], "temperature": 0, "stream": True, "background": True}
        self._response = client.post("/v1/responses", json=body)
        assert self._response.status_code == 200
        self.cache = self._response.headers[CACHE]
        self.job_id = parse_id(self._response.headers["x-job-id"])
        self.heard = ""
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        for chunk in self._response.response:
            self.heard += chunk.decode() if isinstance(chunk, bytes) else chunk

    def join(self) -> None:
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive()
        self._response.close()


@pytest.fixture
def say(redis: Redis) -> Callable[[UUID, str, int], None]:
    """Publishes a piece of a job's text, as its worker would."""
    streams = Streams(redis)

    def publish(job_id: UUID, text: str, before: int) -> None:
        streams.begin(job_id, 1)
        assert streams.publish([StreamPiece(job_id, 1, before, text)]) == [True]

    return publish


@pytest.fixture
def listen(client: ApiClient) -> Iterator[Callable[[], Listener]]:
    made: list[Listener] = []

    def start() -> Listener:
        made.append(Listener(client))
        return made[-1]

    yield start
    for each in made:
        each.join()


def test_a_follower_hears_the_leader_s_stream(
    listen: Callable[[], Listener], say: Callable[[UUID, str, int], None], finish: Callable[..., None]
) -> None:
    leader, follower = listen(), listen()
    assert (leader.cache, follower.cache) == ("miss", "shared")
    say(leader.job_id, "Because of ", 0)
    until(lambda: all("Because of " in each.heard for each in (leader, follower)), "the first piece")
    say(leader.job_id, "Rayleigh ", len("Because of "))
    until(lambda: "Rayleigh " in follower.heard, "the second piece")
    finish(leader.job_id, TEXT)
    follower.join()
    assert "event: response.completed" in follower.heard
    assert "stream_restarted" not in follower.heard
    assert json.dumps(TEXT) in follower.heard


def test_a_follower_that_leads_now_tells_its_readers_that_the_text_begins_anew(
    listen: Callable[[], Listener],
    say: Callable[[UUID, str, int], None],
    end: Callable[..., bool],
    query: Callable[..., list[Any]],
    client: ApiClient,
    admission: Admission,
) -> None:
    leader, follower = listen(), listen()
    say(leader.job_id, "Because of ", 0)
    until(lambda: "Because of " in follower.heard, "the first piece")
    # As the sweep does it once the leader has been cancelled.
    query(
        "UPDATE jobs SET served_by_job = NULL, cache = 'miss', state = 'queued', queued_at = now() WHERE id = :id"
        " RETURNING 1",
        id=follower.job_id,
    )
    client.post(f"/v1/jobs/job_{leader.job_id.hex}/cancel")
    admission.announce_ended([follower.job_id])
    until(lambda: "stream_restarted" in follower.heard, "the restart")
    say(follower.job_id, "Scattering ", 0)
    until(lambda: "Scattering " in follower.heard, "text of its own")
    assert end(follower.job_id, "Scattering of light.")
    follower.join()
    assert json.dumps("Scattering of light.") in follower.heard
