"""Two releases on the same servers, as during a deployment: jobs, streams, webhooks and the budget, in both directions.

The first tests have the older release's workers under the newer one's web, then come the newer workers beside them, and
in the end the newer workers alone, under the older web.
"""

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import httpx2
import openai
import pytest

from headrace.domain.ids import parse_id
from headrace.stack.loopback import Receiver
from tests.contracts.conftest import StandIn
from tests.e2e.releases import STYLE, Trees, trees

SERVERS = ("gpu", "overflow", "webhooks", "control", "beat")
WEB = ("release", *SERVERS)
WORKERS = ("release", "web")
PEPPER = "of-both-releases"
#: Jobs of each kind.
EACH = 4


@pytest.fixture(scope="module")
def provider() -> Iterator[StandIn]:
    server = StandIn()
    yield server
    server.close()


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Trees:
    return trees(tmp_path_factory.mktemp("tree"))


Run = Callable[..., Any]


@pytest.fixture(scope="module")
def run(start: Callable[..., Any], provider: StandIn) -> Run:
    """Starts a tree's processes, without some."""

    def begin(tree: Any, without: tuple[str, ...], **more: Any) -> Any:
        options = [word for name in without for word in ("--without", name)]
        settings = {"pepper": PEPPER, "budgets__day_usd": "10", "lease_s": "3", "observe_every_s": "1"}
        return start(*options, also=["webhooks"], tree=tree, paid_api=provider.url, **settings, **more)

    return begin


@pytest.fixture(scope="module")
def newer_web(run: Run, both: Trees) -> Any:
    """With the servers, after the newer release's migrations: these come first."""
    return run(both.newer, SERVERS)


@pytest.fixture(scope="module")
def older_workers(run: Run, both: Trees, newer_web: Any) -> Any:
    return run(both.older, WORKERS, beside=newer_web)


@pytest.fixture(scope="module")
def newer_workers(run: Run, both: Trees, newer_web: Any) -> Any:
    return run(both.newer, WORKERS, beside=newer_web)


@pytest.fixture(scope="module")
def older_web(run: Run, both: Trees, newer_web: Any) -> Any:
    return run(both.older, WEB, beside=newer_web)


def ran_on(system: Any, job_ids: list[str]) -> set[int]:
    """The payload versions that the workers read which ran these jobs."""
    query = "SELECT payload_version FROM workers w JOIN attempts a ON a.worker_id = w.id WHERE a.job_id = ANY(%s)"
    return {row["payload_version"] for row in system.sql(query, [parse_id(job_id) for job_id in job_ids])}


def check_all_is_served(system: Any, provider: StandIn, receiver: Receiver) -> None:
    """Jobs, streams, webhooks and paid calls, through this web: each ends once, and costs what it says."""
    paid_before, spent_before = len(provider.requests), spent(system)
    plain = system.submit_many(EACH)
    hooked = [system.submit(webhook=receiver.url, prompt=f"Hook {no}?") for no in range(EACH)]
    paid = [system.submit(overflow="only", prompt=f"Paid {no}?") for no in range(EACH)]
    report = system.stack.report
    with openai.OpenAI(base_url=f"{report.url}/v1", api_key=report.api_key, max_retries=0) as client:
        for no in range(EACH):
            check_stream(client, report.model, f"Stream {no}?")
    found = system.all_ended([*plain, *hooked, *paid])

    assert {(job["status"], job["attempts"]) for job in found} == {("succeeded", 1)}
    assert system.bills([*plain, *hooked]) == [("compute", 1)] * 2 * EACH
    assert system.bills(paid) == [("api", 1)] * EACH
    received = receiver.wait_for(EACH, 20)
    assert sorted(each.headers["webhook-id"] for each in received) == sorted(
        {each.headers["webhook-id"] for each in received}
    )
    assert len(received) == EACH
    assert len(provider.requests) - paid_before == EACH
    [account] = system.sql("SELECT reserved_usd FROM budgets WHERE app_id IS NULL AND period = 'day'")
    ledger = system.sql("SELECT sum(usd) AS usd FROM ledger WHERE kind = 'api'")[0]["usd"]
    assert account["reserved_usd"] == 0
    assert spent(system) == ledger > spent_before


def spent(system: Any) -> Decimal:
    rows = system.sql("SELECT spent_usd FROM budgets WHERE app_id IS NULL AND period = 'day'")
    return rows[0]["spent_usd"] if rows else Decimal(0)


def check_stream(client: openai.OpenAI, model: str, prompt: str) -> None:
    """What a reader gets piece by piece is the stored answer."""
    told, pieces = "", 0
    with client.responses.create(model=model, input=prompt, stream=True, max_output_tokens=32) as events:
        for event in events:
            assert event.type != "error", event
            if event.type == "response.output_text.delta":
                told, pieces = told + event.delta, pieces + 1
            if event.type == "response.completed":
                assert event.response.output_text == told
    assert pieces > 1


def metric(system: Any, name: str) -> float:
    """The sum of a metric over its labels, of all workers of this stack."""
    found = 0.0
    for url in system.stack.report.metrics_urls.values():
        for line in httpx2.get(url).text.splitlines():
            if line.startswith(f"{name}{{"):
                found += float(line.rpartition(" ")[2])
    return found


def test_older_workers_serve_what_a_newer_web_accepts(
    newer_web: Any, older_workers: Any, provider: StandIn, receiver: Receiver
) -> None:
    check_all_is_served(newer_web, provider, receiver)


def test_older_workers_leave_what_they_cannot_read_to_newer_ones(
    newer_web: Any,
    older_workers: Any,
    both: Trees,
    provider: StandIn,
    request: pytest.FixtureRequest,
    wait_until: Callable[..., None],
) -> None:
    """Uncounted, without a call of the paid API, and without taking it again and again; web says that they are old."""
    if not both.has_style:
        pytest.fail("name a request that needs the newer payload version")
    paid_before = len(provider.requests)
    own, hasty = (newer_web.submit(metadata={STYLE: "terse"}, max_wait=wait) for wait in (300, 6))
    paid = newer_web.submit(metadata={STYLE: "terse"}, overflow="only", max_wait=300)
    plain = newer_web.submit(prompt="Beside them?")

    assert newer_web.ended(plain)["attempts"] == 1
    expired = newer_web.ended(hasty)
    assert (expired["status"], expired["error"]["code"], expired["attempts"]) == ("expired", "expired", 0)
    rows = newer_web.sql("SELECT state, attempt, needs_version, enqueue_no FROM jobs WHERE started_at IS NULL")
    waiting = [row for row in rows if row["state"] != "expired"]
    assert waiting == [{"state": "waiting", "attempt": 0, "needs_version": 2, "enqueue_no": 1}] * 2
    assert metric(older_workers, "headrace_payloads_unread_total") == 3, "each was taken once"
    assert len(provider.requests) == paid_before
    assert "serve chat, overflow" in newer_web.http.get("/readyz").json()["warnings"]["workers"]

    request.getfixturevalue("newer_workers")
    found = newer_web.all_ended([own, paid])
    assert {(job["status"], job["attempts"]) for job in found} == {("succeeded", 1)}
    assert ran_on(newer_web, [own, paid]) == {2}
    assert newer_web.bills([own, paid]) == [("api", 1), ("compute", 1)]


def test_newer_workers_serve_what_an_older_web_accepts(
    older_web: Any, older_workers: Any, newer_workers: Any, provider: StandIn, receiver: Receiver
) -> None:
    older_workers.stack.stop()
    check_all_is_served(older_web, provider, receiver)
