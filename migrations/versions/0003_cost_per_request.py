"""Give analysts one row per job: what it used, what it cost, how long it took.

Revision: 0003, after 0002
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE VIEW cost_per_request AS
        SELECT j.id AS job_id,
               a.name AS app,
               j.end_user,
               j.created_at,
               j.state,
               j.lane,
               j.queue,
               j.route,
               j.model_requested,
               j.model_served,
               j.attempt AS attempts,
               coalesce(b.prompt_tokens, 0) AS prompt_tokens,
               coalesce(b.cached_tokens, 0) AS cached_tokens,
               coalesce(b.output_tokens, 0) AS output_tokens,
               coalesce(l.engine_s, 0) AS engine_s,
               coalesce(l.usd, 0) AS usd,
               coalesce(l.waste_usd, 0) AS waste_usd,
               l.api_usd,
               extract(epoch FROM j.started_at - j.created_at) AS wait_s,
               extract(epoch FROM j.ended_at - j.started_at) AS run_s
        FROM jobs j
        JOIN apps a ON a.id = j.app_id
        LEFT JOIN ledger b ON b.job_id = j.id AND b.kind IN ('compute', 'api', 'cache')
        LEFT JOIN (
            SELECT job_id,
                   sum(engine_s) AS engine_s,
                   sum(usd) FILTER (WHERE kind <> 'waste') AS usd,
                   sum(usd) FILTER (WHERE kind = 'waste') AS waste_usd,
                   sum(api_usd) FILTER (WHERE kind <> 'waste') AS api_usd
            FROM ledger
            GROUP BY job_id
        ) l ON l.job_id = j.id
        """
    )


def downgrade() -> None:
    op.execute("DROP VIEW cost_per_request")
