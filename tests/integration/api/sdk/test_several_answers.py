"""Several answers to one prompt (`n`), through the unchanged SDK and by /v1/jobs."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from openai import OpenAI

from headrace.config import Settings
from headrace.domain.ids import parse_id
from headrace.store import Store
from headrace.tables import job_texts, jobs
from tests.web import ApiClient, Web

ANSWER = "Because of Rayleigh scattering."
ANSWERS = [ANSWER, f"{ANSWER} 1", f"{ANSWER} 2"]
MESSAGES: Any = [{"role": "user", "content": "Why is the sky blue?"}]


@pytest.fixture
def web(build_web: Callable[..., Web], settings: Settings) -> Web:
    """The app, with a cache for each pool."""
    return build_web(pools={name: pool.model_copy(update={"cache_s": 60.0}) for name, pool in settings.pools.items()})


@pytest.fixture
def model(settings: Settings) -> str:
    return next(iter(settings.pools.values())).model


@pytest.mark.usefixtures("answering")
def test_a_chat_completion_has_all_answers_and_the_tokens_of_all(sdk: OpenAI, model: str) -> None:
    done = sdk.chat.completions.create(model=model, messages=MESSAGES, n=3, logprobs=True, top_logprobs=1)
    assert [choice.index for choice in done.choices] == [0, 1, 2]
    assert [choice.message.content for choice in done.choices] == ANSWERS
    assert all(choice.logprobs and choice.logprobs.content for choice in done.choices)
    assert done.usage
    assert done.usage.total_tokens == 16


@pytest.mark.usefixtures("answering")
def test_a_chat_stream_tells_all_answers_by_their_indices(sdk: OpenAI, model: str) -> None:
    texts, ends = ["", "", ""], list[int]()
    for chunk in sdk.chat.completions.create(model=model, messages=MESSAGES, n=3, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            ends += [choice.index] if choice.finish_reason else []
    assert (texts, ends) == (ANSWERS, [0, 1, 2])


@pytest.mark.usefixtures("answering")
def test_a_completion_has_all_answers_each_with_the_echo(make_sdk: Callable[..., OpenAI], key: str, model: str) -> None:
    # The SDK's own type of a completion has no chunks, whose finish reasons are null.
    sdk = make_sdk(key, _strict_response_validation=False)
    done = sdk.completions.create(model=model, prompt="Why? ", n=3, echo=True)
    assert [choice.text for choice in done.choices] == [f"Why? {answer}" for answer in ANSWERS]
    texts = ["", "", ""]
    for chunk in sdk.completions.create(model=model, prompt="Why? ", n=3, echo=True, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.text
    assert texts == [choice.text for choice in done.choices]


def submit(client: ApiClient, **body: Any) -> UUID:
    response = client.post("/v1/jobs", json={"prompt": "Why?", "seed": 1, **body})
    assert response.status_code == 202, response.get_data()
    return parse_id(response.get_json()["id"])


def test_a_job_shows_all_answers_and_counts_the_tokens_of_all(
    client: ApiClient, store: Store, finish: Callable[..., None]
) -> None:
    job_id = submit(client, n=3, max_tokens=10)
    with store.begin() as db:
        assert db.scalar(sa.select(jobs.c.n).where(jobs.c.id == job_id)) == 3
    finish(job_id)
    job = client.get(f"/v1/jobs/job_{job_id.hex}").get_json()
    assert (job["text"], job["n"], job["max_tokens"]) == (ANSWER, 3, 10)
    assert [choice["text"] for choice in job["choices"]] == ANSWERS
    [listed] = client.get("/v1/jobs").get_json()["data"]
    assert (listed["text"], listed["n"], listed["choices"]) == (ANSWER, 3, None)
    [of_one] = [client.get(f"/v1/responses/resp_{job_id.hex}").get_json()["output"][0]["content"]]
    assert [part["text"] for part in of_one] == [ANSWER]

    assert client.delete(f"/v1/jobs/job_{job_id.hex}").status_code == 200
    with store.begin() as db:
        assert db.scalar(sa.select(job_texts.c.choices).where(job_texts.c.job_id == job_id)) is None
    assert client.get(f"/v1/jobs/job_{job_id.hex}").status_code == 404


def test_a_job_of_one_answer_has_no_choices(client: ApiClient, finish: Callable[..., None]) -> None:
    job_id = submit(client)
    finish(job_id)
    job = client.get(f"/v1/jobs/job_{job_id.hex}").get_json()
    assert (job["text"], job["n"], job["choices"]) == (ANSWER, 1, None)


def test_the_cache_gives_all_answers_to_a_job_that_wants_as_many(
    client: ApiClient, finish: Callable[..., None]
) -> None:
    finish(submit(client, n=3))
    hit = client.get(f"/v1/jobs/job_{submit(client, n=3).hex}").get_json()
    assert (hit["cache"], [choice["text"] for choice in hit["choices"]]) == ("hit", ANSWERS)
    for other in (1, 2):
        assert client.get(f"/v1/jobs/job_{submit(client, n=other).hex}").get_json()["cache"] == "miss"
