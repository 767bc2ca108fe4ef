"""A confined app: each accept and each refusal says so, and no more of its jobs are accepted than may yet run."""

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from headrace.domain.apps import App
from headrace.domain.ids import parse_id
from headrace.policies.confinement import MOST_HELD
from headrace.store import Store
from headrace.store.jobs.confinements import IS_HELD
from headrace.tables import confinements, jobs
from tests.web import Web

UNTIL = "x-headrace-confined-until"


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the doors look anew each time."""
    monkeypatch.setattr("api.door.cached.confined_apps.CONFINED_TTL_S", -1.0)


@pytest.fixture
def confine(store: Store, app: App) -> None:
    now = sa.func.now()
    times = {"since": now, "next_at": now, "until": now + sa.text("interval '1 h'")}
    with store.begin() as db:
        db.execute(sa.insert(confinements).values(app_id=app.id, pool="chat", reason="2 of its prompts", **times))


@pytest.mark.usefixtures("confine")
def test_an_accept_of_a_confined_app_says_until_when(
    build_web: Callable[..., Web], make_key: Callable[[str], str], store: Store
) -> None:
    client = build_web().test_client()
    mine, others = ({"Authorization": f"Bearer {make_key(app)}"} for app in ("test", "other"))
    asked: dict[str, Any] = {"prompt": "Why is the sky blue?"}
    accepted = client.post("/v1/jobs", json=asked, headers=mine)
    assert accepted.status_code == 202
    with store.begin() as db:
        until = db.scalar(sa.select(confinements.c.until))
    assert accepted.headers[UNTIL] == f"{until:%Y-%m-%dT%H:%M:%SZ}"
    background = {"input": "Why?", "background": True, "max_output_tokens": 16}
    assert client.post("/v1/responses", json=background, headers=mine).headers[UNTIL] == accepted.headers[UNTIL]
    assert UNTIL not in client.post("/v1/jobs", json=asked, headers=others).headers
    with store.begin() as db:
        db.execute(sa.update(confinements).values(until=sa.func.now()))
    assert UNTIL not in client.post("/v1/jobs", json=asked, headers=mine).headers


@pytest.mark.usefixtures("confine")
def test_a_confined_app_is_refused_more_jobs_than_may_yet_run(
    build_web: Callable[..., Web], make_key: Callable[[str], str], store: Store
) -> None:
    client = build_web().test_client()
    mine, others = ({"Authorization": f"Bearer {make_key(app)}"} for app in ("test", "other"))

    def post(headers: Any) -> Any:
        return client.post("/v1/jobs", json={"prompt": "Why is the sky blue?"}, headers=headers)

    held = [parse_id(post(mine).get_json()["id"]) for _ in range(MOST_HELD)]
    waiting = {
        "state": "waiting",
        "not_before": sa.func.now() + sa.text("interval '1 h'"),
        "route_reason": "confined: x",
    }
    with store.begin() as db:
        db.execute(sa.update(jobs).where(jobs.c.id.in_(held[1:])).values(**waiting))
    assert post(mine).status_code == 202
    with store.begin() as db:
        db.execute(sa.update(jobs).where(jobs.c.id == held[0]).values(**waiting))
        assert db.scalar(sa.select(sa.func.count()).where(IS_HELD)) == MOST_HELD

    refused = post(mine)

    error = refused.get_json()["error"]
    assert (refused.status_code, error["code"], error["reason"]) == (429, "app_confined", "confined")
    assert "run one at a time until" in error["message"]
    assert refused.headers["Retry-After"] == "120"
    assert refused.headers[UNTIL]
    assert post(others).status_code == 202
