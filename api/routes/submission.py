"""What the two ways to submit have in common: the body, the Idempotency-Key, the poll's wait."""

import hashlib
import logging
from typing import Any
from uuid import UUID

from flask import request
from werkzeug.exceptions import RequestEntityTooLarge

from api.deps import deps, query
from api.schemas.body import parse_object
from api.schemas.jobs import WaitQuery
from headrace.errors import BrokerUnavailable, InvalidRequest
from headrace.jobs import Idempotency, JobState
from headrace.store import jobs
from headrace.store.apps import App
from headrace.store.jobs import Job

log = logging.getLogger(__name__)

KEY_CHARS_LIMIT = 255


def body() -> dict[str, Any]:
    """The request's JSON object. Raises: InvalidRequest. RequestEntityTooLarge."""
    return parse_object(_raw())


def _raw() -> bytes:
    """The body's bytes, kept for a second look. A chunked body that is too long shows only here."""
    raw = request.get_data(cache=True)
    if len(raw) > deps().settings.body_limit_bytes:
        raise RequestEntityTooLarge
    return raw


def idempotency() -> Idempotency | None:
    """The Idempotency-Key with a hash of what it came with. Raises: InvalidRequest."""
    header = request.headers.get("Idempotency-Key")
    if header is None:
        return None
    key = header.strip().removeprefix('"').removesuffix('"')
    if not 1 <= len(key) <= KEY_CHARS_LIMIT or not (key.isascii() and key.isprintable()):
        raise InvalidRequest(
            f"The Idempotency-Key must have 1 to {KEY_CHARS_LIMIT} printable ASCII characters.",
            param="Idempotency-Key",
        )
    digest = hashlib.sha256(request.path.encode() + b"\n" + _raw()).digest()
    return Idempotency(key, digest)


def job_when_ended(app: App, job_id: UUID) -> Job:
    """The caller's job; with `?wait=` once it has ended, or as it stands when the wait is over. Raises: NotFound."""
    wait_s, limit_s = query(WaitQuery).wait, deps().settings.wait_limit_s
    if wait_s > limit_s:
        raise InvalidRequest(f"Invalid 'wait': it may be at most {limit_s:g} seconds.", param="wait")

    def read() -> Job:
        with deps().store.begin() as db:
            return jobs.find(db, app.id, job_id)

    return deps().waits.until_ended(job_id, read, wait_s)


def cancelled(app: App, job_id: UUID) -> Job:
    """Cancel the caller's job; one that runs is stopped by its worker soon. Raises: NotFound."""
    with deps().store.begin() as db:
        job = jobs.cancel(db, app.id, job_id)
    if job.state is JobState.CANCELLED:
        try:
            deps().admission.remove([job.ticket])
            deps().admission.announce_ended([job.id])
        except BrokerUnavailable as error:
            # Its message finds nothing to claim, and whoever waits looks again by himself.
            log.warning("cancel_not_announced", extra={"job_id": job.id.hex, "error": str(error)})
    return job
