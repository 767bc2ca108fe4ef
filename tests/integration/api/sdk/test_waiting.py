"""Long waits: the SDK waits as long as it wants to, and what it takes for a failure meanwhile."""

import threading
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import openai
import pytest
import sqlalchemy as sa
from flask import Flask, Response
from openai import OpenAI
from werkzeug.serving import make_server

from headrace.config import Settings
from headrace.domain.states import JobState
from headrace.store import Store
from headrace.tables import jobs
from tests.waiting import until
from tests.web import Web

MESSAGES: Any = [{"role": "user", "content": "Why is the sky blue?"}]
#: Shorter than any answer here takes, and far longer than a submit.
CLIENT_TIMEOUT_S = 1.0


@pytest.fixture
def web(build_web: Callable[..., Web]) -> Web:
    """A server whose streams are not silent for long."""
    return build_web(keep_alive_s=0.05)


@pytest.fixture
def early_url() -> Iterator[str]:
    """The address of a server that answers early, as this one must not."""
    app = Flask(__name__)

    @app.post("/v1/chat/completions")
    def early() -> Response:
        return Response('   {"error": {"message": "It failed.", "code": "engine_fault"}}', mimetype="application/json")

    server = make_server("127.0.0.1", 0, app)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def model(settings: Settings) -> str:
    return next(iter(settings.pools.values())).model


def job_states(store: Store) -> dict[UUID, JobState]:
    with store.begin() as db:
        return {row.id: JobState(row.state) for row in db.execute(sa.select(jobs.c.id, jobs.c.state))}


def in_thread(call: Callable[[], Any]) -> Callable[[], Any]:
    """Start the call; returns what waits for its result."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(call()))
    thread.start()

    def result() -> Any:
        thread.join()
        return results[0]

    return result


def test_the_server_gives_up_before_the_sdk_does() -> None:
    """Otherwise the SDK would send its request again, for a second answer."""
    limit_s = Settings.model_fields["wait_limit_s"].default
    assert isinstance(openai.DEFAULT_TIMEOUT.read, float | int)
    assert limit_s < openai.DEFAULT_TIMEOUT.read


def test_an_error_after_an_early_status_would_be_taken_for_an_answer(early_url: str, key: str, model: str) -> None:
    """Why no header is sent before the answer: the status would be 200, and the SDK raises nothing."""
    with OpenAI(api_key=key, base_url=f"{early_url}/v1", max_retries=0) as sdk:
        completion = sdk.chat.completions.create(model=model, messages=MESSAGES)
    assert completion.choices is None
    assert completion.model_extra == {"error": {"message": "It failed.", "code": "engine_fault"}}


def test_a_wait_ends_at_the_limit_of_the_server(
    build_web: Callable[..., Web], client_of: Callable[..., Any], key: str, store: Store
) -> None:
    web = build_web(wait_limit_s=0.2)
    response = client_of(key, web).post("/v1/chat/completions", json={"messages": MESSAGES})
    assert (response.status_code, response.get_json()["error"]["code"]) == (504, "wait_timeout")
    assert response.headers["x-should-retry"] == "false"
    assert list(job_states(store).values()) == [JobState.QUEUED], "it goes on"


def test_a_client_that_is_less_patient_leaves_no_job_behind_and_its_retry_is_another(
    make_sdk: Callable[..., OpenAI], key: str, model: str, calls: list[str], store: Store
) -> None:
    sdk = make_sdk(key, max_retries=1, timeout=CLIENT_TIMEOUT_S)
    with pytest.raises(openai.APITimeoutError):
        sdk.chat.completions.create(model=model, messages=MESSAGES)
    assert len(calls) == 2
    until(lambda: list(job_states(store).values()) == [JobState.CANCELLED] * 2)


def test_with_a_key_the_retry_waits_for_the_same_job(
    make_sdk: Callable[..., OpenAI],
    key: str,
    model: str,
    calls: list[str],
    store: Store,
    finish: Callable[..., None],
) -> None:
    sdk = make_sdk(key, max_retries=5, timeout=CLIENT_TIMEOUT_S)
    headers = {"Idempotency-Key": "a"}
    result = in_thread(lambda: sdk.chat.completions.create(model=model, messages=MESSAGES, extra_headers=headers))
    # On a busy machine the first calls may time out before a job is there.
    until(lambda: len(calls) > 1 and job_states(store))
    [job_id] = job_states(store)
    finish(job_id)
    assert result().id == f"chatcmpl-{job_id.hex}"
    assert job_states(store) == {job_id: JobState.SUCCEEDED}


def test_the_sdk_reads_past_the_comments_of_a_stream_whose_job_waits(
    sdk: OpenAI, model: str, store: Store, finish: Callable[..., None]
) -> None:
    kept_alive = threading.Event()
    stream = sdk.chat.completions.create(model=model, messages=MESSAGES, stream=True)
    raw, pieces = stream.response.iter_bytes, list[bytes]()

    def heard() -> Any:
        for piece in raw():
            pieces.append(piece)
            if b": keep-alive" in piece:
                kept_alive.set()
            yield piece

    stream.response.iter_bytes = heard  # type: ignore[method-assign]
    told = in_thread(lambda: "".join(chunk.choices[0].delta.content or "" for chunk in stream))
    assert kept_alive.wait(60)
    [job_id] = job_states(store)
    finish(job_id)
    assert told() == "Because of Rayleigh scattering."
