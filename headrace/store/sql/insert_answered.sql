-- As insert.sql, for jobs that an identical job's answer serves: they end at once with that answer, its bill as saved.
--
-- Run by: web processes (headrace/store/cache/exact_cache.py), which then announce the jobs' webhooks.
-- Parameters: given, as in insert.sql, with the job whose answer each is given as `source_id`, and how old that may be,
--     in seconds, as `keep_s`; key_ttl.
-- Returns: `start_by` of each inserted job, and what its webhook needs. A job is left out if its answer serves no more,
--     or if its key is taken.
WITH given AS (
    SELECT * FROM json_to_recordset(:'given'::json) AS sent (
        id uuid, app_id uuid, state text, lane text, pool text, queue text, route text, route_reason text,
        overflow text, model_requested text, adapter text, end_user text, metadata jsonb, webhook_url text,
        background boolean, stream boolean, max_cost_usd numeric, max_tokens int, finish_by timestamptz, cache text,
        rule text, shadow text, n smallint, max_wait_s float8, notes jsonb, messages jsonb,
        sampling jsonb, cache_key bytea, key text, request_hash bytea, source_id uuid, keep_s float8
    )
    -- Always true: see ../states/claim.sql.
    WHERE id BETWEEN '00000000-0000-0000-0000-000000000000' AND 'ffffffff-ffff-ffff-ffff-ffffffffffff'
), found AS (
    SELECT given.*, jobs.prompt_tokens, jobs.model_served, jobs.finish_reason, jobs.output_tokens, jobs.cached_tokens,
        jobs.reasoning_tokens, kept.answer, kept.logprobs, kept.logprobs_json, kept.reasoning,
        kept.tool_calls, kept.choices, ledger.api_usd, ledger.usd AS saved_usd
    FROM given
    JOIN jobs ON jobs.id = given.source_id
    JOIN job_texts kept ON kept.job_id = jobs.id
    LEFT JOIN ledger ON ledger.job_id = jobs.id AND ledger.kind IN ('compute', 'api', 'cache')
    -- As `serves` in headrace/store/cache/exact_cache.py.
    WHERE jobs.app_id = given.app_id
        AND jobs.state || '' = 'succeeded'
        AND jobs.finish_reason IN ('stop', 'length', 'tool_calls')
        AND jobs.ended_at > now() - given.keep_s * interval '1 s'
        AND (
            jobs.route = 'pool' AND given.overflow <> 'only'
            OR jobs.route = 'overflow' AND given.overflow <> 'never'
        )
        AND kept.cache_key = given.cache_key
        AND kept.answer IS NOT NULL
    -- The answer cannot be erased until the commit. One that is just being erased is passed over.
    FOR KEY SHARE OF kept SKIP LOCKED
), wanted AS (
    -- In the same order in every process, so that no two deadlock.
    SELECT DISTINCT ON (app_id, key) app_id, key, request_hash, id
    FROM found
    WHERE key IS NOT NULL
    ORDER BY app_id, key, id
), free AS (
    -- While a transaction is open, it holds its keys: another one fails at once instead of waiting. Any role may take
    -- an advisory lock, but no analyst can read the app's secret, and so compute the number beforehand.
    SELECT * FROM wanted
    WHERE pg_try_advisory_xact_lock(
        hashtextextended((SELECT webhook_secret FROM apps WHERE apps.id = wanted.app_id) || wanted.key, 0)
    )
), taken AS (
    INSERT INTO idempotency_keys (app_id, key, request_hash, job_id, expires_at)
    SELECT app_id, key, request_hash, id, now() + :'key_ttl'::interval FROM free
    ON CONFLICT (app_id, key) DO UPDATE
    SET request_hash = excluded.request_hash, job_id = excluded.job_id, expires_at = excluded.expires_at
    WHERE idempotency_keys.expires_at <= now()
    RETURNING job_id
), fresh AS (
    SELECT * FROM found WHERE key IS NULL OR id IN (SELECT job_id FROM taken)
), texts AS (
    INSERT INTO job_texts (
        job_id, messages, sampling, answer, logprobs, logprobs_json, reasoning, tool_calls, choices
    )
    SELECT id, messages, sampling, answer, logprobs, logprobs_json, reasoning, tool_calls, choices FROM fresh
), booked AS (
    -- Nothing is charged, and what the answer cost is saved.
    INSERT INTO ledger (
        kind, job_id, app_id, end_user, pool, model, prompt_tokens, cached_tokens, output_tokens, usd, api_usd,
        saved_usd
    )
    SELECT
        'cache', id, app_id, end_user, pool, coalesce(model_served, model_requested), prompt_tokens,
        coalesce(cached_tokens, 0), coalesce(output_tokens, 0), 0, api_usd, saved_usd
    FROM fresh
)
INSERT INTO jobs (
    id, app_id, state, lane, pool, queue, route, route_reason, overflow, model_requested, adapter, end_user, metadata,
    webhook_url, background, stream, max_cost_usd, prompt_tokens, max_tokens, finish_by, cache, rule, shadow, n,
    notes,
    model_served, finish_reason, output_tokens, cached_tokens, reasoning_tokens, served_by_job, start_by, ended_at
)
SELECT
    id, app_id, state, lane, pool, queue, route, route_reason, overflow, model_requested, adapter, end_user, metadata,
    webhook_url, background, stream, max_cost_usd, prompt_tokens, max_tokens, finish_by, cache, rule, shadow, n,
    notes,
    model_served, finish_reason, output_tokens, cached_tokens, reasoning_tokens, source_id,
    now() + max_wait_s * interval '1 s', now()
FROM fresh
RETURNING id, app_id, state, finish_reason, webhook_url, start_by;
