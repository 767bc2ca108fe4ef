"""Allow one retry of a job by a table of its own: jobs of different months share no unique index.

Revision: 0040, after 0039
"""

import sqlalchemy as sa
from alembic import op

revision = "0040"
down_revision = "0039"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "job_retries",
        sa.Column("job_id", sa.Uuid, nullable=False, comment="The failed job."),
        sa.Column("retried_as", sa.Uuid, nullable=False, comment="The job that retries it."),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_job_retries")),
        comment="One row for each retried job. A trigger on jobs writes it, so that a second retry fails.",
    )
    # A trigger, so that the rule also binds the old code, which writes `jobs.retry_of` alone.
    op.execute(
        """
        CREATE FUNCTION note_job_retry() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO job_retries (job_id, retried_as) VALUES (NEW.retry_of, NEW.id);
            RETURN NULL;
        END $$
        """
    )
    op.execute(
        """
        CREATE TRIGGER job_is_retried_once AFTER INSERT ON jobs
        FOR EACH ROW WHEN (NEW.retry_of IS NOT NULL) EXECUTE FUNCTION note_job_retry()
        """
    )
    # The trigger's lock keeps writers out until the commit, so no retry is missed. A partial index has these rows.
    op.execute("INSERT INTO job_retries SELECT retry_of, id FROM jobs WHERE retry_of IS NOT NULL")


def downgrade() -> None:
    op.execute("DROP TRIGGER job_is_retried_once ON jobs")
    op.execute("DROP FUNCTION note_job_retry()")
    op.drop_table("job_retries")
