"""Files that apps upload, and the batches that run their lines."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from headrace.domain.queues import Overflow
from headrace.tables import jobs
from headrace.tables.columns import USD, created_at, metadata, moment, one_of
from plugins.batches.domain import BatchState, LineState, ProviderState

files = sa.Table(
    "files",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("app_id", sa.ForeignKey("apps.id", ondelete="RESTRICT"), nullable=False),
    sa.Column("state", sa.Text, nullable=False, server_default="uploading"),
    sa.Column("purpose", sa.Text, nullable=False),
    sa.Column("filename", sa.Text, nullable=False),
    sa.Column(
        "bytes", sa.BigInteger, nullable=False, comment="Its size; before the upload's end, the most that it may have."
    ),
    created_at(),
    moment("expires_at", comment="When it is deleted by itself; NULL: with the texts of jobs of its age."),
    one_of("state", ("uploading", "ready", "deleted"), "state"),
    one_of("purpose", ("batch", "batch_output"), "purpose"),
    # The newest of an app first.
    sa.Index("ix_files_app_id", "app_id", "id"),
    # The sum of what an app holds.
    sa.Index(
        "ix_files_held",
        "app_id",
        postgresql_include=["bytes", "purpose"],
        postgresql_where=sa.text("state <> 'deleted'"),
    ),
    sa.Index("ix_files_unready", "id", postgresql_where=sa.text("state <> 'ready'")),
    sa.Index("ix_files_expires_at", "expires_at", postgresql_where=sa.text("expires_at IS NOT NULL")),
    info={"plugin": "batches", "hidden": frozenset({"filename"})},
    comment="A row stands before the content is written and until it is deleted, so that no content is forgotten.",
)

batches = sa.Table(
    "batches",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("app_id", sa.ForeignKey("apps.id", ondelete="RESTRICT"), nullable=False),
    sa.Column("state", sa.Text, nullable=False, server_default="validating"),
    sa.Column("endpoint", sa.Text, nullable=False),
    sa.Column("model", sa.Text, comment="What all lines name; NULL before the file is read."),
    sa.Column("input_file_id", sa.Uuid, nullable=False, comment="A file, which may be deleted by now."),
    sa.Column("output_file_id", sa.Uuid, comment="The answers; NULL before the end, and if there is none."),
    sa.Column(
        "error_file_id", sa.Uuid, comment="The lines without an answer; NULL before the end, and if all have one."
    ),
    sa.Column("completion_window", sa.Text, nullable=False, comment="As the app wrote it."),
    sa.Column("overflow", sa.Text, nullable=False),
    sa.Column("metadata", JSONB, nullable=False, server_default=sa.text("'{}'")),
    sa.Column("webhook_url", sa.Text),
    sa.Column("output_keep_s", sa.Integer, comment="For how long its files are kept; NULL: as long as uploads are."),
    sa.Column("retry_of", sa.Uuid, comment="The batch whose failed lines these are; NULL: it has a file's lines."),
    sa.Column("errors", JSONB(none_as_null=True), comment="Why it failed; NULL: it did not."),
    sa.Column("total", sa.Integer, nullable=False, server_default=sa.text("0"), comment="Lines."),
    sa.Column("completed", sa.Integer, nullable=False, server_default=sa.text("0"), comment="Lines with an answer."),
    sa.Column(
        "failed", sa.Integer, nullable=False, server_default=sa.text("0"), comment="Lines that ended without an answer."
    ),
    sa.Column("prompt_tokens", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("cached_tokens", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("output_tokens", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("reasoning_tokens", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("usd", USD, nullable=False, server_default=sa.text("0"), comment="What its answers cost so far."),
    created_at(),
    moment("expires_at", nullable=False, comment="The end of its window: what has not started by then expires."),
    moment("not_before", comment="No line runs before; NULL: at once."),
    moment("in_progress_at"),
    moment("finalizing_at"),
    moment("completed_at"),
    moment("failed_at"),
    moment("expired_at"),
    moment("cancelling_at"),
    moment("cancelled_at"),
    sa.Column("runner_id", sa.Uuid, comment="The process that moves it on while its lease lasts; NULL: none yet."),
    moment("lease_until", comment="When another process may take it over; NULL: at once."),
    sa.Column(
        "has_lines",
        sa.Boolean,
        nullable=False,
        server_default=sa.true(),
        comment="False: its lines are deleted for their age.",
    ),
    sa.Column(
        "held_bytes",
        sa.BigInteger,
        nullable=False,
        server_default=sa.text("0"),
        comment="Bytes of its lines; until they are read, of its file. They count in the app's storage.",
    ),
    one_of("state", BatchState, "state"),
    one_of("overflow", Overflow, "overflow"),
    sa.CheckConstraint("completed + failed <= total", name="counts"),
    # The newest of an app first.
    sa.Index("ix_batches_app_id", "app_id", "id"),
    sa.Index(
        "ix_batches_open",
        "id",
        postgresql_where=sa.text("state IN ('validating', 'in_progress', 'finalizing', 'cancelling')"),
    ),
    sa.Index("ix_batches_with_lines", "id", postgresql_where=sa.text("has_lines")),
    sa.Index("ix_batches_held", "app_id", postgresql_include=["held_bytes"], postgresql_where=sa.text("has_lines")),
    info={"plugin": "batches", "hidden": frozenset({"metadata", "webhook_url", "errors"})},
    comment="Bulk work: the lines of a file, in OpenAI's states.",
)

batch_lines = sa.Table(
    "batch_lines",
    metadata,
    sa.Column("batch_id", sa.ForeignKey("batches.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, comment="In the file, from 1."),
    sa.Column("custom_id", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False, server_default="waiting"),
    sa.Column("prefix", sa.Text, nullable=False, comment="How its prompt begins: lines that begin alike run together."),
    sa.Column("body", sa.Text, nullable=False, comment="The request; {} once no step needs it."),
    sa.Column("job_id", sa.Uuid, comment="Its job's id, which stands here before the job is submitted."),
    sa.Column("status_code", sa.SmallInteger, comment="Of its refusal; NULL: it was not refused."),
    sa.Column("refusal", sa.Text, comment="The body of its refusal, as JSON."),
    moment("submitted_at", comment="When the feeder last took it."),
    sa.Column("provider_batch_id", sa.Uuid, comment="The provider's batch that it went to; NULL: none."),
    one_of("state", LineState, "state"),
    sa.CheckConstraint("state <> 'submitted' OR job_id IS NOT NULL", name="submitted_has_job"),
    sa.CheckConstraint("(status_code IS NULL) = (refusal IS NULL)", name="refusal"),
    # In the order in which they run.
    sa.Index(
        "ix_batch_lines_waiting",
        "batch_id",
        "prefix",
        sa.text("length(body)"),
        "number",
        postgresql_where=sa.text("state = 'waiting'"),
    ),
    sa.Index("ix_batch_lines_submitted", "batch_id", "job_id", postgresql_where=sa.text("state = 'submitted'")),
    sa.Index(
        "ix_batch_lines_provider",
        "provider_batch_id",
        "job_id",
        postgresql_where=sa.text("provider_batch_id IS NOT NULL"),
    ),
    info={"plugin": "batches", "is_closed": True},
    comment="The lines of batches, until their results are old.",
)

provider_batches = sa.Table(
    "provider_batches",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True, comment="Also the worker_id of the jobs that run there."),
    sa.Column("batch_id", sa.ForeignKey("batches.id", ondelete="CASCADE"), nullable=False),
    sa.Column("model", sa.Text, nullable=False, comment="What its jobs name."),
    sa.Column("state", sa.Text, nullable=False, server_default="gathering"),
    sa.Column("file_id", sa.Text, comment="What the provider calls the file of its lines; NULL: it has none yet."),
    sa.Column("provider_id", sa.Text, comment="What the provider calls it; NULL: it has none yet."),
    sa.Column("status", sa.Text, comment="The provider's last word; NULL: none yet."),
    sa.Column("lines", sa.Integer, nullable=False, server_default=sa.text("0"), comment="In its file."),
    sa.Column(
        "answered", sa.Integer, nullable=False, server_default=sa.text("0"), comment="Lines that the provider ended."
    ),
    sa.Column(
        "unreturned_usd",
        USD,
        nullable=False,
        server_default=sa.text("0"),
        comment="What the provider billed beyond the answers that were booked.",
    ),
    sa.Column("error", sa.Text, comment="Why lines went back to their own queues; NULL: none did."),
    created_at(),
    sa.Column(
        "asks",
        sa.Integer,
        nullable=False,
        server_default=sa.text("0"),
        comment="How often the provider may have made it: more than once if a call without an answer was repeated.",
    ),
    moment("asked_at", comment="When the provider was last asked to make it; NULL: not yet."),
    moment("sent_at", comment="When the provider's batch was made."),
    moment("checked_at", comment="When the provider last answered about it."),
    moment("cancel_asked_at", comment="When the provider was asked to cancel it; NULL: it was not."),
    moment("ended_at"),
    sa.Column("runner_id", sa.Uuid, comment="The overflow worker that moves it on while its lease lasts; NULL: none."),
    moment("lease_until", comment="When another worker may take it over; NULL: at once."),
    one_of("state", ProviderState, "state"),
    sa.Index("ix_provider_batches_batch_id", "batch_id"),
    sa.Index("ix_provider_batches_open", "id", postgresql_where=sa.text("state <> 'ended'")),
    info={"plugin": "batches", "hidden": frozenset({"error"})},
    comment="Lines of batches that a provider answers as batches of its own, at the price of its batch tier.",
)

_ITS_BATCH = jobs.c.notes["batches"].astext
#: The jobs of a batch.
sa.Index("ix_jobs_of_batches", _ITS_BATCH, postgresql_where=_ITS_BATCH.isnot(None))
