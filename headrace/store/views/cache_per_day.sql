CREATE VIEW cache_per_day AS
SELECT date_trunc('day', j.created_at, 'UTC') AS day,
       a.name AS app,
       j.pool,
       j.model_requested,
       count(*) FILTER (WHERE j.cache = 'hit') AS hits,
       count(*) FILTER (WHERE j.cache = 'miss') AS misses,
       count(*) FILTER (WHERE j.cache = 'hit') / count(*)::float8 AS hit_share,
       coalesce(sum(l.prompt_tokens), 0) AS prompt_tokens,
       coalesce(sum(l.output_tokens), 0) AS output_tokens,
       coalesce(sum(l.saved_usd), 0) AS saved_usd,
       sum(l.api_usd) AS api_usd,
       count(*) FILTER (WHERE j.cache = 'shared') AS shared,
       count(*) FILTER (WHERE j.cache = 'semantic') AS semantic
FROM jobs j
JOIN apps a ON a.id = j.app_id
LEFT JOIN ledger l ON l.job_id = j.id AND l.kind = 'cache'
WHERE j.cache IS NOT NULL
GROUP BY 1, 2, 3, 4;

COMMENT ON VIEW cache_per_day IS 'The jobs for which the exact cache was searched, by day of UTC, and what it saved.';
COMMENT ON COLUMN cache_per_day.day IS 'Its start, in UTC, by when the jobs were accepted.';
COMMENT ON COLUMN cache_per_day.app IS 'The app''s name.';
COMMENT ON COLUMN cache_per_day.pool IS 'The pool that answers, or would have.';
COMMENT ON COLUMN cache_per_day.model_requested IS 'The model that the requests named.';
COMMENT ON COLUMN cache_per_day.hits IS 'Jobs that were given a stored answer.';
COMMENT ON COLUMN cache_per_day.misses IS 'Jobs for which there was none.';
COMMENT ON COLUMN cache_per_day.hit_share IS 'hits over all jobs for which the cache was searched.';
COMMENT ON COLUMN cache_per_day.prompt_tokens IS 'Tokens of the hits'' prompts, which no engine read.';
COMMENT ON COLUMN cache_per_day.output_tokens IS 'Tokens of the hits'' answers, which no engine made.';
COMMENT ON COLUMN cache_per_day.saved_usd IS 'What the answers that the hits were given have cost.';
COMMENT ON COLUMN cache_per_day.api_usd IS
    'What the hits would have cost at the paid API''s list price; NULL: it has none.';
COMMENT ON COLUMN cache_per_day.shared IS 'Jobs that were given the answer of a job under way, or wait for it.';
COMMENT ON COLUMN cache_per_day.semantic IS 'Jobs that were given the answer to the same question in other words.';
