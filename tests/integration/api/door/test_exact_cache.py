"""The exact cache on real servers: an identical job ends at the door; what differs, is old or gone does not serve."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from redis import Redis

from headrace.config import LaneSettings, PoolSettings, Settings
from headrace.domain.apps import App, Changes
from headrace.domain.ids import parse_id
from headrace.domain.queues import KEY_PREFIX, Lane
from headrace.store import Store, apps
from headrace.store.jobs import texts
from tests.web import ApiClient, Web

CACHE = "x-headrace-cache"
ASKED: dict[str, Any] = {"prompt": "Why is the sky blue?", "temperature": 0}
TEXT = "Because of Rayleigh scattering."
KEEP_S = 60

Ask = Callable[..., str]


@pytest.fixture
def web(build_web: Callable[..., Web], settings: Settings) -> Web:
    """The app, with a cache for each pool."""
    return build_web(pools=with_cache(settings))


def with_cache(settings: Settings, **changes: Any) -> dict[str, Any]:
    changes = {"cache_s": float(KEEP_S), **changes}
    return {name: pool.model_copy(update=changes) for name, pool in settings.pools.items()}


def submit(client: ApiClient, body: dict[str, Any] | None = None, **headers: str) -> Any:
    response = client.post("/v1/jobs", json=ASKED if body is None else body, headers=headers)
    assert response.status_code == 202, response.get_data()
    return response


def use(client: ApiClient, **changes: Any) -> str | None:
    """What the cache has for this job, as the header and the body say."""
    response = submit(client, {**ASKED, **changes})
    assert response.headers.get(CACHE) == response.get_json()["cache"]
    told: str | None = response.headers.get(CACHE)
    return told


@pytest.fixture
def answered(client: ApiClient, finish: Callable[..., None]) -> Callable[..., UUID]:
    """Submits a job and ends it with an answer; returns its id."""

    def ask(finish_reason: str = "stop", text: str = TEXT, **changes: Any) -> UUID:
        job_id = parse_id(submit(client, {**ASKED, **changes}).get_json()["id"])
        finish(job_id, text, finish_reason)
        return job_id

    return ask


@pytest.fixture
def query(store: Store) -> Callable[..., list[Any]]:
    def read(statement: str, **given: Any) -> list[Any]:
        with store.begin() as db:
            return list(db.execute(sa.text(statement), given).all())

    return read


def test_an_identical_job_ends_at_the_door(client: ApiClient, answered: Callable[..., UUID], redis: Redis) -> None:
    first = answered()
    before = redis.hlen(f"{KEY_PREFIX}waiting")

    response = submit(client, {**ASKED, "metadata": {"order": "2"}, "lane": "batch", "end_user": "ann"})

    told = response.get_json()
    assert (told["status"], told["cache"], response.headers[CACHE]) == ("succeeded", "hit", "hit")
    assert (told["queue"], told["position"], told["depth"], told["expected_wait_s"]) == ("chat.batch", None, None, None)
    assert redis.hlen(f"{KEY_PREFIX}waiting") == before, "it takes no place"
    read = client.get(f"/v1/jobs/{told['id']}")
    job = read.get_json()
    assert (read.headers[CACHE], read.headers["x-headrace-cost-usd"]) == ("hit", "0.000000000")
    assert (job["status"], job["text"], job["finish_reason"]) == ("succeeded", TEXT, "stop")
    assert (job["cache"], job["served_by"]) == ("hit", f"job_{first.hex}")
    assert (job["metadata"], job["end_user"], job["lane"]) == ({"order": "2"}, "ann", "batch")
    assert (job["attempts"], job["engine"], job["started_at"], job["model_served"]) == (0, None, None, "served")
    assert job["cost"] == {"usd": "0.000000000", "currency": "USD", "price_version": None}
    served_by = client.get(f"/v1/jobs/job_{first.hex}")
    assert job["usage"] == served_by.get_json()["usage"]
    told = served_by.get_json()
    assert (served_by.headers[CACHE], told["cache"], told["served_by"]) == ("miss", "miss", None)


def test_a_hit_is_booked_at_nothing_with_what_it_saved(
    client: ApiClient, answered: Callable[..., UUID], query: Callable[..., list[Any]]
) -> None:
    first = answered()
    hit = parse_id(submit(client, {**ASKED, "end_user": "ann"}).get_json()["id"])

    bill = "SELECT kind, usd, saved_usd, end_user, pool, model, prompt_tokens, cached_tokens, output_tokens, attempt"
    assert query(f"{bill} FROM ledger WHERE job_id = :id", id=hit) == [
        ("cache", 0, Decimal("0.00000123"), "ann", "chat", "served", 9, 2, 7, None)
    ]
    assert query("SELECT saved_usd FROM ledger WHERE job_id = :id", id=first) == [(None,)]
    seen = "SELECT app, pool, hits, misses, hit_share, prompt_tokens, output_tokens, saved_usd FROM cache_per_day"
    assert query(seen) == [("test", "chat", 1, 1, 0.5, 9, 7, Decimal("0.00000123"))]
    [row] = query("SELECT usd, full_usd, cost_basis, attempts FROM cost_per_request WHERE job_id = :id", id=hit)
    assert tuple(row) == (0, 0, "cache", 0)
    total = client.get("/v1/usage").get_json()["total"]
    assert (total["requests"], total["output_tokens"], total["usd"]) == (2, 14, "0.000001230")


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "Why is the sky blue? "},
        {"prompt": "why is the sky blue?"},
        {"max_tokens": 9},
        {"temperature": 0.1, "cache": "exact"},
        {"top_p": 0.5},
        {"stop": ["blue"]},
        {"seed": 7},
        {"response_format": {"type": "json_object"}},
        {"top_logprobs": 0},
    ],
    ids=str,
)
def test_a_job_that_differs_in_anything_that_may_change_the_answer_is_not_served(
    client: ApiClient, answered: Callable[..., UUID], change: dict[str, Any]
) -> None:
    answered()
    assert use(client, **change) == "miss"
    assert use(client) == "hit"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"temperature": None}, [None, None]),
        ({"temperature": 0.7}, [None, None]),
        ({"temperature": 0.7, "seed": 3}, ["miss", "hit"]),
        ({"temperature": 0.7, "cache": "exact"}, ["miss", "hit"]),
        ({"cache": "never"}, [None, None]),
    ],
    ids=str,
)
def test_by_default_only_an_answer_that_the_request_determines_is_shared(
    client: ApiClient, finish: Callable[..., None], changes: dict[str, Any], told: list[str | None]
) -> None:
    body = {name: value for name, value in {**ASKED, **changes}.items() if value is not None}
    first = submit(client, body)
    finish(parse_id(first.get_json()["id"]))
    assert [first.headers.get(CACHE), submit(client, body).headers.get(CACHE)] == told


def test_inputs_that_were_embedded_are_not_embedded_again(
    build_web: Callable[..., Web], settings: Settings, client_of: Any, key: str, finish: Callable[..., None]
) -> None:
    embed = PoolSettings(model="embeds", engine="simulator", serves="embeddings", cache_s=60.0)
    client = client_of(key, build_web(pools={**settings.pools, "embed": embed}))
    body = {"input": ["A text", [5, 6]], "model": "embeds"}
    finish(parse_id(submit(client, body).get_json()["id"]))

    again = submit(client, body)
    assert again.headers[CACHE] == "hit"
    as_floats = client.post("/v1/embeddings", json=body)
    packed = client.post("/v1/embeddings", json={**body, "encoding_format": "base64"})
    assert [each.headers[CACHE] for each in (as_floats, packed)] == ["hit", "hit"]
    assert len(as_floats.get_json()["data"]) == 2
    for change in ({"dimensions": 8}, {"input": ["A text", "5 6"]}, {"input": ["A text"]}):
        assert submit(client, {**body, **change}).headers[CACHE] == "miss"


def test_a_pool_may_share_sampled_answers_as_well(
    build_web: Callable[..., Web], settings: Settings, client_of: Any, key: str, finish: Callable[..., None]
) -> None:
    client = client_of(key, build_web(pools=with_cache(settings, cache_sampled=True)))
    body = {"prompt": "Tell me a tale."}
    finish(parse_id(submit(client, body).get_json()["id"]))
    assert submit(client, body).headers[CACHE] == "hit"
    assert CACHE not in submit(client, {**body, "cache": "never"}).headers


def test_an_app_has_a_time_of_its_own(
    build_web: Callable[..., Web], settings: Settings, store: Store, app: App, key: str, client_of: Any, end: Any
) -> None:
    def pair(pools: Any, own: int | None) -> list[str | None]:
        with store.begin() as db:
            apps.set_limits(db, app.name, Changes(cache_s=own))
        client = client_of(key, build_web(pools=pools))
        body = {**ASKED, "seed": own or 0, "top_p": 0.5 if pools is settings.pools else 0.25}
        first = submit(client, body)
        assert end(parse_id(first.get_json()["id"]))
        return [first.headers.get(CACHE), submit(client, body).headers.get(CACHE)]

    assert pair(settings.pools, None) == [None, None], "off by default"
    assert pair(settings.pools, 30) == ["miss", "hit"]
    assert pair(with_cache(settings), 0) == [None, None]
    assert pair(with_cache(settings), None) == ["miss", "hit"]


def test_an_answer_serves_as_long_as_it_is_young_and_a_hit_does_not_renew_it(
    client: ApiClient, answered: Callable[..., UUID], query: Callable[..., list[Any]]
) -> None:
    first = answered()

    def age_all(seconds: float) -> None:
        query("UPDATE jobs SET ended_at = ended_at - :by RETURNING 1", by=timedelta(seconds=seconds))

    age_all(KEEP_S - 10)
    assert use(client) == "hit"
    age_all(11)
    response = submit(client)
    assert response.headers[CACHE] == "miss"
    assert query("SELECT served_by_job FROM jobs WHERE cache = 'hit'") == [(first,)]


@pytest.mark.parametrize("finish_reason", ["stop", "length"])
def test_an_answer_that_ended_well_serves(client: ApiClient, answered: Callable[..., UUID], finish_reason: str) -> None:
    answered(finish_reason)
    told = submit(client).get_json()
    assert told["cache"] == "hit"
    assert client.get(f"/v1/jobs/{told['id']}").get_json()["finish_reason"] == finish_reason


@pytest.mark.parametrize(
    "change",
    [
        "finish_reason = 'content_filter'",
        "finish_reason = 'abort', state = 'cancelled'",
        "state = 'failed', error_code = 'engine_error'",
        "state = 'expired', finish_reason = NULL",
    ],
)
def test_an_answer_that_did_not_end_well_serves_nobody(
    client: ApiClient, answered: Callable[..., UUID], query: Callable[..., list[Any]], change: str
) -> None:
    answered()
    query(f"UPDATE jobs SET {change} RETURNING 1")
    assert use(client) == "miss"


@pytest.mark.parametrize(
    ("route", "overflow", "told"),
    [
        ("pool", "never", "hit"),
        ("pool", "allow", "hit"),
        ("overflow", "allow", "hit"),
        ("overflow", "never", "miss"),
        ("overflow", "only", "hit"),
    ],
)
def test_a_job_that_may_not_be_paid_for_is_given_no_paid_answer(
    client: ApiClient,
    answered: Callable[..., UUID],
    query: Callable[..., list[Any]],
    route: str,
    overflow: str,
    told: str,
) -> None:
    answered()
    query("UPDATE jobs SET route = :route RETURNING 1", route=route)
    assert use(client, overflow=overflow) == told


def test_an_answer_of_own_hosts_serves_no_job_that_wants_a_paid_one(
    client: ApiClient, answered: Callable[..., UUID]
) -> None:
    answered()
    refused = client.post("/v1/jobs", json={**ASKED, "overflow": "only"})
    assert refused.status_code >= 400, "no paid API is set up, and nothing else may answer"


def test_an_erased_answer_serves_nobody(client: ApiClient, answered: Callable[..., UUID]) -> None:
    first = answered()
    hit = submit(client).get_json()["id"]
    assert client.delete(f"/v1/jobs/job_{first.hex}").status_code == 200

    assert use(client) == "miss"
    assert client.get(f"/v1/jobs/{hit}").get_json()["text"] == TEXT, "a copy is erased with its own job"
    assert client.delete(f"/v1/jobs/{hit}").status_code == 200
    assert client.get(f"/v1/jobs/{hit}").status_code == 404


def test_an_answer_that_retention_has_erased_serves_nobody(
    client: ApiClient, answered: Callable[..., UUID], query: Callable[..., list[Any]], store: Store
) -> None:
    first = answered()
    query("UPDATE jobs SET ended_at = ended_at - interval '30 s' RETURNING 1")
    with store.begin() as db:
        texts.erase_all(db, [first])
    assert use(client) == "miss"
    assert query("SELECT count(*) FROM job_texts WHERE cache_key IS NOT NULL") == [(1,)]


def test_an_answer_that_is_just_being_erased_is_not_waited_for(
    client: ApiClient, answered: Callable[..., UUID], store: Store, app: App
) -> None:
    first = answered()
    with store.begin() as db:
        texts.erase(db, app.id, first)
        with ThreadPoolExecutor(1) as threads:
            told = threads.submit(use, client).result(30)
    assert told == "miss"


def test_a_job_that_comes_while_an_identical_one_is_under_way_is_not_stored_beside_it(
    client: ApiClient, answered: Callable[..., UUID], query: Callable[..., list[Any]], finish: Callable[..., None]
) -> None:
    ids = [parse_id(submit(client).get_json()["id"]) for _ in range(3)]
    assert query("SELECT job_id FROM job_texts WHERE cache_key IS NOT NULL") == [(ids[0],)]
    assert query("SELECT count(*) FROM jobs WHERE cache = 'miss'") == [(3,)]
    finish(ids[1], "Another answer.")
    assert use(client) == "miss"
    finish(ids[0], TEXT)
    told = submit(client).get_json()
    assert client.get(f"/v1/jobs/{told['id']}").get_json()["text"] == TEXT


@pytest.mark.parametrize(
    ("slow", "again"), [({"lane": "batch"}, {}), ({}, {"overflow": "never"})], ids=["later", "perhaps paid"]
)
def test_a_job_under_way_that_may_not_serve_or_comes_later_keeps_no_answer_from_being_stored(
    client: ApiClient, finish: Callable[..., None], slow: dict[str, Any], again: dict[str, Any]
) -> None:
    submit(client, {**ASKED, **slow})
    first = submit(client, {**ASKED, **again})
    finish(parse_id(first.get_json()["id"]), TEXT)
    assert use(client, **again) == "hit"


def test_a_hit_is_served_where_the_queue_is_full(
    build_web: Callable[..., Web], settings: Settings, client_of: Any, key: str, finish: Callable[..., None]
) -> None:
    lanes = {**settings.lanes, Lane.NORMAL: LaneSettings(depth_cap=1)}
    client = client_of(key, build_web(pools=with_cache(settings), lanes=lanes))
    # The place of the first is free once its worker has told Redis, which none does here.
    finish(parse_id(submit(client).get_json()["id"]))
    assert client.post("/v1/jobs", json={"prompt": "Another"}).status_code == 429
    assert submit(client).headers[CACHE] == "hit"


def test_a_hit_under_a_key_is_made_once(
    client: ApiClient, answered: Callable[..., UUID], query: Callable[..., list[Any]]
) -> None:
    answered()
    first = submit(client, **{"Idempotency-Key": "a"})
    again = submit(client, **{"Idempotency-Key": "a"})

    assert first.get_json()["id"] == again.get_json()["id"]
    assert (first.headers[CACHE], again.headers[CACHE]) == ("hit", "hit")
    assert "Idempotent-Replayed" not in first.headers
    assert (again.headers["Idempotent-Replayed"], again.get_json()["status"]) == ("true", "succeeded")
    assert query("SELECT count(*) FROM jobs") == [(2,)]
    other = client.post("/v1/jobs", json={**ASKED, "max_wait": 9}, headers={"Idempotency-Key": "a"})
    assert other.status_code == 422


def test_two_hits_under_one_key_at_once_make_one_job(
    build_web: Callable[..., Web],
    settings: Settings,
    client_of: Any,
    key: str,
    answered: Callable[..., UUID],
    query: Callable[..., list[Any]],
) -> None:
    answered()
    clients = [client_of(key, build_web(pools=with_cache(settings))) for _ in range(4)]
    with ThreadPoolExecutor(4) as threads:
        told = list(threads.map(lambda client: submit(client, **{"Idempotency-Key": "a"}).get_json()["id"], clients))
    assert len(set(told)) == 1
    assert query("SELECT count(*) FROM jobs WHERE cache = 'hit'") == [(1,)]


def test_a_hit_is_a_request_of_the_app_s_minute_and_no_tokens(
    client: ApiClient, answered: Callable[..., UUID], store: Store, app: App, client_of: Any, key: str, web: Web
) -> None:
    with store.begin() as db:
        apps.set_limits(db, app.name, Changes(requests_per_minute=3, tokens_per_minute=4000))
    answered()
    hit = submit(client)
    left = [hit.headers[f"x-ratelimit-remaining-{what}"] for what in ("requests", "tokens")]
    miss = submit(client, {**ASKED, "max_tokens": 5})
    assert hit.headers[CACHE] == "hit"
    assert left[0] == "1"
    assert int(left[1]) - int(miss.headers["x-ratelimit-remaining-tokens"]) < 100, "only the miss took tokens"
    refused = client.post("/v1/jobs", json=ASKED)
    assert (refused.status_code, refused.get_json()["error"]["reason"]) == (429, "requests_per_minute")


@pytest.mark.parametrize(
    ("finish_reason", "event"), [("stop", "response.completed"), ("length", "response.incomplete")]
)
def test_a_hit_announces_its_end(
    client: ApiClient,
    answered: Callable[..., UUID],
    query: Callable[..., list[Any]],
    finish_reason: str,
    event: str,
) -> None:
    answered(finish_reason)
    hit = parse_id(submit(client, {**ASKED, "webhook": "https://hooks.example.com/a"}).get_json()["id"])
    assert query("SELECT job_id, event, url, state FROM deliveries") == [
        (hit, event, "https://hooks.example.com/a", "pending")
    ]


def test_thoughts_and_log_probabilities_are_served_too(client: ApiClient, answered: Callable[..., UUID]) -> None:
    body = {"prompt": "Why? Do think.", "top_logprobs": 2}
    first = answered(**body)
    told = submit(client, {**ASKED, **body}).get_json()
    before, after = (client.get(f"/v1/jobs/{job}").get_json() for job in (f"job_{first.hex}", told["id"]))
    assert told["cache"] == "hit"
    assert after["reasoning"] == before["reasoning"] == "Light, and air: "
    assert after["logprobs"] == before["logprobs"]
    assert after["logprobs"]
    assert after["usage"] == before["usage"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_chat_completion_is_served(client: ApiClient, answered: Callable[..., UUID], stream: bool) -> None:
    answered()
    messages = [{"role": "user", "content": ASKED["prompt"]}]
    response = client.post("/v1/chat/completions", json={"messages": messages, "temperature": 0, "stream": stream})

    assert (response.status_code, response.headers[CACHE]) == (200, "hit")
    if stream:
        told = response.get_data(as_text=True)
        assert TEXT in told
        assert told.endswith("data: [DONE]\n\n")
    else:
        body = response.get_json()
        assert (body["choices"][0]["message"]["content"], body["job"]["cache"]) == (TEXT, "hit")


@pytest.mark.parametrize(
    "how", [{"background": True}, {}, {"stream": True}, {"stream": True, "background": True}], ids=str
)
def test_a_response_is_served(client: ApiClient, answered: Callable[..., UUID], how: dict[str, Any]) -> None:
    first = answered()
    response = client.post("/v1/responses", json={"input": ASKED["prompt"], "temperature": 0, **how})

    assert (response.status_code, response.headers[CACHE]) == (200, "hit")
    if "stream" in how:
        told = response.get_data(as_text=True)
        assert TEXT in told
        assert "event: response.completed" in told
    else:
        body = response.get_json()
        assert (body["status"], body["output"][0]["content"][0]["text"]) == ("completed", TEXT)
        assert (body["job"]["cache"], body["job"]["served_by"]) == ("hit", f"job_{first.hex}")
        again = client.get(f"/v1/responses/{body['id']}")
        assert (again.headers[CACHE], again.get_json()["output"]) == ("hit", body["output"])


@contextmanager
def refusing(store: Store, table: str) -> Iterator[None]:
    """Postgres refuses each new row of the table."""
    with store.begin() as db:
        db.execute(
            sa.text(
                "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'refused'; END$$;"
                f"CREATE TRIGGER refuse BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION refuse()"
            )
        )
    try:
        yield
    finally:
        with store.begin() as db:
            db.execute(sa.text(f"DROP TRIGGER refuse ON {table}; DROP FUNCTION refuse()"))


@pytest.mark.parametrize("table", ["ledger", "deliveries"])
def test_a_hit_is_whole_or_is_none(
    client: ApiClient, answered: Callable[..., UUID], query: Callable[..., list[Any]], store: Store, table: str
) -> None:
    answered()
    with refusing(store, table):
        told = submit(client, {**ASKED, "webhook": "https://hooks.example.com/a"}).get_json()
    assert (told["status"], told["cache"]) == ("queued", "miss")
    assert query("SELECT count(*) FROM jobs WHERE cache = 'hit'") == [(0,)]
    assert query("SELECT count(*) FROM ledger WHERE kind = 'cache'") == [(0,)]
