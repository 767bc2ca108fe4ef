"""The semantic cache for its callers: jobs are queued as without it, and their ends say which answer they have."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from redis import Redis

from headrace.broker.admission import Admission
from headrace.broker.reuse import Lookups
from headrace.config import Settings
from headrace.domain.ids import parse_id
from headrace.store import Store
from tests.integration.matching import ANSWER, ASKED, SAME, WordEngine, engine_of, with_semantic_cache
from tests.web import ApiClient, Web
from workers.matching import Matcher

CACHE = "x-headrace-cache"


@pytest.fixture
def web(build_web: Callable[..., Web], settings: Settings) -> Web:
    return build_web(pools=with_semantic_cache(settings).pools)


@pytest.fixture
def matcher(settings: Settings, store: Store, redis: Redis, admission: Admission) -> Matcher:
    lookups = Lookups(redis, "embed")
    lookups.take(1)
    on = with_semantic_cache(settings)
    return Matcher(on, store, engine_of(WordEngine()), lookups, admission, lambda: 0.5)


@pytest.fixture
def trusted(client: ApiClient, matcher: Matcher, finish: Callable[..., None], store: Store) -> UUID:
    """An answered question that has passed many tries; its job."""
    job_id = parse_id(submit(client, ASKED).get_json()["id"])
    assert matcher.look_up() == 1
    finish(job_id, ANSWER)
    with store.begin() as db:
        db.execute(
            sa.text(
                "INSERT INTO cache_matches (job_id, app_id, pool, entry_id, similarity, kind, is_right)"
                " SELECT gen_random_uuid(), app_id, pool, job_id, 0.85, 'try', true"
                " FROM cache_entries, generate_series(1, 60)"
            )
        )
    return job_id


def submit(client: ApiClient, prompt: str, **fields: Any) -> Any:
    response = client.post("/v1/jobs", json={"prompt": prompt, "temperature": 0, **fields})
    assert response.status_code == 202, response.get_data()
    return response


def test_a_job_is_queued_and_ends_with_the_answer(client: ApiClient, matcher: Matcher, trusted: UUID) -> None:
    response = submit(client, SAME, end_user="ann")
    told = response.get_json()
    assert (told["status"], told["cache"], response.headers[CACHE]) == ("queued", "miss", "miss")
    assert matcher.look_up() == 1

    read = client.get(f"/v1/jobs/{told['id']}")
    job = read.get_json()
    assert (read.headers[CACHE], read.headers["x-headrace-cost-usd"]) == ("semantic", "0.000000000")
    assert (job["status"], job["text"], job["cache"]) == ("succeeded", ANSWER, "semantic")
    assert (job["served_by"], job["finish_reason"]) == (f"job_{trusted.hex}", "stop")
    assert (job["attempts"], job["engine"], job["started_at"]) == (0, None, None)


def test_a_waiting_caller_and_a_stream_get_it_at_once(client: ApiClient, matcher: Matcher, trusted: UUID) -> None:
    matcher.begin()
    try:
        model = client.get("/v1/models").get_json()["data"][0]["id"]
        body = {"model": model, "messages": [{"role": "user", "content": SAME}], "temperature": 0}
        waited = client.post("/v1/chat/completions", json=body)
        assert (waited.status_code, waited.headers[CACHE]) == (200, "semantic")
        assert waited.get_json()["choices"][0]["message"]["content"] == ANSWER
        # Other spaces, so that the door's own cache does not know it.
        asked = {"role": "user", "content": f" {SAME}"}
        streamed = client.post("/v1/chat/completions", json={**body, "messages": [asked], "stream": True})
        assert ANSWER in streamed.get_data(as_text=True)
    finally:
        matcher.end()


@pytest.mark.parametrize(
    ("fields", "looked_up"),
    [
        ({}, 1),
        ({"temperature": 0.7}, 0),
        ({"temperature": 0.7, "cache": "semantic"}, 1),
        ({"temperature": 0.7, "seed": 3}, 1),
        ({"cache": "exact"}, 0),
        ({"cache": "never"}, 0),
    ],
)
def test_a_request_says_whether_it_takes_part(
    client: ApiClient, matcher: Matcher, fields: dict[str, Any], looked_up: int
) -> None:
    submit(client, ASKED, **fields)
    assert matcher.look_up() == looked_up
