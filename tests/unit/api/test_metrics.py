"""What a web process counts of its requests, without servers."""

import secrets

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from headrace.config import Settings
from headrace.domain.ids import new_id
from tests.web import Web


@pytest.fixture
def web(settings: Settings) -> Web:
    return Web.of(settings)


def page(web: Web) -> str:
    registry = CollectorRegistry()
    registry.register(web.deps.metrics)
    return generate_latest(registry).decode()


def requests(web: Web) -> set[str]:
    """The labels of all requests, with their numbers."""
    name = "headrace_http_request_seconds_count"
    return {line.removeprefix(name) for line in page(web).splitlines() if line.startswith(name)}


def test_requests_are_counted_by_method_route_and_status(web: Web) -> None:
    client = web.test_client()
    for _ in range(2):
        client.get("/healthz")
    client.get("/v1/jobs/job_secret")
    client.put("/healthz")
    assert requests(web) == {
        '{kind="plain",method="GET",route="/healthz",status="200"} 2.0',
        '{kind="plain",method="GET",route="/v1/jobs/{public_id}",status="401"} 1.0',
        '{kind="plain",method="PUT",route="none",status="405"} 1.0',
    }


def test_what_clients_choose_makes_no_label(web: Web) -> None:
    canary = secrets.token_hex(8)
    client = web.test_client()
    for number in range(50):
        client.get(f"/{canary}/{number}")
        client.get(f"/v1/jobs/{canary}{number}?wait={number}", headers={"Authorization": f"Bearer {canary}"})
        client.open("/healthz", method=f"{canary.upper()}{number}")
        client.get(f"/v1/threads/{canary}{number}")
    assert len(requests(web)) == 4
    assert canary not in page(web).lower()


def test_open_waits_and_streams_stand_beside_what_may_be_open(settings: Settings) -> None:
    web = Web.of(settings.model_copy(update={"wait_slots": 7, "stream_slots": 9}))
    waits = web.deps.waits
    with waits.hold("stream", new_id()):
        served = page(web)
    assert 'headrace_http_open{kind="wait"} 0.0' in served
    assert 'headrace_http_open{kind="stream"} 1.0' in served
    assert 'headrace_http_slots{kind="wait"} 7.0' in served
    assert 'headrace_http_slots{kind="stream"} 9.0' in served
    assert 'headrace_http_open{kind="stream"} 0.0' in page(web)
