"""Work has a rate: a flood of calls by one app is refused, on every route, while another app is served."""

import gzip
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from werkzeug.test import TestResponse

from api.auth import CALL_BYTES
from headrace.config import Settings
from headrace.domain.apps import Changes
from headrace.domain.ids import new_id
from headrace.store import Store, apps
from tests.waiting import until
from tests.web import ApiClient, Web

#: A bucket of ten calls, which fills by one a second.
LIMIT = 60
FLOOD = 24
#: What needs no key costs little, and so has no rate.
OPEN = {"/", "/openapi.json", "/docs", "/docs/<name>", "/healthz", "/health", "/ping", "/version", "/readyz"}
PROMPT = {"messages": [{"role": "user", "content": "Why?"}]}
#: A submit of each kind that is accepted, and answered at once.
SUBMITS: dict[str, dict[str, Any]] = {
    "/v1/jobs": {"prompt": "Why?"},
    "/v1/responses": {"input": "Why?", "background": True},
}

Client = Callable[[str], ApiClient]


@pytest.fixture
def limited(web: Web, client_of: Callable[..., ApiClient], make_key: Client, store: Store) -> Client:
    """A client of a new app with a rate of calls."""

    def make(name: str) -> ApiClient:
        key = make_key(name)
        with store.begin() as db:
            apps.set_limits(db, name, Changes(calls_per_minute=LIMIT))
        return client_of(key)

    return make


def routes(web: Web) -> Iterator[tuple[str, str]]:
    """Every method of every route that needs a key, with a path that it takes."""
    values = {"public_id": "job_" + "0" * 32, "file_id": "file-1", "name": "model", "rest": "some/path"}
    values["batch_id"] = "batch_1"
    for rule in web.url_map.iter_rules():
        built = rule.build({name: values[name] for name in rule.arguments})
        assert built is not None
        if rule.rule not in OPEN:
            yield from ((method, built[1]) for method in sorted((rule.methods or set()) - {"OPTIONS"}))


def is_limited(response: TestResponse) -> bool:
    """Whether the rate of calls refused it, in the way that the field's clients know."""
    if response.status_code != 429:
        return False
    assert response.headers["x-ratelimit-limit-calls"] == str(LIMIT)
    assert response.headers["x-ratelimit-remaining-calls"] == "0"
    assert 1 <= int(response.headers["Retry-After"]) <= 60
    if not response.data:  # of HEAD
        return True
    error = response.get_json()["error"]
    assert (error["code"], error["reason"]) == ("rate_limit_exceeded", "calls_per_minute")
    return True


def test_a_flood_is_refused_on_every_route_while_another_app_is_served(
    web: Web, limited: Client, client_of: Callable[..., ApiClient], key: str
) -> None:
    other, found = client_of(key), list(routes(web))
    assert len(found) > 40
    for number, (method, path) in enumerate(found):
        flooding = limited(f"app-{number}")
        # A submit is refused for its body, which has no field that it needs.
        options: dict[str, Any] = {"json": {"unknown": 1}} if method in ("POST", "PUT", "PATCH") else {}
        answers = [flooding.open(path, method=method, **options) for _ in range(FLOOD)]
        refused = [is_limited(answer) for answer in answers]
        assert not refused[0], (method, path, answers[0].text)
        assert refused[-1], (method, path, answers[-1].status_code, answers[-1].text)
        assert refused.count(False) <= 16, (method, path)
    assert other.get("/v1/models").status_code == 200
    assert other.post("/tokenize", json={"prompt": "Why?"}).status_code == 200


@pytest.mark.parametrize("path", SUBMITS)
def test_accepted_submits_use_no_calls(limited: Client, path: str) -> None:
    client = limited("submitting")
    answers = [client.post(path, json=SUBMITS[path]) for _ in range(FLOOD)]
    assert {answer.status_code for answer in answers} <= {200, 202}
    assert client.get("/v1/models").status_code == 200


def test_a_replay_uses_a_call(limited: Client) -> None:
    client = limited("repeating")
    again = [
        client.post("/v1/jobs", json={"prompt": "Why?"}, headers={"Idempotency-Key": "once"}) for _ in range(FLOOD)
    ]
    assert (again[1].status_code, again[1].headers["Idempotent-Replayed"]) == (202, "true")
    assert is_limited(again[-1])


def test_polls_above_the_rate_keep_no_submit_out(limited: Client) -> None:
    client = limited("polling")
    job = client.post("/v1/jobs", json={"prompt": "Why?"}).get_json()["id"]
    polls = [client.get(f"/v1/jobs/{job}") for _ in range(FLOOD)]
    assert polls[0].status_code == 200
    assert is_limited(polls[-1])
    assert client.post("/v1/jobs", json={"prompt": "Why?"}).status_code == 202


@pytest.mark.parametrize("path", ["/v1/jobs", "/tokenize"])
def test_a_large_body_that_makes_no_job_counts_as_many_calls(limited: Client, path: str) -> None:
    client = limited("large")
    wrong = {"unknown": "x" * (20 * CALL_BYTES)}
    assert client.post(path, json=wrong).status_code == 400
    assert is_limited(client.post(path, json=wrong))


def test_a_large_body_is_not_checked_once_those_before_it_used_up_the_calls(limited: Client, web: Web) -> None:
    client, parts = limited("crowd"), web.deps
    app = parts.callers.authenticator.authenticate(f"Bearer {client.key}")
    wrong = {"unknown": "x" * CALL_BYTES}
    with ThreadPoolExecutor(1) as pool, parts.bodies.checking.hold(new_id()):
        answer = pool.submit(client.post, "/v1/jobs", json=wrong)
        until(lambda: bool(parts.bodies.checking._waiting))
        parts.callers.rates.charge(app, 2 * LIMIT)
    assert is_limited(answer.result())


def test_a_long_list_counts_as_many_calls(limited: Client) -> None:
    client = limited("lists")
    metadata = {str(number): "x" * 512 for number in range(16)}
    for _ in range(3):
        assert client.post("/v1/jobs", json={"prompt": "Why?", "metadata": metadata}).status_code == 202
    answers = [client.get("/v1/jobs") for _ in range(3)]
    assert len(answers[0].data) > 5 * CALL_BYTES
    assert [each.status_code for each in answers] == [200, 200, 429]
    assert is_limited(answers[-1])


def test_a_gzip_that_breaks_off_counts_as_the_largest_body(limited: Client, settings: Settings) -> None:
    client = limited("packed")
    broken = gzip.compress(bytes(settings.body_limit_bytes - 1))[:-8]
    answer = client.post("/v1/jobs", data=broken, headers={"Content-Encoding": "gzip"})
    assert answer.status_code == 400
    assert is_limited(client.post("/v1/jobs", json={"prompt": "Why?"}))


def test_a_wait_counts_once(limited: Client) -> None:
    client = limited("waiting")
    job = client.post("/v1/jobs", json={"prompt": "Why?"}).get_json()["id"]
    for _ in range(9):
        assert client.get(f"/v1/jobs/{job}?wait=0.05").status_code == 200
    assert client.get("/v1/models").status_code == 200


def test_without_a_limit_of_its_own_the_setting_holds(
    build_web: Callable[..., Web], client_of: Callable[..., ApiClient], key: str
) -> None:
    client = client_of(key, build_web(calls_per_minute=LIMIT))
    answers = [client.post("/tokenize", json={"prompt": "Why?"}) for _ in range(FLOOD)]
    assert answers[0].status_code == 200
    assert is_limited(answers[-1])
