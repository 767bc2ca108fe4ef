"""Embeddings through a whole system: the unchanged SDK, `/v1/jobs`, the ledger, and the refusals at the door."""

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import openai
import pytest
from openai import OpenAI

from headrace.domain.ids import parse_id
from headrace.domain.prompts.embeddings import floats

TEXTS = ["The river turns the wheel.", "Stock prices fell on Monday."]


@pytest.fixture(scope="module")
def system(start: Callable[..., Any]) -> Any:
    return start(pools__chat__serves="embeddings", pools__chat__max_model_tokens="256")


@pytest.fixture
def sdk(system: Any) -> Iterator[OpenAI]:
    report = system.stack.report
    url, key = f"{report.url}/v1", report.api_key
    # Its strict validation knows no base64, which it asks for itself.
    with OpenAI(api_key=key, base_url=url, max_retries=0) as client:
        yield client


@pytest.fixture
def model(sdk: OpenAI) -> str:
    return sdk.models.list().data[0].id


def test_the_sdk_gets_the_same_vectors_in_both_forms(sdk: OpenAI, model: str) -> None:
    packed = sdk.embeddings.create(input=TEXTS, model=model)  # As base64, which the SDK asks for and unpacks.
    strict = sdk.with_options(_extra_kwargs={"_strict_response_validation": True})
    plain = strict.embeddings.create(input=TEXTS, model=model, encoding_format="float")
    raw: Any = sdk.embeddings.create(input=TEXTS, model=model, encoding_format="base64")
    assert packed.data == plain.data
    assert [floats(each.embedding) for each in raw.data] == [each.embedding for each in plain.data]
    assert [each.index for each in packed.data] == [0, 1]
    assert [math.hypot(*each.embedding) for each in packed.data] == pytest.approx([1.0, 1.0], abs=1e-6)
    assert packed.model == model
    assert packed.usage.total_tokens == packed.usage.prompt_tokens > 0


def test_one_text_and_token_ids_are_inputs_too(sdk: OpenAI, model: str) -> None:
    assert sdk.embeddings.create(input=TEXTS[1], model=model).data[0].embedding == (
        sdk.embeddings.create(input=TEXTS, model=model).data[1].embedding
    )
    one = sdk.embeddings.create(input=[5, 6, 7], model=model)
    two = sdk.embeddings.create(input=[[5, 6, 7], [8]], model=model)
    assert (len(one.data), len(two.data)) == (1, 2)
    assert one.data[0].embedding == two.data[0].embedding
    assert (one.usage.prompt_tokens, two.usage.prompt_tokens) == (3, 4)


def test_shorter_vectors_come_where_the_model_has_them(sdk: OpenAI, model: str) -> None:
    assert len(sdk.embeddings.create(input="a", model=model, dimensions=32).data[0].embedding) == 32
    with pytest.raises(openai.BadRequestError, match="384 dimensions"):
        sdk.embeddings.create(input="a", model=model, dimensions=1000)


def test_many_requests_wait_for_their_own_vectors(sdk: OpenAI, model: str) -> None:
    def embed(number: int) -> list[float]:
        return sdk.embeddings.create(input=f"number {number}", model=model).data[0].embedding

    with ThreadPoolExecutor(16) as threads:
        made = list(threads.map(embed, [*range(50), *range(50)]))
    assert made[:50] == made[50:]
    assert len({tuple(each) for each in made}) == 50


def test_a_job_of_many_inputs_is_queued_priced_and_kept(system: Any) -> None:
    inputs = [f"number {number}" for number in range(2048)]
    job_id = system.submit(prompt=None, input=inputs, lane="batch", end_user="u-1")
    job = system.ended(job_id)
    assert (job["status"], job["queue"], job["text"], job["finish_reason"]) == ("succeeded", "chat.batch", None, "stop")
    assert len(job["embeddings"]) == 2048
    assert len(floats(job["embeddings"][0])) == 384
    assert job["usage"]["output_tokens"] == job["max_tokens"] == 0

    [entry] = system.sql("SELECT * FROM ledger WHERE job_id = %s", parse_id(job_id))
    tokens = job["usage"]["prompt_tokens"]
    assert (entry["kind"], entry["prompt_tokens"], entry["output_tokens"]) == ("compute", tokens, 0)
    # headrace.toml: 0.05 USD for 1,000,000 tokens of a prompt.
    assert entry["usd"] == tokens * Decimal("0.05") / 1_000_000 > 0
    assert Decimal(job["cost"]["usd"]) == entry["usd"]

    listed = system.http.get("/v1/jobs", params={"limit": 1}).json()["data"][0]
    assert (listed["id"], listed["embeddings"], listed["text"]) == (job_id, None, None)
    given = system.http.get(f"/v1/responses/{job_id}/input_items", params={"limit": 1, "order": "asc"}).json()
    assert given["data"][0]["content"] == [{"type": "input_text", "text": "number 0"}]


@pytest.mark.parametrize(
    ("path", "asked", "param"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}]}, "messages"),
        ("/v1/responses", {"input": "Hi"}, "input"),
        ("/v1/jobs", {"prompt": "Hi"}, "prompt"),
        ("/v1/embeddings", {"input": "a", "job": {"overflow": "only"}}, "job.overflow"),
        ("/v1/embeddings", {"input": ["a", "word " * 2000]}, "input.1"),
    ],
)
def test_what_an_embedding_model_cannot_do_is_refused_by_its_field(
    system: Any, model: str, path: str, asked: dict[str, Any], param: str
) -> None:
    response = system.http.post(path, json={"model": model, **asked})
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"] == param
