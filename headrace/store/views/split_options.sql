-- up: the part of an hour in which the pool had a host. An hour without a bill counts as a whole once it is over.
CREATE VIEW split_options AS
WITH demand AS (
    SELECT date_trunc('hour', at, 'UTC') AS hour, pool, count(*) AS requests, sum(api_usd) AS api_usd,
           count(api_usd) AS priced, sum(prompt_tokens::bigint + output_tokens) AS tokens
    FROM ledger
    WHERE kind IN ('compute', 'api')
    GROUP BY 1, 2
), hours AS (
    SELECT hour, pool, coalesce(requests, 0) AS requests, api_usd, priced, tokens, host_s, bill_usd,
           least(coalesce(host_s, extract(epoch FROM now() - hour)) / 3600, 1) AS up
    FROM demand
    FULL JOIN (SELECT hour, pool, host_s, bill_usd FROM cost_hours WHERE host_s > 0) billed USING (hour, pool)
), months AS (
    SELECT date_trunc('month', hour, 'UTC') AS month, pool, max(requests) AS most_requests, sum(api_usd) / nullif(sum(priced), 0) AS api_usd_per_request,
           sum(tokens) / sum(requests) AS tokens_per_request,
           extract(epoch FROM max(hour) - min(hour)) / 3600 + 1 + sum(up - 1) AS hours,
           3600 * sum(bill_usd) / sum(host_s) AS billed_usd_per_hour
    FROM hours
    GROUP BY 1, 2
    HAVING sum(requests) > 0
), terms AS (
    SELECT m.*, coalesce(m.billed_usd_per_hour, p.usd_per_hour) AS usd_per_hour, f.load_factor, f.api_price_factor,
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
           sum(least(d.requests * o.load_factor, o.hosts * o.requests_per_host_hour * d.up))
               / sum(d.requests * o.load_factor) AS own_share,
           o.hosts * o.usd_per_hour * o.hours AS hosts_usd,
           sum(greatest(d.requests * o.load_factor - o.hosts * o.requests_per_host_hour * d.up, 0))
               * o.api_usd_per_request * o.api_price_factor AS api_usd
    FROM options o
    JOIN hours d ON d.pool = o.pool AND date_trunc('month', d.hour, 'UTC') = o.month
    GROUP BY o.month, o.pool, o.load_factor, o.api_price_factor, o.hosts, o.usd_per_hour, o.hours,
             o.api_usd_per_request
)
SELECT *,
       hosts_usd + api_usd AS usd,
       row_number() OVER (PARTITION BY month, pool, load_factor, api_price_factor
                          ORDER BY hosts_usd + api_usd, hosts) = 1 AS is_cheapest
FROM bills;

COMMENT ON VIEW split_options IS
    'What each month would have cost with a fixed number of hosts, if each hour''s requests beyond what they serve '
    'had gone to the paid API; also with half and twice the load, and half and twice the paid API''s price.';
COMMENT ON COLUMN split_options.month IS 'Its start, in UTC.';
COMMENT ON COLUMN split_options.pool IS 'The pool whose hosts serve it, or would have.';
COMMENT ON COLUMN split_options.load_factor IS 'The month''s requests times this.';
COMMENT ON COLUMN split_options.api_price_factor IS 'The paid API''s price times this.';
COMMENT ON COLUMN split_options.hosts IS 'The number of hosts, from the month''s first hour with a charge or a host to its last.';
COMMENT ON COLUMN split_options.own_share IS 'The share of the requests that these hosts serve.';
COMMENT ON COLUMN split_options.hosts_usd IS 
    'What the hosts cost: each hour for as long as the pool had a host, at the mean price that was billed. Hours without '
    'a bill count as a whole; a month without one, at the pool''s last price.';
COMMENT ON COLUMN split_options.api_usd IS 'What the requests beyond them cost at the paid API.';
COMMENT ON COLUMN split_options.usd IS 'Both.';
COMMENT ON COLUMN split_options.is_cheapest IS 'The least bill of this month, load and price.';
