CREATE VIEW savings_per_day AS
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
) rest USING (day, pool);

COMMENT ON VIEW savings_per_day IS
    'What own hosts saved each day against the paid API''s list price for the same tokens.';
COMMENT ON COLUMN savings_per_day.day IS 'Its start, in UTC.';
COMMENT ON COLUMN savings_per_day.pool IS 'The pool whose hosts serve it, or would have.';
COMMENT ON COLUMN savings_per_day.requests IS 'Charged ones: a failed or lost attempt is waste, and no request.';
COMMENT ON COLUMN savings_per_day.full_usd IS
    'usd, with the share of hosts that were paid for and not used; equals usd until the hour closes.';
COMMENT ON COLUMN savings_per_day.platform_usd IS
    'The part of the hosts'' bill that no request pays: waste, dead machines, hours without requests, digits below the last.';
COMMENT ON COLUMN savings_per_day.api_usd IS 'The same tokens at the paid API''s list price; NULL: it has none.';
COMMENT ON COLUMN savings_per_day.saved_usd IS
    'api_usd, minus full_usd and platform_usd. Negative: the paid API would have been cheaper.';
