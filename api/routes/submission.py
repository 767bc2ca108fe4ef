"""The shared part of all endpoints that submit: the body, the Idempotency-Key, and three ways to get the answer."""

import hashlib
from collections.abc import Mapping
from typing import IO, Any
from uuid import UUID

from flask import Response, after_this_request, g, request
from werkzeug.exceptions import RequestEntityTooLarge, UnsupportedMediaType

from api.abandoned import cancel_unless_wanted
from api.bodies.in_flight import SMALL_BYTES
from api.bodies.packed import unpacked
from api.bodies.reader import BodyReader
from api.calls import calls_of
from api.deps import deps
from api.door.accepted import Accepted
from api.door.drafts import Draft
from api.errors.rates import confined_header, rate_headers
from api.reading.peers import peer_of
from api.reading.waits import ClientGone
from api.schemas.body import parse_object
from headrace.domain.apps import App
from headrace.domain.ids import show_id
from headrace.domain.jobs import CacheUse, Idempotency, Job
from headrace.errors import BodyTimeout, InvalidRequest, StoreUnavailable, WaitTimeout

KEY_CHARS_LIMIT = 255
#: Digits that the n of `Prefer: wait=n` may have.
WAIT_DIGITS_LIMIT = 9


def body(app: App) -> dict[str, Any]:
    """The request's JSON object. It counts as calls, unless a job is made of it.

    Raises: InvalidRequest. RequestEntityTooLarge. UnsupportedMediaType. AppLimited. BodiesFull. BodyTimeout.
    """
    try:
        return _body(app)
    finally:
        g.due.calls += calls_of(len(g.get("raw", b"")))


def _body(app: App) -> dict[str, Any]:
    parts, told = deps(), request.content_length
    limit, bodies = parts.settings.body_limit_bytes, parts.bodies
    if told is not None and told > limit:
        raise RequestEntityTooLarge
    if "HTTP_CONTENT_ENCODING" in request.environ and _is_packed():
        return _unpacked_body(app, told)
    # A chunked body gives no length: assume the largest.
    size = limit if told is None else told
    # Of a chunked body, one byte more than the limit is read: it shows that the body is too long.
    most = limit + 1 if told is None else told
    if size <= SMALL_BYTES:
        with bodies.reading_small(app.id) as needs_deadline:
            # The end of a chunked body is unknown, so only a reader stops at its limit.
            raw = g.raw = _read(app, most) if needs_deadline or told is None else _stream(told, limit).read()
        return parse_object(raw)
    bodies.admit(app, size, _idempotency_key())
    g.body = app.id, size
    g.raw = _read(app, most)
    with bodies.parsing.hold(app.id):
        return parse_object(g.raw)


def _is_packed() -> bool:
    """Whether the body is a gzip. Raises: UnsupportedMediaType: it is packed in another way."""
    encoding = request.headers["Content-Encoding"].strip().lower()
    if encoding not in ("", "identity", "gzip", "x-gzip"):
        shown = encoding[:40]
        raise UnsupportedMediaType(
            f"The Content-Encoding '{shown}' is not read here. Send the body as it is, or with gzip."
        )
    return encoding.endswith("gzip")


def _unpacked_body(app: App, told: int | None) -> dict[str, Any]:
    """The JSON object in a gzip. It counts as the largest body: what comes out of it is not known before."""
    limit, bodies = deps().settings.body_limit_bytes, deps().bodies
    bodies.admit(app, limit, _idempotency_key())
    g.body = app.id, limit
    packed = _read(app, limit + 1 if told is None else told)
    g.due.calls += calls_of(limit)
    g.raw = unpacked(packed, limit)
    # It is whole: so its own size counts.
    g.due.calls -= calls_of(limit)
    if len(g.raw) > limit:
        raise RequestEntityTooLarge
    with bodies.parsing.hold(app.id):
        return parse_object(g.raw)


def _read(app: App, size: int) -> bytes:
    """Read an admitted body, `size` bytes at most. Raises: BodyTimeout. RequestEntityTooLarge."""
    if size == 0:
        return b""
    bodies, limit = deps().bodies, deps().settings.body_limit_bytes
    reader = BodyReader(_stream(request.content_length, limit), size, bodies.threads)
    try:
        raw = reader.result(bodies.grace_s)
    except BodyTimeout:
        bodies.add_late(app.id, reader)
        # The client has the whole answer before the response closes. `BodyReader` says what breaks without the join.
        after_this_request(lambda response: _joining(response, reader))
        raise
    if len(raw) > limit:
        raise RequestEntityTooLarge
    return raw


def _joining(response: Response, reader: BodyReader) -> Response:
    response.call_on_close(reader.join)
    return response


def release_body(_: BaseException | None = None) -> None:
    """Stop counting the request's body. Flask calls it at the end of each request, however it ended."""
    if held := g.pop("body", None):
        deps().bodies.release(*held)


def _stream(told: int | None, limit: int) -> IO[bytes]:
    if told and told <= limit:
        # Now werkzeug stops after the last byte. Otherwise it reads on for the end, and releases the GIL once more.
        request.max_content_length = told
    return request.stream


def idempotency() -> Idempotency | None:
    """The Idempotency-Key, with a hash of the request's path and body, which has been read. Raises: InvalidRequest."""
    if (key := _idempotency_key()) is None:
        return None
    # A slash at the end of a path changes nothing.
    digest = hashlib.sha256(request.path.rstrip("/").encode() + b"\n" + g.raw).digest()
    return Idempotency(key, digest)


def _idempotency_key() -> str | None:
    header = request.headers.get("Idempotency-Key")
    if header is None:
        return None
    key = header.strip().removeprefix('"').removesuffix('"')
    if not 1 <= len(key) <= KEY_CHARS_LIMIT or not (key.isascii() and key.isprintable()):
        raise InvalidRequest(
            f"The Idempotency-Key must have 1 to {KEY_CHARS_LIMIT} printable ASCII characters.",
            param="Idempotency-Key",
        )
    return key


def preferred_wait_s() -> float:
    """How long a synchronous request waits: the limit, or less by `Prefer: wait=n`. Raises: InvalidRequest."""
    limit_s = deps().settings.wait_limit_s
    for preference in request.headers.get("Prefer", "").split(","):
        name, _, value = preference.partition("=")
        if name.strip().lower() == "wait":
            digits = value.strip().strip('"')
            if not (digits.isascii() and digits.isdigit() and len(digits) <= WAIT_DIGITS_LIMIT):
                raise InvalidRequest("Invalid 'Prefer': 'wait' takes whole seconds.", param="Prefer")
            return min(limit_s, float(digits))
    return limit_s


def accept(draft: Draft, app: App, key: Idempotency | None) -> Accepted:
    """Accept a draft. Raises: as `Submitter.submit`."""
    accepted = deps().submitter.submit(draft, app, key, g.request_id)
    if not accepted.is_replay:
        g.pop("due", None)
    return accepted


def submitted(draft: Draft, app: App) -> tuple[Accepted, Job]:
    """Accept a draft; returns the job as it stands. Raises: WaitTimeout: the job goes on, but cannot be read back."""
    accepted = accept(draft, app, idempotency())
    try:
        return accepted, read_job(app, accepted.job_id)
    except StoreUnavailable as error:
        # A 503 would make the client submit the job again.
        raise _goes_on(accepted.job_id, "was accepted, and cannot be read back now") from error


def waited_for(drafts: list[Draft], app: App) -> tuple[Accepted, Job]:
    """Accept the one draft of a list, and wait until its job has ended.

    The draft is taken out of the list, and the body let go, once the job is accepted: a wait takes minutes, and many
    callers wait at once. So the caller must hold neither the draft nor what it is made from.
    The slot is taken first, so that a refusal for lack of one accepts nothing.
    If the client closes its connection meanwhile, its job is cancelled, unless another reader is attached, or an
    Idempotency-Key says that the client may ask for it again.
    Raises: SlotsFull. WaitTimeout: the job goes on.
    """
    wait_s, key = preferred_wait_s(), idempotency()
    g.waits = True
    with deps().waits.hold("wait", app.id):
        accepted = accept(drafts.pop(), app, key)
        g.pop("raw", None)
        release_body()
        try:
            peer = peer_of(request.environ)
            job = deps().waits.follow(accepted.job_id, lambda: read_job(app, accepted.job_id), wait_s, peer)
        except ClientGone as error:
            if key is None:
                cancel_unless_wanted(deps(), app.id, accepted.job_id)
            raise _goes_on(accepted.job_id, "has lost its client") from error
        except StoreUnavailable as error:
            raise _goes_on(accepted.job_id, "was accepted, and cannot be read back now") from error
    if not job.state.is_terminal:
        raise _goes_on(job.id, "has not ended yet")
    return accepted, job


def _goes_on(job_id: UUID, what: str) -> WaitTimeout:
    shown = show_id(job_id)
    return WaitTimeout(f"Job '{shown}' {what}. It goes on: GET /v1/jobs/{shown}?wait=30", job_id)


def read_job(app: App, job_id: UUID) -> Job:
    """The caller's job as it stands. Raises: NotFound."""
    return deps().reader.read(app.id, job_id)


def headers_of(accepted: Accepted, job: Job | None = None) -> Mapping[str, str]:
    """The headers that an accept adds to the answer, in every format, and what the job says now, if it was read."""
    replayed = {"Idempotent-Replayed": "true"} if accepted.is_replay else {}
    rates = rate_headers(accepted.rates_left) if accepted.rates_left else {}
    now = _cache_header(accepted.cache) if job is None else headers_of_job(job)
    confined = confined_header(accepted.confined_until) if accepted.confined_until else {}
    return {"x-job-id": show_id(accepted.job_id), **replayed, **rates, **confined, **now}


def headers_of_job(job: Job) -> Mapping[str, str]:
    """The headers that say what the cache had for a job, and what it cost, on an answer about it."""
    return {**_cache_header(job.cache), **_cost_header(job)}


def _cost_header(job: Job) -> Mapping[str, str]:
    """The job's cost, spelled as in its body. Empty until the job ends: its bill is written then."""
    return {"x-headrace-cost-usd": f"{job.usd:f}"} if job.state.is_terminal else {}


def _cache_header(cache: CacheUse | None) -> Mapping[str, str]:
    """Empty for a job for which the cache was not searched."""
    return {"x-headrace-cache": cache} if cache else {}
