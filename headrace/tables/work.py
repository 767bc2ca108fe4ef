"""Jobs, their attempts and what these cost; webhooks that announce their ends; the semantic cache."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSON, JSONB

from headrace.domain.queues import Lane, Overflow, Route
from headrace.domain.states import JobState
from headrace.tables.columns import USD, created_at, metadata, moment, one_of

#: The tables in partitions by month, each with the column that has the job's id, whose first bits are its time. Foreign
#: keys to jobs lead from partition to partition of one month, so a table comes after those that it refers to. The key
#: `id` of `ledger` and `deliveries` holds in each partition; how ids are made keeps them unique across partitions.
BY_MONTH = {"jobs": "id", "job_texts": "job_id", "attempts": "job_id", "ledger": "job_id", "deliveries": "job_id"}

LEDGER_KINDS = ("compute", "api", "waste", "idle", "cache", "adjustment")

SAVED_USD = "The price of what was not computed: the repeated answer (kind cache), or the tokens that compression cut."

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
    sa.Column("notes", JSONB, comment="What plugins note of it, by their names, without texts; NULL: nothing."),
    sa.Column("end_user", sa.Text),
    sa.Column("served_by_job", sa.Uuid, comment="The job whose answer this one was given, or waits for."),
    sa.Column("metadata", JSONB, nullable=False, server_default=sa.text("'{}'")),
    sa.Column("webhook_url", sa.Text),
    sa.Column("background", sa.Boolean, nullable=False),
    sa.Column("max_cost_usd", USD),
    sa.Column("prompt_tokens", sa.Integer, nullable=False),
    sa.Column("max_tokens", sa.Integer, nullable=False),
    sa.Column("output_tokens", sa.Integer),
    sa.Column("cached_tokens", sa.Integer),
    sa.Column("reasoning_tokens", sa.Integer, comment="The output tokens before the answer's first."),
    sa.Column("finish_reason", sa.Text),
    sa.Column("usd", USD, nullable=False, server_default=sa.text("0")),
    sa.Column("error_code", sa.Text),
    sa.Column("error_message", sa.Text),
    sa.Column("enqueue_no", sa.Integer, nullable=False, server_default=sa.text("1")),
    sa.Column("attempt", sa.Integer, nullable=False, server_default=sa.text("0")),
    sa.Column("worker_id", sa.Uuid, comment="Who runs it; with `attempt`, the fence of every write by a worker."),
    created_at(),
    moment("start_by", nullable=False),
    moment("finish_by"),
    moment("not_before"),
    moment("queued_at"),
    moment("started_at"),
    moment("ended_at"),
    moment("cancel_requested_at"),
    sa.Column("stream", sa.Boolean, nullable=False, server_default=sa.false(), comment="Its tokens are published."),
    moment("erased_at"),
    sa.Column(
        "suspicion",
        sa.SmallInteger,
        nullable=False,
        server_default=sa.text("0"),
        comment="0: none. 1: an engine died while it ran. From 2 on it runs alone, and fails if the engine dies again.",
    ),
    sa.Column("retry_of", sa.Uuid, comment="The failed job that an operator has run again as this one."),
    moment("overflow_at", comment="When it first went to the paid API's queue; NULL: never."),
    sa.Column("original_tokens", sa.Integer, comment="The prompt's tokens before it was compressed; NULL: it was not."),
    sa.Column(
        "cache",
        sa.Text,
        comment="hit: it was given a stored answer; semantic: that to the same question in other words; shared: that "
        "of a job under way; miss: none; NULL: not searched.",
    ),
    sa.Column("rule", sa.Text, comment="The rule that chose its pool; NULL: the job named its model, or none matched."),
    moment("stand_by", comment="Until when it waits for a better answer than it has; NULL: it has none yet."),
    sa.Column("shadow", sa.Text, comment="wanted, started, skipped; of a shadow: open, agrees, differs, failed."),
    sa.Column("shadow_of", sa.Uuid, comment="The job that this shadow answers once more; NULL: it is none."),
    sa.Column("n", sa.SmallInteger, comment="The answers that it asks for, each of max_tokens at most; NULL: one."),
    sa.Column(
        "needs_version",
        sa.SmallInteger,
        comment="The payload version that it waits for a worker to read; NULL: no worker was too old for it.",
    ),
    moment("start_after", comment="The time before which its caller wants no start; NULL: at once."),
    one_of("state", JobState, "state"),
    one_of("lane", Lane, "lane"),
    one_of("route", Route, "route"),
    one_of("overflow", Overflow, "overflow"),
    sa.CheckConstraint("(state = 'running') = (worker_id IS NOT NULL)", name="running_has_worker"),
    sa.Index("ix_jobs_app_id_id", "app_id", "id"),
    sa.Index("ix_jobs_queued", "queue", "queued_at", "id", postgresql_where=sa.text("state = 'queued'")),
    sa.Index("ix_jobs_due", "not_before", postgresql_where=sa.text("state = 'waiting'")),
    sa.Index(
        "ix_jobs_unstarted",
        "start_by",
        postgresql_where=sa.text("state IN ('waiting', 'queued') AND started_at IS NULL"),
    ),
    sa.Index(
        "ix_jobs_unfinished",
        "finish_by",
        postgresql_where=sa.text("state IN ('waiting', 'queued') AND finish_by IS NOT NULL"),
    ),
    sa.Index("ix_jobs_running", "worker_id", postgresql_where=sa.text("state = 'running'")),
    sa.Index("ix_jobs_started", "started_at", postgresql_where=sa.text("started_at IS NOT NULL")),
    sa.Index(
        "ix_jobs_ended_unstarted",
        "ended_at",
        postgresql_where=sa.text("started_at IS NULL AND ended_at IS NOT NULL"),
    ),
    sa.Index(
        "ix_jobs_ended_between",
        "ended_at",
        postgresql_where=sa.text(
            "started_at IS NOT NULL AND (state = 'cancelled' OR error_code = 'deadline_exceeded')"
        ),
    ),
    sa.Index("ix_jobs_overflow_at", "overflow_at", postgresql_where=sa.text("overflow_at IS NOT NULL")),
    sa.Index("ix_jobs_failed", "id", postgresql_where=sa.text("state = 'failed'")),
    sa.Index(
        "ix_jobs_standing",
        "stand_by",
        postgresql_where=sa.text("state IN ('waiting', 'queued') AND stand_by IS NOT NULL"),
    ),
    sa.Index("ix_jobs_shadow", "ended_at", postgresql_where=sa.text("shadow IN ('wanted', 'open')")),
    sa.Index("ix_jobs_shadow_of", "shadow_of", postgresql_where=sa.text("shadow_of IS NOT NULL")),
    sa.Index(
        "ix_jobs_following",
        "served_by_job",
        postgresql_where=sa.text("state = 'waiting' AND served_by_job IS NOT NULL"),
    ),
    postgresql_partition_by="RANGE (id)",
)

job_retries = sa.Table(
    "job_retries",
    metadata,
    sa.Column("job_id", sa.Uuid, primary_key=True, comment="The failed job."),
    sa.Column("retried_as", sa.Uuid, nullable=False, comment="The job that retries it."),
    comment="One row for each retried job. A trigger on jobs writes it, so that a second retry fails.",
)

job_texts = sa.Table(
    "job_texts",
    metadata,
    sa.Column("job_id", sa.Uuid, primary_key=True),
    sa.Column("messages", JSONB, nullable=False),
    sa.Column("sampling", JSONB, nullable=False),
    sa.Column("answer", sa.Text),
    # Older rows have their log probabilities here; `logprobs_json` has those of new rows.
    sa.Column(
        "logprobs", JSONB(none_as_null=True), comment="Those of the answer's tokens; NULL: they were not asked for."
    ),
    sa.Column(
        "logprobs_json",
        JSON(none_as_null=True),
        comment="Those of the answer's tokens as they are sent; NULL: they were not asked for, or are in logprobs.",
    ),
    sa.Column("reasoning", sa.Text, comment="What the model thought before it answered; NULL: nothing, or not told."),
    sa.Column(
        "tool_calls",
        JSONB(none_as_null=True),
        comment="The answer's calls of tools, as chat completions have them; NULL: none.",
    ),
    sa.Column("cache_key", sa.LargeBinary, comment="SHA-256 of the app and of all that determines the answer."),
    sa.Column(
        "is_unstored",
        sa.Boolean,
        comment="True: the request asked to keep nothing of its texts, which are erased once they are delivered; else "
        "NULL.",
    ),
    sa.Column("kept_answer", JSONB(none_as_null=True), comment="The answer that stands if no better one comes."),
    sa.Column("choices", JSON(none_as_null=True), comment="The answers after the first; NULL: it asked for one."),
    sa.Index("ix_job_texts_cache_key", "cache_key", "job_id", postgresql_where=sa.text("cache_key IS NOT NULL")),
    sa.Index("ix_job_texts_unstored", "job_id", postgresql_where=sa.text("is_unstored")),
    comment="Prompt and answer, apart from the hot row.",
    postgresql_partition_by="RANGE (job_id)",
)

attempts = sa.Table(
    "attempts",
    metadata,
    sa.Column("job_id", sa.Uuid, primary_key=True),
    sa.Column(
        "number",
        sa.Integer,
        primary_key=True,
        comment="From 1; 0, -1 and so on: its engine died under it, and it does not count.",
    ),
    sa.Column("worker_id", sa.Uuid, nullable=False),
    sa.Column("engine", sa.Text, nullable=False),
    sa.Column("model_served", sa.Text),
    moment("started_at", nullable=False),
    moment("ended_at"),
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
    sa.Column("escalated_by", sa.Text, comment="What called its answer bad: length, refusal, format, logprob."),
    sa.Column("error_cause", sa.Text, comment="How the paid API failed: its status and error code, or no answer."),
    one_of("outcome", ("succeeded", "failed", "aborted", "lost"), "outcome"),
    postgresql_partition_by="RANGE (job_id)",
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
    sa.Column("saved_usd", USD, comment=SAVED_USD),
    sa.Column(
        "reason",
        sa.Text,
        comment="Why it is waste: escalated; kept, given after all and billed; shadow; unreturned, of a provider.",
    ),
    one_of("kind", LEDGER_KINDS, "kind"),
    sa.CheckConstraint("cached_tokens BETWEEN 0 AND prompt_tokens AND output_tokens >= 0", name="tokens"),
    sa.Index("uq_ledger_bill", "job_id", unique=True, postgresql_where=sa.text("kind IN ('compute', 'api', 'cache')")),
    sa.Index("ix_ledger_job_id", "job_id"),
    sa.Index("ix_ledger_unbilled", "job_id", postgresql_where=sa.text("kind NOT IN ('compute', 'api', 'cache')")),
    sa.Index("ix_ledger_app_id_at", "app_id", "at"),
    # Entries are written in the order of time: a kind of index that takes a few kB for a million of them.
    sa.Index("ix_ledger_at", "at", postgresql_using="brin"),
    comment="One immutable entry per charge; a trigger refuses changes.",
    postgresql_partition_by="RANGE (job_id)",
)

poison_prompts = sa.Table(
    "poison_prompts",
    metadata,
    sa.Column("digest", sa.LargeBinary, primary_key=True, comment="SHA-256 of model, messages and how to decode."),
    sa.Column("job_id", sa.Uuid, nullable=False, comment="The last job that killed an engine with it."),
    moment("refused_until", nullable=False, index=True),
    comment="Prompts that killed an engine in which nothing else ran.",
)

poison_strikes = sa.Table(
    "poison_strikes",
    metadata,
    sa.Column("job_id", sa.Uuid, primary_key=True, comment="The job that killed an engine in which nothing else ran."),
    sa.Column("app_id", sa.ForeignKey("apps.id"), nullable=False),
    sa.Column("pool", sa.Text, nullable=False),
    moment("at", nullable=False),
    sa.Index("ix_poison_strikes_app_id_pool_at", "app_id", "pool", "at"),
    comment="Poison prompts by app and pool: two within an hour confine the app there.",
)

confinements = sa.Table(
    "confinements",
    metadata,
    sa.Column("app_id", sa.ForeignKey("apps.id"), primary_key=True),
    sa.Column("pool", sa.Text, primary_key=True),
    moment("since", nullable=False),
    moment("until", nullable=False),
    moment("next_at", nullable=False, comment="No job of it starts before: the pause after a further strike."),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("job_id", sa.Uuid, comment="The job whose turn it is; NULL: none yet."),
    sa.Column("worker_id", sa.Uuid, comment="The worker on which its jobs run while that lives; NULL: none yet."),
    comment="Apps whose jobs of a pool run one at a time, on one worker, because their prompts killed engines there.",
)


#: SQL by which the outbox is searched: the webhook's app (the operator's webhooks have none), and the receiver's host
#: and port.
APP_KEY = "coalesce(app_id, '00000000-0000-0000-0000-000000000000'::uuid)"
RECEIVER = """lower("substring"(url COLLATE "C", '://([^/?#]*)'::text))"""

deliveries = sa.Table(
    "deliveries",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("job_id", sa.Uuid, comment="The job whose end it announces; NULL: see data."),
    sa.Column(
        "app_id",
        sa.ForeignKey("apps.id", ondelete="CASCADE"),
        comment="The app that it belongs to; NULL: it is the operator's.",
    ),
    sa.Column("event", sa.Text, nullable=False),
    sa.Column("data", JSONB, comment="What it says, where it is not a job's end."),
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False, server_default="pending"),
    sa.Column("tries", sa.Integer, nullable=False, server_default=sa.text("0")),
    sa.Column("last_status", sa.Integer),
    sa.Column("last_error", sa.Text),
    created_at(),
    sa.Column("next_at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=sa.func.now()),
    moment("delivered_at"),
    sa.Column(
        "tries_before",
        sa.Integer,
        nullable=False,
        server_default=sa.text("0"),
        comment="Tries before an operator's last retry: the schedule does not count them.",
    ),
    one_of("state", ("pending", "delivered", "failed"), "state"),
    sa.CheckConstraint("num_nonnulls(job_id, data) = 1", name="about"),
    sa.UniqueConstraint("job_id", "event"),
    sa.Index("ix_deliveries_pending", "next_at", postgresql_where=sa.text("state = 'pending'")),
    sa.Index(
        "ix_deliveries_receiver",
        sa.text(APP_KEY),
        sa.text(f"({RECEIVER})"),
        "next_at",
        postgresql_where=sa.text("state = 'pending'"),
    ),
    sa.Index("ix_deliveries_failed", "id", postgresql_where=sa.text("state = 'failed'")),
    postgresql_partition_by="RANGE (job_id)",
)

gone_receivers = sa.Table(
    "gone_receivers",
    metadata,
    sa.Column("digest", sa.LargeBinary, primary_key=True, comment="SHA-256 of the app's id and the URL."),
    sa.Column(
        "app_id",
        sa.ForeignKey("apps.id", ondelete="CASCADE"),
        comment="The app that it belongs to; NULL: it is the operator's.",
    ),
    sa.Column("url", sa.Text, nullable=False),
    created_at(),
    sa.Index("ix_gone_receivers_created_at", "created_at"),
    comment="URLs that answered 410: nothing of that app is sent there any more.",
)

paused_receivers = sa.Table(
    "paused_receivers",
    metadata,
    sa.Column("app_id", sa.ForeignKey("apps.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("receiver", sa.Text, primary_key=True, comment="The host of its URLs, and the port if they name one."),
    sa.Column("since", sa.TIMESTAMP(timezone=True), nullable=False, server_default=sa.func.now()),
    comment="Receivers that operators have paused: the app's webhooks to them wait.",
)


cache_entries = sa.Table(
    "cache_entries",
    metadata,
    sa.Column(
        "job_id", sa.Uuid, primary_key=True, comment="The job whose answer may serve. Its texts have the question."
    ),
    sa.Column("app_id", sa.ForeignKey("apps.id", ondelete="CASCADE"), nullable=False),
    sa.Column("pool", sa.Text, nullable=False),
    sa.Column("scope", sa.LargeBinary, nullable=False, comment="SHA-256 of all but the question's words."),
    sa.Column("digest", sa.LargeBinary, nullable=False, comment="SHA-256 of the question: one entry for each."),
    sa.Column(
        "fingerprints",
        ARRAY(sa.LargeBinary),
        comment="What a search finds it by: hashes of the scope and of what both questions must have in common.",
    ),
    # No column of pgvector's type, so that the schema is the same without the extension. Searches cast.
    sa.Column("embedding", ARRAY(sa.REAL), nullable=False, comment="The embedding of the question."),
    created_at(),
    sa.Column(
        "used_at",
        sa.TIMESTAMP(timezone=True),
        nullable=False,
        server_default=sa.func.now(),
        comment="When it last matched a job. Of an app with too many entries, those unused for longest are deleted.",
    ),
    # A unique constraint could not leave its name.
    sa.Index("uq_cache_entries_question", "app_id", "scope", "digest", unique=True),
    # Without the list of pending entries, which every search would read as a whole.
    sa.Index(
        "ix_cache_entries_fingerprints", "fingerprints", postgresql_using="gin", postgresql_with={"fastupdate": "off"}
    ),
    comment="Questions of the semantic cache. One whose job has no answer serves nothing.",
)

cache_matches = sa.Table(
    "cache_matches",
    metadata,
    sa.Column("job_id", sa.Uuid, primary_key=True, comment="The job that asked."),
    sa.Column("app_id", sa.ForeignKey("apps.id", ondelete="CASCADE"), nullable=False),
    sa.Column("pool", sa.Text, nullable=False),
    sa.Column("entry_id", sa.Uuid, nullable=False, comment="The entry's job."),
    sa.Column("similarity", sa.Float, nullable=False, comment="The cosine of both questions' embeddings."),
    sa.Column(
        "kind",
        sa.Text,
        nullable=False,
        comment="served: with the entry's answer. The others ran. try: to test the entry; recheck: to test one that "
        "may serve; shadow: because the pool serves nothing.",
    ),
    sa.Column("at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=sa.func.now()),
    sa.Column("is_right", sa.Boolean, comment="Whether its own answer agrees with the entry's; NULL: not compared."),
    moment("judge_at", comment="When to look for its answer next; NULL: no more."),
    one_of("kind", ("served", "try", "recheck", "shadow"), "kind"),
    sa.Index("ix_cache_matches_tries", "entry_id", "at", postgresql_where=sa.text("is_right IS NOT NULL")),
    sa.Index("ix_cache_matches_record", "app_id", "pool", "at", postgresql_where=sa.text("is_right IS NOT NULL")),
    sa.Index("ix_cache_matches_judge_at", "judge_at", postgresql_where=sa.text("judge_at IS NOT NULL")),
    sa.Index("ix_cache_matches_at", "at"),
    comment="Jobs for which the semantic cache had an entry that the guard let pass. They have no text.",
)
