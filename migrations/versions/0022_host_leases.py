"""Give hosts leases, decisions their results, and samples the whole demand, rolled up for a year.

Revision: 0022, after 0021
"""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

TIMESTAMP = sa.TIMESTAMP(timezone=True)
ZERO = sa.text("0")

DEMAND = {
    "offered": "Jobs that wanted this queue: accepted, refused for room or time, or spilled. Not those that an "
    "app's own limits refused.",
    "offered_tokens": "Their tokens.",
    "spilled": "Those of them that went to the paid API, at the door or later.",
    "finished": "Jobs that ended on the pool's workers.",
}
HOSTS = {"hosts_requested": "Ordered and not ready.", "hosts_draining": "They finish their jobs, then end."}
KV_USE = "Share of the pool's KV caches in use; NULL: not reported."
END_REASONS = "end_reason IN ('scaled_down', 'by_hand', 'gone', 'written_off')"


def _demand() -> list[sa.Column[object]]:
    return [
        *(
            sa.Column(name, sa.BigInteger, nullable=False, server_default=ZERO, comment=about)
            for name, about in DEMAND.items()
        ),
        *(
            sa.Column(name, sa.Float, nullable=False, server_default=ZERO, comment=about)
            for name, about in HOSTS.items()
        ),
        sa.Column("kv_use", sa.Float, comment=KV_USE),
    ]


def _hosts() -> list[sa.Column[object]]:
    return [
        sa.Column("provider_id", sa.Text, comment="The provider's name of it."),
        sa.Column("ordered_at", TIMESTAMP),
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
    ]


def _decisions() -> list[sa.Column[object]]:
    return [
        sa.Column("action", sa.Text, nullable=False, server_default="hold", comment="up, down or hold"),
        sa.Column("policy", sa.Text, nullable=False, server_default="reactive"),
        sa.Column("version", sa.Integer, nullable=False, server_default=ZERO, comment="Of the policy's code."),
        sa.Column("need", sa.Integer, comment="Hosts that the load needs; NULL: the policy does not say."),
        sa.Column("spare_need", sa.Integer, comment="Hosts below which none is spare."),
        sa.Column("forecast_tokens_per_s", sa.Float, comment="The load expected at forecast_at."),
        sa.Column("forecast_at", TIMESTAMP),
        sa.Column("burst_until", TIMESTAMP),
        sa.Column("applied_at", TIMESTAMP),
        sa.Column("tries", sa.Integer, nullable=False, server_default=ZERO, comment="Calls of the provider."),
        sa.Column("error", sa.Text, comment="Of the last call of the provider that failed."),
    ]


HOST_COMMENTS = {
    "id": "The HEADRACE_HOST_ID of its workers, or a name of its order.",
    "instance_type": "A NAME of [hosts.NAME].",
    "usd_per_hour": "The price when it was ordered; NULL: unknown.",
}
HOSTS_TABLE = "One lease for each worker host, from its order to its end. It is billed from ordered_at to ended_at."
INPUTS = "All that the decision went by: it can be computed again."


def upgrade() -> None:
    for table, columns in (("hosts", _hosts()), ("queue_samples", _demand()), ("decisions", _decisions())):
        for column in columns:
            op.add_column(table, column)
    op.add_column(
        "workers",
        sa.Column(
            "draining",
            sa.Boolean,
            nullable=False,
            server_default=sa.false(),
            comment="It has heard that its host is draining, and takes no more jobs.",
        ),
    )
    # `hosts` has no rows yet: nothing has written any.
    op.create_check_constraint(op.f("ck_hosts_end_reason"), "hosts", END_REASONS)
    for name, about in HOST_COMMENTS.items():
        op.alter_column("hosts", name, comment=about)
    op.create_table_comment("hosts", HOSTS_TABLE)
    op.alter_column("decisions", "inputs", comment=INPUTS)
    op.create_table(
        "host_actors",
        sa.Column("pool", sa.Text, nullable=False),
        sa.Column("holder", sa.Uuid, nullable=False, comment="The control process."),
        sa.Column("until", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("pool", name=op.f("pk_host_actors")),
        comment="Which control process asks the provider of a pool's hosts for changes: one at a time.",
    )
    op.create_table(
        "queue_rollups",
        sa.Column("queue", sa.Text, nullable=False),
        sa.Column("span_s", sa.Integer, nullable=False, comment="60: a minute; 3600: an hour."),
        sa.Column("at", TIMESTAMP, nullable=False, comment="The start of the span."),
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
        sa.PrimaryKeyConstraint("queue", "span_s", "at", name=op.f("pk_queue_rollups")),
        comment="Samples of queues, summed over minutes after a day, and over hours after a week.",
    )
    op.create_index("ix_queue_rollups_span_s_at", "queue_rollups", ["span_s", "at"])


def downgrade() -> None:
    op.drop_table("queue_rollups")
    op.drop_table("host_actors")
    op.alter_column("decisions", "inputs", comment=None)
    op.drop_table_comment("hosts")
    for name in HOST_COMMENTS:
        op.alter_column("hosts", name, comment=None)
    op.drop_constraint(op.f("ck_hosts_end_reason"), "hosts")
    op.drop_column("workers", "draining")
    for table, columns in (("hosts", _hosts()), ("queue_samples", _demand()), ("decisions", _decisions())):
        for column in columns:
            op.drop_column(table, column.name)
