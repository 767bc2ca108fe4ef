"""Plain jobs are answered alike in a share and by their own threads: status, body, headers and rows are the same."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, cast
from uuid import UUID

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis
from werkzeug.test import TestResponse

from api.call import Call, Reply
from api.door.submit import PlainJobs
from api.handlers.jobs import PLAIN_FIELDS
from headrace.broker.messages import list_key
from headrace.config import Settings
from headrace.domain.apps import App
from headrace.domain.fleet import WorkerInfo
from headrace.domain.ids import new_id, parse_id
from headrace.errors import StoreUnavailable
from headrace.store import Store, apps
from headrace.store.fleet import workers
from headrace.tables import job_texts, jobs
from tests.waiting import until
from tests.web import ApiClient, Web

PATH = "/v1/jobs"
#: What differs between two jobs that are alike.
OWN_FIELDS, OWN_HEADERS = {"id", "start_by"}, {"x-job-id", "x-request-id", "openai-processing-ms", "Content-Length"}
OWN_COLUMNS = {"id", "job_id", "created_at", "queued_at", "start_by", "overflow_at"}

TEXTS = st.text(max_size=40)
TURNS = st.fixed_dictionaries({"role": st.sampled_from(["system", "developer", "user", "assistant"]), "content": TEXTS})
#: Values that a plain job may have, by field.
GOOD: Mapping[str, st.SearchStrategy[Any]] = {
    "prompt": TEXTS,
    "messages": st.lists(TURNS, max_size=3),
    "model": st.sampled_from([None, "test-model"]),
    "max_tokens": st.sampled_from([None, 1, 16]),
    "lane": st.sampled_from(["high", "normal", "low", "batch"]),
    "max_wait": st.sampled_from([None, 5, 60.5]),
    "deadline": st.sampled_from([None, 4_000_000_000, "2100-01-01T00:00:00Z"]),
    "overflow": st.sampled_from(["allow", "never"]),
    "max_cost_usd": st.sampled_from([None, 0, 0.5, "0.25"]),
    "temperature": st.sampled_from([None, 0, 0.7]),
    "top_p": st.sampled_from([None, 0.5, 1]),
    "stop": st.one_of(st.none(), st.lists(st.sampled_from(["a", "b"]), max_size=2)),
    "seed": st.sampled_from([None, 0, 7]),
    "metadata": st.one_of(st.none(), st.dictionaries(st.sampled_from(["a", "b"]), TEXTS, max_size=3)),
    "webhook": st.sampled_from([None, "https://example.com/hook"]),
    "end_user": st.sampled_from([None, "Ada"]),
}
#: Fields and values that no plain job has, or that are at fault.
OTHER: Mapping[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(GOOD, st.one_of(st.integers(), st.booleans(), TEXTS, st.lists(TEXTS, max_size=2))),
    "model": st.sampled_from(["auto", "nope"]),
    "max_tokens": st.sampled_from([0, 2047, 10**30, 1.5, "5"]),
    "deadline": st.sampled_from([1, "soon"]),
    "overflow": st.just("only"),
    "webhook": st.sampled_from(["http://127.0.0.1/", "https://localhost/", "x"]),
    "n": st.sampled_from([None, 1, 2]),
    "cache": st.sampled_from([None, "off", "exact"]),
    "response_format": st.sampled_from([None, {"type": "json_object"}, {"type": "x"}]),
    "unknown": st.sampled_from([None, 1]),
}


@st.composite
def bodies(draw: st.DrawFn) -> dict[str, Any]:
    """A body that is plain, or all but plain."""
    names = draw(st.sets(st.sampled_from(sorted(GOOD.keys() - {"prompt", "messages"})), max_size=6))
    body = {name: draw(GOOD[name]) for name in [draw(st.sampled_from(["prompt", "messages"])), *sorted(names)]}
    if draw(st.integers(0, 2)) == 0:
        name = draw(st.sampled_from(sorted(OTHER)))
        body[name] = draw(OTHER[name])
    return body


def test_the_fields_made_up_here_are_all_that_a_plain_body_may_have() -> None:
    assert GOOD.keys() == PLAIN_FIELDS


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each submit, whether it was answered in a share."""
    takes, serve, told = PlainJobs.takes, PlainJobs._serve, list[bool]()

    def noted(self: PlainJobs[Reply], app: App, size: int) -> bool:
        told.append(False)
        return takes(self, app, size)

    def served(self: PlainJobs[Reply], calls: Sequence[Call]) -> Any:
        outcomes = serve(self, calls)
        [outcome] = outcomes
        told[-1] = outcome is not None and not isinstance(outcome, BaseException)
        return outcomes

    monkeypatch.setattr(PlainJobs, "takes", noted)
    monkeypatch.setattr(PlainJobs, "_serve", served)
    # On a busy machine a step may take long: not for a server's sake.
    monkeypatch.setattr("api.door.submit.SLOW_S", 60.0)
    return told


class Post(Protocol):
    def __call__(self, raw: bytes, *, is_alone: bool = False) -> TestResponse:
        """Submit a body. Args: is_alone: by its own thread."""


@pytest.fixture
def post(client: ApiClient, web: Web, monkeypatch: pytest.MonkeyPatch) -> Post:
    plain_jobs = web.deps.plain_jobs

    def post(raw: bytes, *, is_alone: bool = False) -> TestResponse:
        monkeypatch.setattr(plain_jobs, "_off_until", math.inf if is_alone else -math.inf)
        return client.post(f"{PATH}/" if is_alone else PATH, data=raw, content_type="application/json")

    return post


@pytest.fixture
def rows(store: Store) -> Callable[[str], dict[str, Any]]:
    """What Postgres has of a job, without what is its own."""

    def look(public_id: str) -> dict[str, Any]:
        job_id: UUID = parse_id(public_id)
        both = sa.select(jobs, job_texts).join(job_texts, job_texts.c.job_id == jobs.c.id).where(jobs.c.id == job_id)
        with store.begin() as db:
            [row] = db.execute(both).mappings().all()
        return {name: value for name, value in row.items() if name not in OWN_COLUMNS}

    return look


def headers_of(response: TestResponse) -> dict[str, str]:
    assert response.headers["x-request-id"].startswith("req_")
    return {name: value for name, value in response.headers.items() if name not in OWN_HEADERS}


def fields_of(response: TestResponse) -> dict[str, Any]:
    return {name: value for name, value in response.get_json().items() if name not in OWN_FIELDS}


def test_any_body_is_answered_alike_by_both_ways(shared: list[bool], post: Post, rows: Callable[[str], Any]) -> None:
    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(body=bodies())
    def compare(body: dict[str, Any]) -> None:
        raw = json.dumps(body).encode()
        first, second = post(raw), post(raw, is_alone=True)
        assert (first.status_code, headers_of(first)) == (second.status_code, headers_of(second))
        if first.status_code != 202:
            assert first.data == second.data
            return
        assert shared[-2] or not PLAIN_FIELDS.issuperset(body)
        ours, theirs = fields_of(first), fields_of(second)
        # The second job stands behind the first.
        assert (theirs.pop("position"), theirs.pop("depth")) == (ours.pop("position") + 1, ours.pop("depth") + 1)
        assert list(first.get_json()) == list(second.get_json())
        assert ours == theirs
        assert rows(first.get_json()["id"]) == rows(second.get_json()["id"])

    compare()
    # Hypothesis must find both kinds.
    assert {True, False} == set(shared[::2])


@pytest.mark.parametrize("raw", [b"", b"{", b"[1]", b'{"prompt": "\xff"}', b'{"prompt": "a", "prompt": "b"}'], ids=repr)
def test_what_is_no_json_is_refused_alike(shared: list[bool], post: Post, raw: bytes) -> None:
    first, second = post(raw), post(raw, is_alone=True)
    assert first.status_code == second.status_code == 400
    assert first.data == second.data
    assert shared == [False, False], "each was asked about once"


def test_the_message_of_a_plain_job_is_that_of_any_other(
    shared: list[bool], post: Post, redis: Redis, client: ApiClient
) -> None:
    ids = [post(b'{"prompt": "Hi"}', is_alone=is_alone).get_json()["id"] for is_alone in (False, True)]
    assert shared == [True, False]
    first, second = (message_of(redis, job_id) for job_id in ids)
    # Each has its own second to start by.
    assert abs(first["headers"]["headrace"].pop("start_by") - second["headers"]["headrace"].pop("start_by")) <= 1
    assert first == second


def message_of(redis: Redis, job_id: str) -> dict[str, Any]:
    """The job's message in its queue, without what names the job."""
    [text] = [raw for raw in redis.lrange(list_key("chat.normal"), 0, -1) if job_id in raw]
    return cast("dict[str, Any]", json.loads(text.replace(job_id, "JOB")))


def test_a_refusal_is_told_alike(
    shared: list[bool], post: Post, store: Store, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.auth.KEY_TTL_S", 0.0)
    with store.begin() as db:
        apps.set_limits(db, app.name, {"queued_jobs": 1})
    assert post(b'{"prompt": "Hi"}').status_code == 202
    first, second = post(b'{"prompt": "Hi"}'), post(b'{"prompt": "Hi"}', is_alone=True)
    assert (first.status_code, first.get_json()["error"]["reason"]) == (429, "app_jobs")
    assert first.data == second.data
    assert shared[:2] == [True, False], "the share itself refused the second"


def test_both_ways_use_up_one_rate(
    shared: list[bool], post: Post, store: Store, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.auth.KEY_TTL_S", 0.0)
    with store.begin() as db:
        apps.set_limits(db, app.name, {"requests_per_minute": 10})
    answers = [post(b'{"prompt": "Hi"}', is_alone=is_alone) for is_alone in (False, True)]
    left = [int(answer.headers["x-ratelimit-remaining-requests"]) for answer in answers]
    assert left[1] == left[0] - 1
    assert shared == [True, False]


def test_an_error_after_the_place_is_told_alike_and_nothing_is_submitted_again(
    shared: list[bool], post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    def refused(_: Any, made: Any, **_how: Any) -> Any:
        tries.append(made)
        raise StoreUnavailable("Postgres does not answer: secret.")

    monkeypatch.setattr("api.door.intake.insert_batch", refused)
    first = post(b'{"prompt": "Hi"}')
    assert (first.status_code, len(tries)) == (503, 1)
    second = post(b'{"prompt": "Hi"}', is_alone=True)
    assert (first.data, headers_of(first)) == (second.data, headers_of(second))


@pytest.mark.parametrize("is_alone", [False, True], ids=["in a share", "by its own thread"])
def test_a_job_without_money_has_its_row_among_the_refusals(
    is_alone: bool,
    build_web: Callable[..., Web],
    client_of: Any,
    key: str,
    query: Callable[..., Any],
    settings: Settings,
) -> None:
    paid_alone = {"chat": settings.pools["chat"].model_copy(update={"engine": "openai", "drain_jobs_per_s": 0.0})}
    client: ApiClient = client_of(key, build_web(openai_api_key="sk-test", pools=paid_alone))
    with client.web.deps.store.begin() as db:
        workers.register(db, WorkerInfo(new_id(), "overflow@test", "h", "overflow", "openai", "gpt-4o-mini", 8), 600)

    path = f"{PATH}/" if is_alone else PATH
    refused = [client.post(path, json={"prompt": str(number), "max_tokens": 16}) for number in range(3)]

    assert [each.get_json()["error"]["code"] for each in refused] == ["budget_exceeded"] * 3
    counted = "SELECT queue, reason, is_repeat, sum(jobs) FROM refusals GROUP BY 1, 2, 3"
    until(lambda: query(counted) == [("overflow.normal", "budget", False, 3)], "the process has written its counts", 15)
