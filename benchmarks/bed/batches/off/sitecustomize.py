"""Takes a mechanism of batches away, for a counter-proof: `BATCH_OFF` names it, and this folder is on PYTHONPATH.

Python runs this at its start. `ids`: the id of a line's job is written down only once the job is submitted, four times
a second, as a process does that keeps what it submits in its memory. `settlement`: what the provider billed beyond its
answers is not booked. `lookup`: a batch that may have been made is asked for again at once, and neither is cancelled.
"""

import os

if os.environ.get("BATCH_OFF") == "ids":  # noqa: TID251 - no setting: the product knows nothing of it.
    from dataclasses import replace
    from uuid import UUID

    import sqlalchemy as sa

    from api.deps import WebDeps
    from headrace.domain.apps import App
    from headrace.domain.ids import new_id
    from plugins.batches.domain import Batch, Line
    from plugins.batches.running import feeding, runner
    from plugins.batches.tables import batch_lines

    #: By line, the id of its job, which Postgres does not know yet.
    unwritten: dict[tuple[UUID, int], UUID] = {}
    submit, settle = feeding.Feeder._submit, runner.settle

    def submit_with_a_new_id(self: feeding.Feeder, app: App, batch: Batch, line: Line) -> Exception | None:
        """Submit the line as a job that nothing is written of."""
        fresh = replace(line, job_id=new_id())
        error = submit(self, app, batch, fresh)
        if error is None and fresh.job_id is not None:
            unwritten[batch.id, line.number] = fresh.job_id
        return error

    def settle_after_writing(web: WebDeps, batch: Batch) -> int:
        """Write the ids of what was submitted, and go on."""
        for key, job_id in list(unwritten.items()):
            these = (batch_lines.c.batch_id == key[0], batch_lines.c.number == key[1])
            with web.store.begin() as db:
                db.execute(sa.update(batch_lines).where(*these).values(job_id=job_id))
            del unwritten[key]
        return settle(web, batch)

    feeding.Feeder._submit = submit_with_a_new_id  # type: ignore[method-assign]
    runner.settle = settle_after_writing

if os.environ.get("BATCH_OFF") == "settlement":  # noqa: TID251 - no setting: the product knows nothing of it.
    from headrace.domain.attempts import Usage
    from plugins.batches import batch_tier

    batch_tier._more = lambda billed, booked: Usage()

if os.environ.get("BATCH_OFF") == "forget":  # noqa: TID251 - no setting: the product knows nothing of it.
    from uuid import UUID

    import sqlalchemy as sa
    from sqlalchemy import Connection

    from plugins.batches import store as batches
    from plugins.batches.tables import batch_lines
    from plugins.batches.tables import batches as table

    def delete_all(db: Connection, _batch_id: UUID) -> int:
        """Delete the lines of all batches that are hidden."""
        hidden = sa.select(table.c.id).where(~table.c.has_lines)
        return db.execute(sa.delete(batch_lines).where(batch_lines.c.batch_id.in_(hidden))).rowcount

    batches.delete_lines = delete_all

if os.environ.get("BATCH_OFF") == "lookup":  # noqa: TID251 - no setting: the product knows nothing of it.
    from datetime import timedelta

    from plugins.batches import batch_tier

    batch_tier.APPEARS_WITHIN = timedelta(0)
    batch_tier.BatchTier._surplus = lambda self, batch: []  # type: ignore[method-assign]
