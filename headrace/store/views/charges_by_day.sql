-- Like costs_by_day, for the cost of a month at /ops and in the terminal, which have each kind of charge apart.
CREATE FUNCTION charges_by_day(since timestamptz, until timestamptz)
RETURNS TABLE (day timestamptz, app_id uuid, pool text, kind text, is_closed boolean, requests bigint,
               prompt_tokens bigint, output_tokens bigint, usd numeric, full_usd numeric, api_usd numeric)
LANGUAGE sql STABLE PARALLEL SAFE ROWS 100 AS $$
    SELECT date_trunc('day', l.at, 'UTC'),
           l.app_id,
           l.pool,
           l.kind,
           h.pool IS NOT NULL,
           count(*),
           sum(l.prompt_tokens),
           sum(l.output_tokens),
           sum(l.usd),
           sum(CASE WHEN h.pool IS NULL THEN l.usd
                    ELSE full_usd(l.usd,
                                  request_work(l.prompt_tokens, l.cached_tokens, l.output_tokens, l.kv_token_s,
                                               h.weigh_by, h.cached_weight, h.output_weight),
                                  h.factor, h.idle_usd_per_work)
               END),
           sum(l.api_usd)
    FROM ledger l
    LEFT JOIN cost_hours h ON l.kind = 'compute' AND h.pool = l.pool AND h.hour = date_trunc('hour', l.at, 'UTC')
    WHERE l.at >= since AND l.at < until
    GROUP BY 1, 2, 3, 4, 5
$$;
