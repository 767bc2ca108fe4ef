-- Like costs_by_day, for cost_per_user_day and cost_per_user_month.
CREATE FUNCTION users_by_day(since timestamptz, until timestamptz)
RETURNS TABLE (day timestamptz, app_id uuid, users bigint, requests bigint, full_usd numeric)
LANGUAGE sql STABLE PARALLEL SAFE ROWS 100 AS $$
    SELECT date_trunc('day', at, 'UTC'), app_id, count(DISTINCT end_user),
           count(*) FILTER (WHERE kind IN ('compute', 'api', 'cache')), sum(full_usd)
    FROM charges
    WHERE kind <> 'waste' AND end_user IS NOT NULL AND at >= since AND at < until
    GROUP BY 1, 2
$$;
