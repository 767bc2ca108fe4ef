"""A prompt that killed an engine is refused for a day, and its app is confined: every accept and refusal says so."""

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from headrace.domain.apps import App
from headrace.domain.attempts import Claim
from headrace.domain.fleet import WorkerInfo
from headrace.domain.ids import new_id, parse_id
from headrace.domain.prompts import prompt_digest
from headrace.policies.retries import MOST_HELD
from headrace.store import Store
from headrace.store.fleet import workers
from headrace.store.jobs.confinements import IS_HELD, forget_poison, remember_poison
from headrace.tables import confinements, jobs, poison_prompts
from tests import one_attempt
from tests.web import ApiClient, Web

PROMPT = {
    "messages": [
        {"role": "system", "content": "Be brief. \u00fc"},
        {"role": "user", "content": "Why is the sky blue?"},
    ],
    "max_tokens": 16,
    "temperature": 1,
    "top_p": 0.3,
    "stop": ["\n", "END"],
    "seed": 7,
}


@pytest.fixture
def claim(store: Store) -> Callable[[], Claim]:
    """What a worker knows of the newest job."""

    def take() -> Claim:
        worker = WorkerInfo(new_id(), "gpu@test", "host", "chat", "simulator", "m", 4)
        with store.begin() as db:
            workers.register(db, worker, 60)
            job_id = db.scalar(sa.select(jobs.c.id).order_by(jobs.c.id.desc()).limit(1))
            claimed = one_attempt.claim(db, job_id, 1, worker.id, "simulator")
        assert claimed is not None
        return claimed

    return take


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the doors look anew each time."""
    for ttl in ("REFUSED_TTL_S", "CONFINED_TTL_S"):
        monkeypatch.setattr(f"api.door.confinement.{ttl}", -1.0)


def test_a_prompt_that_killed_an_engine_alone_is_refused_for_a_day_whoever_sends_it(
    build_web: Callable[..., Web], make_key: Callable[[str], str], store: Store, claim: Callable[[], Claim]
) -> None:
    client = build_web().test_client()
    mine, others = ({"Authorization": f"Bearer {make_key(app)}"} for app in ("test", "other"))

    def post(headers: Any, **changes: Any) -> Any:
        return client.post("/v1/jobs", json={**PROMPT, **changes}, headers=headers)

    first = post(mine)
    assert first.status_code == 202
    killer = claim()
    assert killer.job_id == parse_id(first.get_json()["id"])
    with store.begin() as db:
        remember_poison(db, prompt_digest(killer.model, killer.messages, killer.sampling), killer.job_id)

    for headers in (mine, others):
        refused = post(headers)
        error = refused.get_json()["error"]
        assert (refused.status_code, error["code"]) == (400, "poison_prompt")
        assert "An engine died under this prompt" in error["message"]
    assert post(mine, seed=8).status_code == 202
    assert post(mine, messages=[{"role": "user", "content": "Why is the sky red?"}]).status_code == 202
    with store.begin() as db:
        left = db.scalar(sa.select(poison_prompts.c.refused_until - sa.func.now()))
        assert 23 * 3600 < left.total_seconds() <= 24 * 3600
        db.execute(sa.update(poison_prompts).values(refused_until=sa.func.now()))
    assert post(mine).status_code == 202, "its day is over"
    with store.begin() as db:
        assert forget_poison(db) == 1


def test_an_app_is_told_why_its_prompt_is_refused_in_openais_words_too(
    client: ApiClient, store: Store, claim: Callable[[], Claim]
) -> None:
    asked = {"input": "Why is the sky blue?", "background": True, "max_output_tokens": 16}
    assert client.post("/v1/responses", json=asked).status_code == 200
    killer = claim()
    with store.begin() as db:
        remember_poison(db, prompt_digest(killer.model, killer.messages, killer.sampling), killer.job_id)
    refused = client.post("/v1/responses", json=asked)
    assert (refused.status_code, refused.get_json()["error"]["code"]) == (400, "poison_prompt")


UNTIL = "x-headrace-confined-until"


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
