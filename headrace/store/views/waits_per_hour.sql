CREATE VIEW waits_per_hour AS
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
GROUP BY hour, pool, lane;

COMMENT ON VIEW waits_per_hour IS 'How long jobs waited, by the hour of UTC in which they started.';
COMMENT ON COLUMN waits_per_hour.hour IS 'Its start, in UTC.';
COMMENT ON COLUMN waits_per_hour.pool IS 'The pool whose hosts serve it, or would have.';
COMMENT ON COLUMN waits_per_hour.lane IS 'high, normal, low or batch.';
COMMENT ON COLUMN waits_per_hour.requests IS 'Jobs that started in the hour.';
COMMENT ON COLUMN waits_per_hour.p50_wait_s IS 'From acceptance to the first start.';
COMMENT ON COLUMN waits_per_hour.p95_wait_s IS 'From acceptance to the first start.';
COMMENT ON COLUMN waits_per_hour.p99_wait_s IS 'From acceptance to the first start.';
COMMENT ON COLUMN waits_per_hour.p50_first_token_s IS 'From the start of the last attempt to its first token.';
COMMENT ON COLUMN waits_per_hour.p95_first_token_s IS 'From the start of the last attempt to its first token.';
COMMENT ON COLUMN waits_per_hour.p99_first_token_s IS 'From the start of the last attempt to its first token.';
