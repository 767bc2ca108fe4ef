-- As insert.sql, for jobs that follow an identical job under way, their leader: they wait for its answer.
--
-- Run by: web processes (headrace/store/cache/exact_cache.py).
-- Parameters: given, as in insert.sql, with the job that each follows as `leader_id`; key_ttl.
-- Returns: `id` and `start_by` of each inserted job. A job is left out if its leader is under way no more, or if its
--     key is taken.
WITH asked AS (
    SELECT * FROM json_to_recordset(:'given'::json) AS sent (
        id uuid, app_id uuid, state text, lane text, pool text, queue text, route text, route_reason text,
        overflow text, model_requested text, adapter text, end_user text, metadata jsonb, webhook_url text,
        background boolean, stream boolean, max_cost_usd numeric, prompt_tokens int, max_tokens int,
        finish_by timestamptz, cache text, rule text, shadow text, n smallint, max_wait_s float8,
        notes jsonb,
        messages jsonb, sampling jsonb, key text, request_hash bytea, leader_id uuid
    )
    -- Always true: see ../states/claim.sql.
    WHERE id BETWEEN '00000000-0000-0000-0000-000000000000' AND 'ffffffff-ffff-ffff-ffff-ffffffffffff'
), given AS (
    SELECT asked.* FROM asked
    JOIN jobs leader ON leader.id = asked.leader_id AND leader.app_id = asked.app_id
    WHERE leader.state NOT IN ('succeeded', 'failed', 'cancelled', 'expired') AND leader.served_by_job IS NULL
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
    INSERT INTO job_texts (job_id, messages, sampling) SELECT id, messages, sampling FROM fresh
)
INSERT INTO jobs (
    id, app_id, state, lane, pool, queue, route, route_reason, overflow, model_requested, adapter, end_user, metadata,
    webhook_url, background, stream, max_cost_usd, prompt_tokens, max_tokens, finish_by, cache, rule, shadow, n,
    notes,
    served_by_job, start_by
)
SELECT
    id, app_id, state, lane, pool, queue, route, route_reason, overflow, model_requested, adapter, end_user, metadata,
    webhook_url, background, stream, max_cost_usd, prompt_tokens, max_tokens, finish_by, cache, rule, shadow, n,
    notes,
    leader_id, now() + max_wait_s * interval '1 s'
FROM fresh
RETURNING id, start_by;
