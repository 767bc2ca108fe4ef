"""What other servers of models answer, too: their paths, their packed bodies, their names of models."""

import gzip
import json
from collections.abc import Callable
from typing import Any

import pytest
from openai import OpenAI

from headrace.config import Settings
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
