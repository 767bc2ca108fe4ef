"""The use case: the client that made a job, and was to get its answer in the same request, has gone."""

import logging
from uuid import UUID

from api.deps import Deps
from api.reading.ending import cancel
from headrace.domain.ids import show_id
from headrace.errors import BrokerUnavailable, NotFound, StoreUnavailable

log = logging.getLogger(__name__)


def cancel_unless_wanted(parts: Deps, app_id: UUID, job_id: UUID) -> None:
    """Cancel the job, unless another reader is attached, or it is this process that goes."""
    try:
        if not (parts.waits.is_closed or parts.waits.is_watched(job_id) or _is_held(parts, job_id)):
            cancel(parts.store, parts.admission, app_id, job_id)
    except (StoreUnavailable, NotFound) as error:
        log.warning("abandoned_job_not_cancelled", extra={"job_id": show_id(job_id), "error": str(error)})


def _is_held(parts: Deps, job_id: UUID) -> bool:
    """True when another process has a reader of the job's stream, or Redis does not say."""
    try:
        return parts.streams.is_held(job_id)
    except BrokerUnavailable:
        return True
