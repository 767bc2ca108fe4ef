"""The shared part of all handlers that submit: the body, the Idempotency-Key, and three ways to get the answer."""

import hashlib
from collections.abc import Callable
from functools import partial
from typing import TypeVar
from urllib.parse import parse_qsl
from uuid import UUID

from pydantic import BaseModel

from api.abandoned import cancel_unless_wanted
from api.auth import CALL_BYTES, calls_of
from api.call import Call, ClientGone, Reply, Wait
from api.deps import WebDeps
from api.door.drafts import Accepted, Draft, Sent
from api.handlers.replies import reply_of
from api.schemas.body import parse_object, validated
from headrace.domain.ids import show_id
from headrace.domain.jobs import Idempotency, Job
from headrace.errors import InvalidRequest, StoreUnavailable, WaitTimeout

Query = TypeVar("Query", bound=BaseModel)
Checked = TypeVar("Checked", bound=BaseModel)
#: Makes the reply to a submit from the accept and the job as it stands.
Replying = Callable[[Accepted, Job], Reply]

KEY_CHARS_LIMIT = 255
#: Fields of a query string. No query has more than seven.
QUERY_FIELDS_LIMIT = 16
#: Digits that the n of `Prefer: wait=n` may have.
WAIT_DIGITS_LIMIT = 9


def checked_body(schema: type[Checked], web: WebDeps, call: Call) -> Checked:
    """The request's JSON object as a model.

    Raises: InvalidRequest. AppLimited: earlier bodies used up the app's calls while this one waited for its turn.
    """
    if len(call.body) < CALL_BYTES:
        return validated(schema, parse_object(call.body))
    with web.bodies.checking.hold(call.app.id):
        web.callers.rates.check(call.app)
        return validated(schema, parse_object(call.body))


def query(schema: type[Query], call: Call) -> Query:
    """The checked query string. Raises: InvalidRequest."""
    given: dict[str, str] = {}
    text = call.query.encode("latin-1").decode(errors="replace")
    try:
        fields = parse_qsl(text, keep_blank_values=True, max_num_fields=QUERY_FIELDS_LIMIT)
    except ValueError as error:
        raise InvalidRequest(f"The query has more than {QUERY_FIELDS_LIMIT} fields.") from error
    for name, value in fields:
        if name in given:
            raise InvalidRequest(f"'{name[:80]}' is given twice.", param=name[:80])
        given[name] = value
    return validated(schema, given)


def listed(web: WebDeps, call: Call, read: Callable[[], BaseModel]) -> Reply:
    """The reply to a list that was read. It is made in turn with large bodies, and its size counts as calls.

    Args: read: makes the list. Raises: AppLimited: earlier lists used up the app's calls while this one waited.
    """
    with web.bodies.checking.hold(call.app.id):
        web.callers.rates.check(call.app)
        reply = reply_of(read())
    assert isinstance(reply.body, bytes)
    call.calls_due += calls_of(len(reply.body))
    return reply


def idempotency(call: Call) -> Idempotency | None:
    """The Idempotency-Key, with a hash of the request's path and body. Raises: InvalidRequest."""
    if (key := idempotency_key(call)) is None:
        return None
    # A slash at the end of a path changes nothing.
    return Idempotency(key, hashlib.sha256(call.path.rstrip("/").encode() + b"\n" + call.body).digest())


def idempotency_key(call: Call) -> str | None:
    """The key as sent, without quotation marks. Raises: InvalidRequest."""
    header = call.headers.get("Idempotency-Key")
    if header is None:
        return None
    key = header.strip().removeprefix('"').removesuffix('"')
    if not 1 <= len(key) <= KEY_CHARS_LIMIT or not (key.isascii() and key.isprintable()):
        raise InvalidRequest(
            f"The Idempotency-Key must have 1 to {KEY_CHARS_LIMIT} printable ASCII characters.",
            param="Idempotency-Key",
        )
    return key


def preferred_wait_s(limit_s: float, call: Call) -> float:
    """How long a synchronous request waits: the limit, or less by `Prefer: wait=n`. Raises: InvalidRequest."""
    for preference in (call.headers.get("Prefer") or "").split(","):
        name, _, value = preference.partition("=")
        if name.strip().lower() == "wait":
            digits = value.strip().strip('"')
            if not (digits.isascii() and digits.isdigit() and len(digits) <= WAIT_DIGITS_LIMIT):
                raise InvalidRequest("Invalid 'Prefer': 'wait' takes whole seconds.", param="Prefer")
            return min(limit_s, float(digits))
    return limit_s


def accept(web: WebDeps, call: Call, draft: Draft) -> Accepted:
    """Accept a draft. Raises: as `Submitter.submit`."""
    accepted = web.submitter.submit(draft, call.app, idempotency(call), Sent(call.id, call.body))
    if not accepted.is_replay:
        call.calls_due = 0
    return accepted


def read(web: WebDeps, call: Call, job_id: UUID) -> Job:
    """The caller's job as it stands. Raises: NotFound. StoreUnavailable."""
    return web.reader.read(call.app.id, job_id)


def submitted(web: WebDeps, call: Call, draft: Draft) -> tuple[Accepted, Job]:
    """Accept a draft; returns the job as it stands. Raises: WaitTimeout: the job goes on, but cannot be read back."""
    accepted = accept(web, call, draft)
    try:
        return accepted, read(web, call, accepted.job_id)
    except StoreUnavailable as error:
        # A 503 would make the client submit the job again.
        raise _goes_on(accepted.job_id, "was accepted, and cannot be read back now") from error


def wait_for(web: WebDeps, call: Call, draft: Draft, replying: Replying) -> Wait:
    """Accept a draft, and wait until its job has ended.

    The slot is taken first, so that a refusal for lack of one accepts nothing. A wait takes minutes, and many callers
    wait at once: so what it holds must not hold the draft, or the request that it was made from.
    If the client closes its connection meanwhile, its job is cancelled, unless another reader is attached, or an
    Idempotency-Key says that the client may ask for it again.

    Raises: SlotsFull.
    """
    call.kind = "wait"
    wait_s = preferred_wait_s(web.settings.wait_limit_s, call)
    with web.waits.hold("wait", call.app.id) as slot:
        accepted = accept(web, call, draft)
        slot.hand_over()
    app_id, job_id, is_keyed = call.app.id, accepted.job_id, idempotency_key(call) is not None

    def reply(found: Job | Exception) -> Reply:
        if isinstance(found, ClientGone):
            if not is_keyed:
                cancel_unless_wanted(web, app_id, job_id)
            raise _goes_on(job_id, "has lost its client") from found
        if isinstance(found, Exception):
            raise _goes_on(job_id, "was accepted, and cannot be read back now") from found
        if not found.state.is_terminal:
            raise _goes_on(job_id, "has not ended yet")
        return replying(accepted, found)

    return Wait(job_id, wait_s, slot, partial(web.reader.read, app_id, job_id), reply)


def _goes_on(job_id: UUID, what: str) -> WaitTimeout:
    shown = show_id(job_id)
    return WaitTimeout(f"Job '{shown}' {what}. It goes on: GET /v1/jobs/{shown}?wait=30", job_id)
