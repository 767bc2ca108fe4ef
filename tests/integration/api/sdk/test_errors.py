"""Errors arrive as the SDK's own classes, and it retries those that a retry can mend, and no others."""

import threading
from collections.abc import Callable
from typing import Any

import openai
import pytest
import sqlalchemy as sa
from openai import OpenAI

from headrace.config import Settings
from headrace.domain.apps import App, Scope
from headrace.domain.ids import parse_id
from headrace.domain.states import JobState
from headrace.store import Store, apps, keys
from headrace.tables import jobs
from tests.web import Web

PROMPT = "Why is the sky blue?"
CREATE = "POST /v1/responses"


def create(sdk: OpenAI, **arguments: Any) -> Any:
    return sdk.responses.create(**{"input": PROMPT, "background": True, **arguments})


@pytest.mark.parametrize(
    ("arguments", "error", "code", "param"),
    [
        ({"model": "nope"}, openai.NotFoundError, "model_not_found", "model"),
        ({"input": ""}, openai.BadRequestError, "invalid_value", "input"),
        ({"input": "word " * 5000}, openai.BadRequestError, "context_length_exceeded", "input"),
        ({"store": False}, openai.BadRequestError, "unsupported_parameter", "store"),  # In the background.
        ({"tools": [{"type": "web_search"}]}, openai.BadRequestError, "unsupported_parameter", "tools.0.type"),
        ({"max_output_tokens": -1}, openai.BadRequestError, "invalid_value", "max_output_tokens"),
        (
            {"background": False, "extra_headers": {"Prefer": "wait=x"}},
            openai.BadRequestError,
            "invalid_value",
            "Prefer",
        ),
        ({"extra_body": {"job": {"foo": 1}}}, openai.BadRequestError, "unknown_parameter", "job.foo"),
        ({"extra_body": {"foo": 1}}, openai.BadRequestError, "unknown_parameter", "foo"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_refusal_arrives_as_the_sdks_own_error(
    sdk: OpenAI, arguments: dict[str, Any], error: type[openai.APIStatusError], code: str, param: str
) -> None:
    with pytest.raises(error) as raised:
        create(sdk, **arguments)
    assert (raised.value.code, raised.value.param) == (code, param)
    assert raised.value.request_id


def test_a_wrong_key_is_an_authentication_error(make_sdk: Callable[..., OpenAI]) -> None:
    with pytest.raises(openai.AuthenticationError):
        make_sdk("hr-wrong").models.list()


def test_a_key_that_may_only_read_cannot_submit(
    make_sdk: Callable[..., OpenAI], sdk: OpenAI, store: Store, settings: Settings, app: App
) -> None:
    with store.begin() as db:
        reader = keys.make(db, app.id, settings.pepper.get_secret_value(), scopes=[Scope.READ])
        writer = keys.make(db, app.id, settings.pepper.get_secret_value(), scopes=[Scope.SUBMIT])
    made = create(make_sdk(writer))
    assert make_sdk(reader).responses.retrieve(made.id).status == "queued"
    for call in (
        lambda: create(make_sdk(reader)),
        lambda: make_sdk(reader).responses.cancel(made.id),
        lambda: make_sdk(reader).responses.delete(made.id),
        lambda: make_sdk(writer).responses.retrieve(made.id),
    ):
        with pytest.raises(openai.PermissionDeniedError) as raised:
            call()
        assert raised.value.code == "scope_not_allowed"
    assert sdk.responses.retrieve(made.id).status == "queued"


@pytest.mark.parametrize(
    ("arguments", "param"),
    [
        ({}, "service_tier"),
        ({"service_tier": "priority"}, "service_tier"),
        ({"service_tier": "flex", "extra_body": {"job": {"lane": "high"}}}, "job.lane"),
    ],
)
def test_a_lane_that_is_not_open_to_the_app_is_refused(
    sdk: OpenAI, store: Store, app: App, arguments: dict[str, Any], param: str
) -> None:
    with store.begin() as db:
        apps.set_limits(db, app.name, {"lanes": ["low", "batch"]})
    with pytest.raises(openai.PermissionDeniedError) as raised:
        create(sdk, **arguments)
    assert (raised.value.code, raised.value.param) == ("tier_not_allowed", param)
    assert create(sdk, service_tier="flex").job["lane"] == "low"


@pytest.mark.parametrize(
    "call",
    [
        lambda sdk: sdk.vector_stores.list(),
        lambda sdk: sdk.uploads.create(bytes=1, filename="f", mime_type="text/plain", purpose="batch"),
        lambda sdk: sdk.uploads.cancel("upload_1"),
        lambda sdk: sdk.moderations.create(input="x"),
        lambda sdk: sdk.responses.compact(model="m", input="x"),
        lambda sdk: sdk.responses.input_tokens.count(model="m", input="x"),
        lambda sdk: sdk.chat.completions.list(),
        lambda sdk: sdk.chat.completions.retrieve("chatcmpl-1"),
        lambda sdk: sdk.chat.completions.delete("chatcmpl-1"),
        lambda sdk: sdk.webhooks and sdk.get("/webhook_endpoints", cast_to=object),
    ],
)
def test_what_is_not_served_says_so_at_once(
    make_sdk: Callable[..., OpenAI], key: str, calls: list[str], call: Callable[[OpenAI], Any]
) -> None:
    with pytest.raises(openai.NotFoundError) as raised:
        call(make_sdk(key, max_retries=2))
    assert raised.value.code == "not_supported"
    assert len(calls) == 1


def test_a_wait_that_runs_out_is_not_tried_again_and_its_job_goes_on(
    make_sdk: Callable[..., OpenAI], key: str, calls: list[str], finish: Callable[..., None]
) -> None:
    sdk = make_sdk(key, max_retries=2)
    with pytest.raises(openai.InternalServerError) as raised:
        create(sdk, background=False, extra_headers={"Prefer": "wait=0"})
    assert (raised.value.status_code, raised.value.code) == (504, "wait_timeout")
    assert calls == [CREATE]

    job_id = parse_id(raised.value.response.headers["x-job-id"])
    assert sdk.responses.retrieve(f"resp_{job_id.hex}").status == "queued"
    finish(job_id)
    assert sdk.responses.retrieve(f"resp_{job_id.hex}").output_text


def test_a_key_that_came_with_another_body_is_not_tried_again(
    make_sdk: Callable[..., OpenAI], key: str, calls: list[str]
) -> None:
    sdk = make_sdk(key, max_retries=2)
    create(sdk, extra_headers={"Idempotency-Key": "a"})
    with pytest.raises(openai.UnprocessableEntityError) as raised:
        create(sdk, input="Another", extra_headers={"Idempotency-Key": "a"})
    assert raised.value.code == "idempotency_key_reused"
    assert calls == [CREATE, CREATE]


def test_an_app_that_used_its_minute_up_waits_as_long_as_it_is_told_and_is_served(
    make_sdk: Callable[..., OpenAI], key: str, calls: list[str], store: Store, app: App
) -> None:
    sdk = make_sdk(key, max_retries=1)
    tokens = 7 + 1024
    # After two of them all but 40 tokens of a third are left, which the minute brings in less than a second.
    with store.begin() as db:
        apps.set_limits(db, app.name, {"tokens_per_minute": 3 * tokens - 40})
    for _ in range(2):
        create(sdk)
    raw = sdk.responses.with_raw_response.create(input=PROMPT, background=True)
    assert raw.parse().status == "queued"
    assert int(raw.headers["x-ratelimit-remaining-tokens"]) < tokens
    assert calls == [CREATE] * 4
    assert raw.retries_taken == 1


def test_what_can_never_be_served_is_not_tried_again(
    make_sdk: Callable[..., OpenAI], key: str, calls: list[str], store: Store, app: App
) -> None:
    with store.begin() as db:
        apps.set_limits(db, app.name, {"tokens_per_minute": 100})
    with pytest.raises(openai.RateLimitError) as raised:
        create(make_sdk(key, max_retries=2))
    assert raised.value.code == "rate_limit_exceeded"
    assert raised.value.response.headers["x-should-retry"] == "false"
    assert calls == [CREATE]


class TestWithOneSlot:
    """A server that holds one synchronous request at a time."""

    @pytest.fixture
    def web(self, build_web: Callable[..., Web]) -> Web:
        return build_web(wait_slots=1)

    def test_a_429_is_tried_again_when_it_says_and_succeeds(
        self, make_sdk: Callable[..., OpenAI], key: str, calls: list[str], store: Store, finish: Callable[..., None]
    ) -> None:
        first = threading.Thread(target=lambda: create(make_sdk(key), background=False))
        first.start()
        held = wait_for_job(store)
        with pytest.raises(openai.RateLimitError) as raised:
            create(make_sdk(key), background=False)
        assert raised.value.code == "sync_slots_full"
        assert raised.value.response.headers["retry-after"] == "1"
        assert count(store) == 1, "a request that got no slot must submit nothing"

        second: list[Any] = []
        sdk = make_sdk(key, max_retries=2)
        retrying = threading.Thread(target=lambda: second.append(create(sdk, background=False)))
        retrying.start()
        while calls.count(CREATE) < 3:
            threading.Event().wait(0.01)
        finish(held)
        first.join(20)
        finish(wait_for_job(store))
        retrying.join(20)

        assert [response.status for response in second] == ["completed"]
        assert calls.count(CREATE) == 4


def wait_for_job(store: Store) -> Any:
    """The one job that is queued, once there is one."""
    while True:
        with store.begin() as db:
            found = db.scalars(sa.select(jobs.c.id).where(jobs.c.state == JobState.QUEUED)).all()
        if found:
            [job_id] = found
            return job_id
        threading.Event().wait(0.01)


def count(store: Store) -> int | None:
    with store.begin() as db:
        return db.scalar(sa.select(sa.func.count()).select_from(jobs))
