"""Workers and hosts, and what was observed and decided about them."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from headrace.domain.fleet import ProcessKind
from headrace.domain.hosts import HostEnd
from headrace.tables.columns import USD, metadata, moment, one_of

processes = sa.Table(
    "processes",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True, comment="One process's life; a restarted process is a new row."),
    sa.Column("kind", sa.Text, nullable=False, comment="Its line of the Procfile."),
    sa.Column("name", sa.Text, nullable=False, comment="The same in each life: its Celery node, or kind@host."),
    sa.Column("host_id", sa.Text, nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("version", sa.Text, nullable=False, comment="Of its release."),
    sa.Column("pool", sa.Text, comment="Of a GPU worker; NULL: of no pool."),
    sa.Column("scaling_mode", sa.Text, comment="Of a control process: active or advisory."),
    sa.Column("started_at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=sa.func.now()),
    # Without an index: a sign of life then writes the row alone, every few seconds.
    sa.Column("seen_at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=sa.func.now()),
    sa.Column(
        "stopped_at", sa.TIMESTAMP(timezone=True), comment="NULL: it runs; with an old seen_at it was killed, or hangs."
    ),
    sa.Column(
        "problems",
        JSONB,
        nullable=False,
        server_default=sa.text("'{}'"),
        comment="What it says is wrong in it, by the names of the alerts.",
    ),
    sa.Column(
        "end_reason",
        sa.Text,
        comment="Why it ended, by the supervisor that saw it; NULL: it runs, it said that it stopped, or none saw it.",
    ),
    one_of("kind", ProcessKind, "kind"),
    comment="Each process's signs of life.",
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
    sa.Column(
        "draining",
        sa.Boolean,
        nullable=False,
        server_default=sa.false(),
        comment="It has heard that its host is draining, and takes no more jobs.",
    ),
    sa.Column("started_at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=sa.func.now()),
    # Without an index: a renewal then writes the row alone, and that each second.
    moment("lease_until", nullable=False),
    moment("stopped_at"),
    sa.Column("stop_reason", sa.Text, comment="Why it took itself out; NULL: it was stopped."),
    sa.Column(
        "expected_outputs",
        JSONB(none_as_null=True),
        comment="How long its answers of each lane get, by their maximum; NULL: it does not learn it.",
    ),
    sa.Column(
        "payload_version",
        sa.SmallInteger,
        nullable=False,
        server_default=sa.text("1"),
        comment="The highest version of jobs' prompts that its release reads.",
    ),
)

hosts = sa.Table(
    "hosts",
    metadata,
    sa.Column("id", sa.Text, primary_key=True, comment="The HEADRACE_HOST_ID of its workers, or a name of its order."),
    sa.Column("pool", sa.Text, nullable=False),
    sa.Column("instance_type", sa.Text, comment="A NAME of [hosts.NAME]."),
    sa.Column("usd_per_hour", USD, comment="The machine's price when the lease began; NULL: unknown."),
    sa.Column("provider_id", sa.Text, comment="The provider's name of it."),
    moment("requested_at", nullable=False),
    moment(
        "ordered_at",
        comment="When the provider accepted the order; of an adopted host, when its first worker started.",
    ),
    moment("ready_at"),
    moment("drain_at"),
    sa.Column(
        "released_at",
        sa.TIMESTAMP(timezone=True),
        comment="When the provider was first asked to end it; from then on it cannot be called back.",
    ),
    moment("ended_at"),
    sa.Column("end_reason", sa.Text, comment="Why it was drained or ended."),
    sa.Column(
        "is_adopted",
        sa.Boolean,
        nullable=False,
        server_default=sa.false(),
        comment="No decision ordered it: its worker was just there.",
    ),
    sa.Column("decision_id", sa.BigInteger, comment="The decision that ordered it."),
    sa.Column("drain_decision_id", sa.BigInteger, comment="The decision that drains it; NULL: none, or by hand."),
    one_of("end_reason", HostEnd, "end_reason"),
    sa.Index("ix_hosts_live", "pool", postgresql_where=sa.text("ended_at IS NULL")),
    comment="One lease for each worker host and pool, from ordered_at to ended_at. host_hours has the machines' bills.",
)

host_actors = sa.Table(
    "host_actors",
    metadata,
    sa.Column("pool", sa.Text, primary_key=True),
    sa.Column("holder", sa.Uuid, nullable=False, comment="The control process."),
    moment("until", nullable=False),
    comment="Which control process asks the provider of a pool's hosts for changes: one at a time.",
)

locks = sa.Table(
    "locks",
    metadata,
    sa.Column("name", sa.Text, primary_key=True, comment="The name of the work."),
    comment="One row for each work that one control process does at a time. That process locks the row meanwhile.",
)


def _demand() -> tuple[sa.Column[Any], ...]:
    """What a queue's pool was asked for, by the queue that jobs wanted, and what became of it."""
    counted = {
        "offered": "Jobs that wanted this queue: accepted, refused for room or time, or spilled. Not those that an "
        "app's own limits refused.",
        "offered_tokens": "Their tokens.",
        "spilled": "Those of them that went to the paid API, at the door or later.",
        "finished": "Jobs that ended on the pool's workers.",
        "discounted": "Refused jobs that are in neither offered nor refused: requests that were repeated, and what one "
        "app had refused far beyond what it was served.",
        "discounted_tokens": "Their tokens.",
        "ended": "Jobs that ended in any way since the sample before.",
        "failed": "Those of them that failed.",
        "expired": "Those that did not start in time.",
    }
    hosts = {"hosts_requested": "Ordered and not ready.", "hosts_draining": "They finish their jobs, then end."}
    return (
        *(
            sa.Column(name, sa.BigInteger, nullable=False, server_default=sa.text("0"), comment=about)
            for name, about in counted.items()
        ),
        *(
            sa.Column(name, sa.Float, nullable=False, server_default=sa.text("0"), comment=about)
            for name, about in hosts.items()
        ),
        sa.Column("kv_use", sa.Float, comment="Share of the pool's KV caches in use; NULL: not reported."),
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
    *_demand(),
    sa.Index("ix_queue_samples_at", "at"),
)

queue_rollups = sa.Table(
    "queue_rollups",
    metadata,
    sa.Column("queue", sa.Text, primary_key=True),
    sa.Column("span_s", sa.Integer, primary_key=True, comment="60: a minute; 3600: an hour."),
    sa.Column("at", sa.TIMESTAMP(timezone=True), primary_key=True, comment="The start of the span."),
    sa.Column("samples", sa.Integer, nullable=False),
    sa.Column("depth", sa.Float, nullable=False, comment="Mean."),
    sa.Column("most_depth", sa.Integer, nullable=False),
    sa.Column("oldest_wait_s", sa.Float, nullable=False, comment="The longest."),
    sa.Column("arrivals", sa.BigInteger, nullable=False),
    sa.Column("refused", sa.BigInteger, nullable=False),
    sa.Column("started", sa.BigInteger, nullable=False),
    sa.Column("started_tokens", sa.BigInteger, nullable=False),
    sa.Column("running", sa.Float, nullable=False, comment="Mean."),
    sa.Column("slots", sa.Float, nullable=False, comment="Mean."),
    sa.Column("hosts", sa.Float, nullable=False, comment="Mean."),
    *_demand(),
    sa.Index("ix_queue_rollups_span_s_at", "span_s", "at"),
    comment="Samples of queues, summed over minutes after a day, and over hours after a week.",
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
    sa.Column(
        "steps", sa.Integer, nullable=False, comment="Steps of the whole batch; 0 where the engine reports none."
    ),
    sa.Column("kv_use", sa.Float, comment="Share of the KV blocks, mean over the steps; NULL without one."),
    sa.Column("kv_reserved", sa.Float, comment="Share that the ledger expects at its peak; NULL without a ledger."),
    sa.Column("prompt_tokens", sa.Integer, nullable=False),
    sa.Column("output_tokens", sa.Integer, nullable=False),
    sa.Column("preemptions", sa.Integer, nullable=False),
    sa.Column("first_token_s", sa.Float, comment="Mean over the first tokens in the interval; NULL without one."),
    sa.Column("gpu_use", sa.Float, comment="Share of the time in which its GPUs ran a kernel, now; NULL without one."),
    sa.Column("gpu_memory", sa.Float, comment="Share of its GPUs' memory that is taken, now."),
    sa.Column("gpu_watts", sa.Float, comment="The power of its GPUs, now."),
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
    sa.Column("inputs", JSONB, nullable=False, comment="All that the decision went by: it can be computed again."),
    sa.Column("action", sa.Text, nullable=False, server_default="hold", comment="up, down or hold"),
    sa.Column("policy", sa.Text, nullable=False, server_default="reactive"),
    sa.Column(
        "version", sa.Integer, nullable=False, server_default=sa.text("0"), comment="The version of the policy's code."
    ),
    sa.Column("need", sa.Integer, comment="Hosts that the load needs; NULL: the policy does not say."),
    sa.Column("spare_need", sa.Integer, comment="Hosts below which none is spare."),
    sa.Column("forecast_tokens_per_s", sa.Float, comment="The load expected at forecast_at."),
    moment("forecast_at"),
    sa.Column("actual_tokens_per_s", sa.Float, comment="The load that came around forecast_at; NULL: not compared."),
    moment("burst_until"),
    moment("applied_at"),
    sa.Column("tries", sa.Integer, nullable=False, server_default=sa.text("0"), comment="Calls of the provider."),
    sa.Column("error", sa.Text, comment="The error of the provider's last call that failed."),
    sa.Index("ix_decisions_pool_at", "pool", "at"),
    sa.Index(
        "ix_decisions_open",
        "pool",
        postgresql_where=sa.text("mode = 'active' AND action <> 'hold' AND applied_at IS NULL"),
    ),
    sa.Index("ix_decisions_at", "at"),
)

scaling_alerts = sa.Table(
    "scaling_alerts",
    metadata,
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("pool", sa.Text, primary_key=True),
    sa.Column("subject", sa.Text, primary_key=True, comment="A host's id; empty: the pool itself."),
    moment("began_at", nullable=False),
    moment("seen_at", nullable=False),
    sa.Column("alerted_at", sa.TIMESTAMP(timezone=True), comment="NULL: it has not lasted long enough."),
    comment="What the operator is or will be alerted to. A row is deleted when its condition ends.",
)

refusals = sa.Table(
    "refusals",
    metadata,
    sa.Column("minute", sa.TIMESTAMP(timezone=True), primary_key=True),
    sa.Column("app_id", sa.Uuid, primary_key=True),
    sa.Column("queue", sa.Text, primary_key=True),
    sa.Column("reason", sa.Text, primary_key=True),
    sa.Column(
        "is_repeat",
        sa.Boolean,
        primary_key=True,
        server_default=sa.false(),
        comment="The same request of this app was refused before in this minute.",
    ),
    sa.Column("jobs", sa.Integer, nullable=False),
    sa.Column("tokens", sa.BigInteger, nullable=False, comment="The most that its jobs could have used."),
    sa.Column(
        "sampled_jobs",
        sa.Integer,
        nullable=False,
        server_default=sa.text("0"),
        comment="How many of its jobs a row of queue_samples counts.",
    ),
    sa.Column(
        "expected_tokens",
        sa.BigInteger,
        nullable=False,
        server_default=sa.text("0"),
        comment="What its jobs would likely have used.",
    ),
    sa.Column(
        "sampled_tokens",
        sa.BigInteger,
        nullable=False,
        server_default=sa.text("0"),
        comment="How many of its expected_tokens a row of queue_samples counts.",
    ),
)

plugin_versions = sa.Table(
    "plugin_versions",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("version", sa.Integer, nullable=False, comment="The last of its files of SQL that was run."),
    sa.Column("views", sa.ARRAY(sa.Text), nullable=False, comment="Its views, which go when it is lifted out."),
    comment="The plugins whose tables are in this database.",
)
