"""Keep what a rule's cascade needs: a job's rule, the answer that it has while it waits for a better one, and why.

Revision: 0053, after 0052
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0053"
down_revision = "0052"
branch_labels = None
depends_on = None

COLUMNS = (
    ("jobs", "rule", sa.Text, "The rule that chose its pool; NULL: the job named its model, or none matched."),
    (
        "jobs",
        "stand_by",
        sa.TIMESTAMP(timezone=True),
        "Until when it waits for a better answer than it has; NULL: it has none yet.",
    ),
    (
        "job_texts",
        "kept_answer",
        JSONB,
        "The answer that stands if no better one comes.",
    ),
    (
        "attempts",
        "escalated_by",
        sa.Text,
        "What called its answer bad: length, refusal, format, logprob.",
    ),
    (
        "ledger",
        "reason",
        sa.Text,
        "Of waste: escalated; kept, given after all and billed.",
    ),
)
ROUTING_PER_DAY = """
    SELECT date_trunc('day', j.created_at, 'UTC') AS day,
           a.name AS app,
           j.rule,
           j.metadata ->> 'task' AS task,
           count(*) AS jobs,
           count(*) FILTER (WHERE j.state = 'succeeded') AS succeeded,
           count(*) FILTER (WHERE j.cache IN ('hit', 'shared')) AS cached,
           coalesce(sum(c.usd), 0) AS usd,
           coalesce(sum(c.waste_usd), 0) AS waste_usd,
           count(*) FILTER (WHERE e.escalations > 0) AS escalated,
           coalesce(sum(e.by_length), 0)::bigint AS by_length,
           coalesce(sum(e.by_refusal), 0)::bigint AS by_refusal,
           coalesce(sum(e.by_format), 0)::bigint AS by_format,
           coalesce(sum(e.by_logprob), 0)::bigint AS by_logprob,
           count(*) FILTER (WHERE c.is_kept) AS kept
    FROM jobs j
    JOIN apps a ON a.id = j.app_id
    LEFT JOIN LATERAL (
        SELECT sum(usd) FILTER (WHERE kind <> 'waste') AS usd,
               sum(usd) FILTER (WHERE kind = 'waste') AS waste_usd,
               bool_or(reason = 'kept') AS is_kept
        FROM ledger
        WHERE job_id = j.id
    ) c ON true
    LEFT JOIN LATERAL (
        SELECT count(*) AS escalations,
               count(*) FILTER (WHERE escalated_by = 'length') AS by_length,
               count(*) FILTER (WHERE escalated_by = 'refusal') AS by_refusal,
               count(*) FILTER (WHERE escalated_by = 'format') AS by_format,
               count(*) FILTER (WHERE escalated_by = 'logprob') AS by_logprob
        FROM attempts
        WHERE job_id = j.id AND escalated_by IS NOT NULL
    ) e ON true
    WHERE j.rule IS NOT NULL
    GROUP BY 1, 2, 3, 4
"""
ABOUT = "The jobs whose pool a rule chose, by day of UTC, app, rule and task: what they cost, and which went on."
ABOUT_COLUMNS = {
    "day": "Its start, in UTC, by when the jobs were accepted.",
    "app": "The app's name.",
    "rule": "The rule's name in headrace.toml.",
    "task": "The task in the job's metadata; NULL: it names none, or its texts were erased.",
    "jobs": "Jobs whose pool the rule chose.",
    "succeeded": "Of these, the jobs that got an answer.",
    "cached": "Of these, the jobs that were given the answer of another job.",
    "usd": "What the ledger charges for their answers.",
    "waste_usd": "What attempts without a given answer have cost, those before an escalation included.",
    "escalated": "Jobs that went on to a better pool at least once.",
    "by_length": "Answers that were cut off, and sent their job on.",
    "by_refusal": "Answers that declined, and did.",
    "by_format": "Answers that were not the JSON that was asked for, and did.",
    "by_logprob": "Answers whose mean log probability was below the rule's min_logprob, and did.",
    "kept": "Escalated jobs that were given their earlier answer after all.",
}


def upgrade() -> None:
    # Each in a transaction of its own: one that locks several tables would deadlock with readers of them.
    with op.get_context().autocommit_block():
        for table, column, kind, comment in COLUMNS:
            op.add_column(table, sa.Column(column, kind, comment=comment), if_not_exists=True)
    make_view()


def make_view() -> None:
    op.execute(f"CREATE OR REPLACE VIEW routing_per_day AS {ROUTING_PER_DAY}")
    op.execute(f"COMMENT ON VIEW routing_per_day IS {_quoted(ABOUT)}")
    for column, text in ABOUT_COLUMNS.items():
        op.execute(f"COMMENT ON COLUMN routing_per_day.{column} IS {_quoted(text)}")


def downgrade() -> None:
    op.execute("DROP VIEW routing_per_day")
    for table, column, _, _ in COLUMNS:
        op.drop_column(table, column)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
