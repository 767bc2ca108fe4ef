"""Answer analysts' usual questions in views: charges, savings, split point, users, budgets, waits.

Revision: 0032, after 0031
"""

from alembic import op

revision = "0032"
down_revision = "0031"
branch_labels = None
depends_on = None

VIEWS = {
    "charges": (
        """
        SELECT l.id,
               l.at,
               l.kind,
               l.job_id,
               a.name AS app,
               l.end_user,
               l.pool,
               l.model,
               j.lane,
               j.route,
               l.prompt_tokens,
               l.cached_tokens,
               l.output_tokens,
               l.engine_s,
               l.usd,
               CASE WHEN h.pool IS NULL THEN l.usd
                    ELSE full_usd(l.usd,
                                  request_work(l.prompt_tokens, l.cached_tokens, l.output_tokens, l.kv_token_s,
                                               h.weigh_by, h.cached_weight, h.output_weight),
                                  h.factor, h.idle_usd_per_work)
               END AS full_usd,
               l.api_usd,
               l.price_version,
               l.estimated,
               h.pool IS NOT NULL AS is_closed
        FROM ledger l
        LEFT JOIN jobs j ON j.id = l.job_id
        LEFT JOIN apps a ON a.id = l.app_id
        LEFT JOIN cost_hours h ON l.kind = 'compute' AND h.pool = l.pool AND h.hour = date_trunc('hour', l.at, 'UTC')
        """,
        "One row for each entry of the ledger, with its app, lane and route, and its share of idle hosts.",
        {
            "usd": "What the app is charged; of waste, what it cost.",
            "full_usd": "With the share of hosts that were paid for and not used; equals usd until the hour closes.",
            "api_usd": "The same tokens at the paid API''s list price; NULL: it has none.",
            "is_closed": "full_usd shares the bill of hosts.",
        },
    ),
    "cost_per_day": (
        """
        SELECT date_trunc('day', at, 'UTC') AS day,
               app,
               pool,
               model,
               lane,
               route,
               count(*) FILTER (WHERE kind <> 'waste') AS requests,
               count(DISTINCT end_user) AS users,
               sum(prompt_tokens) AS prompt_tokens,
               sum(cached_tokens) AS cached_tokens,
               sum(output_tokens) AS output_tokens,
               coalesce(sum(usd) FILTER (WHERE kind <> 'waste'), 0) AS usd,
               coalesce(sum(full_usd) FILTER (WHERE kind <> 'waste'), 0) AS full_usd,
               coalesce(sum(usd) FILTER (WHERE kind = 'waste'), 0) AS waste_usd,
               sum(api_usd) FILTER (WHERE kind <> 'waste') AS api_usd
        FROM charges
        GROUP BY 1, 2, 3, 4, 5, 6
        """,
        "The charges of each day of UTC by app, pool, model, lane and route.",
        {
            "requests": "Charged ones: failed and lost attempts are in waste_usd.",
            "users": "End users with a charge.",
            "api_usd": "The same tokens at the paid API''s list price.",
        },
    ),
    "savings_per_day": (
        """
        SELECT day,
               pool,
               coalesce(requests, 0) AS requests,
               coalesce(full_usd, 0) AS full_usd,
               coalesce(platform_usd, 0) AS platform_usd,
               coalesce(api_usd, 0) AS api_usd,
               coalesce(api_usd, 0) - coalesce(full_usd, 0) - coalesce(platform_usd, 0) AS saved_usd
        FROM (
            SELECT date_trunc('day', at, 'UTC') AS day, pool, count(*) AS requests, sum(full_usd) AS full_usd,
                   sum(api_usd) AS api_usd
            FROM charges
            WHERE kind = 'compute'
            GROUP BY 1, 2
        ) own
        FULL JOIN (
            SELECT date_trunc('day', hour, 'UTC') AS day, pool, sum(platform_usd) AS platform_usd
            FROM cost_hours
            GROUP BY 1, 2
        ) rest USING (day, pool)
        """,
        "What own hosts saved each day against the paid API''s list price for the same tokens.",
        {
            "platform_usd": "Of the hosts'' bill, what no request pays: waste, and hours without requests.",
            "saved_usd": "Negative: the paid API would have been cheaper.",
        },
    ),
    "split_point": (
        """
        SELECT month,
               pool,
               bill_usd / host_hours AS usd_per_host_hour,
               api_usd / own.requests AS api_usd_per_request,
               own.requests / host_hours AS requests_per_host_hour,
               bill_usd / host_hours / nullif(api_usd / own.requests, 0) AS break_even_requests_per_host_hour,
               3600 * rate.tokens_per_s / nullif(tokens / own.requests, 0) AS most_requests_per_host_hour,
               bill_usd / nullif(api_usd, 0) AS break_even_share
        FROM (
            SELECT date_trunc('month', hour, 'UTC') AS month, pool, sum(bill_usd) AS bill_usd,
                   sum(host_s) / 3600 AS host_hours
            FROM cost_hours
            GROUP BY 1, 2
        ) hosts
        JOIN (
            SELECT date_trunc('month', at, 'UTC') AS month, pool, count(*) AS requests, sum(api_usd) AS api_usd,
                   sum(prompt_tokens::bigint + output_tokens)::numeric AS tokens
            FROM ledger
            WHERE kind = 'compute'
            GROUP BY 1, 2
        ) own USING (month, pool)
        LEFT JOIN LATERAL (
            SELECT tokens_per_s::numeric FROM own_prices p WHERE p.pool = hosts.pool ORDER BY id DESC LIMIT 1
        ) rate ON true
        WHERE host_hours > 0
        """,
        "From how many requests an hour a host is cheaper than the paid API, and how many it served.",
        {
            "break_even_requests_per_host_hour": "A host that serves more of them than this is cheaper.",
            "most_requests_per_host_hour": "What a saturated host serves; NULL: its rate is unknown.",
            "break_even_share": "The break-even over what was served. Below 1: own hosts paid.",
        },
    ),
    "cost_per_user_month": (
        """
        SELECT *,
               full_usd / nullif(users, 0) AS usd_per_user,
               ln(full_usd / nullif(lag(full_usd) OVER of_app, 0))
                   / nullif(ln(users::numeric / nullif(lag(users) OVER of_app, 0)), 0) AS elasticity
        FROM (
            SELECT date_trunc('month', at, 'UTC') AS month, app, count(DISTINCT end_user) AS users,
                   count(*) AS requests, sum(full_usd) AS full_usd
            FROM charges
            WHERE kind <> 'waste' AND end_user IS NOT NULL
            GROUP BY 1, 2
            HAVING sum(full_usd) > 0
        ) months
        WINDOW of_app AS (PARTITION BY app ORDER BY month)
        """,
        "The requests of each app that name their end user, by month of UTC.",
        {"elasticity": "By how many percent the cost grew for each percent of users. Below 1: users got cheaper."},
    ),
    "waits_per_hour": (
        """
        SELECT hour,
               pool,
               lane,
               count(*) AS requests,
               percentile_cont(0.5) WITHIN GROUP (ORDER BY wait_s) AS p50_wait_s,
               percentile_cont(0.95) WITHIN GROUP (ORDER BY wait_s) AS p95_wait_s,
               percentile_cont(0.99) WITHIN GROUP (ORDER BY wait_s) AS p99_wait_s,
               percentile_cont(0.5) WITHIN GROUP (ORDER BY first_token_s) AS p50_first_token_s,
               percentile_cont(0.95) WITHIN GROUP (ORDER BY first_token_s) AS p95_first_token_s
        FROM (
            SELECT date_trunc('hour', j.started_at, 'UTC') AS hour, j.pool, j.lane,
                   extract(epoch FROM j.started_at - j.created_at)::float8 AS wait_s, t.first_token_s
            FROM jobs j
            LEFT JOIN attempts t ON t.job_id = j.id AND t.number = j.attempt
            WHERE j.started_at IS NOT NULL
        ) starts
        GROUP BY hour, pool, lane
        """,
        "How long jobs waited, by the hour of UTC in which they started.",
        {
            "p50_wait_s": "From acceptance to the first start.",
            "p50_first_token_s": "From the start of the last attempt to its first token.",
        },
    ),
}


def upgrade() -> None:
    for name, (query, about, columns) in VIEWS.items():
        op.execute(f"CREATE VIEW {name} AS {query}")
        op.execute(f"COMMENT ON VIEW {name} IS '{about}'")
        for column, text in columns.items():
            op.execute(f"COMMENT ON COLUMN {name}.{column} IS '{text}'")


def downgrade() -> None:
    for name in reversed(VIEWS):
        op.execute(f"DROP VIEW {name}")
