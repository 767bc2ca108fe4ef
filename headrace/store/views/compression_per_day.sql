CREATE VIEW compression_per_day AS
SELECT date_trunc('day', j.created_at, 'UTC') AS day,
       a.name AS app,
       j.pool,
       j.route,
       j.model_requested,
       count(*) AS jobs,
       sum(j.original_tokens) AS original_tokens,
       sum(j.prompt_tokens) AS prompt_tokens,
       1 - sum(j.prompt_tokens) / nullif(sum(j.original_tokens), 0)::float8 AS saved_share,
       coalesce(sum(l.saved_usd), 0) AS saved_usd
FROM jobs j
JOIN apps a ON a.id = j.app_id
LEFT JOIN ledger l ON l.job_id = j.id AND l.kind IN ('compute', 'api')
WHERE j.original_tokens IS NOT NULL
GROUP BY 1, 2, 3, 4, 5;

COMMENT ON VIEW compression_per_day IS 'The jobs whose prompts were compressed, by day of UTC, and what that saved.';
COMMENT ON COLUMN compression_per_day.day IS 'Its start, in UTC, by when the jobs were accepted.';
COMMENT ON COLUMN compression_per_day.app IS 'The app''s name.';
COMMENT ON COLUMN compression_per_day.pool IS 'The pool that the jobs were for.';
COMMENT ON COLUMN compression_per_day.route IS 'pool: that pool answered; overflow: the paid API.';
COMMENT ON COLUMN compression_per_day.model_requested IS 'The model that the requests named.';
COMMENT ON COLUMN compression_per_day.jobs IS 'Jobs whose prompts became shorter.';
COMMENT ON COLUMN compression_per_day.original_tokens IS 'Tokens of their prompts as the app sent them.';
COMMENT ON COLUMN compression_per_day.prompt_tokens IS
    'Tokens of their prompts as the engine got them, which is what was charged.';
COMMENT ON COLUMN compression_per_day.saved_share IS 'The share of the original tokens that was not sent.';
COMMENT ON COLUMN compression_per_day.saved_usd IS 'What the tokens that were not sent would have cost.';
