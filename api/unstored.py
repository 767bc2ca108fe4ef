"""The use case: a response with `store=false` has been delivered, and nothing of its texts is kept."""

import logging
from uuid import UUID

from api.deps import WebDeps
from headrace.domain.ids import show_id
from headrace.errors import BrokerUnavailable, JobNotEnded, NotFound, StoreUnavailable
from headrace.store.jobs import texts

log = logging.getLogger(__name__)


def erase_delivered(deps: WebDeps, app_id: UUID, job_id: UUID) -> None:
    """Erase the texts of a job, its stream in Redis included. `forget_texts` makes up for what fails here."""
    try:
        with deps.store.begin() as db:
            texts.erase(db, app_id, job_id)
            deps.streams.forget(job_id)
    except (JobNotEnded, NotFound):
        # Its client has left before the end, or has sent the same request again.
        return
    except (StoreUnavailable, BrokerUnavailable) as error:
        log.warning("texts_not_erased", extra={"job_id": show_id(job_id), "error": str(error)})
