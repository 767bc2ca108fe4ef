CREATE VIEW budget_run_rate AS
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
) accounts;

COMMENT ON VIEW budget_run_rate IS
    'The budgets of the present day and month at the paid API: what is spent, and where it leads.';
COMMENT ON COLUMN budget_run_rate.app IS 'The app whose budget it is; NULL: that of all apps together.';
COMMENT ON COLUMN budget_run_rate.period IS 'day or month, of UTC.';
COMMENT ON COLUMN budget_run_rate.starts_at IS 'The period''s start.';
COMMENT ON COLUMN budget_run_rate.ends_at IS 'The period''s end.';
COMMENT ON COLUMN budget_run_rate.limit_usd IS 'The most that may be spent in the period; NULL: no limit.';
COMMENT ON COLUMN budget_run_rate.spent_usd IS 'Spent since the period''s start.';
COMMENT ON COLUMN budget_run_rate.reserved_usd IS 'What calls under way may cost at most.';
COMMENT ON COLUMN budget_run_rate.used IS 'spent_usd over limit_usd.';
COMMENT ON COLUMN budget_run_rate.usd_per_day IS 'The pace since the period''s start.';
COMMENT ON COLUMN budget_run_rate.projected_usd IS 'What will be spent at the period''s end at this pace.';
COMMENT ON COLUMN budget_run_rate.used_up_at IS 'When the limit is reached at this pace; NULL: not in this period.';
