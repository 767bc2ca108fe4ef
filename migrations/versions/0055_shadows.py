"""Keep what a rule's shadows need, and say in the view of rules how often both pools agree.

Revision: 0055, after 0054
"""

import sqlalchemy as sa
from alembic import context, op

revision = "0055"
down_revision = "0054"
branch_labels = None
depends_on = None

#: Where the view comes from.
CASCADES = f"{int(revision) - 2:04d}"
COLUMNS = (
    ("shadow", sa.Text, "wanted, started, skipped; of a shadow: open, agrees, differs, failed."),
    ("shadow_of", sa.Uuid, "The job that this shadow answers once more; NULL: it is none."),
)
REASON = "Of waste: escalated; kept, given after all and billed; shadow."
REASON_BEFORE = "Of waste: escalated; kept, given after all and billed."
LAST = "count(*) FILTER (WHERE c.is_kept) AS kept\n    FROM jobs j\n"
MORE = """count(*) FILTER (WHERE c.is_kept) AS kept,
           count(*) FILTER (WHERE s.is_compared) AS compared,
           count(*) FILTER (WHERE s.agrees) AS agreed,
           count(*) FILTER (WHERE s.agrees) / nullif(count(*) FILTER (WHERE s.is_compared), 0)::float8 AS agreement,
           coalesce(sum(s.usd), 0) AS shadow_usd
    FROM jobs j
"""
JOIN = "    WHERE j.rule IS NOT NULL\n"
SHADOWS = """
    LEFT JOIN LATERAL (
        SELECT bool_or(x.shadow IN ('agrees', 'differs')) AS is_compared,
               bool_or(x.shadow = 'agrees') AS agrees,
               sum(l.usd) AS usd
        FROM jobs x
        LEFT JOIN ledger l ON l.job_id = x.id
        WHERE x.shadow_of = j.id
    ) s ON true
"""
ABOUT_COLUMNS = {
    "compared": "Jobs that another pool of the rule has answered too, as their shadow, so that both can be compared.",
    "agreed": "Of these, the jobs of which both answers say the same.",
    "agreement": "agreed over compared; NULL: none was compared.",
    "shadow_usd": "What the shadows have cost. No app is charged for them, and waste_usd leaves them out.",
}


def upgrade() -> None:
    with op.get_context().autocommit_block():
        for column, kind, comment in COLUMNS:
            op.add_column("jobs", sa.Column(column, kind, comment=comment), if_not_exists=True)
    op.execute(f"COMMENT ON COLUMN ledger.reason IS '{REASON}'")
    query: str = context.script.get_revision(CASCADES).module.ROUTING_PER_DAY
    query = query.replace(LAST, MORE).replace(JOIN, f"{SHADOWS}{JOIN}")
    op.execute(f"CREATE OR REPLACE VIEW routing_per_day AS {query}")
    for column, text in ABOUT_COLUMNS.items():
        op.execute(f"COMMENT ON COLUMN routing_per_day.{column} IS '{text}'")


def downgrade() -> None:
    op.execute("DROP VIEW routing_per_day")
    context.script.get_revision(CASCADES).module.make_view()
    op.execute(f"COMMENT ON COLUMN ledger.reason IS '{REASON_BEFORE}'")
    for column, _, _ in COLUMNS:
        op.drop_column("jobs", column)
