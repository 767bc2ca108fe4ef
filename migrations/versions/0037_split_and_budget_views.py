"""Show how many hosts a month needed least money with, when a budget will be used up, and first tokens up to p99.

Revision: 0037, after 0036
"""

from alembic import context, op

revision = "0037"
down_revision = "0036"
branch_labels = None
depends_on = None

SPLIT_OPTIONS = """
    WITH demand AS (
        SELECT date_trunc('hour', at, 'UTC') AS hour, pool, count(*) AS requests, sum(api_usd) AS api_usd,
               count(api_usd) AS priced, sum(prompt_tokens::bigint + output_tokens) AS tokens
        FROM ledger
        WHERE kind IN ('compute', 'api')
        GROUP BY 1, 2
    ), months AS (
        SELECT date_trunc('month', hour, 'UTC') AS month, pool, sum(requests) AS requests,
               max(requests) AS most_requests, sum(api_usd) / nullif(sum(priced), 0) AS api_usd_per_request,
               sum(tokens) / sum(requests) AS tokens_per_request,
               extract(epoch FROM max(hour) - min(hour)) / 3600 + 1 AS hours
        FROM demand
        GROUP BY 1, 2
    ), terms AS (
        SELECT m.*, p.usd_per_hour, f.load_factor, f.api_price_factor,
               3600 * p.tokens_per_s::numeric / nullif(m.tokens_per_request, 0) AS requests_per_host_hour
        FROM months m
        JOIN LATERAL (
            SELECT usd_per_hour, tokens_per_s FROM own_prices p WHERE p.pool = m.pool ORDER BY id DESC LIMIT 1
        ) p ON true
        CROSS JOIN (VALUES (1.0, 1.0), (0.5, 1.0), (2.0, 1.0), (1.0, 0.5), (1.0, 2.0)) f (load_factor, api_price_factor)
        WHERE m.api_usd_per_request IS NOT NULL
    ), options AS (
        SELECT t.*, hosts
        FROM terms t,
             generate_series(0, least(ceil(most_requests * load_factor / requests_per_host_hour), 200)::int) hosts
    ), bills AS (
        SELECT o.month, o.pool, o.load_factor, o.api_price_factor, o.hosts,
               sum(least(d.requests * o.load_factor, o.hosts * o.requests_per_host_hour))
                   / sum(d.requests * o.load_factor) AS own_share,
               o.hosts * o.usd_per_hour * o.hours AS hosts_usd,
               sum(greatest(d.requests * o.load_factor - o.hosts * o.requests_per_host_hour, 0))
                   * o.api_usd_per_request * o.api_price_factor AS api_usd
        FROM options o
        JOIN demand d ON d.pool = o.pool AND date_trunc('month', d.hour, 'UTC') = o.month
        GROUP BY o.month, o.pool, o.load_factor, o.api_price_factor, o.hosts, o.usd_per_hour, o.hours,
                 o.api_usd_per_request
    )
    SELECT *,
           hosts_usd + api_usd AS usd,
           row_number() OVER (PARTITION BY month, pool, load_factor, api_price_factor
                              ORDER BY hosts_usd + api_usd, hosts) = 1 AS is_cheapest
    FROM bills
"""
BUDGET_RUN_RATE = """
    SELECT app,
           period,
           starts_at,
           ends_at,
           limit_usd,
           spent_usd,
           reserved_usd,
           spent_usd / limit_or_null AS used,
           usd_per_day,
           usd_per_day * extract(epoch FROM ends_at - starts_at) / 86400 AS projected_usd,
           CASE WHEN spent_usd >= limit_usd THEN now()
                WHEN usd_per_day * extract(epoch FROM ends_at - now()) / 86400 >= limit_usd - spent_usd
                THEN now() + interval '1 day' * ((limit_usd - spent_usd) / nullif(usd_per_day, 0))::float8
           END AS used_up_at
    FROM (
        SELECT a.name AS app,
               b.period,
               b.starts_at,
               e.ends_at,
               l.limit_usd,
               nullif(l.limit_usd, 0) AS limit_or_null,
               b.spent_usd,
               b.reserved_usd,
               b.spent_usd * 86400 / greatest(extract(epoch FROM now() - b.starts_at), 1) AS usd_per_day
        FROM budgets b
        LEFT JOIN apps a ON a.id = b.app_id
        CROSS JOIN LATERAL (
            SELECT (b.starts_at AT TIME ZONE 'UTC' + ('1 ' || b.period)::interval) AT TIME ZONE 'UTC' AS ends_at
        ) e
        CROSS JOIN LATERAL (
            SELECT CASE WHEN b.app_id IS NULL THEN b.limit_usd WHEN b.period = 'day' THEN a.day_usd ELSE a.month_usd END
                   AS limit_usd
        ) l
        WHERE b.starts_at <= now() AND e.ends_at > now()
    ) accounts
"""
WAITS_PER_HOUR = """
    SELECT hour,
           pool,
           lane,
           count(*) AS requests,
           percentile_cont(0.5) WITHIN GROUP (ORDER BY wait_s) AS p50_wait_s,
           percentile_cont(0.95) WITHIN GROUP (ORDER BY wait_s) AS p95_wait_s,
           percentile_cont(0.99) WITHIN GROUP (ORDER BY wait_s) AS p99_wait_s,
           percentile_cont(0.5) WITHIN GROUP (ORDER BY first_token_s) AS p50_first_token_s,
           percentile_cont(0.95) WITHIN GROUP (ORDER BY first_token_s) AS p95_first_token_s,
           percentile_cont(0.99) WITHIN GROUP (ORDER BY first_token_s) AS p99_first_token_s
    FROM (
        SELECT date_trunc('hour', j.started_at, 'UTC') AS hour, j.pool, j.lane,
               extract(epoch FROM j.started_at - j.created_at)::float8 AS wait_s, t.first_token_s
        FROM jobs j
        LEFT JOIN attempts t ON t.job_id = j.id AND t.number = j.attempt
        WHERE j.started_at IS NOT NULL
    ) starts
    GROUP BY hour, pool, lane
"""


def upgrade() -> None:
    op.execute(f"CREATE VIEW split_options AS {SPLIT_OPTIONS}")
    op.execute(f"CREATE VIEW budget_run_rate AS {BUDGET_RUN_RATE}")
    op.execute(f"CREATE OR REPLACE VIEW waits_per_hour AS {WAITS_PER_HOUR}")


def downgrade() -> None:
    for name in ("waits_per_hour", "budget_run_rate", "split_options"):
        op.execute(f"DROP VIEW {name}")
    query, _, _ = context.script.get_revision("0032").module.VIEWS["waits_per_hour"]
    op.execute(f"CREATE VIEW waits_per_hour AS {query}")
