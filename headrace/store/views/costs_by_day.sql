-- cost_per_day reads the days that are not closed with it, and headrace.store.money.cost_hours closes days with it: so both
-- mean the same.
CREATE FUNCTION costs_by_day(since timestamptz, until timestamptz)
RETURNS TABLE (day timestamptz, app_id uuid, pool text, model text, lane text, route text, requests bigint,
               users bigint, prompt_tokens bigint, cached_tokens bigint, output_tokens bigint, usd numeric,
               full_usd numeric, waste_usd numeric, api_usd numeric)
LANGUAGE sql STABLE PARALLEL SAFE ROWS 100 AS $$
    SELECT date_trunc('day', at, 'UTC'),
           app_id,
           pool,
           model,
           lane,
           route,
           count(*) FILTER (WHERE kind IN ('compute', 'api', 'cache')),
           count(DISTINCT end_user) FILTER (WHERE kind <> 'waste'),
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
$$;
