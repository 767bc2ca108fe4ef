-- Like costs_by_day, for cost_per_label_day. Each key splits all charges of an app: what has no value is one more row. Of
-- a day, an app and a key the 100 values that cost most have rows of their own, so that a key whose values are all
-- different makes no more rows than that.
CREATE FUNCTION labels_by_day(since timestamptz, until timestamptz)
RETURNS TABLE (day timestamptz, app_id uuid, key text, value text, requests bigint, prompt_tokens bigint,
               output_tokens bigint, usd numeric, full_usd numeric, waste_usd numeric, api_usd numeric)
LANGUAGE sql STABLE PARALLEL SAFE ROWS 100 AS $$
    WITH sums AS (
        SELECT date_trunc('day', c.at, 'UTC') AS day, c.app_id, k.key, c.labels->>k.key AS value,
               count(*) FILTER (WHERE kind IN ('compute', 'api', 'cache')) AS requests,
               sum(c.prompt_tokens) AS prompt_tokens,
               sum(c.output_tokens) AS output_tokens,
               coalesce(sum(c.usd) FILTER (WHERE kind <> 'waste'), 0) AS usd,
               coalesce(sum(c.full_usd) FILTER (WHERE kind <> 'waste'), 0) AS full_usd,
               coalesce(sum(c.usd) FILTER (WHERE kind = 'waste'), 0) AS waste_usd,
               sum(c.api_usd) FILTER (WHERE kind <> 'waste') AS api_usd
        FROM charges c
        CROSS JOIN label_keys k
        WHERE c.at >= since AND c.at < until AND EXISTS (SELECT FROM label_keys)
        GROUP BY 1, 2, 3, 4
    ), ranked AS (
        SELECT *, rank() OVER (PARTITION BY day, app_id, key ORDER BY value IS NULL, full_usd DESC, value) AS place
        FROM sums
    )
    SELECT day, app_id, key, CASE WHEN place <= 100 OR value IS NULL THEN value ELSE '(other)' END,
           sum(requests)::bigint, sum(prompt_tokens)::bigint, sum(output_tokens)::bigint, sum(usd), sum(full_usd),
           sum(waste_usd), sum(api_usd)
    FROM ranked
    GROUP BY 1, 2, 3, 4
$$;
