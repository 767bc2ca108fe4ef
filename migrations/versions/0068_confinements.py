"""Confine apps whose prompts keep killing engines.

Revision: 0068, after 0067
"""

import sqlalchemy as sa
from alembic import op

revision = "0068"
down_revision = "0067"
branch_labels = None
depends_on = None

STRUCK = "The job that killed an engine in which nothing else ran."
STRIKES = "Poison prompts by app and pool: two within an hour confine the app there."
CONFINED = "Apps whose jobs of a pool run one at a time, on one worker, because their prompts killed engines there."


def moment(name: str, comment: str | None = None) -> sa.Column[object]:
    return sa.Column(name, sa.TIMESTAMP(timezone=True), nullable=False, comment=comment)


def upgrade() -> None:
    of_app = [op.f(f"fk_{table}_app_id_apps") for table in ("poison_strikes", "confinements")]
    op.create_table(
        "poison_strikes",
        sa.Column("job_id", sa.Uuid, nullable=False, comment=STRUCK),
        sa.Column("app_id", sa.Uuid, nullable=False),
        sa.Column("pool", sa.Text, nullable=False),
        moment("at"),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_poison_strikes")),
        sa.ForeignKeyConstraint(["app_id"], ["apps.id"], name=of_app[0]),
        comment=STRIKES,
    )
    op.create_index(op.f("ix_poison_strikes_app_id_pool_at"), "poison_strikes", ["app_id", "pool", "at"])
    op.create_table(
        "confinements",
        sa.Column("app_id", sa.Uuid, nullable=False),
        sa.Column("pool", sa.Text, nullable=False),
        moment("since"),
        moment("until"),
        moment("next_at", "No job of it starts before: the pause after a further strike."),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("job_id", sa.Uuid, comment="The job whose turn it is; NULL: none yet."),
        sa.Column("worker_id", sa.Uuid, comment="The worker on which its jobs run while that lives; NULL: none yet."),
        sa.PrimaryKeyConstraint("app_id", "pool", name=op.f("pk_confinements")),
        sa.ForeignKeyConstraint(["app_id"], ["apps.id"], name=of_app[1]),
        comment=CONFINED,
    )


def downgrade() -> None:
    op.drop_table("confinements")
    op.drop_table("poison_strikes")
