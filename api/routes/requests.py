"""The shared part of all views: the query and the body, the Idempotency-Key, and three ways to get a job's answer."""

import hashlib
from collections.abc import Callable, Generator
from dataclasses import replace
from functools import partial
from typing import TypeVar
from urllib.parse import parse_qsl
from uuid import UUID

from flask import Response, request
from pydantic import BaseModel

from api.abandoned import cancel_unless_wanted
from api.auth import CALL_BYTES, calls_of
from api.calls import Later, Stream, caller, parts, turn
from api.door.drafts import Accepted, Draft, Sent
from api.routes.replies import reply_of
from api.schemas.body import parse_object, validated
from api.slots import Slot
from api.streams.sse import HEADERS, JobStream
from api.turns import ClientGone, Step, Wake, idempotency_key
from headrace.domain.ids import show_id
from headrace.domain.jobs import Idempotency, Job
from headrace.errors import InvalidRequest, StoreUnavailable, WaitTimeout

Query = TypeVar("Query", bound=BaseModel)
Checked = TypeVar("Checked", bound=BaseModel)
#: Makes the reply to a submit from the accept and the job as it stands.
Replying = Callable[[Accepted, Job], Response]

#: Fields of a query string. No query has more than seven.
QUERY_FIELDS_LIMIT = 16
#: Digits that the n of `Prefer: wait=n` may have.
WAIT_DIGITS_LIMIT = 9


def checked_body(schema: type[Checked]) -> Checked:
    """Returns the request's JSON object as a model.

    Raises: InvalidRequest. AppLimited: earlier bodies used up the app's calls while this one waited for its turn.
    """
    body = request.get_data()
    if len(body) < CALL_BYTES:
        return validated(schema, parse_object(body))
    callers, app = parts().callers, caller()
    with parts().bodies.checking.hold(app.id):
        callers.rates.check(app)
        return validated(schema, parse_object(body))


def query(schema: type[Query]) -> Query:
    """Returns the checked query string. Raises: InvalidRequest."""
    given: dict[str, str] = {}
    text = request.query_string.decode(errors="replace")
    try:
        fields = parse_qsl(text, keep_blank_values=True, max_num_fields=QUERY_FIELDS_LIMIT)
    except ValueError as error:
        raise InvalidRequest(f"The query has more than {QUERY_FIELDS_LIMIT} fields.") from error
    for name, value in fields:
        if name in given:
            raise InvalidRequest(f"'{name[:80]}' is given twice.", param=name[:80])
        given[name] = value
    return validated(schema, given)


def listed(read: Callable[[], BaseModel]) -> Response:
    """Returns the reply to a list that was read. It is made in turn with large bodies, and its size counts as calls.

    Args: read: makes the list. Raises: AppLimited: earlier lists used up the app's calls while this one waited.
    """
    app = caller()
    with parts().bodies.checking.hold(app.id):
        parts().callers.rates.check(app)
        reply = reply_of(read())
    turn().calls_due += calls_of(len(reply.get_data()))
    return reply


def idempotency() -> Idempotency | None:
    """Returns the Idempotency-Key, with a hash of the request's path and body. Raises: InvalidRequest."""
    if (key := idempotency_key(request.headers)) is None:
        return None
    # A slash at the end of a path changes nothing.
    path: str = request.environ["PATH_INFO"].rstrip("/")
    return Idempotency(key, hashlib.sha256(path.encode() + b"\n" + request.get_data()).digest())


def preferred_wait_s(limit_s: float) -> float:
    """How long a synchronous request waits: the limit, or less by `Prefer: wait=n`. Raises: InvalidRequest."""
    for preference in request.headers.get("Prefer", "").split(","):
        name, _, value = preference.partition("=")
        if name.strip().lower() == "wait":
            digits = value.strip().strip('"')
            if not (digits.isascii() and digits.isdigit() and len(digits) <= WAIT_DIGITS_LIMIT):
                raise InvalidRequest("Invalid 'Prefer': 'wait' takes whole seconds.", param="Prefer")
            return min(limit_s, float(digits))
    return limit_s


def accept(draft: Draft) -> Accepted:
    """Accept a draft. Raises: as `Submitter.submit`."""
    accepted = parts().submitter.submit(draft, caller(), idempotency(), Sent(turn().id, request.get_data()))
    if not accepted.is_replay:
        # An accepted job counts in the rate of submits, not in that of calls.
        turn().calls_due = 0
    return accepted


def read(job_id: UUID) -> Job:
    """Returns the caller's job as it stands. Raises: NotFound. StoreUnavailable."""
    return parts().reader.read(caller().id, job_id)


def submitted(draft: Draft) -> tuple[Accepted, Job]:
    """Accept a draft; returns the job as it stands. Raises: WaitTimeout: the job goes on, but cannot be read back."""
    accepted = accept(draft)
    if accepted.fresh is not None:
        return accepted, accepted.fresh()
    try:
        return accepted, read(accepted.job_id)
    except StoreUnavailable as error:
        # A 503 would make the client submit the job again.
        raise _goes_on(accepted.job_id, "was accepted, and cannot be read back now") from error


def until_ended(job_id: UUID, wait_s: float, slot: Slot, end: Callable[[Job | Exception], Response]) -> Later:
    """Waits for the caller's job, `wait_s` at most; then `end` makes the reply. The wait releases the slot."""
    waits, read = parts().waits, partial(parts().reader.read, caller().id, job_id)

    def steps(wake: Wake) -> Generator[Step, None, Job | Exception]:
        try:
            return (yield from waits.follow(job_id, read, wait_s, wake))
        except StoreUnavailable as error:
            return error
        finally:
            # Before the reply, which may cancel the job: once that is seen, the slot is free.
            slot.release()

    return Later(steps, end)


def wait_for(draft: Draft, replying: Replying) -> Later:
    """Accept a draft, and wait until its job has ended.

    The slot is taken first, so that a refusal for lack of one accepts nothing. A wait takes minutes, and many callers
    wait at once: so what it holds must not hold the draft, or the request that it was made from.
    If the client closes its connection meanwhile, its job is cancelled, unless another reader is attached, or an
    Idempotency-Key says that the client may ask for it again.

    Raises: SlotsFull.
    """
    turn().kind = "wait"
    app_id, wait_s = caller().id, preferred_wait_s(parts().settings.wait_limit_s)
    with parts().waits.hold("wait", app_id) as slot:
        accepted = replace(accept(draft), fresh=None)
        slot.hand_over()
    job_id, is_keyed = accepted.job_id, idempotency_key(request.headers) is not None

    def end(found: Job | Exception) -> Response:
        if isinstance(found, ClientGone):
            if not is_keyed:
                cancel_unless_wanted(parts(), app_id, job_id)
            raise _goes_on(job_id, "has lost its client") from found
        if isinstance(found, Exception):
            raise _goes_on(job_id, "was accepted, and cannot be read back now") from found
        if not found.state.is_terminal:
            raise _goes_on(job_id, "has not ended yet")
        return replying(accepted, found)

    return until_ended(job_id, wait_s, slot, end)


def streamed(stream: JobStream) -> Stream:
    """Returns the reply that a reader of a job's stream makes. It takes the reader's slot over."""
    turn().kind = "stream"
    turn().closing.append(stream.close)
    stream.slot.hand_over()
    return Stream(stream.steps, HEADERS)


def _goes_on(job_id: UUID, what: str) -> WaitTimeout:
    shown = show_id(job_id)
    return WaitTimeout(f"Job '{shown}' {what}. It goes on: GET /v1/jobs/{shown}?wait=30", job_id)
