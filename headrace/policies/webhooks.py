"""The content and signature of a webhook: Standard Webhooks, with OpenAI's event names.

Pure: `workers/delivering/deliver.py` sends it.
"""

import base64
import json
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from standardwebhooks import Webhook

from headrace.domain.ids import show_id
from headrace.domain.states import JobState

_EVENTS: Mapping[JobState, str] = {
    JobState.SUCCEEDED: "response.completed",
    JobState.FAILED: "response.failed",
    JobState.EXPIRED: "response.failed",
    JobState.CANCELLED: "response.cancelled",
}

#: A job's answer was cut at `max_tokens`.
_INCOMPLETE = "response.incomplete"
#: A budget has reached one of `budgets.THRESHOLDS`.
BUDGET_EVENT = "budget.threshold_reached"
#: Something about the scaling of hosts lasts, or has ended: this and its kind.
SCALING_EVENT = "scaling."
#: Every event of jobs that an app may get; docs/webhooks.md and the reference describe each.
APP_EVENTS = frozenset({*_EVENTS.values(), _INCOMPLETE})

#: Bytes of key material in a secret; the specification asks for 24 to 64.
SECRET_BYTES = 32


def new_secret() -> str:
    """A new signing secret: `whsec_` and base64, as the specification says."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def event_of(state: JobState, finish_reason: str | None) -> str:
    """The event that announces a job's end.

    OpenAI has no event for an expired job: it is a failure, and the job says why. An answer cut at `max_tokens` is
    `incomplete`, like its Response.
    """
    if state is JobState.SUCCEEDED and finish_reason == "length":
        return _INCOMPLETE
    return _EVENTS[state]


def job_data(job_id: UUID, state: JobState) -> dict[str, Any]:
    """The data of a job's end. It only names the job; the receiver fetches the answer.

    `id` is the response id that OpenAI's SDK retrieves; `job_id` and `status` are Headrace's own.
    """
    return {"id": show_id(job_id, "resp_"), "job_id": show_id(job_id), "status": str(state)}


def payload(delivery_id: UUID, event: str, data: Mapping[str, Any], at: datetime) -> str:
    """The body of a webhook; the same text on every try.

    Args:
        data: the event's content.
        at: when the event happened.
    """
    body = {
        "id": f"evt_{delivery_id.hex}",
        "object": "event",
        "created_at": int(at.timestamp()),
        "type": event,
        "data": dict(data),
    }
    return json.dumps(body, separators=(",", ":"))


def signed_headers(secrets: Sequence[str], delivery_id: UUID, at: datetime, body: str) -> dict[str, str]:
    """Headers of one try. The id is the same on every try; time and signatures are new.

    Args:
        secrets: each gives one signature, and a receiver needs one of them; two while an app's secret is rotated.
        at: an aware time in UTC; the library signs other time zones wrongly.
    Source: Standard Webhooks specification, https://www.standardwebhooks.com
    """
    message_id = f"evt_{delivery_id.hex}"
    return {
        "content-type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(Webhook(secret).sign(message_id, at, body) for secret in secrets),
    }


def origin(url: str) -> str:
    """The scheme and the receiver of a URL: its host, and its port if it names one. The rest may contain a secret."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "-"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2] or '-'}/…"
