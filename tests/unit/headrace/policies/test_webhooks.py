import json
from datetime import UTC, datetime, timedelta

import pytest
from openai import InvalidWebhookSignatureError, OpenAI

from headrace.domain.ids import new_id, show_id
from headrace.domain.states import TERMINAL, JobState
from headrace.policies.webhooks import event_of, job_data, new_secret, payload, signed_headers

CLIENT = OpenAI(api_key="unused")
NOW = datetime.now(UTC)


@pytest.mark.parametrize(
    ("state", "finish_reason", "event"),
    [
        (JobState.SUCCEEDED, "stop", "response.completed"),
        (JobState.SUCCEEDED, "length", "response.incomplete"),
        (JobState.FAILED, None, "response.failed"),
        (JobState.EXPIRED, None, "response.failed"),
        (JobState.CANCELLED, "abort", "response.cancelled"),
    ],
)
def test_end_is_announced_as_openai_calls_it(state: JobState, finish_reason: str | None, event: str) -> None:
    assert event_of(state, finish_reason) == event


@pytest.mark.parametrize("state", sorted(TERMINAL))
def test_openai_sdk_verifies_and_reads_the_webhook(state: JobState) -> None:
    secret, delivery_id, job_id = new_secret(), new_id(), new_id()
    now = datetime.now(UTC)
    body = payload(delivery_id, event_of(state, None), job_data(job_id, state), now)

    event = CLIENT.webhooks.unwrap(body, signed_headers([secret], delivery_id, now, body), secret=secret)

    assert event.type == event_of(state, None)
    assert event.data.id == show_id(job_id, "resp_")
    assert json.loads(body)["data"]["status"] == state


def test_another_secret_or_body_does_not_verify() -> None:
    secret, delivery_id, now = new_secret(), new_id(), datetime.now(UTC)
    body = payload(delivery_id, "response.completed", job_data(new_id(), JobState.SUCCEEDED), now)
    headers = signed_headers([secret], delivery_id, now, body)
    CLIENT.webhooks.unwrap(body, headers, secret=secret)

    for text, key in ((body + " ", secret), (body, new_secret())):
        with pytest.raises(InvalidWebhookSignatureError):
            CLIENT.webhooks.unwrap(text, headers, secret=key)


def test_body_is_the_same_on_every_try_and_the_signature_is_fresh() -> None:
    secret, delivery_id, job_id = new_secret(), new_id(), new_id()
    data = job_data(job_id, JobState.SUCCEEDED)
    bodies = {payload(delivery_id, "response.completed", data, NOW) for _ in range(3)}
    (body,) = bodies

    first = signed_headers([secret], delivery_id, NOW, body)
    second = signed_headers([secret], delivery_id, NOW + timedelta(seconds=5), body)

    assert first["webhook-id"] == second["webhook-id"]
    assert first["webhook-signature"] != second["webhook-signature"]
