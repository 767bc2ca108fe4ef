"""Polls are answered alike by a batch and by their handler: status, body, headers and counts are the same."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from werkzeug.test import TestResponse

from api.reading import Waits, Watch
from api.schemas.jobs import JobBody
from headrace.domain.ids import new_id, parse_id, show_id
from headrace.errors import StoreUnavailable
from headrace.store import jobs
from tests.web import ApiClient, Web

#: What differs between two answers that are alike.
OWN_HEADERS = {"x-request-id", "openai-processing-ms"}
CACHED = {"prompt": "Why?", "temperature": 0, "cache": "exact"}
ASKED: dict[str, dict[str, Any]] = {
    "plain": {"prompt": "Why?", "metadata": {"of": "a user"}, "end_user": "Ada"},
    "reasoning": {"prompt": "Do think!"},
    "tools": {"prompt": "Why?", "tools": [{"type": "function", "function": {"name": "weather", "parameters": {}}}]},
    "several answers": {"prompt": "Why?", "n": 2},
    "log probabilities": {"prompt": "Why?", "top_logprobs": 2},
    "cache": CACHED,
}


def headers_of(response: TestResponse) -> dict[str, str]:
    assert response.headers["x-request-id"].startswith("req_")
    assert response.headers["openai-processing-ms"].isdigit()
    return {name: value for name, value in response.headers.items() if name not in OWN_HEADERS}


def samples(web: Web, ending: str, **labels: str) -> list[float]:
    """What was counted of the polls with these labels."""
    wanted = {"route": "/v1/jobs/{public_id}", **labels}.items()
    found = [each for metric in web.deps.metrics.collect() for each in metric.samples]
    return [each.value for each in found if each.name.endswith(ending) and wanted <= each.labels.items()]


@pytest.mark.parametrize("kind", ASKED)
@pytest.mark.parametrize("other", ["/", "?wait=0", "/?wait=0.01"])
def test_a_poll_is_answered_alike_by_a_batch_and_by_its_handler(
    client: ApiClient, finish: Any, kind: str, other: str
) -> None:
    public_id = client.post("/v1/jobs", json=ASKED[kind]).get_json()["id"]

    for status in ("queued", "succeeded"):
        first, second = client.get(f"/v1/jobs/{public_id}"), client.get(f"/v1/jobs/{public_id}{other}")
        assert first.get_json()["status"] == status
        assert (first.status_code, headers_of(first)) == (second.status_code, headers_of(second))
        assert first.data == second.data
        if status == "queued":
            finish(parse_id(public_id))


def test_a_poll_is_counted_alike_by_a_batch_and_by_its_handler(client: ApiClient, web: Web) -> None:
    public_id = client.post("/v1/jobs", json={"prompt": "Why?"}).get_json()["id"]
    for query in ("", "?wait=0", "?wait=0.01"):
        client.get(f"/v1/jobs/{public_id}{query}")
    assert (samples(web, "_count", kind="plain"), samples(web, "_count", kind="wait")) == ([2], [1])


def test_an_unknown_job_and_a_foreign_one_are_not_found(
    client: ApiClient, client_of: Callable[..., ApiClient], make_key: Callable[[str], str]
) -> None:
    theirs = client_of(make_key("other")).post("/v1/jobs", json={"prompt": "Why?"}).get_json()["id"]
    for public_id in (theirs, show_id(new_id())):
        response = client.get(f"/v1/jobs/{public_id}?wait=30")
        assert (response.status_code, response.get_json()["error"]["code"]) == (404, "not_found")


def test_a_poll_that_fails_after_its_wait_does_not_wait_twice_and_is_counted_with_it(
    client: ApiClient, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    public_id = client.post("/v1/jobs", json={"prompt": "Why?"}).get_json()["id"]
    reads, find_all = list[object](), jobs.find_all
    watches, add = list[object](), Waits._add

    def counted(waits: Waits, watch: Watch, job_id: UUID) -> None:
        watches.append(watch)
        add(waits, watch, job_id)

    def find_once(*asked: Any) -> Any:
        reads.append(asked)
        if len(reads) > 1:
            raise StoreUnavailable("Postgres does not answer: gone")
        return find_all(*asked)

    monkeypatch.setattr(Waits, "_add", counted)
    monkeypatch.setattr("headrace.store.jobs.find_all", find_once)
    answer = client.get(f"/v1/jobs/{public_id}?wait=0.2")

    assert (answer.status_code, answer.get_json()["error"]["code"]) == (503, "store_unavailable")
    assert len(watches) == 1
    assert int(answer.headers["openai-processing-ms"]) >= 200
    [took_s] = samples(web, "_sum", kind="wait", status="503")
    assert took_s >= 0.2


def test_a_bug_while_a_job_is_written_is_logged_once_and_counted(
    client: ApiClient, web: Web, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    public_id = client.post("/v1/jobs", json={"prompt": "Why?"}).get_json()["id"]

    def broken(_: object) -> Any:
        raise ValueError("A bug.")

    monkeypatch.setattr(JobBody, "of", broken)
    answer = client.get(f"/v1/jobs/{public_id}")

    assert (answer.status_code, answer.get_json()["error"]["code"]) == (500, "internal_error")
    assert answer.headers["x-request-id"].startswith("req_")
    assert samples(web, "_count", kind="plain", status="500") == [1]
    assert caplog.messages.count("request_failed") == 1


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_key_is_looked_up_once_while_postgres_is_away(
    client: ApiClient, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    lookups = list[object]()

    def away(*asked: object) -> Any:
        lookups.append(asked)
        raise StoreUnavailable("Postgres does not answer: gone")

    monkeypatch.setattr("headrace.store.keys.authenticate_all", away)
    path = "/v1/jobs" if method == "POST" else f"/v1/jobs/{show_id(new_id())}"
    answer = client.open(path, method=method, json={"prompt": "Why?"} if method == "POST" else None)

    assert (answer.status_code, len(lookups)) == (503, 1)


def test_pages_of_other_origins_may_poll(
    build_web: Callable[..., Web], client_of: Callable[..., ApiClient], key: str, settings: Any
) -> None:
    cors = settings.cors.model_copy(update={"origins": ("https://example.com",)})
    client = client_of(key, build_web(cors=cors))
    public_id = client.post("/v1/jobs", json={"prompt": "Why?"}).get_json()["id"]
    response = client.get(f"/v1/jobs/{public_id}", headers={"Origin": "https://example.com"})
    assert response.headers["Access-Control-Allow-Origin"] == "https://example.com"
