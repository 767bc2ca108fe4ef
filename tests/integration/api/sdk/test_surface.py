"""What clients send by default and what other servers of models answer is here, too: the SDK over real HTTP."""

import gzip
import json
from collections.abc import Callable
from typing import Any

import openai
import pytest
import sqlalchemy as sa
from openai import OpenAI

from headrace.config import Settings
from headrace.domain.ids import parse_id
from headrace.domain.prompts.payloads import read_sampling
from headrace.store import Store
from headrace.tables import job_texts
from tests.web import ApiClient, Web

PROMPT = {"prompt": "Why is the sky blue?"}
GZIP = {"Content-Encoding": "gzip", "Content-Type": "application/json"}


@pytest.fixture
def web(build_web: Callable[..., Web], settings: Settings) -> Web:
    """The app, whose model has a name with a slash and another one."""
    pool = settings.pools["chat"].model_copy(update={"model": "org/served", "served_names": ("gpt-4o",)})
    return build_web(pools={"chat": pool})


@pytest.mark.parametrize("path", ["/health", "/ping", "/healthz", "/health/"])
def test_the_process_lives_by_every_name(web: Web, path: str) -> None:
    assert web.test_client().get(path).get_json() == {"status": "ok"}


def test_the_release_is_told(web: Web) -> None:
    assert web.test_client().post("/ping").status_code == 200
    assert web.test_client().get("/version").get_json()["version"]


@pytest.mark.parametrize("name", ["org/served", "gpt-4o", "served"])
@pytest.mark.usefixtures("answering")
def test_a_model_is_asked_for_by_each_of_its_names(sdk: OpenAI, name: str) -> None:
    assert sdk.models.retrieve(name).id == name
    messages: Any = [{"role": "user", "content": "Hi"}]
    assert sdk.chat.completions.create(model=name, messages=messages).model == "org/served"
    assert [model.id for model in sdk.models.list()] == ["org/served", "gpt-4o"]


@pytest.mark.parametrize("path", ["/v1/jobs/", "/v1/models/", "/v1/queues/", "/v1/models/org/served/"])
def test_a_slash_at_the_end_changes_nothing(client: ApiClient, path: str) -> None:
    assert client.get(path).get_json() == client.get(path[:-1]).get_json()


def test_a_retry_with_a_slash_at_the_end_is_a_replay(client: ApiClient) -> None:
    told = [client.post(path, json=PROMPT, headers={"Idempotency-Key": "k"}) for path in ("/v1/jobs", "/v1/jobs/")]
    assert [response.status_code for response in told] == [202, 202]
    assert told[0].get_json()["id"] == told[1].get_json()["id"]
    assert told[1].headers["Idempotent-Replayed"] == "true"


def test_a_packed_body_is_unpacked(client: ApiClient) -> None:
    packed = gzip.compress(json.dumps(PROMPT).encode())
    assert client.post("/v1/jobs/", data=packed, headers=GZIP).status_code == 202
    again = [
        client.post("/v1/jobs", data=data, headers={**headers, "Idempotency-Key": "k"}).get_json()["id"]
        for data, headers in ((packed, GZIP), (json.dumps(PROMPT).encode(), {}))
    ]
    assert again[0] == again[1], "the same body, however it came"


def test_a_packed_body_is_no_way_around_the_limit(client: ApiClient, nothing_enqueued: Callable[[], bool]) -> None:
    bomb = gzip.compress(json.dumps({"prompt": "x" * 50_000_000}).encode())
    assert len(bomb) < 64 * 1024
    response = client.post("/v1/jobs", data=bomb, headers=GZIP)
    assert (response.status_code, response.get_json()["error"]["code"]) == (413, "request_too_large")
    assert nothing_enqueued()


@pytest.mark.parametrize(("encoding", "status"), [("br", 415), ("zstd", 415), ("gzip, gzip", 415), ("identity", 202)])
def test_another_packing_is_refused_by_name(client: ApiClient, encoding: str, status: int) -> None:
    response = client.post("/v1/jobs", json=PROMPT, headers={"Content-Encoding": encoding})
    assert response.status_code == status
    if status == 415:
        error = response.get_json()["error"]
        assert (error["code"], error["type"]) == ("unsupported_encoding", "invalid_request_error")
        assert f"'{encoding}'" in error["message"]


def test_what_is_packed_wrongly_is_refused(client: ApiClient) -> None:
    response = client.post("/v1/jobs", data=b"{}", headers=GZIP)
    assert (response.status_code, response.get_json()["error"]["code"]) == (400, "invalid_encoding")


def test_a_texts_tokens_lead_back_to_it(client: ApiClient) -> None:
    made = client.post("/tokenize", json={"prompt": "Why is the sky blue?", "return_token_strs": True}).get_json()
    assert (made["count"], made["max_model_len"], len(made["token_strs"])) == (len(made["tokens"]), 2048, made["count"])
    back = client.post("/detokenize", json={"model": "gpt-4o", "tokens": made["tokens"]}).get_json()
    assert back == {"prompt": "Why is the sky blue?"}


def test_a_conversation_has_the_tokens_that_its_job_would_have(client: ApiClient) -> None:
    messages = [{"role": "user", "content": "Why is the sky blue?", "name": "ann"}]
    counted = client.post("/tokenize", json={"messages": messages}).get_json()["count"]
    accepted = client.post("/v1/jobs", json={"messages": messages}).get_json()
    job = client.get("/v1/queues").get_json()["data"]
    queue = next(each for each in job if each["queue"] == accepted["queue"])
    assert queue["backlog_tokens"] == counted + accepted["max_tokens"]


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": "a", "messages": [{"role": "user", "content": "b"}]}, "prompt"),
        ("/tokenize", {"prompt": "a", "chat_template_kwargs": {"b": 1}}, "chat_template_kwargs"),
        ("/tokenize", {"prompt": "a", "model": "nope"}, "model"),
        ("/detokenize", {"tokens": [-1]}, "tokens.0"),
    ],
)
def test_what_has_no_tokens_is_refused_by_name(client: ApiClient, path: str, body: dict[str, Any], param: str) -> None:
    response = client.post(path, json=body)
    assert response.status_code in (400, 404)
    assert response.get_json()["error"]["param"] == param


@pytest.mark.parametrize("path", ["/tokenize", "/detokenize"])
def test_tokens_need_a_key(web: Web, path: str) -> None:
    assert web.test_client().post(path, json={}).status_code == 401


def test_the_sdk_reads_usage_by_its_own_get(sdk: OpenAI, finish: Callable[..., None]) -> None:
    made = sdk.responses.create(input="Why is the sky blue?", background=True, safety_identifier="u-42")
    finish(parse_id(made.id))

    usage = sdk.get("/usage", cast_to=dict[str, object], options={"params": {"group_by": "model,end_user"}})

    assert [(row["end_user"], row["model"], row["requests"]) for row in usage["data"]] == [("u-42", "served", 1)]
    assert usage["total"]["usd"] == "0.000001230"
    raw = sdk.responses.with_raw_response.retrieve(made.id)
    assert raw.headers["x-headrace-cost-usd"] == "0.000001230"


def test_the_sdk_raises_what_is_refused(sdk: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        sdk.get("/usage", cast_to=dict[str, object], options={"params": {"group_by": "app"}})

    assert raised.value.param == "group_by"


ANSWER = "Because of Rayleigh scattering."

QUESTION: Any = [{"role": "user", "content": "Why is the sky blue?"}]


def model_of(sdk: OpenAI) -> str:
    return sdk.models.list().data[0].id


@pytest.mark.usefixtures("answering")
def test_a_chat_as_agents_send_it_is_answered(sdk: OpenAI) -> None:
    messages: Any = [
        {"role": "system", "content": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]},
        {"role": "user", "name": "ann", "content": "Hi"},
        {"role": "assistant", "content": None, "reasoning_content": "Hm.", "tool_calls": None},
        {"role": "user", "content": "And?", "cache_control": {"type": "ephemeral"}},
    ]
    nothing = {"tools": None, "logit_bias": {}, "thinking": None, "plugins": None}
    done = sdk.chat.completions.create(model=model_of(sdk), messages=messages, stop=[], n=1, extra_body=nothing)
    assert done.choices[0].message.content == ANSWER


@pytest.mark.usefixtures("answering")
def test_a_response_as_agents_send_it_is_answered(sdk: OpenAI) -> None:
    done = sdk.responses.create(
        input=QUESTION, include=["reasoning.encrypted_content"], truncation="auto", extra_body={"betas": None}
    )
    assert done.output_text == ANSWER


@pytest.mark.usefixtures("answering")
def test_how_an_open_model_samples_reaches_its_worker(sdk: OpenAI, store: Store) -> None:
    extra = {"top_k": 20, "min_p": 0.05, "repetition_penalty": 1.1, "chat_template_kwargs": {"enable_thinking": False}}
    done = sdk.chat.completions.create(
        model=model_of(sdk), messages=QUESTION, presence_penalty=0.5, logit_bias={"7": -100}, extra_body=extra
    )
    with store.begin() as db:
        stored = db.scalar(sa.select(job_texts.c.sampling).where(job_texts.c.job_id == parse_id(done.id)))
    assert read_sampling(stored).extra == {**extra, "presence_penalty": 0.5, "logit_bias": {"7": -100}}


LONG: Any = [{"role": "user", "content": "word " * 5000}]


@pytest.mark.parametrize(
    "call",
    [
        lambda sdk: sdk.chat.completions.create(model=model_of(sdk), messages=LONG),
        lambda sdk: sdk.responses.create(model=model_of(sdk), input=LONG),
    ],
)
def test_a_prompt_that_is_too_long_says_so_in_the_words_that_fallbacks_look_for(
    sdk: OpenAI, call: Callable[[OpenAI], Any]
) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        call(sdk)
    assert raised.value.code == "context_length_exceeded"
    assert "This model's maximum context length is 2048 tokens" in raised.value.message
    # LangChain and LiteLLM search the whole text.
    assert "context_length_exceeded" in str(raised.value)


def test_an_item_that_is_not_read_is_named_by_its_type(sdk: OpenAI) -> None:
    item: Any = {"type": "custom_tool_call_output", "call_id": "c", "output": "x"}
    with pytest.raises(openai.BadRequestError, match="Unsupported type 'custom_tool_call_output'") as raised:
        sdk.responses.create(input=[item])
    assert (raised.value.code, raised.value.param) == ("unsupported_parameter", "input.0.type")
