"""Workers and hosts, and what was observed and decided about them."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from headrace.tables.columns import USD, metadata, moment

workers = sa.Table(
    "workers",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True, comment="One process's life; a restarted worker is a new row."),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("host_id", sa.Text, nullable=False),
    sa.Column("pool", sa.Text, nullable=False),
    sa.Column("engine", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("max_model_tokens", sa.Integer),
    sa.Column("max_running", sa.Integer, nullable=False),
    sa.Column("kv_tokens", sa.Integer),
    sa.Column("kv_block_tokens", sa.Integer),
    sa.Column("running", sa.Integer, nullable=False, server_default=sa.text("0")),
    sa.Column("ready", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("started_at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=sa.func.now()),
    moment("lease_until", nullable=False, index=True),
    moment("stopped_at"),
    sa.Column("stop_reason", sa.Text, comment="Why it took itself out; NULL: it was stopped."),
    sa.Column(
        "expected_outputs",
        JSONB(none_as_null=True),
        comment="How long its answers of each lane get, by their maximum; NULL: it does not learn it.",
    ),
)

hosts = sa.Table(
    "hosts",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("pool", sa.Text, nullable=False),
    sa.Column("instance_type", sa.Text),
    sa.Column("usd_per_hour", USD),
    moment("requested_at", nullable=False),
    moment("ready_at"),
    moment("drain_at"),
    moment("ended_at"),
)

queue_samples = sa.Table(
    "queue_samples",
    metadata,
    sa.Column("queue", sa.Text, primary_key=True),
    sa.Column("at", sa.TIMESTAMP(timezone=True), primary_key=True),
    sa.Column("depth", sa.Integer, nullable=False),
    sa.Column("oldest_wait_s", sa.Float, nullable=False),
    sa.Column("arrivals", sa.Integer, nullable=False, comment="Accepted since the sample before."),
    sa.Column("refused", sa.Integer, nullable=False, comment="Refused since the sample before."),
    sa.Column("started", sa.Integer, nullable=False, comment="Started since the sample before."),
    sa.Column("running", sa.Integer, nullable=False),
    sa.Column("slots", sa.Integer, nullable=False, comment="Jobs the live workers of this queue's pool can run."),
    sa.Column("hosts", sa.Integer, nullable=False),
    sa.Column("depth_tokens", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("started_tokens", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.Index("ix_queue_samples_at", "at"),
)

worker_samples = sa.Table(
    "worker_samples",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("worker_id", sa.Uuid, nullable=False),
    sa.Column("pool", sa.Text, nullable=False),
    sa.Column("taken_at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=sa.func.now()),
    sa.Column("interval_s", sa.Float, nullable=False, comment="Since the worker's sample before: what totals are of."),
    sa.Column("running", sa.Float, nullable=False, comment="Mean over the engine's steps; without one, now."),
    sa.Column("waiting", sa.Integer, nullable=False, comment="In the engine, now."),
    sa.Column("steps", sa.Integer, nullable=False, comment="Of the whole batch; 0 where the engine tells of none."),
    sa.Column("kv_use", sa.Float, comment="Share of the KV blocks, mean over the steps; NULL without one."),
    sa.Column("kv_reserved", sa.Float, comment="Share that the ledger expects at its peak; NULL without a ledger."),
    sa.Column("prompt_tokens", sa.Integer, nullable=False),
    sa.Column("output_tokens", sa.Integer, nullable=False),
    sa.Column("preemptions", sa.Integer, nullable=False),
    sa.Column("first_token_s", sa.Float, comment="Mean over the first tokens in the interval; NULL without one."),
    # The time first: queries read the newest rows of every pool, and deletes remove the oldest.
    sa.Index("ix_worker_samples_taken_at_pool", "taken_at", "pool"),
    comment="What each worker's engine did, every few seconds.",
)

decisions = sa.Table(
    "decisions",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=sa.func.now()),
    sa.Column("pool", sa.Text, nullable=False),
    sa.Column("mode", sa.Text, nullable=False),
    sa.Column("hosts", sa.Integer, nullable=False),
    sa.Column("target", sa.Integer, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("inputs", JSONB, nullable=False),
    sa.Index("ix_decisions_pool_at", "pool", "at"),
    sa.Index("ix_decisions_at", "at"),
)

refusals = sa.Table(
    "refusals",
    metadata,
    sa.Column("minute", sa.TIMESTAMP(timezone=True), primary_key=True),
    sa.Column("app_id", sa.Uuid, primary_key=True),
    sa.Column("queue", sa.Text, primary_key=True),
    sa.Column("reason", sa.Text, primary_key=True),
    sa.Column("jobs", sa.Integer, nullable=False),
    sa.Column("tokens", sa.BigInteger, nullable=False),
    sa.Column(
        "sampled_jobs",
        sa.Integer,
        nullable=False,
        server_default=sa.text("0"),
        comment="Those of its jobs that a row of queue_samples counts.",
    ),
)
