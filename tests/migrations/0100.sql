-- part: app
INSERT INTO apps (id, name, webhook_secret) VALUES ('01a239b1ea67711297f531878d96dfe1'::uuid::UUID, 'old'::VARCHAR, 'whsec_recorded'::VARCHAR) ON CONFLICT (name) DO NOTHING RETURNING apps.id
-- ;
SELECT apps.id, apps.name, apps.webhook_secret, apps.queued_jobs, apps.requests_per_minute, apps.tokens_per_minute, apps.day_usd, apps.month_usd, apps.calls_per_minute, apps.lanes, apps.cache_s, apps.max_error 
FROM apps 
WHERE apps.name = 'old'::VARCHAR
-- ;
INSERT INTO api_keys (id, app_id, hint, digest, expires_at, scopes) VALUES ('01a239b1ea6a7219acdb473e57d387bc'::uuid::UUID, '01a239b1ea67711297f531878d96dfe1'::uuid::UUID, 'hr-zI2Wf'::VARCHAR, '\x44e9317f507bd68768e1be804aac6d537ed9fc6166ed491578ac21d827a195b0'::bytea, NULL::TIMESTAMP WITH TIME ZONE, '{read,submit}'::TEXT[])
-- ;
SELECT apps.id, apps.name, apps.webhook_secret, apps.queued_jobs, apps.requests_per_minute, apps.tokens_per_minute, apps.day_usd, apps.month_usd, apps.calls_per_minute, apps.lanes, apps.cache_s, apps.max_error, api_keys.digest, api_keys.scopes 
FROM apps JOIN api_keys ON api_keys.app_id = apps.id 
WHERE api_keys.digest = ANY ( E'{"\\\\x44e9317f507bd68768e1be804aac6d537ed9fc6166ed491578ac21d827a195b0"}'::bytea[]::BYTEA[]) AND api_keys.revoked_at IS NULL AND (api_keys.expires_at IS NULL OR api_keys.expires_at > now())
-- ;

-- part: insert plain
WITH given AS (
    SELECT * FROM json_to_recordset('[{"id":"01a21000-0000-7000-8000-000000000001","app_id":"01a239b1-ea67-7112-97f5-31878d96dfe1","state":"queued","lane":"normal","pool":"chat","queue":"chat.normal","route":"pool","route_reason":"own pool","overflow":"allow","model_requested":"smollm2-135m","rule":null,"shadow":null,"adapter":null,"end_user":null,"metadata":{},"webhook_url":null,"background":true,"stream":false,"max_cost_usd":null,"prompt_tokens":8,"max_tokens":16,"n":null,"max_wait_s":30.0,"not_before":null,"finish_by":null,"messages":[{"role":"user","content":"What is a headrace?"}],"sampling":{"max_tokens":16}}]'::json) AS sent (
        id uuid, app_id uuid, state text, lane text, pool text, queue text, route text, route_reason text,
        overflow text, model_requested text, adapter text, end_user text, metadata jsonb, webhook_url text,
        background boolean, stream boolean, max_cost_usd numeric, prompt_tokens int, max_tokens int,
        not_before timestamptz, finish_by timestamptz, cache text, rule text, shadow text, n smallint, max_wait_s float8,
        notes jsonb, start_after timestamptz,
        messages jsonb, sampling jsonb, cache_key bytea, is_unstored boolean, key text, request_hash bytea
    )
), wanted AS (
    SELECT DISTINCT ON (app_id, key) app_id, key, request_hash, id
    FROM given
    WHERE key IS NOT NULL
    ORDER BY app_id, key, id
), free AS (
    SELECT * FROM wanted
    WHERE pg_try_advisory_xact_lock(
        hashtextextended((SELECT webhook_secret FROM apps WHERE apps.id = wanted.app_id) || wanted.key, 0)
    )
), taken AS (
    INSERT INTO idempotency_keys (app_id, key, request_hash, job_id, expires_at)
    SELECT app_id, key, request_hash, id, now() + '1 day 0:00:00'::interval::interval FROM free
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
-- ;

-- part: insert hooked
WITH given AS (
    SELECT * FROM json_to_recordset( E'[{"key":"k","request_hash":"\\\\x68617368","id":"01a21000-0000-7000-8000-000000000002","app_id":"01a239b1-ea67-7112-97f5-31878d96dfe1","state":"queued","lane":"normal","pool":"chat","queue":"chat.normal","route":"pool","route_reason":"own pool","overflow":"allow","model_requested":"smollm2-135m","rule":null,"shadow":null,"adapter":null,"end_user":null,"metadata":{},"webhook_url":"https://r.example","background":true,"stream":false,"max_cost_usd":null,"prompt_tokens":8,"max_tokens":16,"n":null,"max_wait_s":30.0,"not_before":null,"finish_by":null,"messages":[{"role":"user","content":"What is a headrace?"}],"sampling":{"max_tokens":16}}]'::json) AS sent (
        id uuid, app_id uuid, state text, lane text, pool text, queue text, route text, route_reason text,
        overflow text, model_requested text, adapter text, end_user text, metadata jsonb, webhook_url text,
        background boolean, stream boolean, max_cost_usd numeric, prompt_tokens int, max_tokens int,
        not_before timestamptz, finish_by timestamptz, cache text, rule text, shadow text, n smallint, max_wait_s float8,
        notes jsonb, start_after timestamptz,
        messages jsonb, sampling jsonb, cache_key bytea, is_unstored boolean, key text, request_hash bytea
    )
), wanted AS (
    SELECT DISTINCT ON (app_id, key) app_id, key, request_hash, id
    FROM given
    WHERE key IS NOT NULL
    ORDER BY app_id, key, id
), free AS (
    SELECT * FROM wanted
    WHERE pg_try_advisory_xact_lock(
        hashtextextended((SELECT webhook_secret FROM apps WHERE apps.id = wanted.app_id) || wanted.key, 0)
    )
), taken AS (
    INSERT INTO idempotency_keys (app_id, key, request_hash, job_id, expires_at)
    SELECT app_id, key, request_hash, id, now() + '1 day 0:00:00'::interval::interval FROM free
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
-- ;

-- part: insert lost
WITH given AS (
    SELECT * FROM json_to_recordset('[{"id":"01a21000-0000-7000-8000-000000000003","app_id":"01a239b1-ea67-7112-97f5-31878d96dfe1","state":"queued","lane":"normal","pool":"chat","queue":"chat.normal","route":"pool","route_reason":"own pool","overflow":"allow","model_requested":"smollm2-135m","rule":null,"shadow":null,"adapter":null,"end_user":"u","metadata":{"a":"b"},"webhook_url":null,"background":true,"stream":true,"max_cost_usd":"1","prompt_tokens":8,"max_tokens":16,"n":null,"max_wait_s":30.0,"not_before":null,"finish_by":null,"messages":[{"role":"user","content":"What is a headrace?"}],"sampling":{"max_tokens":16}}]'::json) AS sent (
        id uuid, app_id uuid, state text, lane text, pool text, queue text, route text, route_reason text,
        overflow text, model_requested text, adapter text, end_user text, metadata jsonb, webhook_url text,
        background boolean, stream boolean, max_cost_usd numeric, prompt_tokens int, max_tokens int,
        not_before timestamptz, finish_by timestamptz, cache text, rule text, shadow text, n smallint, max_wait_s float8,
        notes jsonb, start_after timestamptz,
        messages jsonb, sampling jsonb, cache_key bytea, is_unstored boolean, key text, request_hash bytea
    )
), wanted AS (
    SELECT DISTINCT ON (app_id, key) app_id, key, request_hash, id
    FROM given
    WHERE key IS NOT NULL
    ORDER BY app_id, key, id
), free AS (
    SELECT * FROM wanted
    WHERE pg_try_advisory_xact_lock(
        hashtextextended((SELECT webhook_secret FROM apps WHERE apps.id = wanted.app_id) || wanted.key, 0)
    )
), taken AS (
    INSERT INTO idempotency_keys (app_id, key, request_hash, job_id, expires_at)
    SELECT app_id, key, request_hash, id, now() + '1 day 0:00:00'::interval::interval FROM free
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
-- ;

-- part: worker
INSERT INTO workers (id, name, host_id, pool, engine, model, max_model_tokens, max_running, kv_tokens, kv_block_tokens, ready, lease_until, payload_version) VALUES ('000000000000000000000000000000a1'::uuid::UUID, 'gpu@old'::VARCHAR, 'host'::VARCHAR, 'chat'::VARCHAR, 'simulator'::VARCHAR, 'm'::VARCHAR, 2048::INTEGER, 4::INTEGER, 65536::INTEGER, 16::INTEGER, true, (now() + '1:00:00'::interval), 1::SMALLINT) ON CONFLICT (id) DO UPDATE SET lease_until = excluded.lease_until
-- ;
INSERT INTO workers (id, name, host_id, pool, engine, model, max_model_tokens, max_running, kv_tokens, kv_block_tokens, ready, lease_until, payload_version) VALUES ('000000000000000000000000000000a2'::uuid::UUID, 'gpu@old'::VARCHAR, 'host'::VARCHAR, 'chat'::VARCHAR, 'simulator'::VARCHAR, 'm'::VARCHAR, 2048::INTEGER, 4::INTEGER, 65536::INTEGER, 16::INTEGER, true, (now() + '1:00:00'::interval), 1::SMALLINT) ON CONFLICT (id) DO UPDATE SET lease_until = excluded.lease_until
-- ;
WITH renewed AS (
    UPDATE workers
    SET lease_until = now() + 3600::float8 * interval '1 s',
        running = 0::int, ready = true::boolean, draining = false::boolean
    WHERE id = '000000000000000000000000000000a1'::uuid::uuid
    RETURNING id, pool, host_id
), host AS (
    SELECT
        EXISTS (
            SELECT FROM renewed JOIN hosts ON hosts.pool = renewed.pool AND hosts.ended_at IS NULL
                AND (hosts.id = renewed.host_id OR hosts.provider_id = renewed.host_id)
            WHERE hosts.drain_at IS NOT NULL
        ) AS drains,
        (
            SELECT json_agg(json_build_array(confinements.app_id, (
                SELECT confinements.job_id FROM workers other
                WHERE other.id = confinements.worker_id AND other.id <> renewed.id AND other.lease_until > now()
            )))
            FROM renewed JOIN confinements ON confinements.pool = renewed.pool AND confinements.until > now()
        ) AS confined
)
SELECT host.drains, host.confined, jobs.id, jobs.enqueue_no, jobs.cancel_requested_at,
    coalesce(jobs.finish_by <= now(), false) AS is_overdue
FROM host
LEFT JOIN jobs ON jobs.worker_id = '000000000000000000000000000000a1'::uuid::uuid AND jobs.state = 'running';
-- ;

-- part: finish plain
WITH given AS (
    SELECT * FROM json_to_recordset('[{"job_id":"01a21000-0000-7000-8000-000000000001","enqueue_no":1,"worker_id":"00000000-0000-0000-0000-0000000000a1","engine":"simulator"}]'::json) AS sent (job_id uuid, enqueue_no int, worker_id uuid, engine text)
    WHERE enqueue_no BETWEEN 0 AND 2147483647
), claimed AS (
    UPDATE jobs
    SET state = 'running', worker_id = given.worker_id, attempt = jobs.attempt + 1,
        started_at = coalesce(jobs.started_at, now())
    FROM given
    WHERE jobs.id = given.job_id AND jobs.id BETWEEN '01a19467-e800-0000-0000-000000000000' AND '01a22ee6-afff-ffff-ffff-ffffffffffff'
        AND jobs.id = ANY (ARRAY(SELECT job_id FROM given))
        AND jobs.state || '' = 'queued'
        AND jobs.enqueue_no = given.enqueue_no
        AND jobs.cancel_requested_at IS NULL
        AND (jobs.started_at IS NOT NULL OR jobs.start_by > now())
        AND (jobs.finish_by IS NULL OR jobs.finish_by > now())
        AND EXISTS (SELECT FROM workers WHERE workers.id = given.worker_id AND workers.lease_until > now())
    RETURNING jobs.*, given.engine
), begun AS (
    INSERT INTO attempts (job_id, number, worker_id, engine, started_at)
    SELECT id, attempt, worker_id, engine, now() FROM claimed
)
SELECT
    claimed.id, claimed.app_id, claimed.attempt, claimed.enqueue_no, claimed.worker_id, claimed.end_user, claimed.lane,
    claimed.pool, claimed.model_requested, claimed.overflow, claimed.max_cost_usd, claimed.prompt_tokens,
    claimed.start_by, claimed.finish_by, claimed.webhook_url, claimed.stream, claimed.suspicion, claimed.route,
    claimed.adapter, claimed.rule, claimed.stand_by, claimed.shadow_of, claimed.notes, job_texts.messages, job_texts.sampling,
    CASE WHEN false::boolean THEN set_config('synchronous_commit', 'off', true) END
FROM claimed
JOIN job_texts ON job_texts.job_id = claimed.id AND job_texts.job_id BETWEEN '01a19467-e800-0000-0000-000000000000' AND '01a22ee6-afff-ffff-ffff-ffffffffffff'
    AND job_texts.job_id = ANY (ARRAY(SELECT job_id FROM given));
-- ;
WITH given AS (
    SELECT * FROM json_to_recordset('[{"job_id":"01a21000-0000-7000-8000-000000000001","worker_id":"00000000-0000-0000-0000-0000000000a1","attempt":1,"enqueue_no":1,"app_id":"01a239b1-ea67-7112-97f5-31878d96dfe1","end_user":null,"pool":"chat","model":"m","model_served":"m","host_id":"host","kind":"compute","outcome":"succeeded","error_code":null,"error_cause":null,"prompt_tokens":8,"cached_tokens":0,"output_tokens":3,"engine_s":0.5,"first_token_s":null,"preemptions":0,"kv_token_s":5.5,"usd":"0.000001","price_version":"old-1","api_usd":null,"estimated":false,"original_tokens":null,"saved_usd":null,"reason":null,"escalated_by":null,"charged_usd":"0.000001","finish_reason":"stop","error_message":null,"answer":"A channel.","logprobs_json":null,"reasoning":null,"tool_calls":null,"reasoning_tokens":0,"choices":null,"notes":null}]'::json) AS sent (
        job_id uuid, worker_id uuid, attempt int, enqueue_no int, app_id uuid, end_user text, pool text, model text,
        model_served text, host_id text, kind text, outcome text, error_code text, error_message text,
        finish_reason text, prompt_tokens int, cached_tokens int, output_tokens int, reasoning_tokens int,
        original_tokens int, engine_s float8, first_token_s float8, preemptions int, kv_token_s float8, usd numeric,
        charged_usd numeric, price_version text, api_usd numeric, estimated boolean, saved_usd numeric, reason text,
        escalated_by text, error_cause text, notes jsonb, answer text, logprobs_json json, reasoning text, tool_calls jsonb, choices json
    )
    WHERE enqueue_no BETWEEN 0 AND 2147483647
), moved AS (
    UPDATE jobs
    SET state = 'succeeded', worker_id = NULL, ended_at = now(), usd = given.charged_usd,
        prompt_tokens = coalesce(nullif(given.prompt_tokens, 0), jobs.prompt_tokens),
        output_tokens = given.output_tokens, cached_tokens = given.cached_tokens,
        reasoning_tokens = given.reasoning_tokens, original_tokens = given.original_tokens,
        finish_reason = given.finish_reason, model_served = given.model_served,
        error_code = given.error_code, error_message = given.error_message,
        notes = CASE WHEN given.notes IS NULL THEN jobs.notes ELSE coalesce(jobs.notes, '{}') || given.notes END
    FROM given
    WHERE jobs.id = given.job_id AND jobs.id BETWEEN '01a19467-e800-0000-0000-000000000000' AND '01a22ee6-afff-ffff-ffff-ffffffffffff'
        AND jobs.id = ANY (ARRAY(SELECT job_id FROM given))
        AND jobs.state || '' = 'running'
        AND jobs.worker_id = given.worker_id AND jobs.attempt = given.attempt
        AND jobs.enqueue_no = given.enqueue_no
    RETURNING jobs.id, jobs.app_id, jobs.state, jobs.finish_reason, jobs.webhook_url
), held AS (
    SELECT given.* FROM given JOIN moved ON moved.id = given.job_id
), ended AS (
    UPDATE attempts
    SET ended_at = now(), outcome = held.outcome, error_code = held.error_code, model_served = held.model_served,
        first_token_s = held.first_token_s, preemptions = held.preemptions, escalated_by = held.escalated_by,
        error_cause = held.error_cause,
        prompt_tokens = held.prompt_tokens, cached_tokens = held.cached_tokens, output_tokens = held.output_tokens,
        engine_s = held.engine_s
    FROM held
    WHERE attempts.job_id = held.job_id AND attempts.job_id BETWEEN '01a19467-e800-0000-0000-000000000000' AND '01a22ee6-afff-ffff-ffff-ffffffffffff'
        AND attempts.job_id = ANY (ARRAY(SELECT job_id FROM given))
        AND attempts.number = held.attempt
), booked AS (
    INSERT INTO ledger (
        kind, job_id, attempt, app_id, end_user, pool, model, host_id, prompt_tokens, cached_tokens, output_tokens,
        engine_s, kv_token_s, usd, price_version, api_usd, estimated, saved_usd, reason
    )
    SELECT
        kind, job_id, attempt, app_id, end_user, pool, model, host_id, prompt_tokens, cached_tokens, output_tokens,
        engine_s, kv_token_s, usd, price_version, api_usd, estimated, saved_usd, reason
    FROM held
), answered AS (
    UPDATE job_texts
    SET answer = held.answer, logprobs_json = held.logprobs_json, reasoning = held.reasoning,
        tool_calls = held.tool_calls, choices = held.choices
    FROM held
    WHERE job_texts.job_id = held.job_id AND job_texts.job_id BETWEEN '01a19467-e800-0000-0000-000000000000' AND '01a22ee6-afff-ffff-ffff-ffffffffffff'
        AND job_texts.job_id = ANY (ARRAY(SELECT job_id FROM given))
        AND held.answer IS NOT NULL
)
SELECT * FROM moved;
-- ;
WITH given AS (
    SELECT * FROM json_to_recordset('[{"job_id":"01a21000-0000-7000-8000-000000000001","enqueue_no":1}]'::json) AS sent (job_id uuid, enqueue_no int)
    WHERE enqueue_no BETWEEN 0 AND 2147483647
)
SELECT
    given.job_id, given.enqueue_no,
    pg_logical_emit_message(true, 'headrace', '')
FROM given
LEFT JOIN jobs ON jobs.id = given.job_id AND jobs.id BETWEEN '01a19467-e800-0000-0000-000000000000' AND '01a22ee6-afff-ffff-ffff-ffffffffffff'
    AND jobs.id = ANY (ARRAY(SELECT job_id FROM given))
    AND jobs.enqueue_no = given.enqueue_no AND jobs.state || '' = 'queued'
WHERE jobs.id IS NULL;
-- ;

-- part: finish hooked
WITH given AS (
    SELECT * FROM json_to_recordset('[{"job_id":"01a21000-0000-7000-8000-000000000002","enqueue_no":1,"worker_id":"00000000-0000-0000-0000-0000000000a1","engine":"simulator"}]'::json) AS sent (job_id uuid, enqueue_no int, worker_id uuid, engine text)
    WHERE enqueue_no BETWEEN 0 AND 2147483647
), claimed AS (
    UPDATE jobs
    SET state = 'running', worker_id = given.worker_id, attempt = jobs.attempt + 1,
        started_at = coalesce(jobs.started_at, now())
    FROM given
    WHERE jobs.id = given.job_id AND jobs.id BETWEEN '01a19467-e800-0000-0000-000000000000' AND '01a22ee6-afff-ffff-ffff-ffffffffffff'
        AND jobs.id = ANY (ARRAY(SELECT job_id FROM given))
        AND jobs.state || '' = 'queued'
        AND jobs.enqueue_no = given.enqueue_no
        AND jobs.cancel_requested_at IS NULL
        AND (jobs.started_at IS NOT NULL OR jobs.start_by > now())
        AND (jobs.finish_by IS NULL OR jobs.finish_by > now())
        AND EXISTS (SELECT FROM workers WHERE workers.id = given.worker_id AND workers.lease_until > now())
    RETURNING jobs.*, given.engine
), begun AS (
    INSERT INTO attempts (job_id, number, worker_id, engine, started_at)
    SELECT id, attempt, worker_id, engine, now() FROM claimed
)
SELECT
    claimed.id, claimed.app_id, claimed.attempt, claimed.enqueue_no, claimed.worker_id, claimed.end_user, claimed.lane,
    claimed.pool, claimed.model_requested, claimed.overflow, claimed.max_cost_usd, claimed.prompt_tokens,
    claimed.start_by, claimed.finish_by, claimed.webhook_url, claimed.stream, claimed.suspicion, claimed.route,
    claimed.adapter, claimed.rule, claimed.stand_by, claimed.shadow_of, claimed.notes, job_texts.messages, job_texts.sampling,
    CASE WHEN false::boolean THEN set_config('synchronous_commit', 'off', true) END
FROM claimed
JOIN job_texts ON job_texts.job_id = claimed.id AND job_texts.job_id BETWEEN '01a19467-e800-0000-0000-000000000000' AND '01a22ee6-afff-ffff-ffff-ffffffffffff'
    AND job_texts.job_id = ANY (ARRAY(SELECT job_id FROM given));
-- ;
WITH given AS (
    SELECT * FROM json_to_recordset('[{"job_id":"01a21000-0000-7000-8000-000000000002","worker_id":"00000000-0000-0000-0000-0000000000a1","attempt":1,"enqueue_no":1,"app_id":"01a239b1-ea67-7112-97f5-31878d96dfe1","end_user":null,"pool":"chat","model":"m","model_served":"m","host_id":"host","kind":"compute","outcome":"succeeded","error_code":null,"error_cause":null,"prompt_tokens":8,"cached_tokens":0,"output_tokens":3,"engine_s":0.5,"first_token_s":null,"preemptions":0,"kv_token_s":5.5,"usd":"0.000001","price_version":"old-1","api_usd":null,"estimated":false,"original_tokens":null,"saved_usd":null,"reason":null,"escalated_by":null,"charged_usd":"0.000001","finish_reason":"stop","error_message":null,"answer":"A channel.","logprobs_json":null,"reasoning":null,"tool_calls":null,"reasoning_tokens":0,"choices":null,"notes":null}]'::json) AS sent (
        job_id uuid, worker_id uuid, attempt int, enqueue_no int, app_id uuid, end_user text, pool text, model text,
        model_served text, host_id text, kind text, outcome text, error_code text, error_message text,
        finish_reason text, prompt_tokens int, cached_tokens int, output_tokens int, reasoning_tokens int,
        original_tokens int, engine_s float8, first_token_s float8, preemptions int, kv_token_s float8, usd numeric,
        charged_usd numeric, price_version text, api_usd numeric, estimated boolean, saved_usd numeric, reason text,
        escalated_by text, error_cause text, notes jsonb, answer text, logprobs_json json, reasoning text, tool_calls jsonb, choices json
    )
    WHERE enqueue_no BETWEEN 0 AND 2147483647
), moved AS (
    UPDATE jobs
    SET state = 'succeeded', worker_id = NULL, ended_at = now(), usd = given.charged_usd,
        prompt_tokens = coalesce(nullif(given.prompt_tokens, 0), jobs.prompt_tokens),
        output_tokens = given.output_tokens, cached_tokens = given.cached_tokens,
        reasoning_tokens = given.reasoning_tokens, original_tokens = given.original_tokens,
        finish_reason = given.finish_reason, model_served = given.model_served,
        error_code = given.error_code, error_message = given.error_message,
        notes = CASE WHEN given.notes IS NULL THEN jobs.notes ELSE coalesce(jobs.notes, '{}') || given.notes END
    FROM given
    WHERE jobs.id = given.job_id AND jobs.id BETWEEN '01a19467-e800-0000-0000-000000000000' AND '01a22ee6-afff-ffff-ffff-ffffffffffff'
        AND jobs.id = ANY (ARRAY(SELECT job_id FROM given))
        AND jobs.state || '' = 'running'
        AND jobs.worker_id = given.worker_id AND jobs.attempt = given.attempt
        AND jobs.enqueue_no = given.enqueue_no
    RETURNING jobs.id, jobs.app_id, jobs.state, jobs.finish_reason, jobs.webhook_url
), held AS (
    SELECT given.* FROM given JOIN moved ON moved.id = given.job_id
), ended AS (
    UPDATE attempts
    SET ended_at = now(), outcome = held.outcome, error_code = held.error_code, model_served = held.model_served,
        first_token_s = held.first_token_s, preemptions = held.preemptions, escalated_by = held.escalated_by,
        error_cause = held.error_cause,
        prompt_tokens = held.prompt_tokens, cached_tokens = held.cached_tokens, output_tokens = held.output_tokens,
        engine_s = held.engine_s
    FROM held
    WHERE attempts.job_id = held.job_id AND attempts.job_id BETWEEN '01a19467-e800-0000-0000-000000000000' AND '01a22ee6-afff-ffff-ffff-ffffffffffff'
        AND attempts.job_id = ANY (ARRAY(SELECT job_id FROM given))
        AND attempts.number = held.attempt
), booked AS (
    INSERT INTO ledger (
        kind, job_id, attempt, app_id, end_user, pool, model, host_id, prompt_tokens, cached_tokens, output_tokens,
        engine_s, kv_token_s, usd, price_version, api_usd, estimated, saved_usd, reason
    )
    SELECT
        kind, job_id, attempt, app_id, end_user, pool, model, host_id, prompt_tokens, cached_tokens, output_tokens,
        engine_s, kv_token_s, usd, price_version, api_usd, estimated, saved_usd, reason
    FROM held
), answered AS (
    UPDATE job_texts
    SET answer = held.answer, logprobs_json = held.logprobs_json, reasoning = held.reasoning,
        tool_calls = held.tool_calls, choices = held.choices
    FROM held
    WHERE job_texts.job_id = held.job_id AND job_texts.job_id BETWEEN '01a19467-e800-0000-0000-000000000000' AND '01a22ee6-afff-ffff-ffff-ffffffffffff'
        AND job_texts.job_id = ANY (ARRAY(SELECT job_id FROM given))
        AND held.answer IS NOT NULL
)
SELECT * FROM moved;
-- ;
INSERT INTO deliveries (id, job_id, app_id, event, url) VALUES ('01a239b1ea83754480d2d2ddcdf7dab0'::uuid::UUID, '01a21000000070008000000000000002'::uuid::UUID, '01a239b1ea67711297f531878d96dfe1'::uuid::UUID, 'response.completed'::VARCHAR, 'https://r.example'::VARCHAR)
-- ;
SELECT EXISTS (SELECT * 
FROM deliveries 
WHERE deliveries.state = 'pending' AND deliveries.next_at <= now()) AS anon_1
-- ;
WITH RECURSIVE held_apps (app, n) AS MATERIALIZED (
    SELECT * FROM unnest('{}'::uuid[], '{}'::int[])
), held_receivers (receiver, n) AS MATERIALIZED (
    SELECT name COLLATE "C", n FROM unnest('{}'::text[], '{}'::int[]) held (name, n)
), pending AS NOT MATERIALIZED (
    SELECT
        id, next_at, coalesce(app_id, '00000000-0000-0000-0000-000000000000'::uuid) AS app,
        lower(substring(url COLLATE "C", '://([^/?#]*)')) AS receiver
    FROM deliveries
    WHERE state = 'pending'
), groups (app, receiver, n) AS (
    (
        SELECT app, receiver, 1 FROM pending
        WHERE (app, receiver) > ('00000000000000000000000000000000'::uuid::uuid, '' COLLATE "C")
        ORDER BY app, receiver LIMIT 1
    )
    UNION ALL
    SELECT later.app, later.receiver, groups.n + 1
    FROM groups
    CROSS JOIN LATERAL (
        SELECT app, receiver FROM pending
        WHERE (app, receiver) > (
            groups.app,
            CASE WHEN groups.app = ANY ('{}'::uuid[]) THEN chr(1114111) ELSE groups.receiver END COLLATE "C"
        )
        ORDER BY app, receiver LIMIT 1
    ) later
    WHERE groups.n < 500::int
), due AS (
    SELECT head.id, head.next_at, groups.app, groups.receiver,
        coalesce(held_apps.n, 0) AS of_app, coalesce(held_receivers.n, 0) AS of_receiver,
        head.nth + coalesce(held_apps.n, 0) + coalesce(held_receivers.n, 0) AS turn
    FROM (
        SELECT app, receiver FROM groups
        WHERE NOT EXISTS (
            SELECT FROM paused_receivers p WHERE p.app_id = groups.app AND p.receiver = groups.receiver
        )
    ) groups
    LEFT JOIN held_apps ON held_apps.app = groups.app
    LEFT JOIN held_receivers ON held_receivers.receiver = groups.receiver
    CROSS JOIN LATERAL (
        SELECT first.id, first.next_at, row_number() OVER (ORDER BY first.next_at) AS nth
        FROM (
            SELECT id, next_at FROM pending
            WHERE pending.app = groups.app AND pending.receiver = groups.receiver AND next_at <= now()
            ORDER BY next_at
            LIMIT greatest(0, least(
                1::int,
                1::int - coalesce(held_apps.n, 0),
                1::int - coalesce(held_receivers.n, 0)
            ))
        ) first
    ) head
), fair AS (
    SELECT id, next_at, turn,
        of_app + row_number() OVER (PARTITION BY app ORDER BY turn, next_at) AS app_nth,
        of_receiver + row_number() OVER (PARTITION BY receiver ORDER BY turn, next_at) AS receiver_nth
    FROM due
), chosen AS (
    SELECT id FROM fair
    WHERE app_nth <= 1::int AND receiver_nth <= 1::int
    ORDER BY turn, next_at LIMIT 1::int
)
SELECT
    (SELECT coalesce(array_agg(id), '{}') FROM chosen) AS ids,
    (SELECT count(*) FROM fair) > (SELECT count(*) FROM chosen) AS is_more, n, app, receiver
FROM groups
ORDER BY n DESC LIMIT 1;
-- ;
UPDATE deliveries SET state=CASE WHEN (deliveries.tries - deliveries.tries_before < 9::INTEGER) THEN 'pending'::VARCHAR ELSE 'failed'::VARCHAR END, tries=(deliveries.tries + CASE WHEN (deliveries.tries - deliveries.tries_before < 9::INTEGER) THEN 1::INTEGER ELSE 0::INTEGER END), last_error=CASE WHEN (deliveries.tries - deliveries.tries_before < 9::INTEGER) THEN deliveries.last_error ELSE 'The last try was begun and never reported: its worker died.'::VARCHAR END, next_at=(now() + '0:01:00'::interval) WHERE deliveries.id IN (SELECT deliveries.id 
FROM deliveries 
WHERE deliveries.id IN ('01a239b1ea83754480d2d2ddcdf7dab0'::uuid::UUID) AND deliveries.state = 'pending'::VARCHAR AND deliveries.next_at <= now() FOR UPDATE SKIP LOCKED) RETURNING deliveries.id, deliveries.job_id, deliveries.app_id, deliveries.event, deliveries.data, deliveries.url, deliveries.state, deliveries.tries, deliveries.last_status, deliveries.last_error, deliveries.created_at, deliveries.next_at, deliveries.delivered_at, deliveries.tries_before, lower("substring"(url COLLATE "C", '://([^/?#]*)'::text)) AS receiver
-- ;
SELECT gone_receivers.digest 
FROM gone_receivers 
WHERE gone_receivers.digest IN ('\x3e137a0b42966f8ed426390015d5e494cc6ea2de89bc08cd8c9a1f85c7f285c4'::bytea)
-- ;
SELECT jobs.id, jobs.state, jobs.ended_at 
FROM jobs 
WHERE jobs.id IN ('01a21000000070008000000000000002'::uuid::UUID)
-- ;
SELECT apps.id, apps.webhook_secret, CASE WHEN (apps.webhook_secret_old_until > now()) THEN apps.webhook_secret_old END AS old_secret 
FROM apps 
WHERE apps.id IN ('01a239b1ea67711297f531878d96dfe1'::uuid::UUID)
-- ;
UPDATE deliveries SET state='delivered'::VARCHAR, last_status=204::INTEGER, last_error=NULL::VARCHAR, delivered_at=now() WHERE deliveries.id = '01a239b1ea83754480d2d2ddcdf7dab0'::uuid::UUID AND deliveries.tries = 1::INTEGER
-- ;

-- part: lose
WITH given AS (
    SELECT * FROM json_to_recordset('[{"job_id":"01a21000-0000-7000-8000-000000000003","enqueue_no":1,"worker_id":"00000000-0000-0000-0000-0000000000a2","engine":"simulator"}]'::json) AS sent (job_id uuid, enqueue_no int, worker_id uuid, engine text)
    WHERE enqueue_no BETWEEN 0 AND 2147483647
), claimed AS (
    UPDATE jobs
    SET state = 'running', worker_id = given.worker_id, attempt = jobs.attempt + 1,
        started_at = coalesce(jobs.started_at, now())
    FROM given
    WHERE jobs.id = given.job_id AND jobs.id BETWEEN '01a19467-e800-0000-0000-000000000000' AND '01a22ee6-afff-ffff-ffff-ffffffffffff'
        AND jobs.id = ANY (ARRAY(SELECT job_id FROM given))
        AND jobs.state || '' = 'queued'
        AND jobs.enqueue_no = given.enqueue_no
        AND jobs.cancel_requested_at IS NULL
        AND (jobs.started_at IS NOT NULL OR jobs.start_by > now())
        AND (jobs.finish_by IS NULL OR jobs.finish_by > now())
        AND EXISTS (SELECT FROM workers WHERE workers.id = given.worker_id AND workers.lease_until > now())
    RETURNING jobs.*, given.engine
), begun AS (
    INSERT INTO attempts (job_id, number, worker_id, engine, started_at)
    SELECT id, attempt, worker_id, engine, now() FROM claimed
)
SELECT
    claimed.id, claimed.app_id, claimed.attempt, claimed.enqueue_no, claimed.worker_id, claimed.end_user, claimed.lane,
    claimed.pool, claimed.model_requested, claimed.overflow, claimed.max_cost_usd, claimed.prompt_tokens,
    claimed.start_by, claimed.finish_by, claimed.webhook_url, claimed.stream, claimed.suspicion, claimed.route,
    claimed.adapter, claimed.rule, claimed.stand_by, claimed.shadow_of, claimed.notes, job_texts.messages, job_texts.sampling,
    CASE WHEN false::boolean THEN set_config('synchronous_commit', 'off', true) END
FROM claimed
JOIN job_texts ON job_texts.job_id = claimed.id AND job_texts.job_id BETWEEN '01a19467-e800-0000-0000-000000000000' AND '01a22ee6-afff-ffff-ffff-ffffffffffff'
    AND job_texts.job_id = ANY (ARRAY(SELECT job_id FROM given));
-- ;
UPDATE workers SET running=0::INTEGER, ready=false, lease_until=now(), stopped_at=now(), stop_reason=NULL::VARCHAR WHERE workers.id = '000000000000000000000000000000a2'::uuid::UUID
-- ;
WITH free AS 
(SELECT locks.name AS name 
FROM locks 
WHERE locks.name = 'rescue'::VARCHAR FOR UPDATE SKIP LOCKED)
 SELECT EXISTS (SELECT free.name 
FROM free) AS anon_1, EXISTS (SELECT locks.name 
FROM locks 
WHERE locks.name = 'rescue'::VARCHAR) AS anon_2
-- ;
INSERT INTO locks (name) VALUES ('rescue'::VARCHAR) ON CONFLICT DO NOTHING RETURNING locks.name
-- ;
SELECT jobs.id, jobs.app_id, jobs.state, jobs.lane, jobs.pool, jobs.queue, jobs.route, jobs.route_reason, jobs.overflow, jobs.model_requested, jobs.model_served, jobs.adapter, jobs.notes, jobs.end_user, jobs.served_by_job, jobs.metadata, jobs.webhook_url, jobs.background, jobs.max_cost_usd, jobs.prompt_tokens, jobs.max_tokens, jobs.output_tokens, jobs.cached_tokens, jobs.reasoning_tokens, jobs.finish_reason, jobs.usd, jobs.error_code, jobs.error_message, jobs.enqueue_no, jobs.attempt, jobs.worker_id, jobs.created_at, jobs.start_by, jobs.finish_by, jobs.not_before, jobs.queued_at, jobs.started_at, jobs.ended_at, jobs.cancel_requested_at, jobs.stream, jobs.erased_at, jobs.suspicion, jobs.retry_of, jobs.overflow_at, jobs.original_tokens, jobs.cache, jobs.rule, jobs.stand_by, jobs.shadow, jobs.shadow_of, jobs.n, jobs.needs_version, jobs.start_after 
FROM jobs 
WHERE jobs.state = 'running' AND (jobs.worker_id IN (SELECT workers.id 
FROM workers 
WHERE workers.lease_until < now()) OR jobs.worker_id = '00000000000000000000000000000000'::uuid::UUID) 
 LIMIT 100::INTEGER FOR UPDATE SKIP LOCKED
-- ;
SELECT list_prices.id, list_prices.model, list_prices.valid_from, list_prices.valid_to, list_prices.input_usd_per_mtok, list_prices.cached_input_usd_per_mtok, list_prices.output_usd_per_mtok, list_prices.tiers, list_prices.source 
FROM list_prices 
WHERE list_prices.valid_to IS NULL ORDER BY list_prices.model
-- ;
SELECT DISTINCT ON (own_prices.pool) own_prices.id, own_prices.pool, own_prices.at, own_prices.instance_type, own_prices.usd_per_hour, own_prices.tokens_per_s, own_prices.work_per_token, own_prices.input_usd_per_mtok, own_prices.cached_input_usd_per_mtok, own_prices.output_usd_per_mtok 
FROM own_prices 
WHERE own_prices.pool IN (NULL) AND (1 != 1) ORDER BY own_prices.pool, own_prices.id DESC
-- ;
SELECT now() AS now_1
-- ;
UPDATE jobs SET state='waiting'::VARCHAR, worker_id=NULL::UUID, not_before=now() WHERE jobs.state IN ('running'::VARCHAR) AND (jobs.id, jobs.worker_id, jobs.attempt) IN (('01a21000000070008000000000000003'::uuid, '000000000000000000000000000000a2'::uuid, 1)) RETURNING jobs.id, jobs.app_id, jobs.state, jobs.lane, jobs.pool, jobs.queue, jobs.route, jobs.route_reason, jobs.overflow, jobs.model_requested, jobs.model_served, jobs.adapter, jobs.notes, jobs.end_user, jobs.served_by_job, jobs.metadata, jobs.webhook_url, jobs.background, jobs.max_cost_usd, jobs.prompt_tokens, jobs.max_tokens, jobs.output_tokens, jobs.cached_tokens, jobs.reasoning_tokens, jobs.finish_reason, jobs.usd, jobs.error_code, jobs.error_message, jobs.enqueue_no, jobs.attempt, jobs.worker_id, jobs.created_at, jobs.start_by, jobs.finish_by, jobs.not_before, jobs.queued_at, jobs.started_at, jobs.ended_at, jobs.cancel_requested_at, jobs.stream, jobs.erased_at, jobs.suspicion, jobs.retry_of, jobs.overflow_at, jobs.original_tokens, jobs.cache, jobs.rule, jobs.stand_by, jobs.shadow, jobs.shadow_of, jobs.n, jobs.needs_version, jobs.start_after
-- ;
UPDATE attempts SET ended_at=now(), outcome='lost'::VARCHAR WHERE (attempts.job_id, attempts.number) IN (('01a21000000070008000000000000003'::uuid, 1))
-- ;
INSERT INTO ledger (kind, job_id, attempt, app_id, end_user, pool, model, prompt_tokens, usd, price_version, estimated) VALUES ('waste'::VARCHAR, '01a21000000070008000000000000003'::uuid::UUID, 1::INTEGER, '01a239b1ea67711297f531878d96dfe1'::uuid::UUID, 'u'::VARCHAR, 'chat'::VARCHAR, 'smollm2-135m'::VARCHAR, 8::INTEGER, 4E-7, 'own-2026-11'::VARCHAR, true) RETURNING ledger.id
-- ;
UPDATE jobs SET state='queued'::VARCHAR, enqueue_no=(jobs.enqueue_no + 1::INTEGER), worker_id=NULL::UUID, not_before=NULL::TIMESTAMP WITH TIME ZONE, queued_at=now() WHERE jobs.state IN ('waiting'::VARCHAR) AND jobs.id = ANY (array((SELECT jobs.id 
FROM jobs 
WHERE jobs.state = 'waiting' AND jobs.not_before <= now() AND (jobs.needs_version IS NULL OR (EXISTS (SELECT * 
FROM workers 
WHERE workers.lease_until > now() AND workers.ready AND workers.pool = CASE WHEN (jobs.route = 'overflow'::VARCHAR) THEN 'overflow'::VARCHAR ELSE jobs.pool END AND workers.payload_version >= jobs.needs_version))) ORDER BY jobs.not_before 
 LIMIT 1000::INTEGER FOR UPDATE SKIP LOCKED))) RETURNING jobs.id, jobs.app_id, jobs.state, jobs.lane, jobs.pool, jobs.queue, jobs.route, jobs.route_reason, jobs.overflow, jobs.model_requested, jobs.model_served, jobs.adapter, jobs.notes, jobs.end_user, jobs.served_by_job, jobs.metadata, jobs.webhook_url, jobs.background, jobs.max_cost_usd, jobs.prompt_tokens, jobs.max_tokens, jobs.output_tokens, jobs.cached_tokens, jobs.reasoning_tokens, jobs.finish_reason, jobs.usd, jobs.error_code, jobs.error_message, jobs.enqueue_no, jobs.attempt, jobs.worker_id, jobs.created_at, jobs.start_by, jobs.finish_by, jobs.not_before, jobs.queued_at, jobs.started_at, jobs.ended_at, jobs.cancel_requested_at, jobs.stream, jobs.erased_at, jobs.suspicion, jobs.retry_of, jobs.overflow_at, jobs.original_tokens, jobs.cache, jobs.rule, jobs.stand_by, jobs.shadow, jobs.shadow_of, jobs.n, jobs.needs_version, jobs.start_after
-- ;

-- part: finish lost
WITH given AS (
    SELECT * FROM json_to_recordset('[{"job_id":"01a21000-0000-7000-8000-000000000003","enqueue_no":2,"worker_id":"00000000-0000-0000-0000-0000000000a1","engine":"simulator"}]'::json) AS sent (job_id uuid, enqueue_no int, worker_id uuid, engine text)
    WHERE enqueue_no BETWEEN 0 AND 2147483647
), claimed AS (
    UPDATE jobs
    SET state = 'running', worker_id = given.worker_id, attempt = jobs.attempt + 1,
        started_at = coalesce(jobs.started_at, now())
    FROM given
    WHERE jobs.id = given.job_id AND jobs.id BETWEEN '01a19467-e800-0000-0000-000000000000' AND '01a22ee6-afff-ffff-ffff-ffffffffffff'
        AND jobs.id = ANY (ARRAY(SELECT job_id FROM given))
        AND jobs.state || '' = 'queued'
        AND jobs.enqueue_no = given.enqueue_no
        AND jobs.cancel_requested_at IS NULL
        AND (jobs.started_at IS NOT NULL OR jobs.start_by > now())
        AND (jobs.finish_by IS NULL OR jobs.finish_by > now())
        AND EXISTS (SELECT FROM workers WHERE workers.id = given.worker_id AND workers.lease_until > now())
    RETURNING jobs.*, given.engine
), begun AS (
    INSERT INTO attempts (job_id, number, worker_id, engine, started_at)
    SELECT id, attempt, worker_id, engine, now() FROM claimed
)
SELECT
    claimed.id, claimed.app_id, claimed.attempt, claimed.enqueue_no, claimed.worker_id, claimed.end_user, claimed.lane,
    claimed.pool, claimed.model_requested, claimed.overflow, claimed.max_cost_usd, claimed.prompt_tokens,
    claimed.start_by, claimed.finish_by, claimed.webhook_url, claimed.stream, claimed.suspicion, claimed.route,
    claimed.adapter, claimed.rule, claimed.stand_by, claimed.shadow_of, claimed.notes, job_texts.messages, job_texts.sampling,
    CASE WHEN false::boolean THEN set_config('synchronous_commit', 'off', true) END
FROM claimed
JOIN job_texts ON job_texts.job_id = claimed.id AND job_texts.job_id BETWEEN '01a19467-e800-0000-0000-000000000000' AND '01a22ee6-afff-ffff-ffff-ffffffffffff'
    AND job_texts.job_id = ANY (ARRAY(SELECT job_id FROM given));
-- ;
WITH given AS (
    SELECT * FROM json_to_recordset('[{"job_id":"01a21000-0000-7000-8000-000000000003","worker_id":"00000000-0000-0000-0000-0000000000a1","attempt":2,"enqueue_no":2,"app_id":"01a239b1-ea67-7112-97f5-31878d96dfe1","end_user":"u","pool":"chat","model":"m","model_served":"m","host_id":"host","kind":"compute","outcome":"succeeded","error_code":null,"error_cause":null,"prompt_tokens":8,"cached_tokens":0,"output_tokens":3,"engine_s":0.5,"first_token_s":null,"preemptions":0,"kv_token_s":5.5,"usd":"0.000001","price_version":"old-1","api_usd":null,"estimated":false,"original_tokens":null,"saved_usd":null,"reason":null,"escalated_by":null,"charged_usd":"0.000001","finish_reason":"stop","error_message":null,"answer":"A channel.","logprobs_json":null,"reasoning":null,"tool_calls":null,"reasoning_tokens":0,"choices":null,"notes":null}]'::json) AS sent (
        job_id uuid, worker_id uuid, attempt int, enqueue_no int, app_id uuid, end_user text, pool text, model text,
        model_served text, host_id text, kind text, outcome text, error_code text, error_message text,
        finish_reason text, prompt_tokens int, cached_tokens int, output_tokens int, reasoning_tokens int,
        original_tokens int, engine_s float8, first_token_s float8, preemptions int, kv_token_s float8, usd numeric,
        charged_usd numeric, price_version text, api_usd numeric, estimated boolean, saved_usd numeric, reason text,
        escalated_by text, error_cause text, notes jsonb, answer text, logprobs_json json, reasoning text, tool_calls jsonb, choices json
    )
    WHERE enqueue_no BETWEEN 0 AND 2147483647
), moved AS (
    UPDATE jobs
    SET state = 'succeeded', worker_id = NULL, ended_at = now(), usd = given.charged_usd,
        prompt_tokens = coalesce(nullif(given.prompt_tokens, 0), jobs.prompt_tokens),
        output_tokens = given.output_tokens, cached_tokens = given.cached_tokens,
        reasoning_tokens = given.reasoning_tokens, original_tokens = given.original_tokens,
        finish_reason = given.finish_reason, model_served = given.model_served,
        error_code = given.error_code, error_message = given.error_message,
        notes = CASE WHEN given.notes IS NULL THEN jobs.notes ELSE coalesce(jobs.notes, '{}') || given.notes END
    FROM given
    WHERE jobs.id = given.job_id AND jobs.id BETWEEN '01a19467-e800-0000-0000-000000000000' AND '01a22ee6-afff-ffff-ffff-ffffffffffff'
        AND jobs.id = ANY (ARRAY(SELECT job_id FROM given))
        AND jobs.state || '' = 'running'
        AND jobs.worker_id = given.worker_id AND jobs.attempt = given.attempt
        AND jobs.enqueue_no = given.enqueue_no
    RETURNING jobs.id, jobs.app_id, jobs.state, jobs.finish_reason, jobs.webhook_url
), held AS (
    SELECT given.* FROM given JOIN moved ON moved.id = given.job_id
), ended AS (
    UPDATE attempts
    SET ended_at = now(), outcome = held.outcome, error_code = held.error_code, model_served = held.model_served,
        first_token_s = held.first_token_s, preemptions = held.preemptions, escalated_by = held.escalated_by,
        error_cause = held.error_cause,
        prompt_tokens = held.prompt_tokens, cached_tokens = held.cached_tokens, output_tokens = held.output_tokens,
        engine_s = held.engine_s
    FROM held
    WHERE attempts.job_id = held.job_id AND attempts.job_id BETWEEN '01a19467-e800-0000-0000-000000000000' AND '01a22ee6-afff-ffff-ffff-ffffffffffff'
        AND attempts.job_id = ANY (ARRAY(SELECT job_id FROM given))
        AND attempts.number = held.attempt
), booked AS (
    INSERT INTO ledger (
        kind, job_id, attempt, app_id, end_user, pool, model, host_id, prompt_tokens, cached_tokens, output_tokens,
        engine_s, kv_token_s, usd, price_version, api_usd, estimated, saved_usd, reason
    )
    SELECT
        kind, job_id, attempt, app_id, end_user, pool, model, host_id, prompt_tokens, cached_tokens, output_tokens,
        engine_s, kv_token_s, usd, price_version, api_usd, estimated, saved_usd, reason
    FROM held
), answered AS (
    UPDATE job_texts
    SET answer = held.answer, logprobs_json = held.logprobs_json, reasoning = held.reasoning,
        tool_calls = held.tool_calls, choices = held.choices
    FROM held
    WHERE job_texts.job_id = held.job_id AND job_texts.job_id BETWEEN '01a19467-e800-0000-0000-000000000000' AND '01a22ee6-afff-ffff-ffff-ffffffffffff'
        AND job_texts.job_id = ANY (ARRAY(SELECT job_id FROM given))
        AND held.answer IS NOT NULL
)
SELECT * FROM moved;
-- ;

-- part: insert leader
WITH given AS (
    SELECT * FROM json_to_recordset( E'[{"cache":"miss","cache_key":"\\\\x6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b","id":"01a21000-0000-7000-8000-000000000004","app_id":"01a239b1-ea67-7112-97f5-31878d96dfe1","state":"queued","lane":"normal","pool":"chat","queue":"overflow.normal","route":"overflow","route_reason":"the pool is full","overflow":"allow","model_requested":"smollm2-135m","rule":null,"shadow":null,"adapter":null,"end_user":null,"metadata":{},"webhook_url":null,"background":true,"stream":false,"max_cost_usd":null,"prompt_tokens":8,"max_tokens":16,"n":null,"max_wait_s":30.0,"not_before":null,"finish_by":null,"messages":[{"role":"user","content":"What is a headrace?"}],"sampling":{"max_tokens":16}}]'::json) AS sent (
        id uuid, app_id uuid, state text, lane text, pool text, queue text, route text, route_reason text,
        overflow text, model_requested text, adapter text, end_user text, metadata jsonb, webhook_url text,
        background boolean, stream boolean, max_cost_usd numeric, prompt_tokens int, max_tokens int,
        not_before timestamptz, finish_by timestamptz, cache text, rule text, shadow text, n smallint, max_wait_s float8,
        notes jsonb, start_after timestamptz,
        messages jsonb, sampling jsonb, cache_key bytea, is_unstored boolean, key text, request_hash bytea
    )
), wanted AS (
    SELECT DISTINCT ON (app_id, key) app_id, key, request_hash, id
    FROM given
    WHERE key IS NOT NULL
    ORDER BY app_id, key, id
), free AS (
    SELECT * FROM wanted
    WHERE pg_try_advisory_xact_lock(
        hashtextextended((SELECT webhook_secret FROM apps WHERE apps.id = wanted.app_id) || wanted.key, 0)
    )
), taken AS (
    INSERT INTO idempotency_keys (app_id, key, request_hash, job_id, expires_at)
    SELECT app_id, key, request_hash, id, now() + '1 day 0:00:00'::interval::interval FROM free
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
-- ;

-- part: follow
WITH asked AS (
    SELECT * FROM json_to_recordset( E'[{"cache_key":"\\\\x6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b","id":"01a21000-0000-7000-8000-000000000005","app_id":"01a239b1-ea67-7112-97f5-31878d96dfe1","state":"waiting","lane":"normal","pool":"chat","queue":"chat.normal","route":"pool","route_reason":"follows job_01a21000000070008000000000000004","overflow":"allow","model_requested":"smollm2-135m","rule":null,"shadow":null,"adapter":null,"end_user":null,"metadata":{},"webhook_url":null,"background":true,"stream":false,"max_cost_usd":null,"prompt_tokens":8,"max_tokens":16,"n":null,"max_wait_s":30.0,"not_before":null,"finish_by":null,"messages":[{"role":"user","content":"What is a headrace?"}],"sampling":{"max_tokens":16},"cache":"shared","leader_id":"01a21000-0000-7000-8000-000000000004"}]'::json) AS sent (
        id uuid, app_id uuid, state text, lane text, pool text, queue text, route text, route_reason text,
        overflow text, model_requested text, adapter text, end_user text, metadata jsonb, webhook_url text,
        background boolean, stream boolean, max_cost_usd numeric, prompt_tokens int, max_tokens int,
        finish_by timestamptz, cache text, rule text, shadow text, n smallint, max_wait_s float8,
        notes jsonb,
        messages jsonb, sampling jsonb, key text, request_hash bytea, leader_id uuid
    )
    WHERE id BETWEEN '00000000-0000-0000-0000-000000000000' AND 'ffffffff-ffff-ffff-ffff-ffffffffffff'
), given AS (
    SELECT asked.* FROM asked
    JOIN jobs leader ON leader.id = asked.leader_id AND leader.app_id = asked.app_id
    WHERE leader.state NOT IN ('succeeded', 'failed', 'cancelled', 'expired') AND leader.served_by_job IS NULL
), wanted AS (
    SELECT DISTINCT ON (app_id, key) app_id, key, request_hash, id
    FROM given
    WHERE key IS NOT NULL
    ORDER BY app_id, key, id
), free AS (
    SELECT * FROM wanted
    WHERE pg_try_advisory_xact_lock(
        hashtextextended((SELECT webhook_secret FROM apps WHERE apps.id = wanted.app_id) || wanted.key, 0)
    )
), taken AS (
    INSERT INTO idempotency_keys (app_id, key, request_hash, job_id, expires_at)
    SELECT app_id, key, request_hash, id, now() + '1 day 0:00:00'::interval::interval FROM free
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
-- ;
WITH given AS (
    SELECT * FROM json_to_recordset('[{"app_id":"01a239b1-ea67-7112-97f5-31878d96dfe1","job_id":"01a21000-0000-7000-8000-000000000005"}]'::json) AS sent (app_id uuid, job_id uuid)
    WHERE job_id BETWEEN '00000000-0000-0000-0000-000000000000' AND 'ffffffff-ffff-ffff-ffff-ffffffffffff'
)
SELECT
    jobs.id, jobs.app_id, jobs.state, jobs.lane, jobs.pool, jobs.queue, jobs.route, jobs.route_reason, jobs.overflow,
    jobs.model_requested, jobs.model_served, jobs.metadata, jobs.end_user, jobs.background, jobs.stream,
    jobs.prompt_tokens, jobs.max_tokens, jobs.output_tokens, jobs.cached_tokens, jobs.reasoning_tokens,
    jobs.original_tokens, jobs.finish_reason, jobs.usd, jobs.error_code, jobs.error_message, jobs.enqueue_no,
    jobs.attempt, jobs.suspicion, jobs.created_at, jobs.start_after, jobs.start_by, jobs.finish_by, jobs.started_at, jobs.ended_at,
    jobs.cancel_requested_at, jobs.retry_of, jobs.cache, jobs.served_by_job, jobs.n,
    attempts.engine, ledger.price_version, job_texts.tool_calls,
    job_texts.sampling ->> 'reasoning_effort' AS reasoning_effort,
    CASE WHEN NOT false::boolean OR jobs.max_tokens > 0 THEN job_texts.answer END AS answer,
    CASE WHEN NOT false::boolean THEN job_texts.reasoning END AS reasoning,
    CASE WHEN NOT false::boolean AND true::boolean THEN job_texts.sampling -> 'tools' END AS tools,
    CASE WHEN NOT false::boolean THEN job_texts.choices END AS others,
    CASE WHEN NOT false::boolean THEN coalesce(job_texts.logprobs_json::text, job_texts.logprobs::text) END
        AS logprobs,
    jobs.state IN ('waiting', 'queued')
        AND (jobs.started_at IS NULL AND jobs.start_by <= now() OR coalesce(jobs.finish_by <= now(), false)) AS is_over,
    false AS is_leader_ended
FROM given
JOIN jobs ON jobs.id = given.job_id AND jobs.app_id = given.app_id AND jobs.id BETWEEN '01a19467-e800-0000-0000-000000000000' AND '01a22ee6-afff-ffff-ffff-ffffffffffff'
    AND jobs.id = ANY (ARRAY(SELECT job_id FROM given))
JOIN job_texts ON job_texts.job_id = jobs.id AND job_texts.job_id BETWEEN '01a19467-e800-0000-0000-000000000000' AND '01a22ee6-afff-ffff-ffff-ffffffffffff'
    AND job_texts.job_id = ANY (ARRAY(SELECT job_id FROM given))
LEFT JOIN attempts ON attempts.job_id = jobs.id AND attempts.job_id BETWEEN '01a19467-e800-0000-0000-000000000000' AND '01a22ee6-afff-ffff-ffff-ffffffffffff'
    AND attempts.job_id = ANY (ARRAY(SELECT job_id FROM given))
    AND attempts.number = jobs.attempt
LEFT JOIN ledger ON ledger.job_id = jobs.id AND ledger.job_id BETWEEN '01a19467-e800-0000-0000-000000000000' AND '01a22ee6-afff-ffff-ffff-ffffffffffff'
    AND ledger.job_id = ANY (ARRAY(SELECT job_id FROM given))
    AND ledger.kind IN ('compute', 'api', 'cache');
-- ;
WITH given AS (
    SELECT * FROM json_to_recordset('[{"app_id":"01a239b1-ea67-7112-97f5-31878d96dfe1","job_id":"01a21000-0000-7000-8000-000000000005"}]'::json) AS sent (app_id uuid, job_id uuid)
    WHERE job_id BETWEEN '00000000-0000-0000-0000-000000000000' AND 'ffffffff-ffff-ffff-ffff-ffffffffffff'
)
SELECT
    jobs.id, jobs.app_id, jobs.state, jobs.lane, jobs.pool, jobs.queue, jobs.route, jobs.route_reason, jobs.overflow,
    jobs.model_requested, jobs.model_served, jobs.metadata, jobs.end_user, jobs.background, jobs.stream,
    jobs.prompt_tokens, jobs.max_tokens, jobs.output_tokens, jobs.cached_tokens, jobs.reasoning_tokens,
    jobs.original_tokens, jobs.finish_reason, jobs.usd, jobs.error_code, jobs.error_message, jobs.enqueue_no,
    jobs.attempt, jobs.suspicion, jobs.created_at, jobs.start_after, jobs.start_by, jobs.finish_by, jobs.started_at, jobs.ended_at,
    jobs.cancel_requested_at, jobs.retry_of, jobs.cache, jobs.served_by_job, jobs.n,
    attempts.engine, ledger.price_version, job_texts.tool_calls,
    job_texts.sampling ->> 'reasoning_effort' AS reasoning_effort,
    CASE WHEN NOT false::boolean OR jobs.max_tokens > 0 THEN job_texts.answer END AS answer,
    CASE WHEN NOT false::boolean THEN job_texts.reasoning END AS reasoning,
    CASE WHEN NOT false::boolean AND true::boolean THEN job_texts.sampling -> 'tools' END AS tools,
    CASE WHEN NOT false::boolean THEN job_texts.choices END AS others,
    CASE WHEN NOT false::boolean THEN coalesce(job_texts.logprobs_json::text, job_texts.logprobs::text) END
        AS logprobs,
    jobs.state IN ('waiting', 'queued') AND (
        jobs.started_at IS NULL AND jobs.start_by <= now() AND leader.started_at IS NULL
        OR coalesce(jobs.finish_by <= now(), false)
    ) AS is_over,
    jobs.state = 'waiting' AND coalesce(leader.state IN ('succeeded', 'failed', 'cancelled', 'expired'), false)
        AS is_leader_ended
FROM given
JOIN jobs ON jobs.id = given.job_id AND jobs.app_id = given.app_id AND jobs.id BETWEEN '01a19467-e800-0000-0000-000000000000' AND '01a22ee6-afff-ffff-ffff-ffffffffffff'
    AND jobs.id = ANY (ARRAY(SELECT job_id FROM given))
JOIN job_texts ON job_texts.job_id = jobs.id AND job_texts.job_id BETWEEN '01a19467-e800-0000-0000-000000000000' AND '01a22ee6-afff-ffff-ffff-ffffffffffff'
    AND job_texts.job_id = ANY (ARRAY(SELECT job_id FROM given))
LEFT JOIN attempts ON attempts.job_id = jobs.id AND attempts.job_id BETWEEN '01a19467-e800-0000-0000-000000000000' AND '01a22ee6-afff-ffff-ffff-ffffffffffff'
    AND attempts.job_id = ANY (ARRAY(SELECT job_id FROM given))
    AND attempts.number = jobs.attempt
LEFT JOIN ledger ON ledger.job_id = jobs.id AND ledger.job_id BETWEEN '01a19467-e800-0000-0000-000000000000' AND '01a22ee6-afff-ffff-ffff-ffffffffffff'
    AND ledger.job_id = ANY (ARRAY(SELECT job_id FROM given))
    AND ledger.kind IN ('compute', 'api', 'cache')
LEFT JOIN jobs leader ON leader.id = jobs.served_by_job;
-- ;

-- part: retry
WITH given AS (
    SELECT * FROM json_to_recordset('[{"job_id":"01a21000-0000-7000-8000-000000000004","enqueue_no":1,"worker_id":"00000000-0000-0000-0000-0000000000a1","engine":"openai"}]'::json) AS sent (job_id uuid, enqueue_no int, worker_id uuid, engine text)
    WHERE enqueue_no BETWEEN 0 AND 2147483647
), claimed AS (
    UPDATE jobs
    SET state = 'running', worker_id = given.worker_id, attempt = jobs.attempt + 1,
        started_at = coalesce(jobs.started_at, now())
    FROM given
    WHERE jobs.id = given.job_id AND jobs.id BETWEEN '01a19467-e800-0000-0000-000000000000' AND '01a22ee6-afff-ffff-ffff-ffffffffffff'
        AND jobs.id = ANY (ARRAY(SELECT job_id FROM given))
        AND jobs.state || '' = 'queued'
        AND jobs.enqueue_no = given.enqueue_no
        AND jobs.cancel_requested_at IS NULL
        AND (jobs.started_at IS NOT NULL OR jobs.start_by > now())
        AND (jobs.finish_by IS NULL OR jobs.finish_by > now())
        AND EXISTS (SELECT FROM workers WHERE workers.id = given.worker_id AND workers.lease_until > now())
    RETURNING jobs.*, given.engine
), begun AS (
    INSERT INTO attempts (job_id, number, worker_id, engine, started_at)
    SELECT id, attempt, worker_id, engine, now() FROM claimed
)
SELECT
    claimed.id, claimed.app_id, claimed.attempt, claimed.enqueue_no, claimed.worker_id, claimed.end_user, claimed.lane,
    claimed.pool, claimed.model_requested, claimed.overflow, claimed.max_cost_usd, claimed.prompt_tokens,
    claimed.start_by, claimed.finish_by, claimed.webhook_url, claimed.stream, claimed.suspicion, claimed.route,
    claimed.adapter, claimed.rule, claimed.stand_by, claimed.shadow_of, claimed.notes, job_texts.messages, job_texts.sampling,
    CASE WHEN true::boolean THEN set_config('synchronous_commit', 'off', true) END
FROM claimed
JOIN job_texts ON job_texts.job_id = claimed.id AND job_texts.job_id BETWEEN '01a19467-e800-0000-0000-000000000000' AND '01a22ee6-afff-ffff-ffff-ffffffffffff'
    AND job_texts.job_id = ANY (ARRAY(SELECT job_id FROM given));
-- ;
WITH given AS (
    SELECT * FROM json_to_recordset('[{"job_id":"01a21000-0000-7000-8000-000000000004","worker_id":"00000000-0000-0000-0000-0000000000a1","attempt":1,"enqueue_no":1}]'::json) AS sent (job_id uuid, worker_id uuid, attempt int, enqueue_no int)
    WHERE enqueue_no BETWEEN 0 AND 2147483647
)
SELECT jobs.id
FROM given
JOIN jobs ON jobs.id = given.job_id AND jobs.id BETWEEN '01a19467-e800-0000-0000-000000000000' AND '01a22ee6-afff-ffff-ffff-ffffffffffff'
    AND jobs.id = ANY (ARRAY(SELECT job_id FROM given))
    AND jobs.worker_id = given.worker_id AND jobs.attempt = given.attempt AND jobs.enqueue_no = given.enqueue_no
WHERE jobs.state || '' = 'running'
FOR UPDATE OF jobs;
-- ;
SELECT attempts.job_id, attempts.number, attempts.started_at, apps.day_usd, apps.month_usd, budget_limits.day_usd AS together_day_usd, budget_limits.month_usd AS together_month_usd, budget_limits.set_at AS together_set_at 
FROM attempts JOIN jobs ON jobs.id = attempts.job_id JOIN apps ON apps.id = jobs.app_id LEFT OUTER JOIN budget_limits ON true 
WHERE attempts.job_id = ANY ('{01a21000000070008000000000000004}'::uuid[]::UUID[])
-- ;
SELECT budgets.id, budgets.app_id, budgets.period, budgets.starts_at, budgets.reserved_usd, budgets.spent_usd, budgets.told_percent, budgets.short_at, budgets.told_reserved_percent, budgets.reserved_short_at, budgets.limit_usd 
FROM budgets 
WHERE (budgets.app_id = ANY ('{01a239b1ea67711297f531878d96dfe1}'::uuid[]::UUID[]) OR budgets.app_id IS NULL) AND (budgets.period = 'day'::VARCHAR AND budgets.starts_at = date_trunc('day'::VARCHAR, '2026-12-03 02:18:10.992273+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, 'UTC'::VARCHAR) OR budgets.period = 'month'::VARCHAR AND budgets.starts_at = date_trunc('month'::VARCHAR, '2026-12-03 02:18:10.992273+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, 'UTC'::VARCHAR))
-- ;
INSERT INTO budgets (id, app_id, period, starts_at) VALUES ('01a239b1eab573c592570d4d3119e959'::uuid::UUID, NULL::UUID, 'day'::VARCHAR, date_trunc('day'::VARCHAR, '2026-12-03 02:18:10.992273+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, 'UTC'::VARCHAR)), ('01a239b1eab573c592570d4eb30d3bca'::uuid::UUID, NULL::UUID, 'month'::VARCHAR, date_trunc('month'::VARCHAR, '2026-12-03 02:18:10.992273+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, 'UTC'::VARCHAR)), ('01a239b1eab573c592570d4fe6d9a018'::uuid::UUID, '01a239b1ea67711297f531878d96dfe1'::uuid::UUID, 'day'::VARCHAR, date_trunc('day'::VARCHAR, '2026-12-03 02:18:10.992273+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, 'UTC'::VARCHAR)), ('01a239b1eab573c592570d5035a316a7'::uuid::UUID, '01a239b1ea67711297f531878d96dfe1'::uuid::UUID, 'month'::VARCHAR, date_trunc('month'::VARCHAR, '2026-12-03 02:18:10.992273+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, 'UTC'::VARCHAR)) ON CONFLICT DO NOTHING
-- ;
SELECT budgets.id, budgets.app_id, budgets.period, budgets.starts_at, budgets.reserved_usd, budgets.spent_usd, budgets.told_percent, budgets.short_at, budgets.told_reserved_percent, budgets.reserved_short_at, budgets.limit_usd 
FROM budgets 
WHERE (budgets.app_id = ANY ('{01a239b1ea67711297f531878d96dfe1}'::uuid[]::UUID[]) OR budgets.app_id IS NULL) AND (budgets.period = 'day'::VARCHAR AND budgets.starts_at = date_trunc('day'::VARCHAR, '2026-12-03 02:18:10.992273+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, 'UTC'::VARCHAR) OR budgets.period = 'month'::VARCHAR AND budgets.starts_at = date_trunc('month'::VARCHAR, '2026-12-03 02:18:10.992273+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, 'UTC'::VARCHAR)) ORDER BY budgets.app_id NULLS FIRST, budgets.period DESC FOR UPDATE
-- ;
UPDATE budgets SET reserved_usd=(budgets.reserved_usd + sent.reserved), spent_usd=(budgets.spent_usd + sent.spent) FROM json_to_recordset('[{"id": "01a239b1-eab5-73c5-9257-0d4eb30d3bca", "reserved": "0.01", "spent": "0"}, {"id": "01a239b1-eab5-73c5-9257-0d4d3119e959", "reserved": "0.01", "spent": "0"}, {"id": "01a239b1-eab5-73c5-9257-0d5035a316a7", "reserved": "0.01", "spent": "0"}, {"id": "01a239b1-eab5-73c5-9257-0d4fe6d9a018", "reserved": "0.01", "spent": "0"}]'::json::JSON) AS sent(id UUID, reserved NUMERIC(18, 9), spent NUMERIC(18, 9)) WHERE budgets.id = sent.id
-- ;
UPDATE attempts SET reserved_usd=sent.usd FROM json_to_recordset('[{"job_id": "01a21000-0000-7000-8000-000000000004", "number": 1, "usd": "0.01"}]'::json::JSON) AS sent(job_id UUID, number INTEGER, usd NUMERIC(18, 9)) WHERE attempts.job_id = sent.job_id AND attempts.number = sent.number AND attempts.job_id = ANY ('{01a21000000070008000000000000004}'::uuid[]::UUID[])
-- ;
UPDATE jobs SET state='waiting'::VARCHAR, worker_id=NULL::UUID, not_before=(now() + '0:00:00'::interval) WHERE jobs.state IN ('running'::VARCHAR) AND jobs.id = '01a21000000070008000000000000004'::uuid::UUID AND jobs.worker_id = '000000000000000000000000000000a1'::uuid::UUID AND jobs.attempt = 1::INTEGER AND jobs.enqueue_no = 1::INTEGER AND jobs.cancel_requested_at IS NULL RETURNING jobs.id, jobs.app_id, jobs.state, jobs.lane, jobs.pool, jobs.queue, jobs.route, jobs.route_reason, jobs.overflow, jobs.model_requested, jobs.model_served, jobs.adapter, jobs.notes, jobs.end_user, jobs.served_by_job, jobs.metadata, jobs.webhook_url, jobs.background, jobs.max_cost_usd, jobs.prompt_tokens, jobs.max_tokens, jobs.output_tokens, jobs.cached_tokens, jobs.reasoning_tokens, jobs.finish_reason, jobs.usd, jobs.error_code, jobs.error_message, jobs.enqueue_no, jobs.attempt, jobs.worker_id, jobs.created_at, jobs.start_by, jobs.finish_by, jobs.not_before, jobs.queued_at, jobs.started_at, jobs.ended_at, jobs.cancel_requested_at, jobs.stream, jobs.erased_at, jobs.suspicion, jobs.retry_of, jobs.overflow_at, jobs.original_tokens, jobs.cache, jobs.rule, jobs.stand_by, jobs.shadow, jobs.shadow_of, jobs.n, jobs.needs_version, jobs.start_after
-- ;
WITH given AS (
    SELECT * FROM json_to_recordset('[{"job_id":"01a21000-0000-7000-8000-000000000004","worker_id":"00000000-0000-0000-0000-0000000000a1","attempt":1,"enqueue_no":1,"app_id":"01a239b1-ea67-7112-97f5-31878d96dfe1","end_user":null,"pool":"chat","model":"smollm2-135m","model_served":null,"host_id":null,"kind":"waste","outcome":"failed","error_code":"engine_error","error_cause":null,"prompt_tokens":0,"cached_tokens":0,"output_tokens":0,"engine_s":0.5,"first_token_s":null,"preemptions":0,"kv_token_s":0.0,"usd":"0","price_version":"old-1","api_usd":null,"estimated":false,"original_tokens":null,"saved_usd":null,"reason":null,"escalated_by":null}]'::json) AS sent (
        job_id uuid, attempt int, enqueue_no int, app_id uuid, end_user text, pool text, model text, model_served text,
        host_id text, kind text, outcome text, error_code text, prompt_tokens int, cached_tokens int,
        output_tokens int, engine_s float8, first_token_s float8, preemptions int, kv_token_s float8, usd numeric,
        price_version text, api_usd numeric, estimated boolean, saved_usd numeric, reason text, escalated_by text,
        error_cause text
    )
    WHERE enqueue_no BETWEEN 0 AND 2147483647
), ended AS (
    UPDATE attempts
    SET ended_at = now(), outcome = given.outcome, error_code = given.error_code, model_served = given.model_served,
        first_token_s = given.first_token_s, preemptions = given.preemptions, escalated_by = given.escalated_by,
        error_cause = given.error_cause,
        prompt_tokens = given.prompt_tokens, cached_tokens = given.cached_tokens, output_tokens = given.output_tokens,
        engine_s = given.engine_s
    FROM given
    WHERE attempts.job_id = given.job_id AND attempts.job_id BETWEEN '01a19467-e800-0000-0000-000000000000' AND '01a22ee6-afff-ffff-ffff-ffffffffffff'
        AND attempts.job_id = ANY (ARRAY(SELECT job_id FROM given))
        AND attempts.number = given.attempt
), booked AS (
    INSERT INTO ledger (
        kind, job_id, attempt, app_id, end_user, pool, model, host_id, prompt_tokens, cached_tokens, output_tokens,
        engine_s, kv_token_s, usd, price_version, api_usd, estimated, saved_usd, reason
    )
    SELECT
        kind, job_id, attempt, app_id, end_user, pool, model, host_id, prompt_tokens, cached_tokens, output_tokens,
        engine_s, kv_token_s, usd, price_version, api_usd, estimated, saved_usd, reason
    FROM given
)
SELECT FROM given WHERE false;
-- ;
SELECT attempts.job_id, attempts.number, attempts.started_at, attempts.reserved_usd 
FROM attempts 
WHERE attempts.job_id = ANY ('{01a21000000070008000000000000004}'::uuid[]::UUID[]) AND attempts.reserved_usd > 0::INTEGER FOR UPDATE
-- ;
UPDATE attempts SET reserved_usd=sent.usd FROM json_to_recordset('[{"job_id": "01a21000-0000-7000-8000-000000000004", "number": 1, "usd": "0"}]'::json::JSON) AS sent(job_id UUID, number INTEGER, usd NUMERIC(18, 9)) WHERE attempts.job_id = sent.job_id AND attempts.number = sent.number AND attempts.job_id = ANY ('{01a21000000070008000000000000004}'::uuid[]::UUID[])
-- ;
SELECT budgets.id, budgets.app_id, budgets.period, budgets.starts_at, budgets.reserved_usd, budgets.spent_usd, budgets.told_percent, budgets.short_at, budgets.told_reserved_percent, budgets.reserved_short_at, budgets.limit_usd 
FROM budgets 
WHERE (budgets.app_id = ANY ('{01a239b1ea67711297f531878d96dfe1}'::uuid[]::UUID[]) OR budgets.app_id IS NULL) AND (budgets.period = 'day'::VARCHAR AND budgets.starts_at = date_trunc('day'::VARCHAR, '2026-12-03 02:18:10.992273+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, 'UTC'::VARCHAR) OR budgets.period = 'month'::VARCHAR AND budgets.starts_at = date_trunc('month'::VARCHAR, '2026-12-03 02:18:10.992273+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, 'UTC'::VARCHAR)) ORDER BY budgets.app_id NULLS FIRST, budgets.period DESC FOR UPDATE
-- ;
UPDATE budgets SET reserved_usd=(budgets.reserved_usd + sent.reserved), spent_usd=(budgets.spent_usd + sent.spent) FROM json_to_recordset('[{"id": "01a239b1-eab5-73c5-9257-0d4eb30d3bca", "reserved": "-0.010000000", "spent": "0"}, {"id": "01a239b1-eab5-73c5-9257-0d4d3119e959", "reserved": "-0.010000000", "spent": "0"}, {"id": "01a239b1-eab5-73c5-9257-0d5035a316a7", "reserved": "-0.010000000", "spent": "0"}, {"id": "01a239b1-eab5-73c5-9257-0d4fe6d9a018", "reserved": "-0.010000000", "spent": "0"}]'::json::JSON) AS sent(id UUID, reserved NUMERIC(18, 9), spent NUMERIC(18, 9)) WHERE budgets.id = sent.id
-- ;
UPDATE jobs SET state='queued'::VARCHAR, enqueue_no=(jobs.enqueue_no + 1::INTEGER), worker_id=NULL::UUID, not_before=NULL::TIMESTAMP WITH TIME ZONE, queued_at=now() WHERE jobs.state IN ('waiting'::VARCHAR) AND jobs.id = ANY (array((SELECT jobs.id 
FROM jobs 
WHERE jobs.state = 'waiting' AND jobs.not_before <= now() AND (jobs.needs_version IS NULL OR (EXISTS (SELECT * 
FROM workers 
WHERE workers.lease_until > now() AND workers.ready AND workers.pool = CASE WHEN (jobs.route = 'overflow'::VARCHAR) THEN 'overflow'::VARCHAR ELSE jobs.pool END AND workers.payload_version >= jobs.needs_version))) ORDER BY jobs.not_before 
 LIMIT 1000::INTEGER FOR UPDATE SKIP LOCKED))) RETURNING jobs.id, jobs.app_id, jobs.state, jobs.lane, jobs.pool, jobs.queue, jobs.route, jobs.route_reason, jobs.overflow, jobs.model_requested, jobs.model_served, jobs.adapter, jobs.notes, jobs.end_user, jobs.served_by_job, jobs.metadata, jobs.webhook_url, jobs.background, jobs.max_cost_usd, jobs.prompt_tokens, jobs.max_tokens, jobs.output_tokens, jobs.cached_tokens, jobs.reasoning_tokens, jobs.finish_reason, jobs.usd, jobs.error_code, jobs.error_message, jobs.enqueue_no, jobs.attempt, jobs.worker_id, jobs.created_at, jobs.start_by, jobs.finish_by, jobs.not_before, jobs.queued_at, jobs.started_at, jobs.ended_at, jobs.cancel_requested_at, jobs.stream, jobs.erased_at, jobs.suspicion, jobs.retry_of, jobs.overflow_at, jobs.original_tokens, jobs.cache, jobs.rule, jobs.stand_by, jobs.shadow, jobs.shadow_of, jobs.n, jobs.needs_version, jobs.start_after
-- ;

-- part: finish leader
WITH given AS (
    SELECT * FROM json_to_recordset('[{"job_id":"01a21000-0000-7000-8000-000000000004","enqueue_no":2,"worker_id":"00000000-0000-0000-0000-0000000000a1","engine":"simulator"}]'::json) AS sent (job_id uuid, enqueue_no int, worker_id uuid, engine text)
    WHERE enqueue_no BETWEEN 0 AND 2147483647
), claimed AS (
    UPDATE jobs
    SET state = 'running', worker_id = given.worker_id, attempt = jobs.attempt + 1,
        started_at = coalesce(jobs.started_at, now())
    FROM given
    WHERE jobs.id = given.job_id AND jobs.id BETWEEN '01a19467-e800-0000-0000-000000000000' AND '01a22ee6-afff-ffff-ffff-ffffffffffff'
        AND jobs.id = ANY (ARRAY(SELECT job_id FROM given))
        AND jobs.state || '' = 'queued'
        AND jobs.enqueue_no = given.enqueue_no
        AND jobs.cancel_requested_at IS NULL
        AND (jobs.started_at IS NOT NULL OR jobs.start_by > now())
        AND (jobs.finish_by IS NULL OR jobs.finish_by > now())
        AND EXISTS (SELECT FROM workers WHERE workers.id = given.worker_id AND workers.lease_until > now())
    RETURNING jobs.*, given.engine
), begun AS (
    INSERT INTO attempts (job_id, number, worker_id, engine, started_at)
    SELECT id, attempt, worker_id, engine, now() FROM claimed
)
SELECT
    claimed.id, claimed.app_id, claimed.attempt, claimed.enqueue_no, claimed.worker_id, claimed.end_user, claimed.lane,
    claimed.pool, claimed.model_requested, claimed.overflow, claimed.max_cost_usd, claimed.prompt_tokens,
    claimed.start_by, claimed.finish_by, claimed.webhook_url, claimed.stream, claimed.suspicion, claimed.route,
    claimed.adapter, claimed.rule, claimed.stand_by, claimed.shadow_of, claimed.notes, job_texts.messages, job_texts.sampling,
    CASE WHEN false::boolean THEN set_config('synchronous_commit', 'off', true) END
FROM claimed
JOIN job_texts ON job_texts.job_id = claimed.id AND job_texts.job_id BETWEEN '01a19467-e800-0000-0000-000000000000' AND '01a22ee6-afff-ffff-ffff-ffffffffffff'
    AND job_texts.job_id = ANY (ARRAY(SELECT job_id FROM given));
-- ;
WITH given AS (
    SELECT * FROM json_to_recordset('[{"job_id":"01a21000-0000-7000-8000-000000000004","worker_id":"00000000-0000-0000-0000-0000000000a1","attempt":2,"enqueue_no":2,"app_id":"01a239b1-ea67-7112-97f5-31878d96dfe1","end_user":null,"pool":"chat","model":"m","model_served":"m","host_id":"host","kind":"compute","outcome":"succeeded","error_code":null,"error_cause":null,"prompt_tokens":8,"cached_tokens":0,"output_tokens":3,"engine_s":0.5,"first_token_s":null,"preemptions":0,"kv_token_s":5.5,"usd":"0.000001","price_version":"old-1","api_usd":null,"estimated":false,"original_tokens":null,"saved_usd":null,"reason":null,"escalated_by":null,"charged_usd":"0.000001","finish_reason":"stop","error_message":null,"answer":"A channel.","logprobs_json":null,"reasoning":null,"tool_calls":null,"reasoning_tokens":0,"choices":null,"notes":null}]'::json) AS sent (
        job_id uuid, worker_id uuid, attempt int, enqueue_no int, app_id uuid, end_user text, pool text, model text,
        model_served text, host_id text, kind text, outcome text, error_code text, error_message text,
        finish_reason text, prompt_tokens int, cached_tokens int, output_tokens int, reasoning_tokens int,
        original_tokens int, engine_s float8, first_token_s float8, preemptions int, kv_token_s float8, usd numeric,
        charged_usd numeric, price_version text, api_usd numeric, estimated boolean, saved_usd numeric, reason text,
        escalated_by text, error_cause text, notes jsonb, answer text, logprobs_json json, reasoning text, tool_calls jsonb, choices json
    )
    WHERE enqueue_no BETWEEN 0 AND 2147483647
), moved AS (
    UPDATE jobs
    SET state = 'succeeded', worker_id = NULL, ended_at = now(), usd = given.charged_usd,
        prompt_tokens = coalesce(nullif(given.prompt_tokens, 0), jobs.prompt_tokens),
        output_tokens = given.output_tokens, cached_tokens = given.cached_tokens,
        reasoning_tokens = given.reasoning_tokens, original_tokens = given.original_tokens,
        finish_reason = given.finish_reason, model_served = given.model_served,
        error_code = given.error_code, error_message = given.error_message,
        notes = CASE WHEN given.notes IS NULL THEN jobs.notes ELSE coalesce(jobs.notes, '{}') || given.notes END
    FROM given
    WHERE jobs.id = given.job_id AND jobs.id BETWEEN '01a19467-e800-0000-0000-000000000000' AND '01a22ee6-afff-ffff-ffff-ffffffffffff'
        AND jobs.id = ANY (ARRAY(SELECT job_id FROM given))
        AND jobs.state || '' = 'running'
        AND jobs.worker_id = given.worker_id AND jobs.attempt = given.attempt
        AND jobs.enqueue_no = given.enqueue_no
    RETURNING jobs.id, jobs.app_id, jobs.state, jobs.finish_reason, jobs.webhook_url
), held AS (
    SELECT given.* FROM given JOIN moved ON moved.id = given.job_id
), ended AS (
    UPDATE attempts
    SET ended_at = now(), outcome = held.outcome, error_code = held.error_code, model_served = held.model_served,
        first_token_s = held.first_token_s, preemptions = held.preemptions, escalated_by = held.escalated_by,
        error_cause = held.error_cause,
        prompt_tokens = held.prompt_tokens, cached_tokens = held.cached_tokens, output_tokens = held.output_tokens,
        engine_s = held.engine_s
    FROM held
    WHERE attempts.job_id = held.job_id AND attempts.job_id BETWEEN '01a19467-e800-0000-0000-000000000000' AND '01a22ee6-afff-ffff-ffff-ffffffffffff'
        AND attempts.job_id = ANY (ARRAY(SELECT job_id FROM given))
        AND attempts.number = held.attempt
), booked AS (
    INSERT INTO ledger (
        kind, job_id, attempt, app_id, end_user, pool, model, host_id, prompt_tokens, cached_tokens, output_tokens,
        engine_s, kv_token_s, usd, price_version, api_usd, estimated, saved_usd, reason
    )
    SELECT
        kind, job_id, attempt, app_id, end_user, pool, model, host_id, prompt_tokens, cached_tokens, output_tokens,
        engine_s, kv_token_s, usd, price_version, api_usd, estimated, saved_usd, reason
    FROM held
), answered AS (
    UPDATE job_texts
    SET answer = held.answer, logprobs_json = held.logprobs_json, reasoning = held.reasoning,
        tool_calls = held.tool_calls, choices = held.choices
    FROM held
    WHERE job_texts.job_id = held.job_id AND job_texts.job_id BETWEEN '01a19467-e800-0000-0000-000000000000' AND '01a22ee6-afff-ffff-ffff-ffffffffffff'
        AND job_texts.job_id = ANY (ARRAY(SELECT job_id FROM given))
        AND held.answer IS NOT NULL
)
SELECT * FROM moved;
-- ;
SELECT attempts.job_id, attempts.number, attempts.started_at, attempts.reserved_usd 
FROM attempts 
WHERE attempts.job_id = ANY ('{01a21000000070008000000000000004}'::uuid[]::UUID[]) AND attempts.reserved_usd > 0::INTEGER FOR UPDATE
-- ;
SELECT jobs.id, jobs.app_id, leader.error_code, leader.error_message, leader.suspicion, leader.id AS leader_id, leader.state AS leader_state, leader.finish_reason AS leader_finish_reason, leader.started_at AS leader_started_at, leader.enqueue_no AS leader_enqueue_no 
FROM jobs JOIN jobs AS leader ON leader.id = jobs.served_by_job AND leader.app_id = jobs.app_id 
WHERE jobs.state = 'waiting' AND jobs.served_by_job IS NOT NULL AND leader.state IN ('succeeded'::VARCHAR, 'failed'::VARCHAR, 'cancelled'::VARCHAR, 'expired'::VARCHAR) ORDER BY CASE jobs.lane WHEN 'high'::VARCHAR THEN 0::INTEGER WHEN 'normal'::VARCHAR THEN 1::INTEGER WHEN 'low'::VARCHAR THEN 2::INTEGER WHEN 'batch'::VARCHAR THEN 3::INTEGER END, jobs.stream DESC, jobs.id 
 LIMIT 1000::INTEGER FOR UPDATE OF jobs SKIP LOCKED
-- ;
SELECT job_texts.job_id 
FROM job_texts 
WHERE job_texts.job_id = ANY (CAST('{01a21000000070008000000000000004}'::uuid[]::UUID[] AS UUID[])) AND job_texts.answer IS NOT NULL FOR KEY SHARE SKIP LOCKED
-- ;
UPDATE jobs SET state='succeeded'::VARCHAR, model_served=leader.model_served, prompt_tokens=leader.prompt_tokens, output_tokens=leader.output_tokens, cached_tokens=leader.cached_tokens, reasoning_tokens=leader.reasoning_tokens, finish_reason=leader.finish_reason, worker_id=NULL::UUID, ended_at=now() FROM jobs AS leader WHERE (jobs.state || ''::VARCHAR) IN ('waiting'::VARCHAR) AND jobs.id = ANY (CAST('{01a21000000070008000000000000005}'::uuid[]::UUID[] AS UUID[])) AND leader.id = jobs.served_by_job RETURNING jobs.id, jobs.app_id, jobs.state, jobs.finish_reason, jobs.webhook_url
-- ;
UPDATE job_texts SET answer=leader_text.answer, logprobs=leader_text.logprobs, logprobs_json=leader_text.logprobs_json, reasoning=leader_text.reasoning, tool_calls=leader_text.tool_calls, choices=leader_text.choices FROM jobs, job_texts AS leader_text WHERE jobs.id = ANY (CAST('{01a21000000070008000000000000005}'::uuid[]::UUID[] AS UUID[])) AND job_texts.job_id = jobs.id AND leader_text.job_id = jobs.served_by_job
-- ;
INSERT INTO ledger (kind, job_id, app_id, end_user, pool, prompt_tokens, model, cached_tokens, output_tokens, usd, api_usd, saved_usd) SELECT 'cache'::VARCHAR AS anon_1, jobs.id, jobs.app_id, jobs.end_user, jobs.pool, jobs.prompt_tokens, coalesce(jobs.model_served, jobs.model_requested) AS coalesce_1, coalesce(jobs.cached_tokens, 0::INTEGER) AS coalesce_2, coalesce(jobs.output_tokens, 0::INTEGER) AS coalesce_4, 0::INTEGER AS anon_2, bill.api_usd, coalesce(bill.saved_usd, bill.usd) AS coalesce_6 
FROM jobs LEFT OUTER JOIN ledger AS bill ON bill.job_id = jobs.served_by_job AND bill.kind IN ('compute', 'api', 'cache') 
WHERE jobs.id = ANY (CAST('{01a21000000070008000000000000005}'::uuid[]::UUID[] AS UUID[]))
-- ;

-- part: answer
WITH given AS (
    SELECT * FROM json_to_recordset( E'[{"cache_key":"\\\\x6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b","id":"01a21000-0000-7000-8000-000000000006","app_id":"01a239b1-ea67-7112-97f5-31878d96dfe1","state":"succeeded","lane":"normal","pool":"chat","queue":"chat.normal","route":"pool","route_reason":"cache: the answer of job_01a21000000070008000000000000004","overflow":"allow","model_requested":"smollm2-135m","rule":null,"shadow":null,"adapter":null,"end_user":null,"metadata":{},"webhook_url":null,"background":true,"stream":false,"max_cost_usd":null,"prompt_tokens":8,"max_tokens":16,"n":null,"max_wait_s":30.0,"not_before":null,"finish_by":null,"messages":[{"role":"user","content":"What is a headrace?"}],"sampling":{"max_tokens":16},"keep_s":3600.0,"oldest":"01a2057c-5980-0000-0000-000000000000","cache":"hit","source_id":"01a21000-0000-7000-8000-000000000004"}]'::json) AS sent (
        id uuid, app_id uuid, state text, lane text, pool text, queue text, route text, route_reason text,
        overflow text, model_requested text, adapter text, end_user text, metadata jsonb, webhook_url text,
        background boolean, stream boolean, max_cost_usd numeric, max_tokens int, finish_by timestamptz, cache text,
        rule text, shadow text, n smallint, max_wait_s float8, notes jsonb, messages jsonb,
        sampling jsonb, cache_key bytea, key text, request_hash bytea, source_id uuid, keep_s float8
    )
    WHERE id BETWEEN '00000000-0000-0000-0000-000000000000' AND 'ffffffff-ffff-ffff-ffff-ffffffffffff'
), found AS (
    SELECT given.*, jobs.prompt_tokens, jobs.model_served, jobs.finish_reason, jobs.output_tokens, jobs.cached_tokens,
        jobs.reasoning_tokens, kept.answer, kept.logprobs, kept.logprobs_json, kept.reasoning,
        kept.tool_calls, kept.choices, ledger.api_usd, ledger.usd AS saved_usd
    FROM given
    JOIN jobs ON jobs.id = given.source_id
    JOIN job_texts kept ON kept.job_id = jobs.id
    LEFT JOIN ledger ON ledger.job_id = jobs.id AND ledger.kind IN ('compute', 'api', 'cache')
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
    FOR KEY SHARE OF kept SKIP LOCKED
), wanted AS (
    SELECT DISTINCT ON (app_id, key) app_id, key, request_hash, id
    FROM found
    WHERE key IS NOT NULL
    ORDER BY app_id, key, id
), free AS (
    SELECT * FROM wanted
    WHERE pg_try_advisory_xact_lock(
        hashtextextended((SELECT webhook_secret FROM apps WHERE apps.id = wanted.app_id) || wanted.key, 0)
    )
), taken AS (
    INSERT INTO idempotency_keys (app_id, key, request_hash, job_id, expires_at)
    SELECT app_id, key, request_hash, id, now() + '1 day 0:00:00'::interval::interval FROM free
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
-- ;

-- part: batch
SELECT apps.id 
FROM apps 
WHERE apps.id = '01a239b1ea67711297f531878d96dfe1'::uuid::UUID FOR NO KEY UPDATE
-- ;
SELECT count(*) AS count_1 
FROM batches 
WHERE batches.state IN ('validating', 'in_progress', 'finalizing', 'cancelling') AND batches.app_id = '01a239b1ea67711297f531878d96dfe1'::uuid::UUID
-- ;
INSERT INTO batches (id, app_id, endpoint, input_file_id, completion_window, overflow, expires_at, held_bytes) VALUES ('01a239b1ead8747faeee7e575fc15392'::uuid::UUID, '01a239b1ea67711297f531878d96dfe1'::uuid::UUID, '/v1/chat/completions'::VARCHAR, '000000000000000000000000000000a2'::uuid::UUID, '24h'::VARCHAR, 'never'::VARCHAR, (greatest(now(), coalesce(CAST(NULL AS TIMESTAMP WITH TIME ZONE), now())) + '1 day 0:00:00'::interval), 0::BIGINT) RETURNING batches.id, batches.app_id, batches.state, batches.endpoint, batches.model, batches.input_file_id, batches.output_file_id, batches.error_file_id, batches.completion_window, batches.overflow, batches.metadata, batches.webhook_url, batches.output_keep_s, batches.retry_of, batches.errors, batches.total, batches.completed, batches.failed, batches.prompt_tokens, batches.cached_tokens, batches.output_tokens, batches.reasoning_tokens, batches.usd, batches.created_at, batches.expires_at, batches.not_before, batches.in_progress_at, batches.finalizing_at, batches.completed_at, batches.failed_at, batches.expired_at, batches.cancelling_at, batches.cancelled_at, batches.runner_id, batches.lease_until, batches.has_lines, batches.held_bytes, now() AS read_at
-- ;
UPDATE batches SET runner_id='000000000000000000000000000000a1'::uuid::UUID, lease_until=(now() + '0:00:10'::interval) WHERE batches.state IN ('validating', 'in_progress', 'finalizing', 'cancelling') AND batches.runner_id = '000000000000000000000000000000a1'::uuid::UUID RETURNING batches.id, batches.app_id, batches.state, batches.endpoint, batches.model, batches.input_file_id, batches.output_file_id, batches.error_file_id, batches.completion_window, batches.overflow, batches.metadata, batches.webhook_url, batches.output_keep_s, batches.retry_of, batches.errors, batches.total, batches.completed, batches.failed, batches.prompt_tokens, batches.cached_tokens, batches.output_tokens, batches.reasoning_tokens, batches.usd, batches.created_at, batches.expires_at, batches.not_before, batches.in_progress_at, batches.finalizing_at, batches.completed_at, batches.failed_at, batches.expired_at, batches.cancelling_at, batches.cancelled_at, batches.runner_id, batches.lease_until, batches.has_lines, batches.held_bytes, now() AS read_at
-- ;
UPDATE batches SET runner_id='000000000000000000000000000000a1'::uuid::UUID, lease_until=(now() + '0:00:10'::interval) WHERE batches.id IN (SELECT batches.id 
FROM batches 
WHERE batches.state IN ('validating', 'in_progress', 'finalizing', 'cancelling') AND (batches.runner_id IS NULL OR batches.lease_until < now()) FOR UPDATE SKIP LOCKED) RETURNING batches.id, batches.app_id, batches.state, batches.endpoint, batches.model, batches.input_file_id, batches.output_file_id, batches.error_file_id, batches.completion_window, batches.overflow, batches.metadata, batches.webhook_url, batches.output_keep_s, batches.retry_of, batches.errors, batches.total, batches.completed, batches.failed, batches.prompt_tokens, batches.cached_tokens, batches.output_tokens, batches.reasoning_tokens, batches.usd, batches.created_at, batches.expires_at, batches.not_before, batches.in_progress_at, batches.finalizing_at, batches.completed_at, batches.failed_at, batches.expired_at, batches.cancelling_at, batches.cancelled_at, batches.runner_id, batches.lease_until, batches.has_lines, batches.held_bytes, now() AS read_at
-- ;
SELECT batches.id 
FROM batches 
WHERE batches.id = '01a239b1ead8747faeee7e575fc15392'::uuid::UUID AND batches.runner_id = '000000000000000000000000000000a1'::uuid::UUID AND batches.state = 'validating'::VARCHAR FOR UPDATE
-- ;
DELETE FROM batch_lines WHERE batch_lines.ctid = ANY (array((SELECT batch_lines.ctid 
FROM batch_lines 
WHERE batch_lines.batch_id = '01a239b1ead8747faeee7e575fc15392'::uuid::UUID ORDER BY batch_lines.batch_id, batch_lines.number 
 LIMIT 1000::INTEGER)))
-- ;
SELECT batches.id 
FROM batches 
WHERE batches.id = '01a239b1ead8747faeee7e575fc15392'::uuid::UUID AND batches.runner_id = '000000000000000000000000000000a1'::uuid::UUID AND batches.state = 'validating'::VARCHAR FOR UPDATE
-- ;
UPDATE batches SET state='in_progress'::VARCHAR, model=NULL::VARCHAR, total=3::INTEGER, in_progress_at=now(), held_bytes=(SELECT coalesce(sum(100::INTEGER + coalesce(octet_length(batch_lines.custom_id), 0::INTEGER) + coalesce(octet_length(batch_lines.prefix), 0::INTEGER) + coalesce(octet_length(batch_lines.body), 0::INTEGER) + coalesce(octet_length(batch_lines.refusal), 0::INTEGER)), 0::INTEGER) AS coalesce_1 
FROM batch_lines 
WHERE batch_lines.batch_id = '01a239b1ead8747faeee7e575fc15392'::uuid::UUID) WHERE batches.id = '01a239b1ead8747faeee7e575fc15392'::uuid::UUID AND batches.state IN ('validating'::VARCHAR) AND batches.runner_id = '000000000000000000000000000000a1'::uuid::UUID RETURNING batches.id, batches.app_id, batches.state, batches.endpoint, batches.model, batches.input_file_id, batches.output_file_id, batches.error_file_id, batches.completion_window, batches.overflow, batches.metadata, batches.webhook_url, batches.output_keep_s, batches.retry_of, batches.errors, batches.total, batches.completed, batches.failed, batches.prompt_tokens, batches.cached_tokens, batches.output_tokens, batches.reasoning_tokens, batches.usd, batches.created_at, batches.expires_at, batches.not_before, batches.in_progress_at, batches.finalizing_at, batches.completed_at, batches.failed_at, batches.expired_at, batches.cancelling_at, batches.cancelled_at, batches.runner_id, batches.lease_until, batches.has_lines, batches.held_bytes, now() AS read_at
-- ;

-- part: lines
WITH chosen AS MATERIALIZED (
    SELECT number, prefix, length(body) AS length, octet_length(body) AS size
    FROM batch_lines
    WHERE batch_id = '01a239b1ead8747faeee7e575fc15392'::uuid::uuid AND state = 'waiting'
        AND EXISTS (SELECT FROM batches WHERE batches.id = '01a239b1ead8747faeee7e575fc15392'::uuid::uuid AND batches.state = 'in_progress')
    ORDER BY prefix, length(body), number
    LIMIT cardinality('{01a239b1eb1471fd888dc57c238d5597,01a239b1eb1471fd888dc57d457e37dd}'::uuid[]::uuid[])
    FOR UPDATE OF batch_lines SKIP LOCKED
), given AS (
    SELECT number, ('{01a239b1eb1471fd888dc57c238d5597,01a239b1eb1471fd888dc57d457e37dd}'::uuid[]::uuid[])[row_number() OVER in_order] AS new_id, sum(size) OVER in_order - size AS bytes_before
    FROM chosen
    WINDOW in_order AS (ORDER BY prefix, length, number)
), taken AS (
    UPDATE batch_lines
    SET state = 'submitted', job_id = coalesce(batch_lines.job_id, given.new_id), submitted_at = now()
    FROM given
    WHERE batch_lines.batch_id = '01a239b1ead8747faeee7e575fc15392'::uuid::uuid AND batch_lines.number = given.number
        AND given.bytes_before < 1048576::bigint
    RETURNING
        batch_lines.batch_id, batch_lines.number, batch_lines.custom_id, batch_lines.state, batch_lines.body,
        batch_lines.job_id, batch_lines.status_code, batch_lines.refusal, batch_lines.prefix,
        batch_lines.job_id <> given.new_id AS is_again
)
SELECT * FROM taken ORDER BY prefix, length(body), number;
-- ;
WITH given AS (
    SELECT * FROM json_to_recordset('[{"id":"01a239b1-eb14-71fd-888d-c57c238d5597","app_id":"01a239b1-ea67-7112-97f5-31878d96dfe1","state":"queued","lane":"normal","pool":"chat","queue":"chat.batch","route":"pool","route_reason":"own pool","overflow":"allow","model_requested":"smollm2-135m","rule":null,"shadow":null,"adapter":null,"end_user":null,"metadata":{},"webhook_url":null,"background":true,"stream":false,"max_cost_usd":null,"prompt_tokens":8,"max_tokens":16,"n":null,"max_wait_s":30.0,"not_before":null,"finish_by":null,"messages":[{"role":"user","content":"What is a headrace?"}],"sampling":{"max_tokens":16}}]'::json) AS sent (
        id uuid, app_id uuid, state text, lane text, pool text, queue text, route text, route_reason text,
        overflow text, model_requested text, adapter text, end_user text, metadata jsonb, webhook_url text,
        background boolean, stream boolean, max_cost_usd numeric, prompt_tokens int, max_tokens int,
        not_before timestamptz, finish_by timestamptz, cache text, rule text, shadow text, n smallint, max_wait_s float8,
        notes jsonb, start_after timestamptz,
        messages jsonb, sampling jsonb, cache_key bytea, is_unstored boolean, key text, request_hash bytea
    )
), wanted AS (
    SELECT DISTINCT ON (app_id, key) app_id, key, request_hash, id
    FROM given
    WHERE key IS NOT NULL
    ORDER BY app_id, key, id
), free AS (
    SELECT * FROM wanted
    WHERE pg_try_advisory_xact_lock(
        hashtextextended((SELECT webhook_secret FROM apps WHERE apps.id = wanted.app_id) || wanted.key, 0)
    )
), taken AS (
    INSERT INTO idempotency_keys (app_id, key, request_hash, job_id, expires_at)
    SELECT app_id, key, request_hash, id, now() + '1 day 0:00:00'::interval::interval FROM free
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
-- ;
WITH given AS (
    SELECT * FROM json_to_recordset('[{"job_id":"01a239b1-eb14-71fd-888d-c57c238d5597","enqueue_no":1,"worker_id":"00000000-0000-0000-0000-0000000000a1","engine":"simulator"}]'::json) AS sent (job_id uuid, enqueue_no int, worker_id uuid, engine text)
    WHERE enqueue_no BETWEEN 0 AND 2147483647
), claimed AS (
    UPDATE jobs
    SET state = 'running', worker_id = given.worker_id, attempt = jobs.attempt + 1,
        started_at = coalesce(jobs.started_at, now())
    FROM given
    WHERE jobs.id = given.job_id AND jobs.id BETWEEN '01a22ee6-b000-0000-0000-000000000000' AND '01a2ce8b-d3ff-ffff-ffff-ffffffffffff'
        AND jobs.id = ANY (ARRAY(SELECT job_id FROM given))
        AND jobs.state || '' = 'queued'
        AND jobs.enqueue_no = given.enqueue_no
        AND jobs.cancel_requested_at IS NULL
        AND (jobs.started_at IS NOT NULL OR jobs.start_by > now())
        AND (jobs.finish_by IS NULL OR jobs.finish_by > now())
        AND EXISTS (SELECT FROM workers WHERE workers.id = given.worker_id AND workers.lease_until > now())
    RETURNING jobs.*, given.engine
), begun AS (
    INSERT INTO attempts (job_id, number, worker_id, engine, started_at)
    SELECT id, attempt, worker_id, engine, now() FROM claimed
)
SELECT
    claimed.id, claimed.app_id, claimed.attempt, claimed.enqueue_no, claimed.worker_id, claimed.end_user, claimed.lane,
    claimed.pool, claimed.model_requested, claimed.overflow, claimed.max_cost_usd, claimed.prompt_tokens,
    claimed.start_by, claimed.finish_by, claimed.webhook_url, claimed.stream, claimed.suspicion, claimed.route,
    claimed.adapter, claimed.rule, claimed.stand_by, claimed.shadow_of, claimed.notes, job_texts.messages, job_texts.sampling,
    CASE WHEN false::boolean THEN set_config('synchronous_commit', 'off', true) END
FROM claimed
JOIN job_texts ON job_texts.job_id = claimed.id AND job_texts.job_id BETWEEN '01a22ee6-b000-0000-0000-000000000000' AND '01a2ce8b-d3ff-ffff-ffff-ffffffffffff'
    AND job_texts.job_id = ANY (ARRAY(SELECT job_id FROM given));
-- ;
WITH given AS (
    SELECT * FROM json_to_recordset('[{"job_id":"01a239b1-eb14-71fd-888d-c57c238d5597","worker_id":"00000000-0000-0000-0000-0000000000a1","attempt":1,"enqueue_no":1,"app_id":"01a239b1-ea67-7112-97f5-31878d96dfe1","end_user":null,"pool":"chat","model":"m","model_served":"m","host_id":"host","kind":"compute","outcome":"succeeded","error_code":null,"error_cause":null,"prompt_tokens":8,"cached_tokens":0,"output_tokens":3,"engine_s":0.5,"first_token_s":null,"preemptions":0,"kv_token_s":5.5,"usd":"0.000001","price_version":"old-1","api_usd":null,"estimated":false,"original_tokens":null,"saved_usd":null,"reason":null,"escalated_by":null,"charged_usd":"0.000001","finish_reason":"stop","error_message":null,"answer":"A channel.","logprobs_json":null,"reasoning":null,"tool_calls":null,"reasoning_tokens":0,"choices":null,"notes":null}]'::json) AS sent (
        job_id uuid, worker_id uuid, attempt int, enqueue_no int, app_id uuid, end_user text, pool text, model text,
        model_served text, host_id text, kind text, outcome text, error_code text, error_message text,
        finish_reason text, prompt_tokens int, cached_tokens int, output_tokens int, reasoning_tokens int,
        original_tokens int, engine_s float8, first_token_s float8, preemptions int, kv_token_s float8, usd numeric,
        charged_usd numeric, price_version text, api_usd numeric, estimated boolean, saved_usd numeric, reason text,
        escalated_by text, error_cause text, notes jsonb, answer text, logprobs_json json, reasoning text, tool_calls jsonb, choices json
    )
    WHERE enqueue_no BETWEEN 0 AND 2147483647
), moved AS (
    UPDATE jobs
    SET state = 'succeeded', worker_id = NULL, ended_at = now(), usd = given.charged_usd,
        prompt_tokens = coalesce(nullif(given.prompt_tokens, 0), jobs.prompt_tokens),
        output_tokens = given.output_tokens, cached_tokens = given.cached_tokens,
        reasoning_tokens = given.reasoning_tokens, original_tokens = given.original_tokens,
        finish_reason = given.finish_reason, model_served = given.model_served,
        error_code = given.error_code, error_message = given.error_message,
        notes = CASE WHEN given.notes IS NULL THEN jobs.notes ELSE coalesce(jobs.notes, '{}') || given.notes END
    FROM given
    WHERE jobs.id = given.job_id AND jobs.id BETWEEN '01a22ee6-b000-0000-0000-000000000000' AND '01a2ce8b-d3ff-ffff-ffff-ffffffffffff'
        AND jobs.id = ANY (ARRAY(SELECT job_id FROM given))
        AND jobs.state || '' = 'running'
        AND jobs.worker_id = given.worker_id AND jobs.attempt = given.attempt
        AND jobs.enqueue_no = given.enqueue_no
    RETURNING jobs.id, jobs.app_id, jobs.state, jobs.finish_reason, jobs.webhook_url
), held AS (
    SELECT given.* FROM given JOIN moved ON moved.id = given.job_id
), ended AS (
    UPDATE attempts
    SET ended_at = now(), outcome = held.outcome, error_code = held.error_code, model_served = held.model_served,
        first_token_s = held.first_token_s, preemptions = held.preemptions, escalated_by = held.escalated_by,
        error_cause = held.error_cause,
        prompt_tokens = held.prompt_tokens, cached_tokens = held.cached_tokens, output_tokens = held.output_tokens,
        engine_s = held.engine_s
    FROM held
    WHERE attempts.job_id = held.job_id AND attempts.job_id BETWEEN '01a22ee6-b000-0000-0000-000000000000' AND '01a2ce8b-d3ff-ffff-ffff-ffffffffffff'
        AND attempts.job_id = ANY (ARRAY(SELECT job_id FROM given))
        AND attempts.number = held.attempt
), booked AS (
    INSERT INTO ledger (
        kind, job_id, attempt, app_id, end_user, pool, model, host_id, prompt_tokens, cached_tokens, output_tokens,
        engine_s, kv_token_s, usd, price_version, api_usd, estimated, saved_usd, reason
    )
    SELECT
        kind, job_id, attempt, app_id, end_user, pool, model, host_id, prompt_tokens, cached_tokens, output_tokens,
        engine_s, kv_token_s, usd, price_version, api_usd, estimated, saved_usd, reason
    FROM held
), answered AS (
    UPDATE job_texts
    SET answer = held.answer, logprobs_json = held.logprobs_json, reasoning = held.reasoning,
        tool_calls = held.tool_calls, choices = held.choices
    FROM held
    WHERE job_texts.job_id = held.job_id AND job_texts.job_id BETWEEN '01a22ee6-b000-0000-0000-000000000000' AND '01a2ce8b-d3ff-ffff-ffff-ffffffffffff'
        AND job_texts.job_id = ANY (ARRAY(SELECT job_id FROM given))
        AND held.answer IS NOT NULL
)
SELECT * FROM moved;
-- ;
UPDATE batch_lines SET state='failed'::VARCHAR, prefix=''::VARCHAR, body='{}'::VARCHAR, job_id=NULL::UUID, status_code=400::SMALLINT, refusal='{}'::VARCHAR WHERE batch_lines.batch_id = '01a239b1ead8747faeee7e575fc15392'::uuid::UUID AND batch_lines.number = 2::INTEGER AND (batch_lines.state = 'submitted' OR batch_lines.state = 'waiting') AND NOT (EXISTS (SELECT * 
FROM jobs 
WHERE jobs.id = batch_lines.job_id AND jobs.id >= '01a2397afc5800000000000000000000'::uuid::UUID))
-- ;
UPDATE batches SET failed=(batches.failed + 1::INTEGER) WHERE batches.id = '01a239b1ead8747faeee7e575fc15392'::uuid::UUID
-- ;
UPDATE batch_lines SET state='waiting'::VARCHAR, provider_batch_id=NULL::UUID WHERE batch_lines.batch_id = '01a239b1ead8747faeee7e575fc15392'::uuid::UUID AND batch_lines.number IN (3::INTEGER) AND batch_lines.state = 'submitted'
-- ;
UPDATE batch_lines SET state='waiting'::VARCHAR, provider_batch_id=NULL::UUID WHERE batch_lines.batch_id = '01a239b1ead8747faeee7e575fc15392'::uuid::UUID AND batch_lines.state = 'submitted' AND batch_lines.submitted_at < now() - '0:00:10'::interval AND NOT (EXISTS (SELECT * 
FROM jobs 
WHERE jobs.id = batch_lines.job_id AND jobs.id >= '01a2397afc5800000000000000000000'::uuid::UUID)) AND NOT (batch_lines.job_id = ANY (CAST('{}'::UUID[] AS UUID[])))
-- ;
SELECT batches.id 
FROM batches 
WHERE batches.id = ANY (CAST('{01a239b1ead8747faeee7e575fc15392}'::uuid[]::UUID[] AS UUID[])) AND (EXISTS (SELECT * 
FROM batch_lines, jobs 
WHERE batch_lines.batch_id = batches.id AND batch_lines.state = 'submitted' AND jobs.id = batch_lines.job_id AND jobs.id >= '01a2397afc5800000000000000000000'::uuid::UUID AND (jobs.state || ''::VARCHAR) IN ('succeeded'::VARCHAR, 'failed'::VARCHAR, 'cancelled'::VARCHAR, 'expired'::VARCHAR)))
-- ;
SELECT batch_lines.number, jobs.usd, jobs.state, jobs.prompt_tokens, jobs.cached_tokens, jobs.output_tokens, jobs.reasoning_tokens 
FROM batch_lines JOIN jobs ON jobs.id = batch_lines.job_id AND jobs.id >= '01a2397afc5800000000000000000000'::uuid::UUID 
WHERE batch_lines.batch_id = '01a239b1ead8747faeee7e575fc15392'::uuid::UUID AND batch_lines.state = 'submitted' AND (jobs.state || ''::VARCHAR) IN ('succeeded'::VARCHAR, 'failed'::VARCHAR, 'cancelled'::VARCHAR, 'expired'::VARCHAR) 
 LIMIT 1000::INTEGER FOR UPDATE OF batch_lines SKIP LOCKED
-- ;
UPDATE batch_lines SET state='succeeded'::VARCHAR, prefix=''::VARCHAR, body='{}'::VARCHAR WHERE batch_lines.batch_id = '01a239b1ead8747faeee7e575fc15392'::uuid::UUID AND batch_lines.number IN (1::INTEGER)
-- ;
UPDATE batches SET completed=(batches.completed + 1::INTEGER), prompt_tokens=(batches.prompt_tokens + 8::BIGINT), output_tokens=(batches.output_tokens + 3::BIGINT), usd=(batches.usd + 0.000001000) WHERE batches.id = '01a239b1ead8747faeee7e575fc15392'::uuid::UUID
-- ;

-- part: end of the batch
UPDATE batches SET state='cancelling'::VARCHAR, cancelling_at=now() WHERE batches.id = '01a239b1ead8747faeee7e575fc15392'::uuid::UUID AND batches.state IN ('validating'::VARCHAR, 'in_progress'::VARCHAR) AND batches.app_id = '01a239b1ea67711297f531878d96dfe1'::uuid::UUID RETURNING batches.id, batches.app_id, batches.state, batches.endpoint, batches.model, batches.input_file_id, batches.output_file_id, batches.error_file_id, batches.completion_window, batches.overflow, batches.metadata, batches.webhook_url, batches.output_keep_s, batches.retry_of, batches.errors, batches.total, batches.completed, batches.failed, batches.prompt_tokens, batches.cached_tokens, batches.output_tokens, batches.reasoning_tokens, batches.usd, batches.created_at, batches.expires_at, batches.not_before, batches.in_progress_at, batches.finalizing_at, batches.completed_at, batches.failed_at, batches.expired_at, batches.cancelling_at, batches.cancelled_at, batches.runner_id, batches.lease_until, batches.has_lines, batches.held_bytes, now() AS read_at
-- ;
SELECT batches.id, batches.app_id, batches.state, batches.endpoint, batches.model, batches.input_file_id, batches.output_file_id, batches.error_file_id, batches.completion_window, batches.overflow, batches.metadata, batches.webhook_url, batches.output_keep_s, batches.retry_of, batches.errors, batches.total, batches.completed, batches.failed, batches.prompt_tokens, batches.cached_tokens, batches.output_tokens, batches.reasoning_tokens, batches.usd, batches.created_at, batches.expires_at, batches.not_before, batches.in_progress_at, batches.finalizing_at, batches.completed_at, batches.failed_at, batches.expired_at, batches.cancelling_at, batches.cancelled_at, batches.runner_id, batches.lease_until, batches.has_lines, batches.held_bytes, now() AS read_at 
FROM batches 
WHERE batches.id = '01a239b1ead8747faeee7e575fc15392'::uuid::UUID AND batches.app_id = '01a239b1ea67711297f531878d96dfe1'::uuid::UUID
-- ;
SELECT EXISTS (SELECT * 
FROM batches 
WHERE batches.id = '01a239b1ead8747faeee7e575fc15392'::uuid::UUID AND batches.in_progress_at IS NULL) AS anon_1
-- ;
SELECT batch_lines.number, EXISTS (SELECT * 
FROM jobs 
WHERE jobs.id = batch_lines.job_id AND jobs.id >= '01a2397afc5800000000000000000000'::uuid::UUID) AS anon_1 
FROM batch_lines 
WHERE batch_lines.batch_id = '01a239b1ead8747faeee7e575fc15392'::uuid::UUID AND batch_lines.state = 'waiting' 
 LIMIT 1000::INTEGER FOR UPDATE OF batch_lines SKIP LOCKED
-- ;
UPDATE batch_lines SET state='cancelled'::VARCHAR, prefix=''::VARCHAR, body='{}'::VARCHAR, job_id=NULL::UUID WHERE batch_lines.batch_id = '01a239b1ead8747faeee7e575fc15392'::uuid::UUID AND batch_lines.number = ANY (CAST('{3}'::int2[]::INTEGER[] AS INTEGER[]))
-- ;
UPDATE batches SET failed=(batches.failed + 1::INTEGER) WHERE batches.id = '01a239b1ead8747faeee7e575fc15392'::uuid::UUID
-- ;
SELECT jobs.id 
FROM jobs JOIN batch_lines ON jobs.id = batch_lines.job_id AND jobs.id >= '01a2397afc5800000000000000000000'::uuid::UUID 
WHERE batch_lines.batch_id = '01a239b1ead8747faeee7e575fc15392'::uuid::UUID AND batch_lines.state = 'submitted' AND ((jobs.state || ''::VARCHAR) NOT IN ('succeeded'::VARCHAR, 'failed'::VARCHAR, 'cancelled'::VARCHAR, 'expired'::VARCHAR)) AND jobs.cancel_requested_at IS NULL
-- ;
SELECT batches.id 
FROM batches 
WHERE batches.id = ANY (CAST('{01a239b1ead8747faeee7e575fc15392}'::uuid[]::UUID[] AS UUID[])) AND batches.completed + batches.failed >= batches.total AND batches.state IN ('validating', 'in_progress', 'finalizing', 'cancelling')
-- ;
UPDATE batches SET state='finalizing'::VARCHAR, finalizing_at=now() WHERE batches.id = '01a239b1ead8747faeee7e575fc15392'::uuid::UUID AND batches.state IN ('in_progress'::VARCHAR) AND batches.completed + batches.failed = batches.total RETURNING batches.id, batches.app_id, batches.state, batches.endpoint, batches.model, batches.input_file_id, batches.output_file_id, batches.error_file_id, batches.completion_window, batches.overflow, batches.metadata, batches.webhook_url, batches.output_keep_s, batches.retry_of, batches.errors, batches.total, batches.completed, batches.failed, batches.prompt_tokens, batches.cached_tokens, batches.output_tokens, batches.reasoning_tokens, batches.usd, batches.created_at, batches.expires_at, batches.not_before, batches.in_progress_at, batches.finalizing_at, batches.completed_at, batches.failed_at, batches.expired_at, batches.cancelling_at, batches.cancelled_at, batches.runner_id, batches.lease_until, batches.has_lines, batches.held_bytes, now() AS read_at
-- ;
SELECT batches.id, batches.app_id, batches.state, batches.endpoint, batches.model, batches.input_file_id, batches.output_file_id, batches.error_file_id, batches.completion_window, batches.overflow, batches.metadata, batches.webhook_url, batches.output_keep_s, batches.retry_of, batches.errors, batches.total, batches.completed, batches.failed, batches.prompt_tokens, batches.cached_tokens, batches.output_tokens, batches.reasoning_tokens, batches.usd, batches.created_at, batches.expires_at, batches.not_before, batches.in_progress_at, batches.finalizing_at, batches.completed_at, batches.failed_at, batches.expired_at, batches.cancelling_at, batches.cancelled_at, batches.runner_id, batches.lease_until, batches.has_lines, batches.held_bytes, now() AS read_at 
FROM batches 
WHERE batches.id = '01a239b1ead8747faeee7e575fc15392'::uuid::UUID AND batches.app_id = '01a239b1ea67711297f531878d96dfe1'::uuid::UUID
-- ;
SELECT summed.number, summed.custom_id, summed.state, summed.job_id, summed.status_code, summed.refusal, summed.body, summed.size, summed.before 
FROM (SELECT sized.number AS number, sized.custom_id AS custom_id, sized.state AS state, sized.job_id AS job_id, sized.status_code AS status_code, sized.refusal AS refusal, sized.body AS body, sized.size AS size, sum(sized.size) OVER (ORDER BY sized.number) - sized.size AS before 
FROM (SELECT page.number AS number, page.custom_id AS custom_id, page.state AS state, page.job_id AS job_id, page.status_code AS status_code, page.refusal AS refusal, page.body AS body, octet_length(page.body) + coalesce((SELECT 0::INTEGER + coalesce(octet_length(job_texts.answer), 0::INTEGER) + coalesce(octet_length(job_texts.reasoning), 0::INTEGER) + coalesce(octet_length(CAST(job_texts.tool_calls AS TEXT)), 0::INTEGER) + coalesce(octet_length(CAST(job_texts.choices AS TEXT)), 0::INTEGER) + coalesce(octet_length(CAST(job_texts.logprobs AS TEXT)), 0::INTEGER) + coalesce(octet_length(CAST(job_texts.logprobs_json AS TEXT)), 0::INTEGER) AS anon_1 
FROM job_texts 
WHERE job_texts.job_id = page.job_id AND job_texts.job_id >= '01a2397afc5800000000000000000000'::uuid::UUID), 0::INTEGER) AS size 
FROM (SELECT batch_lines.number AS number, batch_lines.custom_id AS custom_id, batch_lines.state AS state, batch_lines.job_id AS job_id, batch_lines.status_code AS status_code, batch_lines.refusal AS refusal, CASE WHEN (batch_lines.state = 'succeeded'::VARCHAR) THEN batch_lines.body ELSE '{}'::VARCHAR END AS body 
FROM batch_lines 
WHERE batch_lines.batch_id = '01a239b1ead8747faeee7e575fc15392'::uuid::UUID AND batch_lines.number > 0::INTEGER AND ((batch_lines.state || ''::VARCHAR) NOT IN ('waiting'::VARCHAR, 'submitted'::VARCHAR)) ORDER BY batch_lines.number 
 LIMIT 10::INTEGER) AS page) AS sized) AS summed 
WHERE summed.before < 1048576::INTEGER ORDER BY summed.number
-- ;
SELECT EXISTS (SELECT * 
FROM batch_lines 
WHERE batch_lines.batch_id = '01a239b1ead8747faeee7e575fc15392'::uuid::UUID AND batch_lines.state = 'expired'::VARCHAR) AS anon_1
-- ;
UPDATE batches SET state='cancelled'::VARCHAR, completed=1::INTEGER, failed=2::INTEGER, cancelled_at=now(), held_bytes=(SELECT coalesce(sum(100::INTEGER + coalesce(octet_length(batch_lines.custom_id), 0::INTEGER) + coalesce(octet_length(batch_lines.prefix), 0::INTEGER) + coalesce(octet_length(batch_lines.body), 0::INTEGER) + coalesce(octet_length(batch_lines.refusal), 0::INTEGER)), 0::INTEGER) AS coalesce_1 
FROM batch_lines 
WHERE batch_lines.batch_id = '01a239b1ead8747faeee7e575fc15392'::uuid::UUID) WHERE batches.id = '01a239b1ead8747faeee7e575fc15392'::uuid::UUID AND batches.state IN ('cancelling'::VARCHAR) RETURNING batches.id, batches.app_id, batches.state, batches.endpoint, batches.model, batches.input_file_id, batches.output_file_id, batches.error_file_id, batches.completion_window, batches.overflow, batches.metadata, batches.webhook_url, batches.output_keep_s, batches.retry_of, batches.errors, batches.total, batches.completed, batches.failed, batches.prompt_tokens, batches.cached_tokens, batches.output_tokens, batches.reasoning_tokens, batches.usd, batches.created_at, batches.expires_at, batches.not_before, batches.in_progress_at, batches.finalizing_at, batches.completed_at, batches.failed_at, batches.expired_at, batches.cancelling_at, batches.cancelled_at, batches.runner_id, batches.lease_until, batches.has_lines, batches.held_bytes, now() AS read_at
-- ;
SELECT now() AS now_1
-- ;
UPDATE batches SET has_lines=false WHERE batches.id IN (SELECT batches.id 
FROM batches 
WHERE batches.has_lines AND (batches.state NOT IN ('validating', 'in_progress', 'finalizing', 'cancelling')) AND batches.id < '01a19f33232800000000000000000000'::uuid::UUID FOR UPDATE SKIP LOCKED)
-- ;
SELECT now() AS now_1
-- ;
SELECT batch_lines.batch_id 
FROM batch_lines 
WHERE batch_lines.batch_id < '01a19f33232800000000000000000000'::uuid::UUID AND NOT (batch_lines.batch_id = ANY (CAST('{000000000000000000000000000000a1}'::uuid[]::UUID[] AS UUID[]))) AND NOT (EXISTS (SELECT * 
FROM batches 
WHERE batches.id = batch_lines.batch_id AND batches.state IN ('validating', 'in_progress', 'finalizing', 'cancelling'))) ORDER BY batch_lines.batch_id 
 LIMIT 1::INTEGER
-- ;
DELETE FROM batch_lines WHERE batch_lines.ctid = ANY (array((SELECT batch_lines.ctid 
FROM batch_lines 
WHERE batch_lines.batch_id = '000000000000000000000000000000a1'::uuid::UUID ORDER BY batch_lines.batch_id, batch_lines.number 
 LIMIT 1000::INTEGER)))
-- ;
SELECT apps.id 
FROM apps 
WHERE apps.id = '01a239b1ea67711297f531878d96dfe1'::uuid::UUID FOR NO KEY UPDATE
-- ;
SELECT count(*) AS count_1 
FROM batches 
WHERE batches.state IN ('validating', 'in_progress', 'finalizing', 'cancelling') AND batches.app_id = '01a239b1ea67711297f531878d96dfe1'::uuid::UUID
-- ;
INSERT INTO batches (id, app_id, endpoint, input_file_id, completion_window, overflow, expires_at, held_bytes) VALUES ('01a239b1eb3e751a92867b05ea99dc4c'::uuid::UUID, '01a239b1ea67711297f531878d96dfe1'::uuid::UUID, '/v1/chat/completions'::VARCHAR, '000000000000000000000000000000a2'::uuid::UUID, '24h'::VARCHAR, 'allow'::VARCHAR, (greatest(now(), coalesce(CAST(NULL AS TIMESTAMP WITH TIME ZONE), now())) + '1 day 0:00:00'::interval), 0::BIGINT) RETURNING batches.id, batches.app_id, batches.state, batches.endpoint, batches.model, batches.input_file_id, batches.output_file_id, batches.error_file_id, batches.completion_window, batches.overflow, batches.metadata, batches.webhook_url, batches.output_keep_s, batches.retry_of, batches.errors, batches.total, batches.completed, batches.failed, batches.prompt_tokens, batches.cached_tokens, batches.output_tokens, batches.reasoning_tokens, batches.usd, batches.created_at, batches.expires_at, batches.not_before, batches.in_progress_at, batches.finalizing_at, batches.completed_at, batches.failed_at, batches.expired_at, batches.cancelling_at, batches.cancelled_at, batches.runner_id, batches.lease_until, batches.has_lines, batches.held_bytes, now() AS read_at
-- ;
UPDATE batches SET runner_id='000000000000000000000000000000a1'::uuid::UUID, lease_until=(now() + '0:00:10'::interval) WHERE batches.state IN ('validating', 'in_progress', 'finalizing', 'cancelling') AND batches.runner_id = '000000000000000000000000000000a1'::uuid::UUID RETURNING batches.id, batches.app_id, batches.state, batches.endpoint, batches.model, batches.input_file_id, batches.output_file_id, batches.error_file_id, batches.completion_window, batches.overflow, batches.metadata, batches.webhook_url, batches.output_keep_s, batches.retry_of, batches.errors, batches.total, batches.completed, batches.failed, batches.prompt_tokens, batches.cached_tokens, batches.output_tokens, batches.reasoning_tokens, batches.usd, batches.created_at, batches.expires_at, batches.not_before, batches.in_progress_at, batches.finalizing_at, batches.completed_at, batches.failed_at, batches.expired_at, batches.cancelling_at, batches.cancelled_at, batches.runner_id, batches.lease_until, batches.has_lines, batches.held_bytes, now() AS read_at
-- ;
UPDATE batches SET runner_id='000000000000000000000000000000a1'::uuid::UUID, lease_until=(now() + '0:00:10'::interval) WHERE batches.id IN (SELECT batches.id 
FROM batches 
WHERE batches.state IN ('validating', 'in_progress', 'finalizing', 'cancelling') AND (batches.runner_id IS NULL OR batches.lease_until < now()) FOR UPDATE SKIP LOCKED) RETURNING batches.id, batches.app_id, batches.state, batches.endpoint, batches.model, batches.input_file_id, batches.output_file_id, batches.error_file_id, batches.completion_window, batches.overflow, batches.metadata, batches.webhook_url, batches.output_keep_s, batches.retry_of, batches.errors, batches.total, batches.completed, batches.failed, batches.prompt_tokens, batches.cached_tokens, batches.output_tokens, batches.reasoning_tokens, batches.usd, batches.created_at, batches.expires_at, batches.not_before, batches.in_progress_at, batches.finalizing_at, batches.completed_at, batches.failed_at, batches.expired_at, batches.cancelling_at, batches.cancelled_at, batches.runner_id, batches.lease_until, batches.has_lines, batches.held_bytes, now() AS read_at
-- ;
SELECT batches.id 
FROM batches 
WHERE batches.id = '01a239b1eb3e751a92867b05ea99dc4c'::uuid::UUID AND batches.runner_id = '000000000000000000000000000000a1'::uuid::UUID AND batches.state = 'validating'::VARCHAR FOR UPDATE
-- ;
UPDATE batches SET state='in_progress'::VARCHAR, model=NULL::VARCHAR, total=2::INTEGER, in_progress_at=now(), held_bytes=(SELECT coalesce(sum(100::INTEGER + coalesce(octet_length(batch_lines.custom_id), 0::INTEGER) + coalesce(octet_length(batch_lines.prefix), 0::INTEGER) + coalesce(octet_length(batch_lines.body), 0::INTEGER) + coalesce(octet_length(batch_lines.refusal), 0::INTEGER)), 0::INTEGER) AS coalesce_1 
FROM batch_lines 
WHERE batch_lines.batch_id = '01a239b1eb3e751a92867b05ea99dc4c'::uuid::UUID) WHERE batches.id = '01a239b1eb3e751a92867b05ea99dc4c'::uuid::UUID AND batches.state IN ('validating'::VARCHAR) AND batches.runner_id = '000000000000000000000000000000a1'::uuid::UUID RETURNING batches.id, batches.app_id, batches.state, batches.endpoint, batches.model, batches.input_file_id, batches.output_file_id, batches.error_file_id, batches.completion_window, batches.overflow, batches.metadata, batches.webhook_url, batches.output_keep_s, batches.retry_of, batches.errors, batches.total, batches.completed, batches.failed, batches.prompt_tokens, batches.cached_tokens, batches.output_tokens, batches.reasoning_tokens, batches.usd, batches.created_at, batches.expires_at, batches.not_before, batches.in_progress_at, batches.finalizing_at, batches.completed_at, batches.failed_at, batches.expired_at, batches.cancelling_at, batches.cancelled_at, batches.runner_id, batches.lease_until, batches.has_lines, batches.held_bytes, now() AS read_at
-- ;

-- part: lines for the provider
WITH chosen AS MATERIALIZED (
    SELECT number, prefix, length(body) AS length, octet_length(body) AS size
    FROM batch_lines
    WHERE batch_id = '01a239b1eb3e751a92867b05ea99dc4c'::uuid::uuid AND state = 'waiting'
        AND EXISTS (SELECT FROM batches WHERE batches.id = '01a239b1eb3e751a92867b05ea99dc4c'::uuid::uuid AND batches.state = 'in_progress')
    ORDER BY prefix, length(body), number
    LIMIT cardinality('{01a239b1eb4373988ae30c69ab032f1b,01a239b1eb4373988ae30c6a6fa88f94}'::uuid[]::uuid[])
    FOR UPDATE OF batch_lines SKIP LOCKED
), given AS (
    SELECT number, ('{01a239b1eb4373988ae30c69ab032f1b,01a239b1eb4373988ae30c6a6fa88f94}'::uuid[]::uuid[])[row_number() OVER in_order] AS new_id, sum(size) OVER in_order - size AS bytes_before
    FROM chosen
    WINDOW in_order AS (ORDER BY prefix, length, number)
), taken AS (
    UPDATE batch_lines
    SET state = 'submitted', job_id = coalesce(batch_lines.job_id, given.new_id), submitted_at = now()
    FROM given
    WHERE batch_lines.batch_id = '01a239b1eb3e751a92867b05ea99dc4c'::uuid::uuid AND batch_lines.number = given.number
        AND given.bytes_before < 1048576::bigint
    RETURNING
        batch_lines.batch_id, batch_lines.number, batch_lines.custom_id, batch_lines.state, batch_lines.body,
        batch_lines.job_id, batch_lines.status_code, batch_lines.refusal, batch_lines.prefix,
        batch_lines.job_id <> given.new_id AS is_again
)
SELECT * FROM taken ORDER BY prefix, length(body), number;
-- ;
SELECT provider_batches.id 
FROM provider_batches 
WHERE provider_batches.batch_id = '01a239b1eb3e751a92867b05ea99dc4c'::uuid::UUID AND provider_batches.state = 'gathering'::VARCHAR 
 LIMIT 1::INTEGER FOR UPDATE
-- ;
INSERT INTO provider_batches (id, batch_id, model) VALUES ('01a239b1eb4577489cf14d03aaff1e5f'::uuid::UUID, '01a239b1eb3e751a92867b05ea99dc4c'::uuid::UUID, 'smollm2-135m'::VARCHAR)
-- ;
UPDATE batch_lines SET provider_batch_id='01a239b1eb4577489cf14d03aaff1e5f'::uuid::UUID WHERE batch_lines.batch_id = '01a239b1eb3e751a92867b05ea99dc4c'::uuid::UUID AND batch_lines.number IN (1::INTEGER, 2::INTEGER)
-- ;
SELECT batch_lines.batch_id, count(*) AS lines 
FROM batch_lines 
WHERE batch_lines.batch_id = ANY (CAST('{01a239b1eb3e751a92867b05ea99dc4c}'::uuid[]::UUID[] AS UUID[])) AND batch_lines.state = 'submitted' AND batch_lines.provider_batch_id IS NOT NULL GROUP BY batch_lines.batch_id
-- ;
SELECT EXISTS (SELECT * 
FROM provider_batches 
WHERE provider_batches.batch_id = '01a239b1eb3e751a92867b05ea99dc4c'::uuid::UUID AND provider_batches.created_at > now() - '0:01:00'::interval) AS anon_1
-- ;
WITH given AS (
    SELECT * FROM json_to_recordset('[{"notes":{"batches":"batch_01a239b1eb3e751a92867b05ea99dc4c"},"id":"01a239b1-eb43-7398-8ae3-0c69ab032f1b","app_id":"01a239b1-ea67-7112-97f5-31878d96dfe1","state":"waiting","lane":"batch","pool":"chat","queue":"chat.batch","route":"pool","route_reason":"own pool","overflow":"allow","model_requested":"smollm2-135m","rule":null,"shadow":null,"adapter":null,"end_user":null,"metadata":{},"webhook_url":null,"background":true,"stream":false,"max_cost_usd":null,"prompt_tokens":8,"max_tokens":16,"n":null,"max_wait_s":30.0,"not_before":"2026-12-03T03:18:11.145900+00:00","finish_by":null,"messages":[{"role":"user","content":"What is a headrace?"}],"sampling":{"max_tokens":16}}]'::json) AS sent (
        id uuid, app_id uuid, state text, lane text, pool text, queue text, route text, route_reason text,
        overflow text, model_requested text, adapter text, end_user text, metadata jsonb, webhook_url text,
        background boolean, stream boolean, max_cost_usd numeric, prompt_tokens int, max_tokens int,
        not_before timestamptz, finish_by timestamptz, cache text, rule text, shadow text, n smallint, max_wait_s float8,
        notes jsonb, start_after timestamptz,
        messages jsonb, sampling jsonb, cache_key bytea, is_unstored boolean, key text, request_hash bytea
    )
), wanted AS (
    SELECT DISTINCT ON (app_id, key) app_id, key, request_hash, id
    FROM given
    WHERE key IS NOT NULL
    ORDER BY app_id, key, id
), free AS (
    SELECT * FROM wanted
    WHERE pg_try_advisory_xact_lock(
        hashtextextended((SELECT webhook_secret FROM apps WHERE apps.id = wanted.app_id) || wanted.key, 0)
    )
), taken AS (
    INSERT INTO idempotency_keys (app_id, key, request_hash, job_id, expires_at)
    SELECT app_id, key, request_hash, id, now() + '1 day 0:00:00'::interval::interval FROM free
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
-- ;
WITH given AS (
    SELECT * FROM json_to_recordset('[{"notes":{"batches":"batch_01a239b1eb3e751a92867b05ea99dc4c"},"id":"01a239b1-eb43-7398-8ae3-0c6a6fa88f94","app_id":"01a239b1-ea67-7112-97f5-31878d96dfe1","state":"waiting","lane":"batch","pool":"chat","queue":"chat.batch","route":"pool","route_reason":"own pool","overflow":"allow","model_requested":"smollm2-135m","rule":null,"shadow":null,"adapter":null,"end_user":null,"metadata":{},"webhook_url":null,"background":true,"stream":false,"max_cost_usd":null,"prompt_tokens":8,"max_tokens":16,"n":null,"max_wait_s":30.0,"not_before":"2026-12-03T03:18:11.145900+00:00","finish_by":null,"messages":[{"role":"user","content":"What is a headrace?"}],"sampling":{"max_tokens":16}}]'::json) AS sent (
        id uuid, app_id uuid, state text, lane text, pool text, queue text, route text, route_reason text,
        overflow text, model_requested text, adapter text, end_user text, metadata jsonb, webhook_url text,
        background boolean, stream boolean, max_cost_usd numeric, prompt_tokens int, max_tokens int,
        not_before timestamptz, finish_by timestamptz, cache text, rule text, shadow text, n smallint, max_wait_s float8,
        notes jsonb, start_after timestamptz,
        messages jsonb, sampling jsonb, cache_key bytea, is_unstored boolean, key text, request_hash bytea
    )
), wanted AS (
    SELECT DISTINCT ON (app_id, key) app_id, key, request_hash, id
    FROM given
    WHERE key IS NOT NULL
    ORDER BY app_id, key, id
), free AS (
    SELECT * FROM wanted
    WHERE pg_try_advisory_xact_lock(
        hashtextextended((SELECT webhook_secret FROM apps WHERE apps.id = wanted.app_id) || wanted.key, 0)
    )
), taken AS (
    INSERT INTO idempotency_keys (app_id, key, request_hash, job_id, expires_at)
    SELECT app_id, key, request_hash, id, now() + '1 day 0:00:00'::interval::interval FROM free
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
-- ;

-- part: the provider's batch
UPDATE provider_batches SET state='ready'::VARCHAR WHERE provider_batches.batch_id = '01a239b1eb3e751a92867b05ea99dc4c'::uuid::UUID AND provider_batches.state = 'gathering'::VARCHAR
-- ;
UPDATE provider_batches SET runner_id='000000000000000000000000000000a1'::uuid::UUID, lease_until=(now() + '0:00:10'::interval) WHERE provider_batches.state != 'ended' AND provider_batches.runner_id = '000000000000000000000000000000a1'::uuid::UUID
-- ;
UPDATE provider_batches SET runner_id='000000000000000000000000000000a1'::uuid::UUID, lease_until=(now() + '0:00:10'::interval) WHERE provider_batches.id IN (SELECT provider_batches.id 
FROM provider_batches 
WHERE provider_batches.state != 'ended' AND (provider_batches.runner_id IS NULL OR provider_batches.lease_until < now()) FOR UPDATE SKIP LOCKED)
-- ;
SELECT provider_batches.id, provider_batches.batch_id, provider_batches.model, provider_batches.state, provider_batches.file_id, provider_batches.provider_id, provider_batches.status, provider_batches.lines, provider_batches.answered, provider_batches.unreturned_usd, provider_batches.error, provider_batches.created_at, provider_batches.asks, provider_batches.asked_at, provider_batches.sent_at, provider_batches.checked_at, provider_batches.cancel_asked_at, provider_batches.ended_at, provider_batches.runner_id, provider_batches.lease_until, batches.state AS batch_state, batches.app_id AS app_id, now() AS read_at 
FROM provider_batches JOIN batches ON batches.id = provider_batches.batch_id 
WHERE provider_batches.state != 'ended' AND provider_batches.runner_id = '000000000000000000000000000000a1'::uuid::UUID ORDER BY provider_batches.id
-- ;
SELECT jobs.id 
FROM jobs JOIN batch_lines ON jobs.id = batch_lines.job_id AND jobs.id >= '01a2397afcbe00000000000000000000'::uuid::UUID 
WHERE batch_lines.provider_batch_id = '01a239b1eb4577489cf14d03aaff1e5f'::uuid::UUID AND (jobs.state || ''::VARCHAR) = 'waiting'::VARCHAR AND jobs.not_before > now() AND jobs.finish_by IS NULL AND jobs.cancel_requested_at IS NULL 
 LIMIT 200::INTEGER FOR UPDATE OF jobs SKIP LOCKED
-- ;
UPDATE jobs SET state='running'::VARCHAR, route='overflow'::VARCHAR, route_reason='the provider''s batch tier'::VARCHAR, attempt=(jobs.attempt + 1::INTEGER), worker_id='01a239b1eb4577489cf14d03aaff1e5f'::uuid::UUID, not_before=NULL::TIMESTAMP WITH TIME ZONE, started_at=coalesce(jobs.started_at, now()), overflow_at=coalesce(jobs.overflow_at, now()) WHERE jobs.state IN ('waiting'::VARCHAR) AND jobs.id = ANY (CAST('{01a239b1eb4373988ae30c69ab032f1b,01a239b1eb4373988ae30c6a6fa88f94}'::uuid[]::UUID[] AS UUID[])) RETURNING jobs.id, jobs.app_id, jobs.state, jobs.lane, jobs.pool, jobs.queue, jobs.route, jobs.route_reason, jobs.overflow, jobs.model_requested, jobs.model_served, jobs.adapter, jobs.notes, jobs.end_user, jobs.served_by_job, jobs.metadata, jobs.webhook_url, jobs.background, jobs.max_cost_usd, jobs.prompt_tokens, jobs.max_tokens, jobs.output_tokens, jobs.cached_tokens, jobs.reasoning_tokens, jobs.finish_reason, jobs.usd, jobs.error_code, jobs.error_message, jobs.enqueue_no, jobs.attempt, jobs.worker_id, jobs.created_at, jobs.start_by, jobs.finish_by, jobs.not_before, jobs.queued_at, jobs.started_at, jobs.ended_at, jobs.cancel_requested_at, jobs.stream, jobs.erased_at, jobs.suspicion, jobs.retry_of, jobs.overflow_at, jobs.original_tokens, jobs.cache, jobs.rule, jobs.stand_by, jobs.shadow, jobs.shadow_of, jobs.n, jobs.needs_version, jobs.start_after
-- ;
INSERT INTO attempts (job_id, number, worker_id, engine, started_at) VALUES ('01a239b1eb4373988ae30c69ab032f1b'::uuid::UUID, 1::INTEGER, '01a239b1eb4577489cf14d03aaff1e5f'::uuid::UUID, 'openai'::VARCHAR, now()), ('01a239b1eb4373988ae30c6a6fa88f94'::uuid::UUID, 1::INTEGER, '01a239b1eb4577489cf14d03aaff1e5f'::uuid::UUID, 'openai'::VARCHAR, now())
-- ;
SELECT jobs.id, jobs.app_id, jobs.state, jobs.lane, jobs.pool, jobs.queue, jobs.route, jobs.route_reason, jobs.overflow, jobs.model_requested, jobs.model_served, jobs.adapter, jobs.notes, jobs.end_user, jobs.served_by_job, jobs.metadata, jobs.webhook_url, jobs.background, jobs.max_cost_usd, jobs.prompt_tokens, jobs.max_tokens, jobs.output_tokens, jobs.cached_tokens, jobs.reasoning_tokens, jobs.finish_reason, jobs.usd, jobs.error_code, jobs.error_message, jobs.enqueue_no, jobs.attempt, jobs.worker_id, jobs.created_at, jobs.start_by, jobs.finish_by, jobs.not_before, jobs.queued_at, jobs.started_at, jobs.ended_at, jobs.cancel_requested_at, jobs.stream, jobs.erased_at, jobs.suspicion, jobs.retry_of, jobs.overflow_at, jobs.original_tokens, jobs.cache, jobs.rule, jobs.stand_by, jobs.shadow, jobs.shadow_of, jobs.n, jobs.needs_version, jobs.start_after, job_texts.messages, job_texts.sampling, attempts.reserved_usd 
FROM jobs JOIN job_texts ON job_texts.job_id = jobs.id JOIN attempts ON attempts.job_id = jobs.id AND attempts.number = jobs.attempt 
WHERE jobs.state = 'running' AND jobs.worker_id = '01a239b1eb4577489cf14d03aaff1e5f'::uuid::UUID AND jobs.id = ANY (CAST('{01a239b1eb4373988ae30c69ab032f1b,01a239b1eb4373988ae30c6a6fa88f94}'::uuid[]::UUID[] AS UUID[])) ORDER BY jobs.id
-- ;
SELECT jobs.id, jobs.app_id, jobs.state, jobs.lane, jobs.pool, jobs.queue, jobs.route, jobs.route_reason, jobs.overflow, jobs.model_requested, jobs.model_served, jobs.adapter, jobs.notes, jobs.end_user, jobs.served_by_job, jobs.metadata, jobs.webhook_url, jobs.background, jobs.max_cost_usd, jobs.prompt_tokens, jobs.max_tokens, jobs.output_tokens, jobs.cached_tokens, jobs.reasoning_tokens, jobs.finish_reason, jobs.usd, jobs.error_code, jobs.error_message, jobs.enqueue_no, jobs.attempt, jobs.worker_id, jobs.created_at, jobs.start_by, jobs.finish_by, jobs.not_before, jobs.queued_at, jobs.started_at, jobs.ended_at, jobs.cancel_requested_at, jobs.stream, jobs.erased_at, jobs.suspicion, jobs.retry_of, jobs.overflow_at, jobs.original_tokens, jobs.cache, jobs.rule, jobs.stand_by, jobs.shadow, jobs.shadow_of, jobs.n, jobs.needs_version, jobs.start_after, job_texts.messages, job_texts.sampling, attempts.reserved_usd 
FROM jobs JOIN job_texts ON job_texts.job_id = jobs.id JOIN attempts ON attempts.job_id = jobs.id AND attempts.number = jobs.attempt 
WHERE jobs.state = 'running' AND jobs.worker_id = '01a239b1eb4577489cf14d03aaff1e5f'::uuid::UUID AND jobs.id > '00000000000000000000000000000000'::uuid::UUID ORDER BY jobs.id 
 LIMIT 100::INTEGER
-- ;
SELECT attempts.job_id, attempts.number, attempts.started_at, apps.day_usd, apps.month_usd, budget_limits.day_usd AS together_day_usd, budget_limits.month_usd AS together_month_usd, budget_limits.set_at AS together_set_at 
FROM attempts JOIN jobs ON jobs.id = attempts.job_id JOIN apps ON apps.id = jobs.app_id LEFT OUTER JOIN budget_limits ON true 
WHERE attempts.job_id = ANY ('{01a239b1eb4373988ae30c69ab032f1b,01a239b1eb4373988ae30c6a6fa88f94}'::uuid[]::UUID[])
-- ;
SELECT budgets.id, budgets.app_id, budgets.period, budgets.starts_at, budgets.reserved_usd, budgets.spent_usd, budgets.told_percent, budgets.short_at, budgets.told_reserved_percent, budgets.reserved_short_at, budgets.limit_usd 
FROM budgets 
WHERE (budgets.app_id = ANY ('{01a239b1ea67711297f531878d96dfe1}'::uuid[]::UUID[]) OR budgets.app_id IS NULL) AND (budgets.period = 'day'::VARCHAR AND budgets.starts_at = date_trunc('day'::VARCHAR, '2026-12-03 02:18:11.149087+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, 'UTC'::VARCHAR) OR budgets.period = 'month'::VARCHAR AND budgets.starts_at = date_trunc('month'::VARCHAR, '2026-12-03 02:18:11.149087+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, 'UTC'::VARCHAR))
-- ;
SELECT budgets.id, budgets.app_id, budgets.period, budgets.starts_at, budgets.reserved_usd, budgets.spent_usd, budgets.told_percent, budgets.short_at, budgets.told_reserved_percent, budgets.reserved_short_at, budgets.limit_usd 
FROM budgets 
WHERE (budgets.app_id = ANY ('{01a239b1ea67711297f531878d96dfe1}'::uuid[]::UUID[]) OR budgets.app_id IS NULL) AND (budgets.period = 'day'::VARCHAR AND budgets.starts_at = date_trunc('day'::VARCHAR, '2026-12-03 02:18:11.149087+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, 'UTC'::VARCHAR) OR budgets.period = 'month'::VARCHAR AND budgets.starts_at = date_trunc('month'::VARCHAR, '2026-12-03 02:18:11.149087+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, 'UTC'::VARCHAR)) ORDER BY budgets.app_id NULLS FIRST, budgets.period DESC FOR UPDATE
-- ;
UPDATE budgets SET reserved_usd=(budgets.reserved_usd + sent.reserved), spent_usd=(budgets.spent_usd + sent.spent) FROM json_to_recordset('[{"id": "01a239b1-eab5-73c5-9257-0d4eb30d3bca", "reserved": "0.02", "spent": "0"}, {"id": "01a239b1-eab5-73c5-9257-0d4d3119e959", "reserved": "0.02", "spent": "0"}, {"id": "01a239b1-eab5-73c5-9257-0d5035a316a7", "reserved": "0.02", "spent": "0"}, {"id": "01a239b1-eab5-73c5-9257-0d4fe6d9a018", "reserved": "0.02", "spent": "0"}]'::json::JSON) AS sent(id UUID, reserved NUMERIC(18, 9), spent NUMERIC(18, 9)) WHERE budgets.id = sent.id
-- ;
UPDATE attempts SET reserved_usd=sent.usd FROM json_to_recordset('[{"job_id": "01a239b1-eb43-7398-8ae3-0c69ab032f1b", "number": 1, "usd": "0.01"}, {"job_id": "01a239b1-eb43-7398-8ae3-0c6a6fa88f94", "number": 1, "usd": "0.01"}]'::json::JSON) AS sent(job_id UUID, number INTEGER, usd NUMERIC(18, 9)) WHERE attempts.job_id = sent.job_id AND attempts.number = sent.number AND attempts.job_id = ANY ('{01a239b1eb4373988ae30c69ab032f1b,01a239b1eb4373988ae30c6a6fa88f94}'::uuid[]::UUID[])
-- ;
SELECT count(*) AS count_1 
FROM jobs 
WHERE jobs.state = 'running' AND jobs.worker_id = '01a239b1eb4577489cf14d03aaff1e5f'::uuid::UUID
-- ;
UPDATE provider_batches SET state='sent'::VARCHAR, provider_id='batch_1'::VARCHAR WHERE provider_batches.id = '01a239b1eb4577489cf14d03aaff1e5f'::uuid::UUID AND provider_batches.runner_id = '000000000000000000000000000000a1'::uuid::UUID AND provider_batches.state = 'ready'::VARCHAR
-- ;
SELECT provider_batches.id, provider_batches.batch_id, provider_batches.model, provider_batches.state, provider_batches.file_id, provider_batches.provider_id, provider_batches.status, provider_batches.lines, provider_batches.answered, provider_batches.unreturned_usd, provider_batches.error, provider_batches.created_at, provider_batches.asks, provider_batches.asked_at, provider_batches.sent_at, provider_batches.checked_at, provider_batches.cancel_asked_at, provider_batches.ended_at, provider_batches.runner_id, provider_batches.lease_until, batches.state AS batch_state, batches.app_id AS app_id, now() AS read_at 
FROM provider_batches JOIN batches ON batches.id = provider_batches.batch_id 
WHERE provider_batches.id = '01a239b1eb4577489cf14d03aaff1e5f'::uuid::UUID
-- ;
SELECT jobs.id, jobs.app_id, jobs.state, jobs.lane, jobs.pool, jobs.queue, jobs.route, jobs.route_reason, jobs.overflow, jobs.model_requested, jobs.model_served, jobs.adapter, jobs.notes, jobs.end_user, jobs.served_by_job, jobs.metadata, jobs.webhook_url, jobs.background, jobs.max_cost_usd, jobs.prompt_tokens, jobs.max_tokens, jobs.output_tokens, jobs.cached_tokens, jobs.reasoning_tokens, jobs.finish_reason, jobs.usd, jobs.error_code, jobs.error_message, jobs.enqueue_no, jobs.attempt, jobs.worker_id, jobs.created_at, jobs.start_by, jobs.finish_by, jobs.not_before, jobs.queued_at, jobs.started_at, jobs.ended_at, jobs.cancel_requested_at, jobs.stream, jobs.erased_at, jobs.suspicion, jobs.retry_of, jobs.overflow_at, jobs.original_tokens, jobs.cache, jobs.rule, jobs.stand_by, jobs.shadow, jobs.shadow_of, jobs.n, jobs.needs_version, jobs.start_after, job_texts.messages, job_texts.sampling, attempts.reserved_usd 
FROM jobs JOIN job_texts ON job_texts.job_id = jobs.id JOIN attempts ON attempts.job_id = jobs.id AND attempts.number = jobs.attempt 
WHERE jobs.state = 'running' AND jobs.worker_id = '01a239b1eb4577489cf14d03aaff1e5f'::uuid::UUID AND jobs.id = ANY (CAST('{01a239b1eb4373988ae30c69ab032f1b,01a239b1eb4373988ae30c6a6fa88f94}'::uuid[]::UUID[] AS UUID[])) ORDER BY jobs.id
-- ;
WITH given AS (
    SELECT * FROM json_to_recordset('[{"job_id":"01a239b1-eb43-7398-8ae3-0c69ab032f1b","worker_id":"01a239b1-eb45-7748-9cf1-4d03aaff1e5f","attempt":1,"enqueue_no":1,"app_id":"01a239b1-ea67-7112-97f5-31878d96dfe1","end_user":null,"pool":"chat","model":"m","model_served":"m","host_id":null,"kind":"api","outcome":"succeeded","error_code":null,"error_cause":null,"prompt_tokens":8,"cached_tokens":0,"output_tokens":3,"engine_s":0.0,"first_token_s":null,"preemptions":0,"kv_token_s":0.0,"usd":"0.001","price_version":"v1/batch","api_usd":null,"estimated":false,"original_tokens":null,"saved_usd":null,"reason":null,"escalated_by":null,"charged_usd":"0.001","finish_reason":"stop","error_message":null,"answer":"A channel.","logprobs_json":null,"reasoning":null,"tool_calls":null,"reasoning_tokens":0,"choices":null,"notes":null}]'::json) AS sent (
        job_id uuid, worker_id uuid, attempt int, enqueue_no int, app_id uuid, end_user text, pool text, model text,
        model_served text, host_id text, kind text, outcome text, error_code text, error_message text,
        finish_reason text, prompt_tokens int, cached_tokens int, output_tokens int, reasoning_tokens int,
        original_tokens int, engine_s float8, first_token_s float8, preemptions int, kv_token_s float8, usd numeric,
        charged_usd numeric, price_version text, api_usd numeric, estimated boolean, saved_usd numeric, reason text,
        escalated_by text, error_cause text, notes jsonb, answer text, logprobs_json json, reasoning text, tool_calls jsonb, choices json
    )
    WHERE enqueue_no BETWEEN 0 AND 2147483647
), moved AS (
    UPDATE jobs
    SET state = 'succeeded', worker_id = NULL, ended_at = now(), usd = given.charged_usd,
        prompt_tokens = coalesce(nullif(given.prompt_tokens, 0), jobs.prompt_tokens),
        output_tokens = given.output_tokens, cached_tokens = given.cached_tokens,
        reasoning_tokens = given.reasoning_tokens, original_tokens = given.original_tokens,
        finish_reason = given.finish_reason, model_served = given.model_served,
        error_code = given.error_code, error_message = given.error_message,
        notes = CASE WHEN given.notes IS NULL THEN jobs.notes ELSE coalesce(jobs.notes, '{}') || given.notes END
    FROM given
    WHERE jobs.id = given.job_id AND jobs.id BETWEEN '01a22ee6-b000-0000-0000-000000000000' AND '01a2ce8b-d3ff-ffff-ffff-ffffffffffff'
        AND jobs.id = ANY (ARRAY(SELECT job_id FROM given))
        AND jobs.state || '' = 'running'
        AND jobs.worker_id = given.worker_id AND jobs.attempt = given.attempt
        AND jobs.enqueue_no = given.enqueue_no
    RETURNING jobs.id, jobs.app_id, jobs.state, jobs.finish_reason, jobs.webhook_url
), held AS (
    SELECT given.* FROM given JOIN moved ON moved.id = given.job_id
), ended AS (
    UPDATE attempts
    SET ended_at = now(), outcome = held.outcome, error_code = held.error_code, model_served = held.model_served,
        first_token_s = held.first_token_s, preemptions = held.preemptions, escalated_by = held.escalated_by,
        error_cause = held.error_cause,
        prompt_tokens = held.prompt_tokens, cached_tokens = held.cached_tokens, output_tokens = held.output_tokens,
        engine_s = held.engine_s
    FROM held
    WHERE attempts.job_id = held.job_id AND attempts.job_id BETWEEN '01a22ee6-b000-0000-0000-000000000000' AND '01a2ce8b-d3ff-ffff-ffff-ffffffffffff'
        AND attempts.job_id = ANY (ARRAY(SELECT job_id FROM given))
        AND attempts.number = held.attempt
), booked AS (
    INSERT INTO ledger (
        kind, job_id, attempt, app_id, end_user, pool, model, host_id, prompt_tokens, cached_tokens, output_tokens,
        engine_s, kv_token_s, usd, price_version, api_usd, estimated, saved_usd, reason
    )
    SELECT
        kind, job_id, attempt, app_id, end_user, pool, model, host_id, prompt_tokens, cached_tokens, output_tokens,
        engine_s, kv_token_s, usd, price_version, api_usd, estimated, saved_usd, reason
    FROM held
), answered AS (
    UPDATE job_texts
    SET answer = held.answer, logprobs_json = held.logprobs_json, reasoning = held.reasoning,
        tool_calls = held.tool_calls, choices = held.choices
    FROM held
    WHERE job_texts.job_id = held.job_id AND job_texts.job_id BETWEEN '01a22ee6-b000-0000-0000-000000000000' AND '01a2ce8b-d3ff-ffff-ffff-ffffffffffff'
        AND job_texts.job_id = ANY (ARRAY(SELECT job_id FROM given))
        AND held.answer IS NOT NULL
)
SELECT * FROM moved;
-- ;
SELECT attempts.job_id, attempts.number, attempts.started_at, attempts.reserved_usd 
FROM attempts 
WHERE attempts.job_id = ANY ('{01a239b1eb4373988ae30c69ab032f1b}'::uuid[]::UUID[]) AND attempts.reserved_usd > 0::INTEGER FOR UPDATE
-- ;
UPDATE attempts SET reserved_usd=sent.usd FROM json_to_recordset('[{"job_id": "01a239b1-eb43-7398-8ae3-0c69ab032f1b", "number": 1, "usd": "0"}]'::json::JSON) AS sent(job_id UUID, number INTEGER, usd NUMERIC(18, 9)) WHERE attempts.job_id = sent.job_id AND attempts.number = sent.number AND attempts.job_id = ANY ('{01a239b1eb4373988ae30c69ab032f1b}'::uuid[]::UUID[])
-- ;
SELECT budgets.id, budgets.app_id, budgets.period, budgets.starts_at, budgets.reserved_usd, budgets.spent_usd, budgets.told_percent, budgets.short_at, budgets.told_reserved_percent, budgets.reserved_short_at, budgets.limit_usd 
FROM budgets 
WHERE (budgets.app_id = ANY ('{01a239b1ea67711297f531878d96dfe1}'::uuid[]::UUID[]) OR budgets.app_id IS NULL) AND (budgets.period = 'day'::VARCHAR AND budgets.starts_at = date_trunc('day'::VARCHAR, '2026-12-03 02:18:11.149087+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, 'UTC'::VARCHAR) OR budgets.period = 'month'::VARCHAR AND budgets.starts_at = date_trunc('month'::VARCHAR, '2026-12-03 02:18:11.149087+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, 'UTC'::VARCHAR)) ORDER BY budgets.app_id NULLS FIRST, budgets.period DESC FOR UPDATE
-- ;
UPDATE budgets SET reserved_usd=(budgets.reserved_usd + sent.reserved), spent_usd=(budgets.spent_usd + sent.spent) FROM json_to_recordset('[{"id": "01a239b1-eab5-73c5-9257-0d4eb30d3bca", "reserved": "-0.010000000", "spent": "0.001"}, {"id": "01a239b1-eab5-73c5-9257-0d4d3119e959", "reserved": "-0.010000000", "spent": "0.001"}, {"id": "01a239b1-eab5-73c5-9257-0d5035a316a7", "reserved": "-0.010000000", "spent": "0.001"}, {"id": "01a239b1-eab5-73c5-9257-0d4fe6d9a018", "reserved": "-0.010000000", "spent": "0.001"}]'::json::JSON) AS sent(id UUID, reserved NUMERIC(18, 9), spent NUMERIC(18, 9)) WHERE budgets.id = sent.id
-- ;
UPDATE jobs SET state='cancelled'::VARCHAR, worker_id=NULL::UUID, ended_at=now() WHERE jobs.state IN ('running'::VARCHAR) AND jobs.worker_id = '01a239b1eb4577489cf14d03aaff1e5f'::uuid::UUID AND jobs.id = ANY (CAST('{01a239b1eb4373988ae30c6a6fa88f94}'::uuid[]::UUID[] AS UUID[])) AND jobs.cancel_requested_at IS NOT NULL RETURNING jobs.id, jobs.app_id, jobs.state, jobs.lane, jobs.pool, jobs.queue, jobs.route, jobs.route_reason, jobs.overflow, jobs.model_requested, jobs.model_served, jobs.adapter, jobs.notes, jobs.end_user, jobs.served_by_job, jobs.metadata, jobs.webhook_url, jobs.background, jobs.max_cost_usd, jobs.prompt_tokens, jobs.max_tokens, jobs.output_tokens, jobs.cached_tokens, jobs.reasoning_tokens, jobs.finish_reason, jobs.usd, jobs.error_code, jobs.error_message, jobs.enqueue_no, jobs.attempt, jobs.worker_id, jobs.created_at, jobs.start_by, jobs.finish_by, jobs.not_before, jobs.queued_at, jobs.started_at, jobs.ended_at, jobs.cancel_requested_at, jobs.stream, jobs.erased_at, jobs.suspicion, jobs.retry_of, jobs.overflow_at, jobs.original_tokens, jobs.cache, jobs.rule, jobs.stand_by, jobs.shadow, jobs.shadow_of, jobs.n, jobs.needs_version, jobs.start_after
-- ;
UPDATE jobs SET state='waiting'::VARCHAR, queue='chat.batch'::VARCHAR, route='pool'::VARCHAR, route_reason='back from the provider''s batch tier: None'::VARCHAR, attempt=(jobs.attempt - 1::INTEGER), worker_id=NULL::UUID, not_before=now(), started_at=CASE WHEN (jobs.attempt > 1::INTEGER) THEN jobs.started_at END WHERE jobs.state IN ('running'::VARCHAR) AND jobs.worker_id = '01a239b1eb4577489cf14d03aaff1e5f'::uuid::UUID AND jobs.id = ANY (CAST('{01a239b1eb4373988ae30c6a6fa88f94}'::uuid[]::UUID[] AS UUID[])) AND jobs.cancel_requested_at IS NULL RETURNING jobs.id, jobs.app_id, jobs.state, jobs.lane, jobs.pool, jobs.queue, jobs.route, jobs.route_reason, jobs.overflow, jobs.model_requested, jobs.model_served, jobs.adapter, jobs.notes, jobs.end_user, jobs.served_by_job, jobs.metadata, jobs.webhook_url, jobs.background, jobs.max_cost_usd, jobs.prompt_tokens, jobs.max_tokens, jobs.output_tokens, jobs.cached_tokens, jobs.reasoning_tokens, jobs.finish_reason, jobs.usd, jobs.error_code, jobs.error_message, jobs.enqueue_no, jobs.attempt, jobs.worker_id, jobs.created_at, jobs.start_by, jobs.finish_by, jobs.not_before, jobs.queued_at, jobs.started_at, jobs.ended_at, jobs.cancel_requested_at, jobs.stream, jobs.erased_at, jobs.suspicion, jobs.retry_of, jobs.overflow_at, jobs.original_tokens, jobs.cache, jobs.rule, jobs.stand_by, jobs.shadow, jobs.shadow_of, jobs.n, jobs.needs_version, jobs.start_after
-- ;
SELECT attempts.job_id, attempts.number, attempts.started_at, attempts.reserved_usd 
FROM attempts 
WHERE attempts.job_id = ANY ('{01a239b1eb4373988ae30c6a6fa88f94}'::uuid[]::UUID[]) AND attempts.reserved_usd > 0::INTEGER FOR UPDATE
-- ;
UPDATE attempts SET reserved_usd=sent.usd FROM json_to_recordset('[{"job_id": "01a239b1-eb43-7398-8ae3-0c6a6fa88f94", "number": 1, "usd": "0"}]'::json::JSON) AS sent(job_id UUID, number INTEGER, usd NUMERIC(18, 9)) WHERE attempts.job_id = sent.job_id AND attempts.number = sent.number AND attempts.job_id = ANY ('{01a239b1eb4373988ae30c6a6fa88f94}'::uuid[]::UUID[])
-- ;
SELECT budgets.id, budgets.app_id, budgets.period, budgets.starts_at, budgets.reserved_usd, budgets.spent_usd, budgets.told_percent, budgets.short_at, budgets.told_reserved_percent, budgets.reserved_short_at, budgets.limit_usd 
FROM budgets 
WHERE (budgets.app_id = ANY ('{01a239b1ea67711297f531878d96dfe1}'::uuid[]::UUID[]) OR budgets.app_id IS NULL) AND (budgets.period = 'day'::VARCHAR AND budgets.starts_at = date_trunc('day'::VARCHAR, '2026-12-03 02:18:11.149087+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, 'UTC'::VARCHAR) OR budgets.period = 'month'::VARCHAR AND budgets.starts_at = date_trunc('month'::VARCHAR, '2026-12-03 02:18:11.149087+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, 'UTC'::VARCHAR)) ORDER BY budgets.app_id NULLS FIRST, budgets.period DESC FOR UPDATE
-- ;
UPDATE budgets SET reserved_usd=(budgets.reserved_usd + sent.reserved), spent_usd=(budgets.spent_usd + sent.spent) FROM json_to_recordset('[{"id": "01a239b1-eab5-73c5-9257-0d4eb30d3bca", "reserved": "-0.010000000", "spent": "0"}, {"id": "01a239b1-eab5-73c5-9257-0d4d3119e959", "reserved": "-0.010000000", "spent": "0"}, {"id": "01a239b1-eab5-73c5-9257-0d5035a316a7", "reserved": "-0.010000000", "spent": "0"}, {"id": "01a239b1-eab5-73c5-9257-0d4fe6d9a018", "reserved": "-0.010000000", "spent": "0"}]'::json::JSON) AS sent(id UUID, reserved NUMERIC(18, 9), spent NUMERIC(18, 9)) WHERE budgets.id = sent.id
-- ;
DELETE FROM attempts WHERE (attempts.job_id, attempts.number) IN (('01a239b1eb4373988ae30c6a6fa88f94'::uuid, 1))
-- ;
SELECT count(*) FILTER (WHERE ledger.kind = 'api') AS anon_1, coalesce(sum(ledger.prompt_tokens), 0::INTEGER) AS coalesce_1, coalesce(sum(ledger.output_tokens), 0::INTEGER) AS coalesce_3, coalesce(sum(ledger.cached_tokens), 0::INTEGER) AS coalesce_5 
FROM ledger JOIN batch_lines ON batch_lines.job_id = ledger.job_id 
WHERE batch_lines.provider_batch_id = '01a239b1eb4577489cf14d03aaff1e5f'::uuid::UUID AND (ledger.price_version LIKE '%' || '/batch'::VARCHAR)
-- ;
INSERT INTO ledger (kind, app_id, model, prompt_tokens, cached_tokens, output_tokens, usd, price_version, reason) VALUES ('waste'::VARCHAR, '01a239b1ea67711297f531878d96dfe1'::uuid::UUID, 'm'::VARCHAR, 1::INTEGER, 0::INTEGER, 1::INTEGER, 0.0001, 'v1/batch'::VARCHAR, 'unreturned'::VARCHAR) RETURNING ledger.id
-- ;
SELECT now() AS started_at, 0 AS reserved_usd
-- ;
SELECT budgets.id, budgets.app_id, budgets.period, budgets.starts_at, budgets.reserved_usd, budgets.spent_usd, budgets.told_percent, budgets.short_at, budgets.told_reserved_percent, budgets.reserved_short_at, budgets.limit_usd 
FROM budgets 
WHERE (budgets.app_id = ANY ('{01a239b1ea67711297f531878d96dfe1}'::uuid[]::UUID[]) OR budgets.app_id IS NULL) AND (budgets.period = 'day'::VARCHAR AND budgets.starts_at = date_trunc('day'::VARCHAR, '2026-12-03 02:18:11.171354+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, 'UTC'::VARCHAR) OR budgets.period = 'month'::VARCHAR AND budgets.starts_at = date_trunc('month'::VARCHAR, '2026-12-03 02:18:11.171354+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, 'UTC'::VARCHAR))
-- ;
SELECT budgets.id, budgets.app_id, budgets.period, budgets.starts_at, budgets.reserved_usd, budgets.spent_usd, budgets.told_percent, budgets.short_at, budgets.told_reserved_percent, budgets.reserved_short_at, budgets.limit_usd 
FROM budgets 
WHERE (budgets.app_id = ANY ('{01a239b1ea67711297f531878d96dfe1}'::uuid[]::UUID[]) OR budgets.app_id IS NULL) AND (budgets.period = 'day'::VARCHAR AND budgets.starts_at = date_trunc('day'::VARCHAR, '2026-12-03 02:18:11.171354+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, 'UTC'::VARCHAR) OR budgets.period = 'month'::VARCHAR AND budgets.starts_at = date_trunc('month'::VARCHAR, '2026-12-03 02:18:11.171354+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, 'UTC'::VARCHAR)) ORDER BY budgets.app_id NULLS FIRST, budgets.period DESC FOR UPDATE
-- ;
UPDATE budgets SET reserved_usd=(budgets.reserved_usd + sent.reserved), spent_usd=(budgets.spent_usd + sent.spent) FROM json_to_recordset('[{"id": "01a239b1-eab5-73c5-9257-0d4eb30d3bca", "reserved": "0", "spent": "0.0001"}, {"id": "01a239b1-eab5-73c5-9257-0d4d3119e959", "reserved": "0", "spent": "0.0001"}, {"id": "01a239b1-eab5-73c5-9257-0d5035a316a7", "reserved": "0", "spent": "0.0001"}, {"id": "01a239b1-eab5-73c5-9257-0d4fe6d9a018", "reserved": "0", "spent": "0.0001"}]'::json::JSON) AS sent(id UUID, reserved NUMERIC(18, 9), spent NUMERIC(18, 9)) WHERE budgets.id = sent.id
-- ;
SELECT provider_batches.state, count(*) AS number, EXTRACT(epoch FROM now() - min(provider_batches.created_at)) AS oldest_s 
FROM provider_batches 
WHERE provider_batches.state != 'ended' GROUP BY provider_batches.state
-- ;
UPDATE provider_batches SET runner_id=NULL::UUID, lease_until=NULL::TIMESTAMP WITH TIME ZONE WHERE provider_batches.state != 'ended' AND provider_batches.runner_id = '000000000000000000000000000000a1'::uuid::UUID
-- ;

-- part: look
WITH given AS (
    SELECT * FROM json_to_recordset('[{"app_id":"01a239b1-ea67-7112-97f5-31878d96dfe1","job_id":"01a21000-0000-7000-8000-000000000001"}]'::json) AS sent (app_id uuid, job_id uuid)
    WHERE job_id BETWEEN '00000000-0000-0000-0000-000000000000' AND 'ffffffff-ffff-ffff-ffff-ffffffffffff'
)
SELECT
    jobs.id, jobs.app_id, jobs.state, jobs.lane, jobs.pool, jobs.queue, jobs.route, jobs.route_reason, jobs.overflow,
    jobs.model_requested, jobs.model_served, jobs.metadata, jobs.end_user, jobs.background, jobs.stream,
    jobs.prompt_tokens, jobs.max_tokens, jobs.output_tokens, jobs.cached_tokens, jobs.reasoning_tokens,
    jobs.original_tokens, jobs.finish_reason, jobs.usd, jobs.error_code, jobs.error_message, jobs.enqueue_no,
    jobs.attempt, jobs.suspicion, jobs.created_at, jobs.start_after, jobs.start_by, jobs.finish_by, jobs.started_at, jobs.ended_at,
    jobs.cancel_requested_at, jobs.retry_of, jobs.cache, jobs.served_by_job, jobs.n,
    attempts.engine, ledger.price_version, job_texts.tool_calls,
    job_texts.sampling ->> 'reasoning_effort' AS reasoning_effort,
    CASE WHEN NOT false::boolean OR jobs.max_tokens > 0 THEN job_texts.answer END AS answer,
    CASE WHEN NOT false::boolean THEN job_texts.reasoning END AS reasoning,
    CASE WHEN NOT false::boolean AND true::boolean THEN job_texts.sampling -> 'tools' END AS tools,
    CASE WHEN NOT false::boolean THEN job_texts.choices END AS others,
    CASE WHEN NOT false::boolean THEN coalesce(job_texts.logprobs_json::text, job_texts.logprobs::text) END
        AS logprobs,
    jobs.state IN ('waiting', 'queued')
        AND (jobs.started_at IS NULL AND jobs.start_by <= now() OR coalesce(jobs.finish_by <= now(), false)) AS is_over,
    false AS is_leader_ended
FROM given
JOIN jobs ON jobs.id = given.job_id AND jobs.app_id = given.app_id AND jobs.id BETWEEN '01a19467-e800-0000-0000-000000000000' AND '01a22ee6-afff-ffff-ffff-ffffffffffff'
    AND jobs.id = ANY (ARRAY(SELECT job_id FROM given))
JOIN job_texts ON job_texts.job_id = jobs.id AND job_texts.job_id BETWEEN '01a19467-e800-0000-0000-000000000000' AND '01a22ee6-afff-ffff-ffff-ffffffffffff'
    AND job_texts.job_id = ANY (ARRAY(SELECT job_id FROM given))
LEFT JOIN attempts ON attempts.job_id = jobs.id AND attempts.job_id BETWEEN '01a19467-e800-0000-0000-000000000000' AND '01a22ee6-afff-ffff-ffff-ffffffffffff'
    AND attempts.job_id = ANY (ARRAY(SELECT job_id FROM given))
    AND attempts.number = jobs.attempt
LEFT JOIN ledger ON ledger.job_id = jobs.id AND ledger.job_id BETWEEN '01a19467-e800-0000-0000-000000000000' AND '01a22ee6-afff-ffff-ffff-ffffffffffff'
    AND ledger.job_id = ANY (ARRAY(SELECT job_id FROM given))
    AND ledger.kind IN ('compute', 'api', 'cache');
-- ;
WITH given AS (
    SELECT * FROM json_to_recordset('[{"app_id":"01a239b1-ea67-7112-97f5-31878d96dfe1","job_id":"01a21000-0000-7000-8000-000000000002"}]'::json) AS sent (app_id uuid, job_id uuid)
    WHERE job_id BETWEEN '00000000-0000-0000-0000-000000000000' AND 'ffffffff-ffff-ffff-ffff-ffffffffffff'
)
SELECT
    jobs.id, jobs.app_id, jobs.state, jobs.lane, jobs.pool, jobs.queue, jobs.route, jobs.route_reason, jobs.overflow,
    jobs.model_requested, jobs.model_served, jobs.metadata, jobs.end_user, jobs.background, jobs.stream,
    jobs.prompt_tokens, jobs.max_tokens, jobs.output_tokens, jobs.cached_tokens, jobs.reasoning_tokens,
    jobs.original_tokens, jobs.finish_reason, jobs.usd, jobs.error_code, jobs.error_message, jobs.enqueue_no,
    jobs.attempt, jobs.suspicion, jobs.created_at, jobs.start_after, jobs.start_by, jobs.finish_by, jobs.started_at, jobs.ended_at,
    jobs.cancel_requested_at, jobs.retry_of, jobs.cache, jobs.served_by_job, jobs.n,
    attempts.engine, ledger.price_version, job_texts.tool_calls,
    job_texts.sampling ->> 'reasoning_effort' AS reasoning_effort,
    CASE WHEN NOT false::boolean OR jobs.max_tokens > 0 THEN job_texts.answer END AS answer,
    CASE WHEN NOT false::boolean THEN job_texts.reasoning END AS reasoning,
    CASE WHEN NOT false::boolean AND true::boolean THEN job_texts.sampling -> 'tools' END AS tools,
    CASE WHEN NOT false::boolean THEN job_texts.choices END AS others,
    CASE WHEN NOT false::boolean THEN coalesce(job_texts.logprobs_json::text, job_texts.logprobs::text) END
        AS logprobs,
    jobs.state IN ('waiting', 'queued')
        AND (jobs.started_at IS NULL AND jobs.start_by <= now() OR coalesce(jobs.finish_by <= now(), false)) AS is_over,
    false AS is_leader_ended
FROM given
JOIN jobs ON jobs.id = given.job_id AND jobs.app_id = given.app_id AND jobs.id BETWEEN '01a19467-e800-0000-0000-000000000000' AND '01a22ee6-afff-ffff-ffff-ffffffffffff'
    AND jobs.id = ANY (ARRAY(SELECT job_id FROM given))
JOIN job_texts ON job_texts.job_id = jobs.id AND job_texts.job_id BETWEEN '01a19467-e800-0000-0000-000000000000' AND '01a22ee6-afff-ffff-ffff-ffffffffffff'
    AND job_texts.job_id = ANY (ARRAY(SELECT job_id FROM given))
LEFT JOIN attempts ON attempts.job_id = jobs.id AND attempts.job_id BETWEEN '01a19467-e800-0000-0000-000000000000' AND '01a22ee6-afff-ffff-ffff-ffffffffffff'
    AND attempts.job_id = ANY (ARRAY(SELECT job_id FROM given))
    AND attempts.number = jobs.attempt
LEFT JOIN ledger ON ledger.job_id = jobs.id AND ledger.job_id BETWEEN '01a19467-e800-0000-0000-000000000000' AND '01a22ee6-afff-ffff-ffff-ffffffffffff'
    AND ledger.job_id = ANY (ARRAY(SELECT job_id FROM given))
    AND ledger.kind IN ('compute', 'api', 'cache');
-- ;
WITH given AS (
    SELECT * FROM json_to_recordset('[{"app_id":"01a239b1-ea67-7112-97f5-31878d96dfe1","job_id":"01a21000-0000-7000-8000-000000000003"}]'::json) AS sent (app_id uuid, job_id uuid)
    WHERE job_id BETWEEN '00000000-0000-0000-0000-000000000000' AND 'ffffffff-ffff-ffff-ffff-ffffffffffff'
)
SELECT
    jobs.id, jobs.app_id, jobs.state, jobs.lane, jobs.pool, jobs.queue, jobs.route, jobs.route_reason, jobs.overflow,
    jobs.model_requested, jobs.model_served, jobs.metadata, jobs.end_user, jobs.background, jobs.stream,
    jobs.prompt_tokens, jobs.max_tokens, jobs.output_tokens, jobs.cached_tokens, jobs.reasoning_tokens,
    jobs.original_tokens, jobs.finish_reason, jobs.usd, jobs.error_code, jobs.error_message, jobs.enqueue_no,
    jobs.attempt, jobs.suspicion, jobs.created_at, jobs.start_after, jobs.start_by, jobs.finish_by, jobs.started_at, jobs.ended_at,
    jobs.cancel_requested_at, jobs.retry_of, jobs.cache, jobs.served_by_job, jobs.n,
    attempts.engine, ledger.price_version, job_texts.tool_calls,
    job_texts.sampling ->> 'reasoning_effort' AS reasoning_effort,
    CASE WHEN NOT false::boolean OR jobs.max_tokens > 0 THEN job_texts.answer END AS answer,
    CASE WHEN NOT false::boolean THEN job_texts.reasoning END AS reasoning,
    CASE WHEN NOT false::boolean AND true::boolean THEN job_texts.sampling -> 'tools' END AS tools,
    CASE WHEN NOT false::boolean THEN job_texts.choices END AS others,
    CASE WHEN NOT false::boolean THEN coalesce(job_texts.logprobs_json::text, job_texts.logprobs::text) END
        AS logprobs,
    jobs.state IN ('waiting', 'queued')
        AND (jobs.started_at IS NULL AND jobs.start_by <= now() OR coalesce(jobs.finish_by <= now(), false)) AS is_over,
    false AS is_leader_ended
FROM given
JOIN jobs ON jobs.id = given.job_id AND jobs.app_id = given.app_id AND jobs.id BETWEEN '01a19467-e800-0000-0000-000000000000' AND '01a22ee6-afff-ffff-ffff-ffffffffffff'
    AND jobs.id = ANY (ARRAY(SELECT job_id FROM given))
JOIN job_texts ON job_texts.job_id = jobs.id AND job_texts.job_id BETWEEN '01a19467-e800-0000-0000-000000000000' AND '01a22ee6-afff-ffff-ffff-ffffffffffff'
    AND job_texts.job_id = ANY (ARRAY(SELECT job_id FROM given))
LEFT JOIN attempts ON attempts.job_id = jobs.id AND attempts.job_id BETWEEN '01a19467-e800-0000-0000-000000000000' AND '01a22ee6-afff-ffff-ffff-ffffffffffff'
    AND attempts.job_id = ANY (ARRAY(SELECT job_id FROM given))
    AND attempts.number = jobs.attempt
LEFT JOIN ledger ON ledger.job_id = jobs.id AND ledger.job_id BETWEEN '01a19467-e800-0000-0000-000000000000' AND '01a22ee6-afff-ffff-ffff-ffffffffffff'
    AND ledger.job_id = ANY (ARRAY(SELECT job_id FROM given))
    AND ledger.kind IN ('compute', 'api', 'cache');
-- ;
WITH given AS (
    SELECT * FROM json_to_recordset('[{"app_id":"01a239b1-ea67-7112-97f5-31878d96dfe1","job_id":"01a21000-0000-7000-8000-000000000004"}]'::json) AS sent (app_id uuid, job_id uuid)
    WHERE job_id BETWEEN '00000000-0000-0000-0000-000000000000' AND 'ffffffff-ffff-ffff-ffff-ffffffffffff'
)
SELECT
    jobs.id, jobs.app_id, jobs.state, jobs.lane, jobs.pool, jobs.queue, jobs.route, jobs.route_reason, jobs.overflow,
    jobs.model_requested, jobs.model_served, jobs.metadata, jobs.end_user, jobs.background, jobs.stream,
    jobs.prompt_tokens, jobs.max_tokens, jobs.output_tokens, jobs.cached_tokens, jobs.reasoning_tokens,
    jobs.original_tokens, jobs.finish_reason, jobs.usd, jobs.error_code, jobs.error_message, jobs.enqueue_no,
    jobs.attempt, jobs.suspicion, jobs.created_at, jobs.start_after, jobs.start_by, jobs.finish_by, jobs.started_at, jobs.ended_at,
    jobs.cancel_requested_at, jobs.retry_of, jobs.cache, jobs.served_by_job, jobs.n,
    attempts.engine, ledger.price_version, job_texts.tool_calls,
    job_texts.sampling ->> 'reasoning_effort' AS reasoning_effort,
    CASE WHEN NOT false::boolean OR jobs.max_tokens > 0 THEN job_texts.answer END AS answer,
    CASE WHEN NOT false::boolean THEN job_texts.reasoning END AS reasoning,
    CASE WHEN NOT false::boolean AND true::boolean THEN job_texts.sampling -> 'tools' END AS tools,
    CASE WHEN NOT false::boolean THEN job_texts.choices END AS others,
    CASE WHEN NOT false::boolean THEN coalesce(job_texts.logprobs_json::text, job_texts.logprobs::text) END
        AS logprobs,
    jobs.state IN ('waiting', 'queued')
        AND (jobs.started_at IS NULL AND jobs.start_by <= now() OR coalesce(jobs.finish_by <= now(), false)) AS is_over,
    false AS is_leader_ended
FROM given
JOIN jobs ON jobs.id = given.job_id AND jobs.app_id = given.app_id AND jobs.id BETWEEN '01a19467-e800-0000-0000-000000000000' AND '01a22ee6-afff-ffff-ffff-ffffffffffff'
    AND jobs.id = ANY (ARRAY(SELECT job_id FROM given))
JOIN job_texts ON job_texts.job_id = jobs.id AND job_texts.job_id BETWEEN '01a19467-e800-0000-0000-000000000000' AND '01a22ee6-afff-ffff-ffff-ffffffffffff'
    AND job_texts.job_id = ANY (ARRAY(SELECT job_id FROM given))
LEFT JOIN attempts ON attempts.job_id = jobs.id AND attempts.job_id BETWEEN '01a19467-e800-0000-0000-000000000000' AND '01a22ee6-afff-ffff-ffff-ffffffffffff'
    AND attempts.job_id = ANY (ARRAY(SELECT job_id FROM given))
    AND attempts.number = jobs.attempt
LEFT JOIN ledger ON ledger.job_id = jobs.id AND ledger.job_id BETWEEN '01a19467-e800-0000-0000-000000000000' AND '01a22ee6-afff-ffff-ffff-ffffffffffff'
    AND ledger.job_id = ANY (ARRAY(SELECT job_id FROM given))
    AND ledger.kind IN ('compute', 'api', 'cache');
-- ;
WITH given AS (
    SELECT * FROM json_to_recordset('[{"app_id":"01a239b1-ea67-7112-97f5-31878d96dfe1","job_id":"01a21000-0000-7000-8000-000000000005"}]'::json) AS sent (app_id uuid, job_id uuid)
    WHERE job_id BETWEEN '00000000-0000-0000-0000-000000000000' AND 'ffffffff-ffff-ffff-ffff-ffffffffffff'
)
SELECT
    jobs.id, jobs.app_id, jobs.state, jobs.lane, jobs.pool, jobs.queue, jobs.route, jobs.route_reason, jobs.overflow,
    jobs.model_requested, jobs.model_served, jobs.metadata, jobs.end_user, jobs.background, jobs.stream,
    jobs.prompt_tokens, jobs.max_tokens, jobs.output_tokens, jobs.cached_tokens, jobs.reasoning_tokens,
    jobs.original_tokens, jobs.finish_reason, jobs.usd, jobs.error_code, jobs.error_message, jobs.enqueue_no,
    jobs.attempt, jobs.suspicion, jobs.created_at, jobs.start_after, jobs.start_by, jobs.finish_by, jobs.started_at, jobs.ended_at,
    jobs.cancel_requested_at, jobs.retry_of, jobs.cache, jobs.served_by_job, jobs.n,
    attempts.engine, ledger.price_version, job_texts.tool_calls,
    job_texts.sampling ->> 'reasoning_effort' AS reasoning_effort,
    CASE WHEN NOT false::boolean OR jobs.max_tokens > 0 THEN job_texts.answer END AS answer,
    CASE WHEN NOT false::boolean THEN job_texts.reasoning END AS reasoning,
    CASE WHEN NOT false::boolean AND true::boolean THEN job_texts.sampling -> 'tools' END AS tools,
    CASE WHEN NOT false::boolean THEN job_texts.choices END AS others,
    CASE WHEN NOT false::boolean THEN coalesce(job_texts.logprobs_json::text, job_texts.logprobs::text) END
        AS logprobs,
    jobs.state IN ('waiting', 'queued')
        AND (jobs.started_at IS NULL AND jobs.start_by <= now() OR coalesce(jobs.finish_by <= now(), false)) AS is_over,
    false AS is_leader_ended
FROM given
JOIN jobs ON jobs.id = given.job_id AND jobs.app_id = given.app_id AND jobs.id BETWEEN '01a19467-e800-0000-0000-000000000000' AND '01a22ee6-afff-ffff-ffff-ffffffffffff'
    AND jobs.id = ANY (ARRAY(SELECT job_id FROM given))
JOIN job_texts ON job_texts.job_id = jobs.id AND job_texts.job_id BETWEEN '01a19467-e800-0000-0000-000000000000' AND '01a22ee6-afff-ffff-ffff-ffffffffffff'
    AND job_texts.job_id = ANY (ARRAY(SELECT job_id FROM given))
LEFT JOIN attempts ON attempts.job_id = jobs.id AND attempts.job_id BETWEEN '01a19467-e800-0000-0000-000000000000' AND '01a22ee6-afff-ffff-ffff-ffffffffffff'
    AND attempts.job_id = ANY (ARRAY(SELECT job_id FROM given))
    AND attempts.number = jobs.attempt
LEFT JOIN ledger ON ledger.job_id = jobs.id AND ledger.job_id BETWEEN '01a19467-e800-0000-0000-000000000000' AND '01a22ee6-afff-ffff-ffff-ffffffffffff'
    AND ledger.job_id = ANY (ARRAY(SELECT job_id FROM given))
    AND ledger.kind IN ('compute', 'api', 'cache');
-- ;
WITH given AS (
    SELECT * FROM json_to_recordset('[{"app_id":"01a239b1-ea67-7112-97f5-31878d96dfe1","job_id":"01a21000-0000-7000-8000-000000000006"}]'::json) AS sent (app_id uuid, job_id uuid)
    WHERE job_id BETWEEN '00000000-0000-0000-0000-000000000000' AND 'ffffffff-ffff-ffff-ffff-ffffffffffff'
)
SELECT
    jobs.id, jobs.app_id, jobs.state, jobs.lane, jobs.pool, jobs.queue, jobs.route, jobs.route_reason, jobs.overflow,
    jobs.model_requested, jobs.model_served, jobs.metadata, jobs.end_user, jobs.background, jobs.stream,
    jobs.prompt_tokens, jobs.max_tokens, jobs.output_tokens, jobs.cached_tokens, jobs.reasoning_tokens,
    jobs.original_tokens, jobs.finish_reason, jobs.usd, jobs.error_code, jobs.error_message, jobs.enqueue_no,
    jobs.attempt, jobs.suspicion, jobs.created_at, jobs.start_after, jobs.start_by, jobs.finish_by, jobs.started_at, jobs.ended_at,
    jobs.cancel_requested_at, jobs.retry_of, jobs.cache, jobs.served_by_job, jobs.n,
    attempts.engine, ledger.price_version, job_texts.tool_calls,
    job_texts.sampling ->> 'reasoning_effort' AS reasoning_effort,
    CASE WHEN NOT false::boolean OR jobs.max_tokens > 0 THEN job_texts.answer END AS answer,
    CASE WHEN NOT false::boolean THEN job_texts.reasoning END AS reasoning,
    CASE WHEN NOT false::boolean AND true::boolean THEN job_texts.sampling -> 'tools' END AS tools,
    CASE WHEN NOT false::boolean THEN job_texts.choices END AS others,
    CASE WHEN NOT false::boolean THEN coalesce(job_texts.logprobs_json::text, job_texts.logprobs::text) END
        AS logprobs,
    jobs.state IN ('waiting', 'queued')
        AND (jobs.started_at IS NULL AND jobs.start_by <= now() OR coalesce(jobs.finish_by <= now(), false)) AS is_over,
    false AS is_leader_ended
FROM given
JOIN jobs ON jobs.id = given.job_id AND jobs.app_id = given.app_id AND jobs.id BETWEEN '01a19467-e800-0000-0000-000000000000' AND '01a22ee6-afff-ffff-ffff-ffffffffffff'
    AND jobs.id = ANY (ARRAY(SELECT job_id FROM given))
JOIN job_texts ON job_texts.job_id = jobs.id AND job_texts.job_id BETWEEN '01a19467-e800-0000-0000-000000000000' AND '01a22ee6-afff-ffff-ffff-ffffffffffff'
    AND job_texts.job_id = ANY (ARRAY(SELECT job_id FROM given))
LEFT JOIN attempts ON attempts.job_id = jobs.id AND attempts.job_id BETWEEN '01a19467-e800-0000-0000-000000000000' AND '01a22ee6-afff-ffff-ffff-ffffffffffff'
    AND attempts.job_id = ANY (ARRAY(SELECT job_id FROM given))
    AND attempts.number = jobs.attempt
LEFT JOIN ledger ON ledger.job_id = jobs.id AND ledger.job_id BETWEEN '01a19467-e800-0000-0000-000000000000' AND '01a22ee6-afff-ffff-ffff-ffffffffffff'
    AND ledger.job_id = ANY (ARRAY(SELECT job_id FROM given))
    AND ledger.kind IN ('compute', 'api', 'cache');
-- ;

-- part: sweep publish_due
WITH free AS 
(SELECT locks.name AS name 
FROM locks 
WHERE locks.name = 'publish_due'::VARCHAR FOR UPDATE SKIP LOCKED)
 SELECT EXISTS (SELECT free.name 
FROM free) AS anon_1, EXISTS (SELECT locks.name 
FROM locks 
WHERE locks.name = 'publish_due'::VARCHAR) AS anon_2
-- ;
INSERT INTO locks (name) VALUES ('publish_due'::VARCHAR) ON CONFLICT DO NOTHING RETURNING locks.name
-- ;
UPDATE jobs SET state='queued'::VARCHAR, enqueue_no=(jobs.enqueue_no + 1::INTEGER), worker_id=NULL::UUID, not_before=NULL::TIMESTAMP WITH TIME ZONE, queued_at=now() WHERE jobs.state IN ('waiting'::VARCHAR) AND jobs.id = ANY (array((SELECT jobs.id 
FROM jobs 
WHERE jobs.state = 'waiting' AND jobs.not_before <= now() AND (jobs.needs_version IS NULL OR (EXISTS (SELECT * 
FROM workers 
WHERE workers.lease_until > now() AND workers.ready AND workers.pool = CASE WHEN (jobs.route = 'overflow'::VARCHAR) THEN 'overflow'::VARCHAR ELSE jobs.pool END AND workers.payload_version >= jobs.needs_version))) ORDER BY jobs.not_before 
 LIMIT 1000::INTEGER FOR UPDATE SKIP LOCKED))) RETURNING jobs.id, jobs.app_id, jobs.state, jobs.lane, jobs.pool, jobs.queue, jobs.route, jobs.route_reason, jobs.overflow, jobs.model_requested, jobs.model_served, jobs.adapter, jobs.notes, jobs.end_user, jobs.served_by_job, jobs.metadata, jobs.webhook_url, jobs.background, jobs.max_cost_usd, jobs.prompt_tokens, jobs.max_tokens, jobs.output_tokens, jobs.cached_tokens, jobs.reasoning_tokens, jobs.finish_reason, jobs.usd, jobs.error_code, jobs.error_message, jobs.enqueue_no, jobs.attempt, jobs.worker_id, jobs.created_at, jobs.start_by, jobs.finish_by, jobs.not_before, jobs.queued_at, jobs.started_at, jobs.ended_at, jobs.cancel_requested_at, jobs.stream, jobs.erased_at, jobs.suspicion, jobs.retry_of, jobs.overflow_at, jobs.original_tokens, jobs.cache, jobs.rule, jobs.stand_by, jobs.shadow, jobs.shadow_of, jobs.n, jobs.needs_version, jobs.start_after
-- ;
SELECT jobs.id, jobs.enqueue_no 
FROM jobs 
WHERE jobs.id = ANY (CAST('{01a239b1eb4373988ae30c6a6fa88f94}'::uuid[]::UUID[] AS UUID[])) AND (jobs.state || ''::VARCHAR) = 'queued'::VARCHAR
-- ;
SELECT pg_logical_emit_message(true, 'headrace', '')
-- ;
SELECT least(now() - '0:00:02'::interval, min(xact_start)) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name LIKE 'headrace%' AND pid <> pg_backend_pid()
          AND xact_start > now() - '0:01:00'::interval
-- ;
SELECT concat_ws('.', (pg_control_system()).system_identifier, (pg_control_checkpoint()).timeline_id)
-- ;
SELECT page.*
FROM unnest('{chat.high,chat.normal,chat.low,chat.batch,overflow.high,overflow.normal,overflow.low,overflow.batch}'::text[], '{-infinity,-infinity,-infinity,-infinity,-infinity,-infinity,-infinity,-infinity}'::timestamptz[], '{00000000000000000000000000000000,00000000000000000000000000000000,00000000000000000000000000000000,00000000000000000000000000000000,00000000000000000000000000000000,00000000000000000000000000000000,00000000000000000000000000000000,00000000000000000000000000000000}'::uuid[]::uuid[]) AS marks (queue, queued_at, id)
CROSS JOIN LATERAL (
    SELECT id, app_id, queue, lane, prompt_tokens, max_tokens, start_by, enqueue_no, suspicion, n, queued_at
    FROM jobs
    WHERE jobs.state = 'queued' AND jobs.queue = marks.queue
        AND (jobs.queued_at, jobs.id) > (marks.queued_at, marks.id)
        AND jobs.queued_at < '2026-12-03 02:18:09.208354+00:00'::timestamptz::timestamptz
    ORDER BY jobs.queued_at, jobs.id
    LIMIT 1000::int
) page
ORDER BY page.queue, page.queued_at, page.id;
-- ;

-- part: sweep expire
WITH free AS 
(SELECT locks.name AS name 
FROM locks 
WHERE locks.name = 'expire'::VARCHAR FOR UPDATE SKIP LOCKED)
 SELECT EXISTS (SELECT free.name 
FROM free) AS anon_1, EXISTS (SELECT locks.name 
FROM locks 
WHERE locks.name = 'expire'::VARCHAR) AS anon_2
-- ;
INSERT INTO locks (name) VALUES ('expire'::VARCHAR) ON CONFLICT DO NOTHING RETURNING locks.name
-- ;
SELECT jobs.id 
FROM jobs 
WHERE jobs.state IN ('waiting', 'queued') AND jobs.started_at IS NULL AND jobs.start_by <= now() AND (SELECT leader.started_at 
FROM jobs AS leader 
WHERE leader.id = jobs.served_by_job) IS NULL ORDER BY jobs.start_by 
 LIMIT 1000::INTEGER FOR UPDATE SKIP LOCKED
-- ;
SELECT jobs.id 
FROM jobs 
WHERE jobs.state IN ('waiting', 'queued') AND jobs.finish_by IS NOT NULL AND jobs.finish_by <= now() AND NOT (jobs.started_at IS NULL AND jobs.start_by <= now() AND (SELECT leader.started_at 
FROM jobs AS leader 
WHERE leader.id = jobs.served_by_job) IS NULL) ORDER BY jobs.finish_by 
 LIMIT 1000::INTEGER FOR UPDATE SKIP LOCKED
-- ;

-- part: sweep forget_keys
WITH free AS 
(SELECT locks.name AS name 
FROM locks 
WHERE locks.name = 'forget_keys'::VARCHAR FOR UPDATE SKIP LOCKED)
 SELECT EXISTS (SELECT free.name 
FROM free) AS anon_1, EXISTS (SELECT locks.name 
FROM locks 
WHERE locks.name = 'forget_keys'::VARCHAR) AS anon_2
-- ;
INSERT INTO locks (name) VALUES ('forget_keys'::VARCHAR) ON CONFLICT DO NOTHING RETURNING locks.name
-- ;
DELETE FROM idempotency_keys WHERE idempotency_keys.ctid = ANY (array((SELECT idempotency_keys.ctid 
FROM idempotency_keys 
WHERE idempotency_keys.expires_at <= now() ORDER BY idempotency_keys.expires_at 
 LIMIT 10000::INTEGER FOR UPDATE SKIP LOCKED)))
-- ;
DELETE FROM poison_prompts WHERE poison_prompts.refused_until <= now() RETURNING poison_prompts.digest
-- ;
DELETE FROM poison_strikes WHERE poison_strikes.at < now() - '1 day 0:00:00'::interval RETURNING poison_strikes.job_id
-- ;
DELETE FROM confinements WHERE confinements.until < now() - '1 day 0:00:00'::interval RETURNING confinements.pool
-- ;

-- part: sweep observe
WITH free AS 
(SELECT locks.name AS name 
FROM locks 
WHERE locks.name = 'observe'::VARCHAR FOR UPDATE SKIP LOCKED)
 SELECT EXISTS (SELECT free.name 
FROM free) AS anon_1, EXISTS (SELECT locks.name 
FROM locks 
WHERE locks.name = 'observe'::VARCHAR) AS anon_2
-- ;
INSERT INTO locks (name) VALUES ('observe'::VARCHAR) ON CONFLICT DO NOTHING RETURNING locks.name
-- ;
SELECT greatest(now() - '0:00:01'::interval, least(now(), min(xact_start) - interval '1 microsecond'))
    FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
-- ;
SELECT max(queue_samples.at) AS max_1 
FROM queue_samples 
WHERE queue_samples.at <= '2026-12-03 02:18:11.220380+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE
-- ;
SELECT workers.pool, workers.expected_outputs 
FROM workers 
WHERE workers.lease_until > now() AND workers.expected_outputs IS NOT NULL
-- ;
SELECT jobs.pool, jobs.lane, jobs.queue, jobs.overflow, jobs.max_tokens, coalesce(jobs.n, 1::INTEGER) AS n, count(*) AS jobs, CAST(sum(jobs.prompt_tokens) AS BIGINT) AS prompt_tokens 
FROM jobs 
WHERE jobs.created_at > '2026-12-03 02:18:06.220380+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE AND jobs.created_at <= '2026-12-03 02:18:11.220380+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE AND (jobs.state = 'queued' AND jobs.queue = ANY (CAST('{chat.high,chat.normal,chat.low,chat.batch,overflow.high,overflow.normal,overflow.low,overflow.batch}'::TEXT[] AS TEXT[])) AND jobs.queued_at > '2026-12-03 02:18:05.220380+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE OR jobs.started_at > '2026-12-03 02:18:05.220380+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE OR jobs.started_at IS NULL AND jobs.ended_at > '2026-12-03 02:18:05.220380+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE OR jobs.state = 'waiting' AND jobs.started_at IS NULL) AND jobs.served_by_job IS NULL GROUP BY jobs.pool, jobs.lane, jobs.queue, jobs.overflow, jobs.max_tokens, jobs.n
-- ;
WITH due AS 
(SELECT refusals.minute AS minute, refusals.app_id AS app_id, refusals.queue AS queue, refusals.reason AS reason, refusals.is_repeat AS is_repeat, refusals.sampled_jobs AS sampled_jobs, refusals.sampled_tokens AS sampled_tokens 
FROM refusals 
WHERE refusals.minute >= date_trunc('minute'::VARCHAR, '2026-12-03 02:13:06.220380+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE) AND refusals.jobs > refusals.sampled_jobs AND refusals.reason IN ('depth'::VARCHAR, 'tokens'::VARCHAR, 'wait'::VARCHAR, 'share'::VARCHAR, 'token_share'::VARCHAR, 'no_worker'::VARCHAR) FOR UPDATE SKIP LOCKED)
 UPDATE refusals SET sampled_jobs=refusals.jobs, sampled_tokens=refusals.expected_tokens FROM due WHERE refusals.minute = due.minute AND refusals.app_id = due.app_id AND refusals.queue = due.queue AND refusals.reason = due.reason AND refusals.is_repeat = due.is_repeat RETURNING refusals.app_id, refusals.queue, refusals.is_repeat, refusals.jobs - due.sampled_jobs AS jobs, refusals.expected_tokens - due.sampled_tokens AS tokens
-- ;
SELECT jobs.pool, jobs.lane, jobs.queue, jobs.overflow, jobs.max_tokens, coalesce(jobs.n, 1::INTEGER) AS n, count(*) AS jobs, CAST(sum(jobs.prompt_tokens) AS BIGINT) AS prompt_tokens 
FROM jobs 
WHERE jobs.overflow_at > '2026-12-03 02:18:06.220380+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE AND jobs.overflow_at <= '2026-12-03 02:18:11.220380+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE GROUP BY jobs.pool, jobs.lane, jobs.queue, jobs.overflow, jobs.max_tokens, jobs.n
-- ;
SELECT jobs.pool, jobs.lane, jobs.queue, jobs.overflow, jobs.max_tokens, coalesce(jobs.n, 1::INTEGER) AS n, count(*) AS jobs, CAST(sum(jobs.prompt_tokens) AS BIGINT) AS prompt_tokens 
FROM jobs 
WHERE jobs.started_at > '2026-12-03 02:18:06.220380+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE AND jobs.started_at <= '2026-12-03 02:18:11.220380+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE GROUP BY jobs.pool, jobs.lane, jobs.queue, jobs.overflow, jobs.max_tokens, jobs.n
-- ;
SELECT ledger.id 
FROM ledger 
WHERE ledger.id > 0::BIGINT AND ledger.at <= '2026-12-03 02:17:56.220380+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE ORDER BY ledger.id DESC 
 LIMIT 1::INTEGER
-- ;
SELECT anon_1.queue, EXTRACT(epoch FROM now() - anon_1.since) AS oldest_wait_s 
FROM (SELECT given.queue AS queue, (SELECT min(jobs.queued_at) AS min_1 
FROM jobs 
WHERE jobs.state = 'queued' AND jobs.queue = given.queue) AS since 
FROM unnest(CAST('{chat.high,chat.normal,chat.low,chat.batch,overflow.high,overflow.normal,overflow.low,overflow.batch}'::TEXT[] AS TEXT[])) AS given(queue)) AS anon_1 
WHERE anon_1.since IS NOT NULL
-- ;
SELECT jobs.queue, count(*) AS running 
FROM jobs 
WHERE jobs.state = 'running' GROUP BY jobs.queue
-- ;
SELECT jobs.queue, count(DISTINCT jobs.id) AS finished 
FROM ledger JOIN jobs ON jobs.id = ledger.job_id AND jobs.ended_at = ledger.at 
WHERE ledger.id > 0::BIGINT AND ledger.at > '2026-12-03 02:18:06.220380+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE AND ledger.at <= '2026-12-03 02:18:11.220380+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE AND ledger.kind != 'cache'::VARCHAR GROUP BY jobs.queue
-- ;
SELECT anon_1.queue, 17::INTEGER - width_bucket(-anon_1.s, CAST('{-86400.0,-3600.0,-1800.0,-600.0,-300.0,-120.0,-60.0,-30.0,-20.0,-10.0,-5.0,-2.5,-1.0,-0.5,-0.25,-0.1,-0.05}'::float8[]::FLOAT[] AS FLOAT[])) AS bucket, count(*) AS jobs, sum(anon_1.s) AS seconds 
FROM (SELECT jobs.queue AS queue, CAST(greatest(EXTRACT(epoch FROM jobs.started_at - jobs.created_at), 0::INTEGER) AS FLOAT) AS s 
FROM jobs 
WHERE jobs.started_at > '2026-12-03 02:18:06.220380+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE AND jobs.started_at <= '2026-12-03 02:18:11.220380+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE) AS anon_1 GROUP BY anon_1.queue, 17::INTEGER - width_bucket(-anon_1.s, CAST('{-86400.0,-3600.0,-1800.0,-600.0,-300.0,-120.0,-60.0,-30.0,-20.0,-10.0,-5.0,-2.5,-1.0,-0.5,-0.25,-0.1,-0.05}'::float8[]::FLOAT[] AS FLOAT[]))
-- ;
SELECT ledger.id 
FROM ledger 
WHERE ledger.id > 0::BIGINT AND ledger.at <= '2026-12-03 02:17:56.220380+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE ORDER BY ledger.id DESC 
 LIMIT 1::INTEGER
-- ;
SELECT anon_1.queue, anon_1.state, anon_1.error_code, 17::INTEGER - width_bucket(-anon_1.s, CAST('{-86400.0,-3600.0,-1800.0,-600.0,-300.0,-120.0,-60.0,-30.0,-20.0,-10.0,-5.0,-2.5,-1.0,-0.5,-0.25,-0.1,-0.05}'::float8[]::FLOAT[] AS FLOAT[])) AS bucket, count(*) AS jobs, coalesce(sum(anon_1.s), 0.0) AS seconds 
FROM (SELECT jobs.queue AS queue, jobs.state AS state, coalesce(jobs.error_code, ''::VARCHAR) AS error_code, CAST(greatest(EXTRACT(epoch FROM jobs.ended_at - jobs.started_at), 0::INTEGER) AS FLOAT) AS s 
FROM jobs, (SELECT DISTINCT ledger.job_id AS job_id, ledger.at AS at 
FROM ledger 
WHERE ledger.id > 0::BIGINT AND ledger.at > '2026-12-03 02:18:06.220380+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE AND ledger.at <= '2026-12-03 02:18:11.220380+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE) AS anon_2 
WHERE jobs.id = anon_2.job_id AND jobs.ended_at = anon_2.at AND jobs.started_at IS NOT NULL UNION ALL SELECT jobs.queue AS queue, jobs.state AS state, coalesce(jobs.error_code, ''::VARCHAR) AS error_code, CAST(greatest(EXTRACT(epoch FROM jobs.ended_at - jobs.started_at), 0::INTEGER) AS FLOAT) AS s 
FROM jobs 
WHERE jobs.started_at IS NOT NULL AND (jobs.state = 'cancelled' OR jobs.error_code = 'deadline_exceeded') AND jobs.ended_at > '2026-12-03 02:18:06.220380+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE AND jobs.ended_at <= '2026-12-03 02:18:11.220380+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE AND NOT (EXISTS (SELECT ledger.id 
FROM ledger 
WHERE ledger.job_id = jobs.id AND ledger.at = jobs.ended_at)) UNION ALL SELECT jobs.queue AS queue, jobs.state AS state, coalesce(jobs.error_code, ''::VARCHAR) AS error_code, CAST(NULL AS FLOAT) AS anon_3 
FROM jobs 
WHERE jobs.started_at IS NULL AND jobs.ended_at > '2026-12-03 02:18:06.220380+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE AND jobs.ended_at <= '2026-12-03 02:18:11.220380+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE) AS anon_1 GROUP BY anon_1.queue, anon_1.state, anon_1.error_code, 17::INTEGER - width_bucket(-anon_1.s, CAST('{-86400.0,-3600.0,-1800.0,-600.0,-300.0,-120.0,-60.0,-30.0,-20.0,-10.0,-5.0,-2.5,-1.0,-0.5,-0.25,-0.1,-0.05}'::float8[]::FLOAT[] AS FLOAT[]))
-- ;
SELECT workers.pool, (SELECT avg(worker_samples.kv_use) AS avg_1 
FROM worker_samples 
WHERE worker_samples.taken_at > now() - '0:00:15'::interval AND worker_samples.pool = workers.pool) AS kv_use, (SELECT avg(worker_samples.kv_reserved) AS avg_2 
FROM worker_samples 
WHERE worker_samples.taken_at > now() - '0:00:15'::interval AND worker_samples.pool = workers.pool) AS kv_reserved, count(*) AS workers, count(DISTINCT anon_1.host) FILTER (WHERE NOT anon_1.is_draining) AS hosts, coalesce(sum(workers.max_running) FILTER (WHERE workers.ready AND NOT anon_1.is_draining), 0::INTEGER) AS slots, CAST(coalesce(sum((SELECT count(*) AS count_1 
FROM jobs 
WHERE jobs.worker_id = workers.id AND jobs.state = 'running')) FILTER (WHERE NOT anon_1.is_draining), 0::INTEGER) AS BIGINT) AS running, CAST(max(EXTRACT(epoch FROM now() - (SELECT min(jobs.started_at) AS min_1 
FROM jobs 
WHERE jobs.worker_id = workers.id AND jobs.state = 'running'))) FILTER (WHERE NOT anon_1.is_draining) AS DOUBLE PRECISION) AS ran_s, min(workers.max_model_tokens) AS max_model_tokens, min(workers.kv_tokens) AS kv_tokens, min(workers.payload_version) AS payload_version 
FROM workers JOIN (SELECT workers.id AS id, workers.pool AS pool, coalesce(lease.id, workers.host_id) AS host, lease.id AS lease, workers.draining OR lease.drain_at IS NOT NULL AS is_draining 
FROM workers LEFT OUTER JOIN LATERAL (SELECT hosts.id AS id, hosts.drain_at AS drain_at 
FROM hosts 
WHERE hosts.pool = workers.pool AND hosts.ended_at IS NULL AND (hosts.id = workers.host_id OR hosts.provider_id = workers.host_id) ORDER BY hosts.id != workers.host_id 
 LIMIT 1::INTEGER) AS lease ON true 
WHERE workers.lease_until > now()) AS anon_1 ON anon_1.id = workers.id GROUP BY workers.pool
-- ;
SELECT coalesce(anon_1.pool, anon_2.pool) AS pool, CASE WHEN (anon_1.drain_at IS NOT NULL OR anon_2.is_draining) THEN 'draining'::VARCHAR WHEN (anon_2.host IS NOT NULL) THEN 'ready'::VARCHAR WHEN (anon_1.ready_at IS NULL) THEN 'requested'::VARCHAR END AS state, count(*) AS hosts 
FROM (SELECT hosts.id AS id, hosts.pool AS pool, hosts.instance_type AS instance_type, hosts.usd_per_hour AS usd_per_hour, hosts.provider_id AS provider_id, hosts.requested_at AS requested_at, hosts.ordered_at AS ordered_at, hosts.ready_at AS ready_at, hosts.drain_at AS drain_at, hosts.released_at AS released_at, hosts.ended_at AS ended_at, hosts.end_reason AS end_reason, hosts.is_adopted AS is_adopted, hosts.decision_id AS decision_id, hosts.drain_decision_id AS drain_decision_id 
FROM hosts 
WHERE hosts.ended_at IS NULL AND hosts.end_reason IS DISTINCT FROM 'written_off'::VARCHAR) AS anon_1 FULL OUTER JOIN (SELECT anon_3.pool AS pool, anon_3.host AS host, anon_3.lease AS lease, bool_and(anon_3.is_draining) AS is_draining 
FROM (SELECT workers.id AS id, workers.pool AS pool, coalesce(lease.id, workers.host_id) AS host, lease.id AS lease, workers.draining OR lease.drain_at IS NOT NULL AS is_draining 
FROM workers LEFT OUTER JOIN LATERAL (SELECT hosts.id AS id, hosts.drain_at AS drain_at 
FROM hosts 
WHERE hosts.pool = workers.pool AND hosts.ended_at IS NULL AND (hosts.id = workers.host_id OR hosts.provider_id = workers.host_id) ORDER BY hosts.id != workers.host_id 
 LIMIT 1::INTEGER) AS lease ON true 
WHERE workers.lease_until > now()) AS anon_3 GROUP BY anon_3.pool, anon_3.host, anon_3.lease) AS anon_2 ON anon_2.lease = anon_1.id AND anon_2.pool = anon_1.pool GROUP BY 1, 2
-- ;
SELECT ledger.id 
FROM ledger 
WHERE ledger.id > 0::BIGINT AND ledger.at <= '2026-12-03 02:17:56.220380+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE ORDER BY ledger.id DESC 
 LIMIT 1::INTEGER
-- ;
SELECT l.pool, j.cache, count(*) AS jobs, coalesce(sum(l.saved_usd), 0) AS saved_usd
    FROM ledger l JOIN jobs j ON j.id = l.job_id
    WHERE l.id > 0 AND l.at > '2026-12-03 02:18:06.220380+00:00'::timestamptz AND l.at <= '2026-12-03 02:18:11.220380+00:00'::timestamptz AND l.kind = 'cache' AND j.cache IS NOT NULL
    GROUP BY l.pool, j.cache
-- ;
SELECT ledger.id 
FROM ledger 
WHERE ledger.id > 0::BIGINT AND ledger.at <= '2026-12-03 02:17:56.220380+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE ORDER BY ledger.id DESC 
 LIMIT 1::INTEGER
-- ;
SELECT a.name AS app, l.kind, sum(l.usd) AS usd
    FROM ledger l JOIN apps a ON a.id = l.app_id
    WHERE l.id > 0 AND l.at > '2026-12-03 02:18:06.220380+00:00'::timestamptz AND l.at <= '2026-12-03 02:18:11.220380+00:00'::timestamptz AND l.kind IN ('compute', 'api', 'waste')
    GROUP BY a.name, l.kind
    ORDER BY usd DESC
-- ;
INSERT INTO queue_samples (queue, at, depth, oldest_wait_s, arrivals, refused, started, running, slots, hosts, depth_tokens, started_tokens, offered, offered_tokens, spilled, finished, discounted, discounted_tokens, ended, failed, expired, hosts_requested, hosts_draining, kv_use) VALUES ('chat.high'::VARCHAR, '2026-12-03 02:18:11.220380+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, 0::INTEGER, 0.0, 0::INTEGER, 0::INTEGER, 0::INTEGER, 0::INTEGER, 4::INTEGER, 1::INTEGER, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0, 0, NULL) ON CONFLICT DO NOTHING
-- ;
INSERT INTO queue_samples (queue, at, depth, oldest_wait_s, arrivals, refused, started, running, slots, hosts, depth_tokens, started_tokens, offered, offered_tokens, spilled, finished, discounted, discounted_tokens, ended, failed, expired, hosts_requested, hosts_draining, kv_use) VALUES ('chat.normal'::VARCHAR, '2026-12-03 02:18:11.220380+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, 0::INTEGER, 0.0, 3::INTEGER, 0::INTEGER, 3::INTEGER, 0::INTEGER, 4::INTEGER, 1::INTEGER, 0::BIGINT, 72::BIGINT, 5::BIGINT, 120::BIGINT, 1::BIGINT, 3::BIGINT, 0::BIGINT, 0::BIGINT, 5::BIGINT, 0::BIGINT, 0::BIGINT, 0, 0, NULL) ON CONFLICT DO NOTHING
-- ;
INSERT INTO queue_samples (queue, at, depth, oldest_wait_s, arrivals, refused, started, running, slots, hosts, depth_tokens, started_tokens, offered, offered_tokens, spilled, finished, discounted, discounted_tokens, ended, failed, expired, hosts_requested, hosts_draining, kv_use) VALUES ('chat.low'::VARCHAR, '2026-12-03 02:18:11.220380+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, 0::INTEGER, 0.0, 0::INTEGER, 0::INTEGER, 0::INTEGER, 0::INTEGER, 4::INTEGER, 1::INTEGER, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0, 0, NULL) ON CONFLICT DO NOTHING
-- ;
INSERT INTO queue_samples (queue, at, depth, oldest_wait_s, arrivals, refused, started, running, slots, hosts, depth_tokens, started_tokens, offered, offered_tokens, spilled, finished, discounted, discounted_tokens, ended, failed, expired, hosts_requested, hosts_draining, kv_use) VALUES ('chat.batch'::VARCHAR, '2026-12-03 02:18:11.220380+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, 1::INTEGER, 0.022339, 3::INTEGER, 0::INTEGER, 2::INTEGER, 0::INTEGER, 4::INTEGER, 1::INTEGER, 24::BIGINT, 48::BIGINT, 2::BIGINT, 48::BIGINT, 2::BIGINT, 2::BIGINT, 0::BIGINT, 0::BIGINT, 2::BIGINT, 0::BIGINT, 0::BIGINT, 0, 0, NULL) ON CONFLICT DO NOTHING
-- ;
INSERT INTO queue_samples (queue, at, depth, oldest_wait_s, arrivals, refused, started, running, slots, hosts, depth_tokens, started_tokens, offered, offered_tokens, spilled, finished, discounted, discounted_tokens, ended, failed, expired, hosts_requested, hosts_draining, kv_use) VALUES ('overflow.high'::VARCHAR, '2026-12-03 02:18:11.220380+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, 0::INTEGER, 0.0, 0::INTEGER, 0::INTEGER, 0::INTEGER, 0::INTEGER, 0::INTEGER, 0::INTEGER, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0, 0, NULL) ON CONFLICT DO NOTHING
-- ;
INSERT INTO queue_samples (queue, at, depth, oldest_wait_s, arrivals, refused, started, running, slots, hosts, depth_tokens, started_tokens, offered, offered_tokens, spilled, finished, discounted, discounted_tokens, ended, failed, expired, hosts_requested, hosts_draining, kv_use) VALUES ('overflow.normal'::VARCHAR, '2026-12-03 02:18:11.220380+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, 0::INTEGER, 0.0, 1::INTEGER, 0::INTEGER, 1::INTEGER, 0::INTEGER, 0::INTEGER, 0::INTEGER, 0::BIGINT, 24::BIGINT, 0::BIGINT, 0::BIGINT, 0::BIGINT, 1::BIGINT, 0::BIGINT, 0::BIGINT, 1::BIGINT, 0::BIGINT, 0::BIGINT, 0, 0, NULL) ON CONFLICT DO NOTHING
-- ;
INSERT INTO queue_samples (queue, at, depth, oldest_wait_s, arrivals, refused, started, running, slots, hosts, depth_tokens, started_tokens, offered, offered_tokens, spilled, finished, discounted, discounted_tokens, ended, failed, expired, hosts_requested, hosts_draining, kv_use) VALUES ('overflow.low'::VARCHAR, '2026-12-03 02:18:11.220380+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, 0::INTEGER, 0.0, 0::INTEGER, 0::INTEGER, 0::INTEGER, 0::INTEGER, 0::INTEGER, 0::INTEGER, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0, 0, NULL) ON CONFLICT DO NOTHING
-- ;
INSERT INTO queue_samples (queue, at, depth, oldest_wait_s, arrivals, refused, started, running, slots, hosts, depth_tokens, started_tokens, offered, offered_tokens, spilled, finished, discounted, discounted_tokens, ended, failed, expired, hosts_requested, hosts_draining, kv_use) VALUES ('overflow.batch'::VARCHAR, '2026-12-03 02:18:11.220380+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, 0::INTEGER, 0.0, 0::INTEGER, 0::INTEGER, 0::INTEGER, 0::INTEGER, 0::INTEGER, 0::INTEGER, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0, 0, NULL) ON CONFLICT DO NOTHING
-- ;
SELECT queue_samples.queue, queue_samples.at, queue_samples.depth, queue_samples.oldest_wait_s, queue_samples.arrivals, queue_samples.refused, queue_samples.started, queue_samples.running, queue_samples.slots, queue_samples.hosts, queue_samples.depth_tokens, queue_samples.started_tokens, queue_samples.offered, queue_samples.offered_tokens, queue_samples.spilled, queue_samples.finished, queue_samples.discounted, queue_samples.discounted_tokens, queue_samples.ended, queue_samples.failed, queue_samples.expired, queue_samples.hosts_requested, queue_samples.hosts_draining, queue_samples.kv_use 
FROM queue_samples 
WHERE queue_samples.queue IN ('chat.high'::VARCHAR, 'chat.normal'::VARCHAR, 'chat.low'::VARCHAR, 'chat.batch'::VARCHAR, 'overflow.high'::VARCHAR, 'overflow.normal'::VARCHAR, 'overflow.low'::VARCHAR, 'overflow.batch'::VARCHAR) AND queue_samples.at > '2026-12-03 02:16:11.220380+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE ORDER BY queue_samples.at
-- ;

-- part: sweep autoscale
WITH free AS 
(SELECT locks.name AS name 
FROM locks 
WHERE locks.name = 'autoscale'::VARCHAR FOR UPDATE SKIP LOCKED)
 SELECT EXISTS (SELECT free.name 
FROM free) AS anon_1, EXISTS (SELECT locks.name 
FROM locks 
WHERE locks.name = 'autoscale'::VARCHAR) AS anon_2
-- ;
INSERT INTO locks (name) VALUES ('autoscale'::VARCHAR) ON CONFLICT DO NOTHING RETURNING locks.name
-- ;
SELECT max(decisions.at) AS max_1 
FROM decisions 
WHERE decisions.pool = 'chat'::VARCHAR AND decisions.at <= now()
-- ;
SELECT now() AS now_1
-- ;
SELECT max(anon_1.slots) AS max_1 
FROM (SELECT CAST(queue_samples.slots AS FLOAT) / CAST(queue_samples.hosts AS NUMERIC) AS slots 
FROM queue_samples 
WHERE queue_samples.queue = 'chat.high'::VARCHAR AND queue_samples.slots > 0::INTEGER AND queue_samples.hosts > 0::INTEGER ORDER BY queue_samples.at DESC 
 LIMIT 120::INTEGER) AS anon_1
-- ;
WITH minutes AS 
(SELECT anon_2.at AS at, (sum(anon_2.depth * anon_2.samples) / CAST(sum(anon_2.samples) AS NUMERIC)) * 4::INTEGER AS depth, (sum(anon_2.running * anon_2.samples) / CAST(sum(anon_2.samples) AS NUMERIC)) * 4::INTEGER AS running, sum(anon_2.slots * anon_2.samples) / CAST(sum(anon_2.samples) AS NUMERIC) AS slots, sum(anon_2.kv_use * anon_2.samples) / CAST(sum(anon_2.samples) AS NUMERIC) AS kv_use, sum(anon_2.started) AS started, sum(anon_2.started_tokens) AS tokens 
FROM (SELECT date_bin('0:01:00'::interval, queue_samples.at, '2000-01-01 00:00:00+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE) AS at, 1::INTEGER AS samples, CAST(queue_samples.depth AS FLOAT) AS depth, CAST(queue_samples.running AS FLOAT) AS running, CAST(queue_samples.slots AS FLOAT) AS slots, CAST(queue_samples.kv_use AS FLOAT) AS kv_use, CAST(queue_samples.started AS FLOAT) AS started, CAST(queue_samples.started_tokens AS FLOAT) AS started_tokens, CAST(queue_samples.hosts_draining AS FLOAT) AS hosts_draining 
FROM queue_samples 
WHERE queue_samples.queue IN ('chat.high'::VARCHAR, 'chat.normal'::VARCHAR, 'chat.low'::VARCHAR, 'chat.batch'::VARCHAR) AND queue_samples.at >= '2026-11-26 02:18:11.262861+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE UNION ALL SELECT queue_rollups.at AS at, queue_rollups.samples AS samples, CAST(queue_rollups.depth AS FLOAT) AS depth, CAST(queue_rollups.running AS FLOAT) AS running, CAST(queue_rollups.slots AS FLOAT) AS slots, CAST(queue_rollups.kv_use AS FLOAT) AS kv_use, CAST(queue_rollups.started AS FLOAT) AS started, CAST(queue_rollups.started_tokens AS FLOAT) AS started_tokens, CAST(queue_rollups.hosts_draining AS FLOAT) AS hosts_draining 
FROM queue_rollups 
WHERE queue_rollups.queue IN ('chat.high'::VARCHAR, 'chat.normal'::VARCHAR, 'chat.low'::VARCHAR, 'chat.batch'::VARCHAR) AND queue_rollups.at >= '2026-11-26 02:18:11.262861+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE AND queue_rollups.span_s = 60::INTEGER) AS anon_2 GROUP BY anon_2.at 
HAVING sum(anon_2.slots * anon_2.samples) / CAST(sum(anon_2.samples) AS NUMERIC) > 0::INTEGER AND max(anon_2.hosts_draining) = 0::INTEGER)
 SELECT anon_1.rate 
FROM (SELECT minutes.at AS at, (minutes.tokens - ((minutes.tokens / CAST(greatest(minutes.started, 1::INTEGER) AS NUMERIC)) * (lead(minutes.running) OVER (ORDER BY minutes.at) - lag(minutes.running) OVER (ORDER BY minutes.at))) / CAST(2::INTEGER AS NUMERIC)) / CAST((minutes.slots * 60::INTEGER) AS FLOAT) AS rate, lag(minutes.slots) OVER (ORDER BY minutes.at) = minutes.slots AND lead(minutes.slots) OVER (ORDER BY minutes.at) = minutes.slots AND lag(minutes.at) OVER (ORDER BY minutes.at) = minutes.at - '0:01:00'::interval AND lead(minutes.at) OVER (ORDER BY minutes.at) = minutes.at + '0:01:00'::interval AND (minutes.running >= 0.84375 * minutes.slots OR minutes.kv_use >= 0.85) AND minutes.depth >= 1::INTEGER AS counts 
FROM minutes) AS anon_1 
WHERE anon_1.counts ORDER BY anon_1.at DESC 
 LIMIT 200::INTEGER
-- ;
SELECT workers.pool, (SELECT avg(worker_samples.kv_use) AS avg_1 
FROM worker_samples 
WHERE worker_samples.taken_at > now() - '0:00:15'::interval AND worker_samples.pool = workers.pool) AS kv_use, (SELECT avg(worker_samples.kv_reserved) AS avg_2 
FROM worker_samples 
WHERE worker_samples.taken_at > now() - '0:00:15'::interval AND worker_samples.pool = workers.pool) AS kv_reserved, count(*) AS workers, count(DISTINCT anon_1.host) FILTER (WHERE NOT anon_1.is_draining) AS hosts, coalesce(sum(workers.max_running) FILTER (WHERE workers.ready AND NOT anon_1.is_draining), 0::INTEGER) AS slots, CAST(coalesce(sum((SELECT count(*) AS count_1 
FROM jobs 
WHERE jobs.worker_id = workers.id AND jobs.state = 'running')) FILTER (WHERE NOT anon_1.is_draining), 0::INTEGER) AS BIGINT) AS running, CAST(max(EXTRACT(epoch FROM now() - (SELECT min(jobs.started_at) AS min_1 
FROM jobs 
WHERE jobs.worker_id = workers.id AND jobs.state = 'running'))) FILTER (WHERE NOT anon_1.is_draining) AS DOUBLE PRECISION) AS ran_s, min(workers.max_model_tokens) AS max_model_tokens, min(workers.kv_tokens) AS kv_tokens, min(workers.payload_version) AS payload_version 
FROM workers JOIN (SELECT workers.id AS id, workers.pool AS pool, coalesce(lease.id, workers.host_id) AS host, lease.id AS lease, workers.draining OR lease.drain_at IS NOT NULL AS is_draining 
FROM workers LEFT OUTER JOIN LATERAL (SELECT hosts.id AS id, hosts.drain_at AS drain_at 
FROM hosts 
WHERE hosts.pool = workers.pool AND hosts.ended_at IS NULL AND (hosts.id = workers.host_id OR hosts.provider_id = workers.host_id) ORDER BY hosts.id != workers.host_id 
 LIMIT 1::INTEGER) AS lease ON true 
WHERE workers.lease_until > now()) AS anon_1 ON anon_1.id = workers.id GROUP BY workers.pool
-- ;
SELECT count(*) AS count_1, percentile_cont('{0.9,0.99}'::float8[]::FLOAT[]) WITHIN GROUP (ORDER BY anon_1.took_s) AS percentile_cont_1 
FROM (SELECT EXTRACT(epoch FROM hosts.ready_at - hosts.requested_at) AS took_s 
FROM hosts 
WHERE hosts.instance_type IS NOT DISTINCT FROM NULL AND hosts.ready_at IS NOT NULL AND NOT hosts.is_adopted ORDER BY hosts.requested_at DESC 
 LIMIT 200::INTEGER) AS anon_1
-- ;
SELECT max(decisions.applied_at) AS max_1 
FROM decisions 
WHERE decisions.pool = 'chat'::VARCHAR AND decisions.action = 'up'::VARCHAR AND decisions.at > now() - '1 day 0:00:00'::interval
-- ;
SELECT max(decisions.applied_at) AS max_1 
FROM decisions 
WHERE decisions.pool = 'chat'::VARCHAR AND decisions.action = 'down'::VARCHAR AND decisions.at > now() - '1 day 0:00:00'::interval
-- ;
SELECT queue_samples.at, CAST(sum(queue_samples.offered) AS BIGINT) AS offered_jobs, CAST(sum(queue_samples.offered_tokens) AS BIGINT) AS offered_tokens, CAST(sum(queue_samples.refused) AS BIGINT) AS refused_jobs, CAST(sum(queue_samples.spilled) AS BIGINT) AS spilled_jobs, CAST(sum(queue_samples.depth) AS BIGINT) AS depth, CAST(sum(queue_samples.depth_tokens) AS BIGINT) AS depth_tokens, CAST(sum(queue_samples.running) AS BIGINT) AS running, CAST(sum(queue_samples.discounted) AS BIGINT) AS discounted_jobs, CAST(sum(queue_samples.discounted_tokens) AS BIGINT) AS discounted_tokens, max(queue_samples.slots) AS slots 
FROM queue_samples 
WHERE queue_samples.queue IN ('chat.high'::VARCHAR, 'chat.normal'::VARCHAR, 'chat.low'::VARCHAR, 'chat.batch'::VARCHAR) AND queue_samples.at > '2026-12-03 01:58:11.262861+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE AND queue_samples.at <= '2026-12-03 02:18:11.262861+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE GROUP BY queue_samples.at ORDER BY queue_samples.at
-- ;
UPDATE decisions SET actual_tokens_per_s=found.rate FROM (SELECT own.id AS id, came.rate AS rate 
FROM decisions AS own, LATERAL (SELECT sum(anon_1.tokens) / CAST(((EXTRACT(epoch FROM max(anon_1.at) - min(anon_1.at)) * count(*)) / CAST(nullif(count(*) - 1::INTEGER, 0::INTEGER) AS NUMERIC)) AS NUMERIC) AS rate, (EXTRACT(epoch FROM max(anon_1.at) - min(anon_1.at)) * count(*)) / CAST(nullif(count(*) - 1::INTEGER, 0::INTEGER) AS NUMERIC) AS seconds 
FROM (SELECT queue_samples.at AS at, sum(queue_samples.offered_tokens) AS tokens 
FROM queue_samples 
WHERE queue_samples.queue IN ('chat.high'::VARCHAR, 'chat.normal'::VARCHAR, 'chat.low'::VARCHAR, 'chat.batch'::VARCHAR) AND queue_samples.at > own.forecast_at - '0:05:00'::interval AND queue_samples.at <= own.forecast_at + '0:05:00'::interval GROUP BY queue_samples.at) AS anon_1) AS came 
WHERE own.pool = 'chat'::VARCHAR AND own.at > '2026-12-02 02:18:11.220380+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE AND own.forecast_at <= '2026-12-03 02:13:11.220380+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE AND own.forecast_at > '2026-12-03 01:13:11.220380+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE AND own.actual_tokens_per_s IS NULL AND came.seconds >= 480.0) AS found WHERE decisions.id = found.id RETURNING decisions.id
-- ;
SELECT lanes.start, CAST(max(lanes.seconds) AS FLOAT) AS max_1, CAST(sum(lanes.tokens) AS FLOAT) AS sum_1 
FROM (SELECT parts.queue AS queue, parts.start AS start, parts.is_hour AS is_hour, sum(parts.seconds) AS seconds, sum(parts.tokens) AS tokens 
FROM (SELECT queue_samples.queue AS queue, date_bin('0:10:00'::interval, queue_samples.at - '0:00:00.000001'::interval, '2000-01-01 00:00:00+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE) AS start, false AS is_hour, least((EXTRACT(epoch FROM max(queue_samples.at) - min(queue_samples.at)) * count(*)) / CAST((count(*) - 1::INTEGER) AS NUMERIC), 600.0) AS seconds, sum(queue_samples.offered_tokens) AS tokens 
FROM queue_samples 
WHERE queue_samples.queue IN ('chat.high'::VARCHAR, 'chat.normal'::VARCHAR, 'chat.low'::VARCHAR, 'chat.batch'::VARCHAR) AND queue_samples.at > '2026-11-11 00:00:00+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE AND queue_samples.at <= '2026-12-03 00:00:00+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE GROUP BY queue_samples.queue, date_bin('0:10:00'::interval, queue_samples.at - '0:00:00.000001'::interval, '2000-01-01 00:00:00+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE) 
HAVING count(*) > 1::INTEGER UNION ALL SELECT queue_rollups.queue AS queue, date_bin('0:10:00'::interval, queue_rollups.at, '2000-01-01 00:00:00+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE) AS start, false AS is_hour, 60::INTEGER * count(*) AS seconds, sum(queue_rollups.offered_tokens) AS tokens 
FROM queue_rollups 
WHERE queue_rollups.queue IN ('chat.high'::VARCHAR, 'chat.normal'::VARCHAR, 'chat.low'::VARCHAR, 'chat.batch'::VARCHAR) AND queue_rollups.span_s = 60::INTEGER AND queue_rollups.at >= '2026-11-11 00:00:00+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE AND queue_rollups.at < '2026-12-03 00:00:00+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE GROUP BY queue_rollups.queue, date_bin('0:10:00'::interval, queue_rollups.at, '2000-01-01 00:00:00+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE) UNION ALL SELECT queue_rollups.queue AS queue, queue_rollups.at AS start, true AS is_hour, 3600::INTEGER * count(*) AS seconds, sum(queue_rollups.offered_tokens) AS tokens 
FROM queue_rollups 
WHERE queue_rollups.queue IN ('chat.high'::VARCHAR, 'chat.normal'::VARCHAR, 'chat.low'::VARCHAR, 'chat.batch'::VARCHAR) AND queue_rollups.span_s = 3600::INTEGER AND queue_rollups.at >= '2026-11-11 00:00:00+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE AND queue_rollups.at < '2026-12-03 00:00:00+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE GROUP BY queue_rollups.queue, queue_rollups.at) AS parts GROUP BY parts.queue, parts.start, parts.is_hour) AS lanes GROUP BY lanes.start, lanes.is_hour
-- ;
SELECT decisions.at, decisions.need, decisions.spare_need 
FROM decisions 
WHERE decisions.pool = 'chat'::VARCHAR AND decisions.at > '2026-12-03 02:08:11.262861+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE AND decisions.need IS NOT NULL AND decisions.spare_need IS NOT NULL ORDER BY decisions.at
-- ;
SELECT decisions.burst_until 
FROM decisions 
WHERE decisions.pool = 'chat'::VARCHAR ORDER BY decisions.at DESC 
 LIMIT 1::INTEGER
-- ;
INSERT INTO decisions (pool, mode, hosts, target, reason, inputs, action, policy, version, need, spare_need, forecast_tokens_per_s, forecast_at, burst_until) VALUES ('chat'::VARCHAR, 'advisory'::VARCHAR, 1::INTEGER, 1::INTEGER, 'hold: load 0.00 is below 0.30, at the limit of 1 to 20 hosts (thresholds decide: the rate of a host is unknown)'::VARCHAR, '{"history": {"moments": [{"at": "2026-12-03T02:18:11.220380Z", "seconds": 5.0, "offered_jobs": 7, "offered_tokens": 168, "refused_jobs": 0, "spilled_jobs": 3, "depth": 1, "depth_tokens": 24, "running": 0, "slots": 4, "discounted_jobs": 0, "discounted_tokens": 0}], "season": null, "errors": [], "needs": [], "burst_until": null, "tokens_per_job": null}, "hosts": {"ready": 1, "requested": 0, "draining": 0, "tokens_per_s": null, "slots_per_host": 4.0, "provision_s": 300.0, "usd_per_hour": null, "spill_usd": null, "spill_tokens_per_s": null, "up_at": null, "down_at": null}, "policy": {"mode": "advisory", "policy": "predictive", "actuator": null, "min_hosts": 1, "max_hosts": 20, "fixed_hosts": null, "host_type": null, "up_depth": 100, "up_load": 0.8, "down_load": 0.3, "up_step": 2, "down_step": 1, "cooldown_s": 300.0, "stale_after_s": 60.0, "window_s": 600.0, "staffing_beta": 0.5, "refused_multiple": 10.0, "refused_job_usd": "0.015", "drain_host_s": 900.0, "overflow_share": 0.5, "events": [], "pools": {}, "command": {"argv": [], "timeout_s": 60.0}, "aws": {"groups": {}, "region": null, "endpoint_url": null, "timeout_s": 10.0}, "kubernetes": {"deployments": {}, "namespace": "default", "kubeconfig": null, "timeout_s": 10.0}, "local": {"socket": null, "provision_s": 0.0}, "unattended": {"argv": [], "after_s": 1800.0, "timeout_s": 60.0}}, "now": "2026-12-03T02:18:11.262861Z"}'::jsonb::JSONB, 'hold'::VARCHAR, 'predictive'::VARCHAR, 1::INTEGER, NULL::INTEGER, NULL::INTEGER, NULL, NULL::TIMESTAMP WITH TIME ZONE, NULL::TIMESTAMP WITH TIME ZONE) RETURNING decisions.id
-- ;

-- part: sweep watch_budgets
WITH free AS 
(SELECT locks.name AS name 
FROM locks 
WHERE locks.name = 'watch_budgets'::VARCHAR FOR UPDATE SKIP LOCKED)
 SELECT EXISTS (SELECT free.name 
FROM free) AS anon_1, EXISTS (SELECT locks.name 
FROM locks 
WHERE locks.name = 'watch_budgets'::VARCHAR) AS anon_2
-- ;
INSERT INTO locks (name) VALUES ('watch_budgets'::VARCHAR) ON CONFLICT DO NOTHING RETURNING locks.name
-- ;
SELECT budget_limits.day_usd AS together_day_usd, budget_limits.month_usd AS together_month_usd, budget_limits.set_at AS together_set_at 
FROM budget_limits
-- ;
SELECT budgets.id, budgets.app_id, budgets.period, budgets.starts_at, budgets.reserved_usd, budgets.spent_usd, budgets.told_percent, budgets.short_at, budgets.told_reserved_percent, budgets.reserved_short_at, budgets.limit_usd, apps.name, apps.day_usd, apps.month_usd 
FROM budgets LEFT OUTER JOIN apps ON apps.id = budgets.app_id 
WHERE budgets.period = 'day'::VARCHAR AND budgets.starts_at = date_trunc('day'::VARCHAR, now(), 'UTC'::VARCHAR) OR budgets.period = 'month'::VARCHAR AND budgets.starts_at = date_trunc('month'::VARCHAR, now(), 'UTC'::VARCHAR) ORDER BY apps.name NULLS FIRST, budgets.period
-- ;
UPDATE budgets SET limit_usd=NULL WHERE budgets.id = '01a239b1eab573c592570d4eb30d3bca'::uuid::UUID AND budgets.limit_usd IS DISTINCT FROM NULL
-- ;
UPDATE budgets SET limit_usd=NULL WHERE budgets.id = '01a239b1eab573c592570d4d3119e959'::uuid::UUID AND budgets.limit_usd IS DISTINCT FROM NULL
-- ;
