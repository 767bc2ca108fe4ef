CREATE VIEW semantic_cache_per_day AS
SELECT date_trunc('day', m.at, 'UTC') AS day,
       a.name AS app,
       m.pool,
       count(*) FILTER (WHERE m.kind = 'served') AS served,
       count(m.is_right) AS compared,
       count(*) FILTER (WHERE NOT m.is_right) AS compared_wrong,
       count(*) FILTER (WHERE m.kind IN ('recheck', 'shadow')) AS would_serve,
       count(*) FILTER (WHERE m.kind IN ('recheck', 'shadow') AND NOT m.is_right) AS would_serve_wrong,
       count(*) FILTER (WHERE m.kind IN ('recheck', 'shadow') AND NOT m.is_right)
           / nullif(count(m.is_right) FILTER (WHERE m.kind IN ('recheck', 'shadow')), 0)::float8 AS error_share
FROM cache_matches m
JOIN apps a ON a.id = m.app_id
GROUP BY 1, 2, 3;

COMMENT ON VIEW semantic_cache_per_day IS
    'The jobs that asked the same as an answered one in other words, by day of UTC.';
COMMENT ON COLUMN semantic_cache_per_day.day IS 'Its start, in UTC, by when the jobs were looked up.';
COMMENT ON COLUMN semantic_cache_per_day.app IS 'The app''s name.';
COMMENT ON COLUMN semantic_cache_per_day.pool IS 'The pool that answers, or would have.';
COMMENT ON COLUMN semantic_cache_per_day.served IS 'Jobs that were given the answer.';
COMMENT ON COLUMN semantic_cache_per_day.compared IS 'Jobs that ran all the same, and whose answers were compared.';
COMMENT ON COLUMN semantic_cache_per_day.compared_wrong IS 'The ones among them whose answers differ.';
COMMENT ON COLUMN semantic_cache_per_day.would_serve IS
    'Jobs that ran although the entry may serve: all such jobs of a pool in shadow, else a few.';
COMMENT ON COLUMN semantic_cache_per_day.would_serve_wrong IS 'The ones among them whose answers differ.';
COMMENT ON COLUMN semantic_cache_per_day.error_share IS
    'How often a served answer is wrong, by these; NULL: none was compared.';
