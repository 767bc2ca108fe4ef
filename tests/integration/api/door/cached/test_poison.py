"""A prompt that killed an engine in which nothing else ran: every door refuses it for a day."""

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from headrace.domain.attempts import Claim
from headrace.domain.fleet import WorkerInfo
from headrace.domain.ids import new_id, parse_id
from headrace.domain.prompts import prompt_digest
from headrace.store import Store, attempts
from headrace.store.fleet import workers
from headrace.store.jobs import poison
from headrace.tables import jobs, poison_prompts
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
            claimed = attempts.claim(db, job_id, 1, worker.id, "simulator")
        assert claimed is not None
        return claimed

    return take


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the doors look anew each time."""
    monkeypatch.setattr("api.door.cached.poison.REFUSED_TTL_S", -1.0)


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
        poison.remember(db, prompt_digest(killer.model, killer.messages, killer.sampling), killer.job_id)

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
        assert poison.forget_old(db) == 1


def test_an_app_is_told_why_its_prompt_is_refused_in_openais_words_too(
    client: ApiClient, store: Store, claim: Callable[[], Claim]
) -> None:
    asked = {"input": "Why is the sky blue?", "background": True, "max_output_tokens": 16}
    assert client.post("/v1/responses", json=asked).status_code == 200
    killer = claim()
    with store.begin() as db:
        poison.remember(db, prompt_digest(killer.model, killer.messages, killer.sampling), killer.job_id)
    refused = client.post("/v1/responses", json=asked)
    assert (refused.status_code, refused.get_json()["error"]["code"]) == (400, "poison_prompt")
