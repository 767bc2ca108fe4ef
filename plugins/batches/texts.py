"""What batches do about the texts of jobs that answer their lines."""

from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection

from headrace.store.jobs.texts import TextsPart
from headrace.tables import jobs
from plugins.batches.domain import BATCH_PREFIX, NAME
from plugins.batches.tables import batch_lines, batches

#: The batch of a job; NULL: it has none.
BATCH_ID = sa.cast(sa.func.substr(jobs.c.notes[NAME].astext, len(BATCH_PREFIX) + 1), sa.Uuid)
#: True while the job's answer is yet to be written to the file of its batch.
_IS_AWAITED = sa.exists().where(
    batches.c.id == BATCH_ID, batches.c.state.in_(["validating", "in_progress", "finalizing", "cancelling"])
)


def _erase(db: Connection, job_id: UUID) -> None:
    batch_id = sa.select(BATCH_ID).where(jobs.c.id == job_id).scalar_subquery()
    its_line = (batch_lines.c.batch_id == batch_id, batch_lines.c.job_id == job_id)
    db.execute(sa.update(batch_lines).where(*its_line).values(body="{}", prefix=""))


PART = TextsPart(erase=_erase, awaits=_IS_AWAITED)
