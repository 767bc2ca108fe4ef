CREATE VIEW split_point AS
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
    -- Of closed hours alone: those of which the hosts' time is known.
    SELECT date_trunc('month', hour, 'UTC') AS month, l.pool, count(*) AS requests, sum(api_usd) AS api_usd,
           sum(prompt_tokens::bigint + output_tokens)::numeric AS tokens
    FROM ledger l
    JOIN cost_hours h ON h.pool = l.pool AND h.hour = date_trunc('hour', l.at, 'UTC')
    WHERE kind = 'compute'
    GROUP BY 1, 2
) own USING (month, pool)
LEFT JOIN LATERAL (
    SELECT tokens_per_s::numeric FROM own_prices p WHERE p.pool = hosts.pool ORDER BY id DESC LIMIT 1
) rate ON true
WHERE host_hours > 0;

COMMENT ON VIEW split_point IS
    'From how many requests an hour a host is cheaper than the paid API, and how many it served; of closed hours.';
COMMENT ON COLUMN split_point.month IS 'Its start, in UTC.';
COMMENT ON COLUMN split_point.pool IS 'The pool whose hosts serve it, or would have.';
COMMENT ON COLUMN split_point.usd_per_host_hour IS 'What an hour of a host cost.';
COMMENT ON COLUMN split_point.api_usd_per_request IS 'What the paid API would have charged for a mean request.';
COMMENT ON COLUMN split_point.requests_per_host_hour IS 'What an hour of a host served.';
COMMENT ON COLUMN split_point.break_even_requests_per_host_hour IS
    'A host that serves more of them than this is cheaper.';
COMMENT ON COLUMN split_point.most_requests_per_host_hour IS 'What a saturated host serves; NULL: its rate is unknown.';
COMMENT ON COLUMN split_point.break_even_share IS 'The break-even over what was served. Below 1: own hosts paid.';
