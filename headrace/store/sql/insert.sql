-- Accepts jobs: their Idempotency-Keys, their rows and their texts.
--
-- Run by: web processes, for all submits that come together (headrace/store/jobs/insertion.py).
-- Parameters: given, a JSON list of jobs, what is absent is NULL; key_ttl, how long a key is remembered.
-- Returns: `id` and `start_by` of each inserted job. A job is left out if its key is taken: an earlier job has it, or
--     another job of this list, or a transaction that is still open.
WITH given AS (
    SELECT * FROM json_to_recordset(:'given'::json) AS sent (
        id uuid, app_id uuid, state text, lane text, pool text, queue text, route text, route_reason text,
        overflow text, model_requested text, adapter text, end_user text, metadata jsonb, webhook_url text,
        background boolean, stream boolean, max_cost_usd numeric, prompt_tokens int, max_tokens int,
        not_before timestamptz, finish_by timestamptz, cache text, rule text, shadow text, n smallint, max_wait_s float8,
        notes jsonb, start_after timestamptz,
        messages jsonb, sampling jsonb, cache_key bytea, is_unstored boolean, key text, request_hash bytea
    )
), wanted AS (
    -- In the same order in every process, so that no two deadlock.
    SELECT DISTINCT ON (app_id, key) app_id, key, request_hash, id
    FROM given
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
    SELECT * FROM given WHERE key IS NULL OR id IN (SELECT job_id FROM taken)
), texts AS (
    INSERT INTO job_texts (job_id, messages, sampling, cache_key, is_unstored)
    SELECT id, messages, sampling, cache_key, is_unstored FROM fresh
)
INSERT INTO jobs (
    id, app_id, state, lane, pool, queue, route, route_reason, overflow, model_requested, adapter, end_user, metadata,
    webhook_url, background, stream, max_cost_usd, prompt_tokens, max_tokens, finish_by, cache, rule, shadow, n,
    notes, start_after, not_before,
    queued_at, start_by, overflow_at
)
SELECT
    id, app_id, state, lane, pool, queue, route, route_reason, overflow, model_requested, adapter, end_user, metadata,
    webhook_url, background, stream, max_cost_usd, prompt_tokens, max_tokens, finish_by, cache, rule, shadow, n,
    notes, start_after, not_before,
    CASE WHEN state = 'queued' THEN now() END, coalesce(not_before, now()) + max_wait_s * interval '1 s', CASE WHEN route = 'overflow' THEN now() END
FROM fresh
RETURNING id, start_by;
