"""The tables: `migrations/` makes them. Times are `timestamptz`, money is US dollars, ids are UUIDv7 made by us."""

from collections.abc import Iterable

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from headrace.jobs import JobState, Lane, Overflow, Route

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

USD = sa.Numeric(18, 9)
LEDGER_KINDS = ("compute", "api", "waste", "idle", "cache", "adjustment")


def _time(name: str, *, nullable: bool = True, index: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.TIMESTAMP(timezone=True), nullable=nullable, index=index)


def _created() -> sa.Column[object]:
    return sa.Column("created_at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=sa.func.now())


def _one_of(column: str, values: Iterable[str], name: str) -> sa.CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return sa.CheckConstraint(f"{column} IN ({listed})", name=name)


apps = sa.Table(
    "apps",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("webhook_secret", sa.Text, nullable=False),
    _created(),
    sa.Column("queued_jobs", sa.Integer, comment="Jobs of it that may wait at once; NULL: as many as the queues take."),
    sa.Column("requests_per_minute", sa.Integer, comment="NULL: no limit."),
    sa.Column("tokens_per_minute", sa.Integer, comment="Prompt and the most output; NULL: no limit."),
    sa.Column("lanes", ARRAY(sa.Text), comment="Those it may use; NULL: all."),
    sa.Column("day_usd", USD, comment="It may spend so much at the paid API in a day of UTC; NULL: no limit."),
    sa.Column("month_usd", USD, comment="Likewise in a month."),
    comment="Clients of the API.",
)

api_keys = sa.Table(
    "api_keys",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("app_id", sa.ForeignKey("apps.id", ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("hint", sa.Text, nullable=False, comment="What may be shown of the key: its first characters."),
    sa.Column("digest", sa.LargeBinary, nullable=False, unique=True, comment="HMAC-SHA256 under the pepper."),
    _created(),
    _time("expires_at"),
    _time("revoked_at"),
    sa.Column("scopes", ARRAY(sa.Text), nullable=False, server_default=sa.text("'{submit,read}'")),
)

jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("app_id", sa.ForeignKey("apps.id"), nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("lane", sa.Text, nullable=False),
    sa.Column("pool", sa.Text, nullable=False),
    sa.Column("queue", sa.Text, nullable=False),
    sa.Column("route", sa.Text, nullable=False),
    sa.Column("route_reason", sa.Text, nullable=False),
    sa.Column("overflow", sa.Text, nullable=False),
    sa.Column("model_requested", sa.Text, nullable=False),
    sa.Column("model_served", sa.Text),
    sa.Column("adapter", sa.Text),
    sa.Column("batch_id", sa.Uuid),
    sa.Column("custom_id", sa.Text),
    sa.Column("end_user", sa.Text),
    sa.Column("served_by_job", sa.Uuid, comment="The job whose answer this one was given, for a cache hit."),
    sa.Column("metadata", JSONB, nullable=False, server_default=sa.text("'{}'")),
    sa.Column("webhook_url", sa.Text),
    sa.Column("background", sa.Boolean, nullable=False),
    sa.Column("max_cost_usd", USD),
    sa.Column("prompt_tokens", sa.Integer, nullable=False),
    sa.Column("max_tokens", sa.Integer, nullable=False),
    sa.Column("output_tokens", sa.Integer),
    sa.Column("cached_tokens", sa.Integer),
    sa.Column("reasoning_tokens", sa.Integer, comment="Of the output tokens, those before the answer's first."),
    sa.Column("finish_reason", sa.Text),
    sa.Column("usd", USD, nullable=False, server_default=sa.text("0")),
    sa.Column("error_code", sa.Text),
    sa.Column("error_message", sa.Text),
    sa.Column("enqueue_no", sa.Integer, nullable=False, server_default=sa.text("1")),
    sa.Column("attempt", sa.Integer, nullable=False, server_default=sa.text("0")),
    sa.Column("worker_id", sa.Uuid, comment="Who runs it; with `attempt`, the fence of every write by a worker."),
    _created(),
    _time("start_by", nullable=False),
    _time("finish_by"),
    _time("not_before"),
    _time("queued_at"),
    _time("started_at"),
    _time("ended_at"),
    _time("cancel_requested_at"),
    sa.Column("stream", sa.Boolean, nullable=False, server_default=sa.false(), comment="Its tokens are published."),
    _time("erased_at"),
    sa.Column(
        "suspicion",
        sa.SmallInteger,
        nullable=False,
        server_default=sa.text("0"),
        comment="0: none. 1: an engine died while it ran. From 2 on it runs alone, and fails if the engine dies again.",
    ),
    sa.Column("retry_of", sa.Uuid, comment="The failed job that an operator has run again as this one."),
    _one_of("state", JobState, "state"),
    _one_of("lane", Lane, "lane"),
    _one_of("route", Route, "route"),
    _one_of("overflow", Overflow, "overflow"),
    sa.CheckConstraint("(state = 'running') = (worker_id IS NOT NULL)", name="running_has_worker"),
    sa.Index("ix_jobs_app_id_id", "app_id", "id"),
    sa.Index("ix_jobs_open", "state", "queued_at", postgresql_where=sa.text("state IN ('waiting', 'queued')")),
    sa.Index("ix_jobs_running", "worker_id", postgresql_where=sa.text("state = 'running'")),
    sa.Index("ix_jobs_started_at", "started_at"),
    sa.Index("uq_jobs_retry_of", "retry_of", unique=True, postgresql_where=sa.text("retry_of IS NOT NULL")),
    sa.Index("ix_jobs_failed", "id", postgresql_where=sa.text("state = 'failed'")),
)

job_texts = sa.Table(
    "job_texts",
    metadata,
    sa.Column("job_id", sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("messages", JSONB, nullable=False),
    sa.Column("sampling", JSONB, nullable=False),
    sa.Column("answer", sa.Text),
    sa.Column("logprobs", JSONB(none_as_null=True), comment="Of the answer's tokens; NULL: they were not asked for."),
    sa.Column("reasoning", sa.Text, comment="What the model thought before it answered; NULL: nothing, or not told."),
    comment="Prompt and answer, apart from the hot row.",
)

attempts = sa.Table(
    "attempts",
    metadata,
    sa.Column("job_id", sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("worker_id", sa.Uuid, nullable=False),
    sa.Column("engine", sa.Text, nullable=False),
    sa.Column("model_served", sa.Text),
    _time("started_at", nullable=False),
    _time("ended_at"),
    sa.Column("outcome", sa.Text, comment="NULL while it runs; `lost` when its worker died."),
    sa.Column("error_code", sa.Text),
    sa.Column("prompt_tokens", sa.Integer),
    sa.Column("cached_tokens", sa.Integer),
    sa.Column("output_tokens", sa.Integer),
    sa.Column("engine_s", sa.Float),
    sa.Column("first_token_s", sa.Float),
    sa.Column("preemptions", sa.Integer, nullable=False, server_default=sa.text("0")),
    sa.Column(
        "reserved_usd",
        USD,
        nullable=False,
        server_default=sa.text("0"),
        comment="What its call to the paid API may still cost, and holds of its budgets; 0 once that is settled.",
    ),
    _one_of("outcome", ("succeeded", "failed", "aborted", "lost"), "outcome"),
)

ledger = sa.Table(
    "ledger",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=sa.func.now()),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("job_id", sa.Uuid),
    sa.Column("attempt", sa.Integer),
    sa.Column("app_id", sa.Uuid),
    sa.Column("end_user", sa.Text),
    sa.Column("pool", sa.Text),
    sa.Column("model", sa.Text),
    sa.Column("host_id", sa.Text),
    sa.Column("prompt_tokens", sa.Integer, nullable=False, server_default=sa.text("0")),
    sa.Column("cached_tokens", sa.Integer, nullable=False, server_default=sa.text("0")),
    sa.Column("output_tokens", sa.Integer, nullable=False, server_default=sa.text("0")),
    sa.Column("kv_token_s", sa.Float, comment="KV-cache tokens held, integrated over seconds; an upper bound."),
    sa.Column("engine_s", sa.Float),
    sa.Column("usd", USD, nullable=False),
    sa.Column("idle_usd", USD, nullable=False, server_default=sa.text("0")),
    sa.Column("price_version", sa.Text),
    sa.Column("api_usd", USD, comment="What the paid API would have charged; NULL when it has no price."),
    sa.Column("estimated", sa.Boolean, nullable=False, server_default=sa.false()),
    _one_of("kind", LEDGER_KINDS, "kind"),
    sa.CheckConstraint("cached_tokens BETWEEN 0 AND prompt_tokens AND output_tokens >= 0", name="tokens"),
    sa.Index("uq_ledger_bill", "job_id", unique=True, postgresql_where=sa.text("kind IN ('compute', 'api', 'cache')")),
    sa.Index("ix_ledger_job_id", "job_id"),
    sa.Index("ix_ledger_app_id_at", "app_id", "at"),
    comment="One immutable entry per charge; a trigger refuses changes.",
)

idempotency_keys = sa.Table(
    "idempotency_keys",
    metadata,
    sa.Column("app_id", sa.ForeignKey("apps.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("request_hash", sa.LargeBinary, nullable=False),
    sa.Column("job_id", sa.Uuid, nullable=False),
    _time("expires_at", nullable=False, index=True),
)

deliveries = sa.Table(
    "deliveries",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("job_id", sa.ForeignKey("jobs.id", ondelete="CASCADE"), comment="Whose end it tells of; NULL: see data."),
    sa.Column("app_id", sa.ForeignKey("apps.id", ondelete="CASCADE"), comment="Whose it is; NULL: the operator's."),
    sa.Column("event", sa.Text, nullable=False),
    sa.Column("data", JSONB, comment="What it says, where it is not a job's end."),
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False, server_default="pending"),
    sa.Column("tries", sa.Integer, nullable=False, server_default=sa.text("0")),
    sa.Column("last_status", sa.Integer),
    sa.Column("last_error", sa.Text),
    _created(),
    sa.Column("next_at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=sa.func.now()),
    _time("published_at"),
    _time("delivered_at"),
    _one_of("state", ("pending", "delivered", "failed"), "state"),
    sa.CheckConstraint("num_nonnulls(job_id, data) = 1", name="about"),
    sa.UniqueConstraint("job_id", "event"),
    sa.Index("ix_deliveries_pending", "next_at", postgresql_where=sa.text("state = 'pending'")),
)

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
    _time("lease_until", nullable=False, index=True),
    _time("stopped_at"),
    sa.Column("stop_reason", sa.Text, comment="Why it took itself out; NULL: it was stopped."),
)

hosts = sa.Table(
    "hosts",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("pool", sa.Text, nullable=False),
    sa.Column("instance_type", sa.Text),
    sa.Column("usd_per_hour", USD),
    _time("requested_at", nullable=False),
    _time("ready_at"),
    _time("drain_at"),
    _time("ended_at"),
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
    # The time first: what is asked for is always the newest, and what is deleted the oldest, of every pool.
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
)

budgets = sa.Table(
    "budgets",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("app_id", sa.ForeignKey("apps.id", ondelete="CASCADE"), comment="NULL: the budget of all apps together."),
    sa.Column("period", sa.Text, nullable=False),
    sa.Column("starts_at", sa.TIMESTAMP(timezone=True), nullable=False),
    sa.Column("reserved_usd", USD, nullable=False, server_default=sa.text("0")),
    sa.Column("spent_usd", USD, nullable=False, server_default=sa.text("0")),
    sa.Column(
        "told_percent",
        sa.SmallInteger,
        nullable=False,
        server_default=sa.text("0"),
        comment="The highest threshold that was told of.",
    ),
    sa.Column(
        "short_at",
        sa.TIMESTAMP(timezone=True),
        comment="When a call first found too little left, with the first threshold reached.",
    ),
    _one_of("period", ("day", "month"), "period"),
    sa.UniqueConstraint("app_id", "period", "starts_at", postgresql_nulls_not_distinct=True),
    comment="What was spent at the paid API, and may yet be by calls under way. The limits are the apps' and settings.",
)
