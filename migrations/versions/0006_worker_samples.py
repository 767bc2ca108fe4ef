"""Add samples to workers, preemptions to attempts, and an index by time to observations.

Revision: 0006, after 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

OBSERVED = ("queue_samples", "decisions")


def upgrade() -> None:
    op.create_table(
        "worker_samples",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("worker_id", sa.Uuid, nullable=False),
        sa.Column("pool", sa.Text, nullable=False),
        sa.Column("taken_at", sa.TIMESTAMP(timezone=True), server_default=sa.func.now(), nullable=False),
        _float("interval_s", "Since the worker's sample before: what totals are of.", nullable=False),
        _float("running", "Mean over the engine's steps; without one, now.", nullable=False),
        sa.Column("waiting", sa.Integer, nullable=False, comment="In the engine, now."),
        sa.Column("steps", sa.Integer, nullable=False, comment="Of the whole batch; 0 where the engine tells of none."),
        _float("kv_use", "Share of the KV blocks, mean over the steps; NULL without one."),
        _float("kv_reserved", "Share that the ledger expects at its peak; NULL without a ledger."),
        sa.Column("prompt_tokens", sa.Integer, nullable=False),
        sa.Column("output_tokens", sa.Integer, nullable=False),
        sa.Column("preemptions", sa.Integer, nullable=False),
        _float("first_token_s", "Mean over the first tokens in the interval; NULL without one."),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_worker_samples")),
        comment="What each worker's engine did, every few seconds.",
    )
    op.create_index("ix_worker_samples_taken_at_pool", "worker_samples", ["taken_at", "pool"])
    for table in OBSERVED:
        op.create_index(f"ix_{table}_at", table, ["at"])
    op.add_column("attempts", sa.Column("preemptions", sa.Integer, nullable=False, server_default=sa.text("0")))


def _float(name: str, comment: str, *, nullable: bool = True) -> sa.Column[float]:
    return sa.Column(name, sa.Float, nullable=nullable, comment=comment)


def downgrade() -> None:
    op.drop_column("attempts", "preemptions")
    for table in OBSERVED:
        op.drop_index(f"ix_{table}_at", table_name=table)
    op.drop_table("worker_samples")
