"""A client that leaves: its job is cancelled unless wanted; its delivered texts are erased unless stored."""

import logging
from functools import partial
from uuid import UUID

from api.deps import WebDeps
from headrace.broker.ending import cancel
from headrace.domain.ids import show_id
from headrace.errors import BrokerUnavailable, JobNotEnded, NotFound, StoreUnavailable
from headrace.store.cache import exact_cache
from headrace.store.jobs import texts

log = logging.getLogger(__name__)


def cancel_unless_wanted(deps: WebDeps, app_id: UUID, job_id: UUID) -> None:
    """Cancel the job of a client that disconnected before its request was answered.

    Not if another reader is attached, jobs wait for its answer, or this process is stopping.
    """
    is_read = deps.waits.is_closed or deps.waits.is_watched(job_id) or _is_held(deps, job_id)
    try:
        if not (is_read or _is_followed(deps, job_id)):
            cancel(deps.store, deps.admission, app_id, job_id)
    except (StoreUnavailable, NotFound) as error:
        log.warning("abandoned_job_not_cancelled", extra={"job_id": show_id(job_id), "error": str(error)})


def _is_held(deps: WebDeps, job_id: UUID) -> bool:
    """True when another process has a reader of the job's stream, or Redis does not answer."""
    try:
        return deps.waits.ask_redis(partial(deps.streams.is_held, job_id))
    except BrokerUnavailable:
        return True


def _is_followed(deps: WebDeps, job_id: UUID) -> bool:
    """True when cancelling the job would let another one make the same answer, anew. Raises: StoreUnavailable."""
    with deps.store.autocommit() as db:
        return exact_cache.has_followers(db, job_id)


def erase_delivered(deps: WebDeps, app_id: UUID, job_id: UUID) -> None:
    """Erase the texts of a delivered response with `store=false`, its stream in Redis included.

    `forget_texts` makes up for what fails here.
    """
    try:
        with deps.store.begin() as db:
            texts.erase(db, app_id, job_id)
            deps.streams.forget(job_id)
    except (JobNotEnded, NotFound):
        # Its client has left before the end, or has sent the same request again.
        return
    except (StoreUnavailable, BrokerUnavailable) as error:
        log.warning("texts_not_erased", extra={"job_id": show_id(job_id), "error": str(error)})
