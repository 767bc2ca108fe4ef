"""`store=false`: of a response's texts nothing is kept once they are delivered, and its bill stays."""

from collections.abc import Callable
from typing import Any

import openai
import pytest
import sqlalchemy as sa
from openai import OpenAI
from redis import Redis

from headrace.domain.ids import parse_id
from headrace.errors import StoreUnavailable
from headrace.store import Store
from headrace.store.jobs import texts
from headrace.tables import job_texts, jobs
from tests.waiting import until
from tests.web import Web

ANSWER = "Because of Rayleigh scattering."
CANARY = "canary-7f3a"


def ask(sdk: OpenAI, **arguments: Any) -> Any:
    return sdk.responses.create(**{"input": f"Why {CANARY}?", "store": False, **arguments})


@pytest.fixture
def kept(store: Store, redis: Redis) -> Callable[[], bool]:
    """Whether any text is there still, in Postgres or Redis."""

    def look() -> bool:
        with store.begin() as db:
            rows = db.scalar(sa.select(sa.func.count()).select_from(job_texts))
        return bool(rows) or any("stream" in str(key) for key in redis.scan_iter())

    return look


@pytest.mark.usefixtures("answering")
@pytest.mark.parametrize("stream", [False, True])
def test_nothing_is_left_but_the_bill(sdk: OpenAI, store: Store, kept: Callable[[], bool], stream: bool) -> None:
    made = ask(sdk, metadata={"order": CANARY}, stream=stream)
    done = list(made)[-1].response if stream else made
    assert done.output_text == ANSWER

    until(lambda: not kept())

    with store.begin() as db:
        row = db.execute(sa.select(jobs).where(jobs.c.id == parse_id(done.id))).one()
    assert (row.state, row.metadata, row.output_tokens) == ("succeeded", {}, 7)
    assert row.erased_at is not None
    for call in (sdk.responses.retrieve, sdk.responses.input_items.list):
        with pytest.raises(openai.NotFoundError):
            call(done.id)
    with pytest.raises(openai.NotFoundError):
        sdk.responses.create(input="And?", previous_response_id=done.id)


@pytest.mark.usefixtures("answering")
def test_what_is_stored_stays(sdk: OpenAI, kept: Callable[[], bool]) -> None:
    stored = ask(sdk, store=True)
    ask(sdk)
    assert sdk.responses.retrieve(stored.id).output_text == ANSWER
    assert kept()


def test_texts_that_nobody_came_for_are_erased_later(
    sdk: OpenAI, store: Store, kept: Callable[[], bool], finish: Callable[..., None]
) -> None:
    with pytest.raises(openai.InternalServerError) as raised:
        ask(sdk, extra_headers={"Prefer": "wait=0"})
    assert raised.value.code == "wait_timeout"
    job_id = parse_id(raised.value.response.headers["x-job-id"])
    with store.begin() as db:
        assert texts.forget_unstored(db, 0) == 0, "it has not ended"
    finish(job_id)
    # The answer can be fetched for a while.
    assert sdk.responses.retrieve(f"resp_{job_id.hex}").output_text == ANSWER
    with store.begin() as db:
        assert texts.forget_unstored(db, 600) == 0
    with store.begin() as db:
        assert texts.forget_unstored(db, 0) == 1
    assert not kept()


@pytest.mark.usefixtures("answering")
def test_texts_that_could_not_be_erased_at_once_are_left_to_the_sweep(
    sdk: OpenAI, web: Web, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[object] = []

    def fail(*arguments: object) -> None:
        tried.append(arguments)
        raise StoreUnavailable("Postgres does not answer.")

    with monkeypatch.context() as broken:
        broken.setattr(web.deps.streams.__class__, "forget", fail)
        assert ask(sdk).output_text == ANSWER
        until(lambda: bool(tried))
    with store.begin() as db:
        assert texts.forget_unstored(db, 0) == 1
