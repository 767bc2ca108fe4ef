"""Read the charges of closed days from their sums, and the cost of a request from its bill alone.

Revision: 0036, after 0035

A month of a million requests took 3.2 s in `cost_per_day`, which sorted every request to count users, and 2.1 s in
`cost_per_request`, which summed up the entries of every job although nearly all have one.
"""

from alembic import context, op

revision = "0036"
down_revision = "0035"
branch_labels = None
depends_on = None

CHARGES = """
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
           h.pool IS NOT NULL AS is_closed,
           l.app_id
    FROM ledger l
    LEFT JOIN jobs j ON j.id = l.job_id
    LEFT JOIN apps a ON a.id = l.app_id
    LEFT JOIN cost_hours h ON l.kind = 'compute' AND h.pool = l.pool AND h.hour = date_trunc('hour', l.at, 'UTC')
"""
# The views read days that are not closed through these, and `headrace.store.money.cost_days` writes the sums of closed
# days with them. So both mean the same.
FUNCTIONS = {
    "costs_by_day(since timestamptz, until timestamptz)": (
        """
        TABLE (day timestamptz, app_id uuid, pool text, model text, lane text, route text, requests bigint,
               users bigint, prompt_tokens bigint, cached_tokens bigint, output_tokens bigint, usd numeric,
               full_usd numeric, waste_usd numeric, api_usd numeric)
        """,
        """
        SELECT date_trunc('day', at, 'UTC'),
               app_id,
               pool,
               model,
               lane,
               route,
               count(*) FILTER (WHERE kind <> 'waste'),
               count(DISTINCT end_user),
               sum(prompt_tokens),
               sum(cached_tokens),
               sum(output_tokens),
               coalesce(sum(usd) FILTER (WHERE kind <> 'waste'), 0),
               coalesce(sum(full_usd) FILTER (WHERE kind <> 'waste'), 0),
               coalesce(sum(usd) FILTER (WHERE kind = 'waste'), 0),
               sum(api_usd) FILTER (WHERE kind <> 'waste')
        FROM charges
        WHERE at >= since AND at < until
        GROUP BY 1, 2, 3, 4, 5, 6
        """,
    ),
    "users_by_day(since timestamptz, until timestamptz)": (
        "TABLE (day timestamptz, app_id uuid, users bigint, requests bigint, full_usd numeric)",
        """
        SELECT date_trunc('day', at, 'UTC'), app_id, count(DISTINCT end_user), count(*), sum(full_usd)
        FROM charges
        WHERE kind <> 'waste' AND end_user IS NOT NULL AND at >= since AND at < until
        GROUP BY 1, 2
        """,
    ),
}
OPEN_SINCE = "(SELECT coalesce(max(day) + interval '24 hours', '-infinity') FROM closed_days)"
COST_PER_DAY = f"""
    SELECT d.day, a.name AS app, d.pool, d.model, d.lane, d.route, d.requests, d.users, d.prompt_tokens,
           d.cached_tokens, d.output_tokens, d.usd, d.full_usd, d.waste_usd, d.api_usd
    FROM (
        SELECT * FROM cost_days
        UNION ALL
        SELECT * FROM costs_by_day({OPEN_SINCE}, 'infinity')
    ) d
    LEFT JOIN apps a ON a.id = d.app_id
"""
COST_PER_USER_DAY = f"""
    SELECT d.day, a.name AS app, d.users, d.requests, d.full_usd, d.full_usd / nullif(d.users, 0) AS usd_per_user
    FROM (
        SELECT * FROM user_days
        UNION ALL
        SELECT * FROM users_by_day({OPEN_SINCE}, 'infinity')
    ) d
    LEFT JOIN apps a ON a.id = d.app_id
"""
COST_ELASTICITY = """
    SELECT app,
           count(*) AS days,
           min(users) AS least_users,
           max(users) AS most_users,
           regr_slope(ln(full_usd::float8), ln(users::float8)) AS elasticity,
           regr_r2(ln(full_usd::float8), ln(users::float8)) AS r2
    FROM cost_per_user_day
    WHERE users > 0 AND full_usd > 0
    GROUP BY app
    HAVING count(*) >= 3 AND max(users) > min(users)
"""
# Users of a month are no sum of those of its days, so they are counted in the ledger; nothing else is read there.
COST_PER_USER_MONTH = f"""
    SELECT *,
           full_usd / nullif(users, 0) AS usd_per_user,
           ln(full_usd / nullif(lag(full_usd) OVER of_app, 0))
               / nullif(ln(users::numeric / nullif(lag(users) OVER of_app, 0)), 0) AS elasticity
    FROM (
        SELECT month, a.name AS app, u.users, s.requests, s.full_usd
        FROM (
            SELECT date_trunc('month', day, 'UTC') AS month, app_id, sum(requests)::bigint AS requests,
                   sum(full_usd) AS full_usd
            FROM (
                SELECT * FROM user_days
                UNION ALL
                SELECT * FROM users_by_day({OPEN_SINCE}, 'infinity')
            ) days
            GROUP BY 1, 2
            HAVING sum(full_usd) > 0
        ) s
        JOIN (
            SELECT month, app_id, count(*) AS users
            FROM (
                SELECT DISTINCT date_trunc('month', at, 'UTC') AS month, app_id, end_user
                FROM ledger
                WHERE kind <> 'waste' AND end_user IS NOT NULL
            ) each
            GROUP BY 1, 2
        ) u USING (month, app_id)
        JOIN apps a ON a.id = app_id
    ) months
    WINDOW of_app AS (PARTITION BY app ORDER BY month)
"""
# A job has one bill at most, and seldom any other entry.
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
           coalesce(b.engine_s, 0) + coalesce(o.engine_s, 0) AS engine_s,
           coalesce(b.usd, 0) + coalesce(o.usd, 0) AS usd,
           coalesce(o.waste_usd, 0) AS waste_usd,
           coalesce(b.api_usd + coalesce(o.api_usd, 0), o.api_usd) AS api_usd,
           extract(epoch FROM j.started_at - j.created_at) AS wait_s,
           extract(epoch FROM j.ended_at - j.started_at) AS run_s,
           j.ended_at,
           j.error_code,
           j.pool,
           CASE WHEN h.pool IS NULL THEN coalesce(b.usd, 0)
                ELSE full_usd(b.usd,
                              request_work(b.prompt_tokens, b.cached_tokens, b.output_tokens, b.kv_token_s,
                                           h.weigh_by, h.cached_weight, h.output_weight),
                              h.factor, h.idle_usd_per_work)
           END + coalesce(o.usd, 0) AS full_usd,
           CASE WHEN b.kind IS NULL THEN NULL
                WHEN b.kind <> 'compute' THEN b.kind
                WHEN h.pool IS NULL THEN 'price'
                ELSE 'hosts'
           END AS cost_basis,
           'job_' || replace(j.id::text, '-', '') AS public_id
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
        WHERE kind NOT IN ('compute', 'api', 'cache')
        GROUP BY job_id
    ) o ON o.job_id = j.id
    LEFT JOIN cost_hours h ON b.kind = 'compute' AND h.pool = b.pool AND h.hour = date_trunc('hour', b.at, 'UTC')
"""


def upgrade() -> None:
    op.execute(f"CREATE OR REPLACE VIEW charges AS {CHARGES}")
    for signature, (returns, body) in FUNCTIONS.items():
        op.execute(
            f"CREATE FUNCTION {signature} RETURNS {returns} LANGUAGE sql STABLE PARALLEL SAFE ROWS 100 AS $${body}$$"
        )
    op.execute(f"CREATE OR REPLACE VIEW cost_per_day AS {COST_PER_DAY}")
    op.execute(f"CREATE OR REPLACE VIEW cost_per_request AS {COST_PER_REQUEST}")
    op.execute(f"CREATE OR REPLACE VIEW cost_per_user_month AS {COST_PER_USER_MONTH}")
    op.execute(f"CREATE VIEW cost_per_user_day AS {COST_PER_USER_DAY}")
    op.execute(f"CREATE VIEW cost_elasticity AS {COST_ELASTICITY}")


def downgrade() -> None:
    op.execute("DROP VIEW cost_elasticity")
    op.execute("DROP VIEW cost_per_user_day")
    op.execute("DROP VIEW cost_per_request")
    before = context.script.get_revision("0032").module.VIEWS
    for name in reversed(before):
        op.execute(f"DROP VIEW {name}")
    for signature in FUNCTIONS:
        op.execute(f"DROP FUNCTION {signature.partition('(')[0]}")
    requests = context.script.get_revision("0029").module
    columns, joins = requests.NEW_COLUMNS, requests.NEW_JOINS
    op.execute(f"CREATE VIEW cost_per_request AS {requests.COST_PER_REQUEST.format(columns=columns, joins=joins)}")
    for name, (query, _, _) in before.items():
        op.execute(f"CREATE VIEW {name} AS {query}")
