"""No app reaches another app's jobs, on any route that takes an id. The routes come from Flask, so none is missed."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from werkzeug.routing import Rule

from headrace.domain.ids import ID_PREFIXES, new_id, parse_id
from tests.web import ApiClient, Web

#: What a path's argument is called when it is an app's own. Every other name must be listed below it.
OWNED = "public_id"
#: Arguments that belong to no app: a model's name, and the rest of a path that is not served.
SHARED = {"name", "rest"}
#: Ways to ask that a route may treat apart, or refuse by themselves.
QUERIES = ("", "?wait=30", "?stream=true", "?stream=true&starting_after=0", "?limit=1&order=asc")


def rules(web: Web) -> Iterator[Rule]:
    """The routes under /v1 that have an argument."""
    yield from (rule for rule in web.url_map.iter_rules() if rule.rule.startswith("/v1/") and rule.arguments)


def calls(web: Web) -> Iterator[tuple[str, str]]:
    """Every method and path that takes a job's id."""
    for rule in rules(web):
        if OWNED in rule.arguments:
            for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
                yield method, rule.rule.replace(f"<{OWNED}>", "{}")


def submit(client: ApiClient) -> str:
    """A new job's 32 digits."""
    answered = client.post("/v1/jobs", json={"prompt": "Hi"}).get_json()
    return parse_id(answered["id"]).hex


def spellings(path: str, digits: str) -> list[str]:
    """The path with each spelling of the id."""
    return [path.format(prefix + digits) for prefix in ID_PREFIXES]


def told(client: ApiClient, method: str, path: str, digits: str) -> list[tuple[int, str, set[str]]]:
    """The answers without the id: status, body, and names of headers."""
    answers = [client.open(spelling, method=method) for spelling in spellings(path, digits)]
    return [
        (answer.status_code, answer.get_data(as_text=True).replace(digits, "ID"), set(answer.headers.keys()))
        for answer in answers
    ]


@pytest.fixture
def other(client_of: Any, make_key: Callable[[str], str]) -> ApiClient:
    stranger: ApiClient = client_of(make_key("other"))
    return stranger


def test_every_argument_of_a_path_is_known_to_be_an_apps_own_or_nobodys(web: Web) -> None:
    names = {name for rule in rules(web) for name in rule.arguments - set(rule.defaults or ())}
    # A file and a batch of another app: `test_files.py`, `test_batches.py`.
    assert names - SHARED == {OWNED, "file_id", "batch_id"}


def test_another_apps_id_is_404_on_every_route_that_takes_one(web: Web, client: ApiClient, other: ApiClient) -> None:
    taking = list(calls(web))
    assert {("GET", "/v1/jobs/{}"), ("POST", "/v1/jobs/{}/cancel"), ("GET", "/v1/responses/{}")} <= set(taking)
    for method, path in taking:
        digits = submit(client)

        assert [status for status, *_ in told(other, method, path, digits)] == [404] * len(ID_PREFIXES), (method, path)

        assert client.get(f"/v1/jobs/job_{digits}").get_json()["status"] == "queued", (method, path)
        # The test would say nothing of a path that is 404 for everyone.
        assert [status for status, *_ in told(client, method, path, digits)] != [404] * len(ID_PREFIXES), (method, path)


def test_another_apps_id_is_answered_as_one_that_never_was(web: Web, client: ApiClient, other: ApiClient) -> None:
    for method, path in calls(web):
        digits = submit(client)
        for query in QUERIES:
            answers = told(other, method, path + query, digits)
            assert answers == told(other, method, path + query, new_id().hex), (method, path, query)
            assert all(status in (400, 404) for status, *_ in answers), (method, path, query)


def test_an_apps_list_has_no_job_of_another_even_behind_its_id(client: ApiClient, other: ApiClient) -> None:
    first, digits = submit(client), submit(client)
    own = submit(other)
    for query in ("", f"?after=job_{new_id().hex}"):
        listed = other.get(f"/v1/jobs{query}").get_json()["data"]
        assert [job["id"] for job in listed] == [f"job_{own}"]
    assert other.get(f"/v1/jobs?after=job_{digits}").get_json()["data"] == []
    assert [job["id"] for job in client.get(f"/v1/jobs?after=job_{digits}").get_json()["data"]] == [f"job_{first}"]
