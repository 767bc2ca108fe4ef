"""`/v1/usage`: what the calling app used and was charged, and no other app; and what an answer cost, in its header."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa

from api.app import USAGE_SLOTS
from api.schemas import reports as schema
from headrace.config import CostSettings
from headrace.domain.apps import App
from headrace.domain.ids import new_id, parse_id
from headrace.store import Store, apps
from headrace.tables import ledger
from tests.web import ApiClient, Web

Charge = Callable[..., None]
COST = "x-headrace-cost-usd"


@pytest.fixture
def charge(store: Store, app: App) -> Charge:
    """Writes an entry of the ledger."""

    def write(day: str, app_name: str = app.name, **changes: Any) -> None:
        values = {"kind": "compute", "job_id": new_id(), "model": "small", "pool": "chat", "usd": Decimal("0.25")}
        values |= {"prompt_tokens": 10, "cached_tokens": 4, "output_tokens": 3}
        with store.begin() as db:
            owner = apps.ensure(db, app_name).id
            at = day if "T" in day else f"{day}T12:00:00Z"
            db.execute(sa.insert(ledger).values({**values, "app_id": owner, "at": at, **changes}))

    return write


def usage(client: ApiClient, **asked: str) -> Any:
    response = client.get("/v1/usage", query_string=asked)
    assert response.status_code == 200, response.get_data()
    return response.get_json()


def test_usage_is_summed_by_day_and_adds_up(client: ApiClient, charge: Charge) -> None:
    charge("2026-11-03")
    charge("2026-11-03", kind="api", usd=Decimal("0.000000001"))
    charge("2026-11-04", kind="cache", usd=Decimal(0))
    charge("2026-11-04", kind="adjustment", job_id=None, usd=Decimal("-0.05"), prompt_tokens=0, cached_tokens=0)
    charge("2026-11-04", kind="waste")

    body = usage(client, **{"from": "2026-11-01", "to": "2026-11-30"})

    assert (body["from"], body["to"], body["group_by"]) == ("2026-11-01", "2026-11-30", ["day"])
    first, second = body["data"]
    assert (first["day"], first["requests"], first["usd"]) == ("2026-11-03", 2, "0.250000001")
    assert (first["prompt_tokens"], first["cached_tokens"], first["output_tokens"]) == (20, 8, 6)
    assert (first["model"], first["lane"], first["end_user"]) == (None, None, None)
    assert (second["day"], second["requests"], second["usd"]) == ("2026-11-04", 1, "-0.050000000"), (
        "a correction is no request, and a wasted attempt is not charged"
    )
    assert (body["total"]["requests"], body["total"]["usd"]) == (3, "0.200000001")


def test_usage_is_split_by_what_it_is_asked_for(client: ApiClient, charge: Charge) -> None:
    charge("2026-11-03", end_user="ann", model="small")
    charge("2026-11-03", end_user="ann", model="large")
    charge("2026-11-04", end_user="bob", model="small")

    body = usage(client, **{"from": "2026-11-01", "to": "2026-11-30", "group_by": "end_user,model"})

    assert body["group_by"] == ["model", "end_user"]
    rows = [(row["day"], row["model"], row["end_user"], row["requests"]) for row in body["data"]]
    assert rows == [(None, "large", "ann", 1), (None, "small", "ann", 1), (None, "small", "bob", 1)]


def test_an_app_sees_its_own_usage_alone(
    client: ApiClient, client_of: Any, make_key: Callable[[str], str], charge: Charge
) -> None:
    charge("2026-11-03", app_name="other")
    charge("2026-11-03")
    asked = {"from": "2026-11-03", "to": "2026-11-03"}

    assert usage(client, **asked)["total"]["requests"] == 1
    charge("2026-11-03", app_name="other")
    assert usage(client, **asked)["total"]["requests"] == 1
    assert usage(client_of(make_key("third")), **asked)["data"] == []


def test_both_days_are_included_to_their_last_moment_of_utc(client: ApiClient, charge: Charge) -> None:
    for moment in ("02T23:59:59.999999", "03T00:00:00", "04T23:59:59.999999", "05T00:00:00"):
        charge(f"2026-11-{moment}Z")

    body = usage(client, **{"from": "2026-11-03", "to": "2026-11-04"})

    assert [(row["day"], row["requests"]) for row in body["data"]] == [("2026-11-03", 1), ("2026-11-04", 1)]


def test_without_days_the_last_thirty_are_answered(client: ApiClient, charge: Charge) -> None:
    today = datetime.now(UTC).date()
    for ago in (0, 29, 30):
        charge(str(today - timedelta(days=ago)))

    body = usage(client)

    if body["to"] == str(today):  # not if midnight has just passed
        assert (body["from"], body["total"]["requests"]) == (str(today - timedelta(days=29)), 2)


def test_a_finished_job_is_in_it_with_its_lane(client: ApiClient, finish: Callable[..., None]) -> None:
    made = client.post("/v1/jobs", json={"prompt": "Hi", "lane": "low", "end_user": "u-42"}).get_json()
    finish(parse_id(made["id"]))

    [row] = usage(client, group_by="lane,end_user,model")["data"]

    assert (row["lane"], row["end_user"], row["model"], row["usd"]) == ("low", "u-42", "served", "0.000001230")


def test_usage_is_split_by_metadata_that_the_operator_has_chosen(
    build_web: Callable[..., Web], key: str, finish: Callable[..., None]
) -> None:
    client = ApiClient(build_web(costs=CostSettings(label_keys=("feature", "team"))), key)
    for metadata in ({"feature": "chat", "team": "a"}, {"feature": "x" * 100}, {"feature": "chat"}, {}):
        made = client.post("/v1/jobs", json={"prompt": "Hi", "metadata": metadata}).get_json()
        finish(parse_id(made["id"]))

    body = usage(client, group_by="metadata.feature,lane")
    assert body["group_by"] == ["lane", "metadata.feature"]
    rows = [(row["lane"], row["metadata"], row["requests"]) for row in body["data"]]
    assert rows == [
        ("normal", {"feature": "chat"}, 2),
        ("normal", {"feature": "x" * 64}, 1),
        ("normal", {"feature": None}, 1),
    ]
    both = usage(client, group_by="metadata.team,metadata.feature")["data"]
    assert {"team": "a", "feature": "chat"} in [row["metadata"] for row in both]
    assert usage(client)["data"][0]["metadata"] == {}


@pytest.mark.parametrize("keys", [(), ("feature",)], ids=["none", "another"])
def test_usage_by_another_key_of_metadata_is_refused(
    build_web: Callable[..., Web], key: str, keys: tuple[str, ...]
) -> None:
    client = ApiClient(build_web(costs=CostSettings(label_keys=keys)), key)
    refused = client.get("/v1/usage", query_string={"group_by": "metadata.team"})
    error = refused.get_json()["error"]
    assert (refused.status_code, error["param"]) == (400, "group_by")
    assert ("feature" in error["message"]) == bool(keys)


@pytest.mark.parametrize(
    ("asked", "param", "message"),
    [
        (
            {"from": "yesterday"},
            "from",
            "Invalid 'from': Input should be a day of UTC, such as 2026-11-27, not \"yesterday\".",
        ),
        (
            {"from": "2026-11-31"},
            "from",
            "Invalid 'from': Input should be a day of UTC, such as 2026-11-27, not \"2026-11-31\".",
        ),
        (
            {"to": "1793000000"},
            "to",
            "Invalid 'to': Input should be a day of UTC, such as 2026-11-27, not \"1793000000\".",
        ),
        (
            {"to": "2026-11-03T00:00:00Z"},
            "to",
            "Invalid 'to': Input should be a day of UTC, such as 2026-11-27, not \"2026-11-03T00:00:00Z\".",
        ),
        ({"to": "9999-12-31"}, "to", "Invalid 'to': The day is out of range."),
        ({"from": "2026-11-04", "to": "2026-11-03"}, "from", "is after 2026-11-03, the last day."),
        ({"from": "2026-08-03", "to": "2026-11-03"}, "from", "are 93 days. Ask for at most 92 at once."),
        (
            {"group_by": "app"},
            "group_by",
            "'app' is none of day, model, lane, end_user, metadata.KEY; separate several by commas.",
        ),
        (
            {"group_by": ""},
            "group_by",
            "'' is none of day, model, lane, end_user, metadata.KEY; separate several by commas.",
        ),
        ({"group_by": "day,day"}, "group_by", "Invalid 'group_by': it names a group twice."),
        ({"since": "2026-11-03"}, "since", "Unknown parameter: 'since'."),
    ],
)
def test_what_cannot_be_answered_is_a_400_that_says_why(
    client: ApiClient, asked: dict[str, str], param: str, message: str
) -> None:
    response = client.get("/v1/usage", query_string=asked)

    error = response.get_json()["error"]
    assert (response.status_code, error["param"]) == (400, param)
    assert message in error["message"]


def test_the_longest_range_is_answered(client: ApiClient) -> None:
    assert usage(client, **{"from": "2026-08-04", "to": "2026-11-03"})["data"] == []


def test_too_many_rows_are_refused(client: ApiClient, charge: Charge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.routes.usage.MOST_ROWS", 2)
    for user in ("ann", "bob", "cat"):
        charge("2026-11-03", end_user=user)
    asked = {"from": "2026-11-03", "to": "2026-11-03", "group_by": "end_user"}

    error = client.get("/v1/usage", query_string=asked).get_json()["error"]

    assert (error["param"], "more than 2 rows" in error["message"]) == ("group_by", True)
    assert schema.MOST_ROWS == 10_000


def test_reads_of_usage_leave_connections_to_other_requests(client: ApiClient, web: Web) -> None:
    slots = web.deps.usage_slots
    others = [slots.take(new_id()) for _ in range(USAGE_SLOTS)]

    refused = client.get("/v1/usage")

    error = refused.get_json()["error"]
    assert (refused.status_code, error["code"], error["reason"]) == (429, "sync_slots_full", "usage_slots")
    assert refused.headers["Retry-After"] == "1"
    assert client.get("/v1/queues").status_code == 200
    others[0].release()
    for _ in range(USAGE_SLOTS + 1):
        assert usage(client)["data"] == [], "an answered read gives its slot back"
    for _ in range(USAGE_SLOTS + 1):
        assert client.get("/v1/usage", query_string={"from": "2001-01-01"}).status_code == 400, "a refused one too"


@pytest.mark.parametrize("path", ["/v1/jobs/{}", "/v1/responses/{}"])
def test_an_ended_jobs_cost_is_in_its_header_as_in_its_body(
    client: ApiClient, finish: Callable[..., None], path: str
) -> None:
    made = client.post("/v1/jobs", json={"prompt": "Hi"}).get_json()["id"]
    public_id = made if "jobs" in path else made.replace("job_", "resp_")

    assert COST not in client.get(path.format(public_id)).headers, "the bill is not known yet"
    finish(parse_id(made))
    ended = client.get(path.format(public_id))

    body = ended.get_json()
    assert ended.headers[COST] == body.get("cost", body.get("job", {}).get("cost"))["usd"] == "0.000001230"


@pytest.mark.usefixtures("answering")
@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/v1/responses", {"input": "Hi"}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}]}),
    ],
)
def test_an_answer_that_was_waited_for_has_its_cost(client: ApiClient, path: str, asked: dict[str, Any]) -> None:
    assert client.post(path, json=asked).headers[COST] == "0.000001230"


def test_a_job_that_never_ran_cost_nothing(client: ApiClient) -> None:
    made = client.post("/v1/jobs", json={"prompt": "Hi"}).get_json()["id"]

    cancelled = client.post(f"/v1/jobs/{made}/cancel")

    assert cancelled.headers[COST] == cancelled.get_json()["cost"]["usd"]
    assert Decimal(cancelled.headers[COST]) == 0
