"""Show analysts what each request cost in full, what each hour of hosts came to, and that both add up.

Revision: 0029, after 0028
"""

from alembic import op

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None

COST_PER_REQUEST = """
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
           {columns}
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
    {joins}
"""
NEW_COLUMNS = """,
           j.ended_at,
           j.error_code,
           j.pool,
           CASE WHEN h.pool IS NULL THEN coalesce(l.usd, 0)
                ELSE coalesce(l.usd, 0) - b.usd + full_usd(b.usd, w.work, h.factor, h.idle_usd_per_work)
           END AS full_usd,
           CASE WHEN b.kind IS NULL THEN NULL
                WHEN b.kind <> 'compute' THEN b.kind
                WHEN h.pool IS NULL THEN 'price'
                ELSE 'hosts'
           END AS cost_basis
"""
NEW_JOINS = """
    LEFT JOIN cost_hours h
           ON b.kind = 'compute' AND h.pool = b.pool AND h.hour = date_trunc('hour', b.at, 'UTC')
    LEFT JOIN LATERAL (
        SELECT request_work(b.prompt_tokens, b.cached_tokens, b.output_tokens, b.kv_token_s,
                            h.weigh_by, h.cached_weight, h.output_weight) AS work
    ) w ON true
"""
COMMENTS = {
    "usd": "What the app is charged.",
    "waste_usd": "Failed and lost attempts; not charged to the app.",
    "api_usd": "The same tokens at the paid API's list price; NULL: it has none.",
    "wait_s": "From acceptance to the first start.",
    "run_s": "From the first start to the end.",
    "full_usd": "With the request's share of hosts that were paid for and not used. Equals usd until its hour closes.",
    "cost_basis": "hosts: full_usd shares the bill of the hosts; price: only [pools.NAME.price] is known so far; "
    "api: the provider's list price; cache: served without computing. NULL: nothing was charged.",
}


def upgrade() -> None:
    op.execute(
        f"CREATE OR REPLACE VIEW cost_per_request AS {COST_PER_REQUEST.format(columns=NEW_COLUMNS, joins=NEW_JOINS)}"
    )
    for column, about in COMMENTS.items():
        op.execute(f"COMMENT ON COLUMN cost_per_request.{column} IS '{about.replace(chr(39), chr(39) * 2)}'")
    op.execute(
        """
        CREATE VIEW gpu_hours AS
        SELECT pool,
               hour,
               host_s / 3600 AS host_hours,
               boot_s / 3600 AS boot_hours,
               unpriced_hosts,
               requests,
               bill_usd,
               trunc(compute_usd * factor, 9) AS used_usd,
               trunc(waste_usd * factor, 9) AS waste_usd,
               boot_usd,
               bill_usd - trunc(compute_usd * factor, 9) - trunc(waste_usd * factor, 9) AS idle_usd,
               platform_usd,
               compute_usd / nullif(bill_usd, 0) AS use,
               closed_at
        FROM cost_hours
        """
    )
    op.execute(
        """
        COMMENT ON VIEW gpu_hours IS
        'Each pool and closed hour of UTC: what its hosts cost, and how much was used. The boot is part of idle_usd.'
        """
    )
    op.execute("COMMENT ON COLUMN gpu_hours.use IS 'Above 1: the prices add up to more than the bill.'")
    op.execute(
        """
        CREATE VIEW cost_reconciliation AS
        SELECT h.pool,
               h.hour,
               h.bill_usd,
               coalesce(r.usd, 0) AS requests_usd,
               h.platform_usd,
               coalesce(r.usd, 0) + h.platform_usd - h.bill_usd AS difference_usd
        FROM cost_hours h
        LEFT JOIN LATERAL (
            SELECT sum(full_usd(l.usd,
                                request_work(l.prompt_tokens, l.cached_tokens, l.output_tokens, l.kv_token_s,
                                             h.weigh_by, h.cached_weight, h.output_weight),
                                h.factor, h.idle_usd_per_work)) AS usd
            FROM ledger l
            WHERE l.kind = 'compute' AND l.pool = h.pool AND l.at >= h.hour AND l.at < h.hour + interval '1 hour'
        ) r ON true
        """
    )
    op.execute(
        "COMMENT ON VIEW cost_reconciliation IS 'Each closed hour: the full cost of its requests and the platform''s"
        " part against the bill of its hosts. A difference other than 0 is an error.'"
    )


def downgrade() -> None:
    op.execute("DROP VIEW cost_reconciliation")
    op.execute("DROP VIEW gpu_hours")
    op.execute("DROP VIEW cost_per_request")
    op.execute(f"CREATE VIEW cost_per_request AS {COST_PER_REQUEST.format(columns='', joins='')}")
