-- part: app
INSERT INTO apps (id, name, webhook_secret) VALUES ('01a22bb120b67322880185041a288d7d'::uuid::UUID, 'old'::VARCHAR, 'whsec_recorded'::VARCHAR) ON CONFLICT (name) DO NOTHING RETURNING apps.id
-- ;
SELECT apps.id, apps.name, apps.webhook_secret, apps.queued_jobs, apps.requests_per_minute, apps.tokens_per_minute, apps.day_usd, apps.month_usd, apps.calls_per_minute, apps.lanes, apps.cache_s, apps.max_error 
FROM apps 
WHERE apps.name = 'old'::VARCHAR
-- ;
INSERT INTO api_keys (id, app_id, hint, digest, expires_at, scopes) VALUES ('01a22bb120c076b3b16a1ecf87135778'::uuid::UUID, '01a22bb120b67322880185041a288d7d'::uuid::UUID, 'hr--UYSJ'::VARCHAR, '\xea16a153760f3040f8f2e93a17249d9d5a91ae0c82ce75cf9bfc48b0848be17f'::bytea, NULL::TIMESTAMP WITH TIME ZONE, '{read,submit}'::TEXT[])
-- ;
SELECT apps.id, apps.name, apps.webhook_secret, apps.queued_jobs, apps.requests_per_minute, apps.tokens_per_minute, apps.day_usd, apps.month_usd, apps.calls_per_minute, apps.lanes, apps.cache_s, apps.max_error, api_keys.digest, api_keys.scopes 
FROM apps JOIN api_keys ON api_keys.app_id = apps.id 
WHERE api_keys.digest = ANY ( E'{"\\\\xea16a153760f3040f8f2e93a17249d9d5a91ae0c82ce75cf9bfc48b0848be17f"}'::bytea[]::BYTEA[]) AND api_keys.revoked_at IS NULL AND (api_keys.expires_at IS NULL OR api_keys.expires_at > now())
-- ;

-- part: insert plain
WITH given AS 
(SELECT sent.id AS id, sent.app_id AS app_id, sent.state AS state, sent.lane AS lane, sent.pool AS pool, sent.queue AS queue, sent.route AS route, sent.route_reason AS route_reason, sent.overflow AS overflow, sent.model_requested AS model_requested, sent.adapter AS adapter, sent.end_user AS end_user, sent.metadata AS metadata, sent.webhook_url AS webhook_url, sent.background AS background, sent.stream AS stream, sent.max_cost_usd AS max_cost_usd, sent.prompt_tokens AS prompt_tokens, sent.max_tokens AS max_tokens, sent.finish_by AS finish_by, sent.cache AS cache, sent.rule AS rule, sent.shadow AS shadow, sent.n AS n, sent.messages AS messages, sent.sampling AS sampling, sent.cache_key AS cache_key, sent.is_unstored AS is_unstored, sent.key AS key, sent.request_hash AS request_hash, sent.max_wait_s AS max_wait_s 
FROM json_to_recordset('[{"id":"01a21000-0000-7000-8000-000000000001","app_id":"01a22bb1-20b6-7322-8801-85041a288d7d","state":"queued","lane":"normal","pool":"chat","queue":"chat.normal","route":"pool","route_reason":"own pool","overflow":"allow","model_requested":"smollm2-135m","rule":null,"shadow":null,"adapter":null,"end_user":null,"metadata":{},"webhook_url":null,"background":true,"stream":false,"max_cost_usd":null,"prompt_tokens":8,"max_tokens":16,"n":null,"max_wait_s":30.0,"finish_by":null,"messages":[{"role":"user","content":"What is a headrace?"}],"sampling":{"max_tokens":16},"key":null,"request_hash":null}]'::JSON) AS sent(id UUID, app_id UUID, state TEXT, lane TEXT, pool TEXT, queue TEXT, route TEXT, route_reason TEXT, overflow TEXT, model_requested TEXT, adapter TEXT, end_user TEXT, metadata JSONB, webhook_url TEXT, background BOOLEAN, stream BOOLEAN, max_cost_usd NUMERIC(18, 9), prompt_tokens INTEGER, max_tokens INTEGER, finish_by TIMESTAMP WITH TIME ZONE, cache TEXT, rule TEXT, shadow TEXT, n SMALLINT, messages JSONB, sampling JSONB, cache_key BYTEA, is_unstored BOOLEAN, key TEXT, request_hash BYTEA, max_wait_s DOUBLE PRECISION)), 
wanted AS 
(SELECT DISTINCT ON (given.app_id, given.key) given.app_id AS app_id, given.key AS key, given.request_hash AS request_hash, given.id AS id 
FROM given 
WHERE given.key IS NOT NULL ORDER BY given.app_id, given.key, given.id), 
free AS 
(SELECT wanted.app_id AS app_id, wanted.key AS key, wanted.request_hash AS request_hash, wanted.id AS id 
FROM wanted 
WHERE pg_try_advisory_xact_lock(hashtextextended((SELECT apps.webhook_secret 
FROM apps 
WHERE apps.id = wanted.app_id) || wanted.key, 0::INTEGER))), 
taken AS 
(INSERT INTO idempotency_keys (app_id, key, request_hash, job_id, expires_at) SELECT free.app_id AS app_id, free.key AS key, free.request_hash AS request_hash, free.id AS id, now() + '1 day 0:00:00'::interval AS anon_1 
FROM free ON CONFLICT (app_id, key) DO UPDATE SET request_hash = excluded.request_hash, job_id = excluded.job_id, expires_at = excluded.expires_at WHERE idempotency_keys.expires_at <= now() RETURNING idempotency_keys.job_id), 
texts AS 
(INSERT INTO job_texts (job_id, messages, sampling, cache_key, is_unstored) SELECT given.id AS id, given.messages AS messages, given.sampling AS sampling, given.cache_key AS cache_key, given.is_unstored AS is_unstored 
FROM given 
WHERE given.key IS NULL OR given.id IN (SELECT taken.job_id 
FROM taken))
 INSERT INTO jobs (id, app_id, state, lane, pool, queue, route, route_reason, overflow, model_requested, adapter, end_user, metadata, webhook_url, background, stream, max_cost_usd, prompt_tokens, max_tokens, finish_by, cache, rule, shadow, n, queued_at, start_by, overflow_at) SELECT given.id, given.app_id, given.state, given.lane, given.pool, given.queue, given.route, given.route_reason, given.overflow, given.model_requested, given.adapter, given.end_user, given.metadata, given.webhook_url, given.background, given.stream, given.max_cost_usd, given.prompt_tokens, given.max_tokens, given.finish_by, given.cache, given.rule, given.shadow, given.n, now() AS now_2, now() + given.max_wait_s * interval '1 s' AS anon_2, CASE WHEN (given.route = 'overflow'::VARCHAR) THEN now() END AS anon_3 
FROM given 
WHERE given.key IS NULL OR given.id IN (SELECT taken.job_id 
FROM taken) RETURNING jobs.id, jobs.start_by
-- ;

-- part: insert hooked
WITH given AS 
(SELECT sent.id AS id, sent.app_id AS app_id, sent.state AS state, sent.lane AS lane, sent.pool AS pool, sent.queue AS queue, sent.route AS route, sent.route_reason AS route_reason, sent.overflow AS overflow, sent.model_requested AS model_requested, sent.adapter AS adapter, sent.end_user AS end_user, sent.metadata AS metadata, sent.webhook_url AS webhook_url, sent.background AS background, sent.stream AS stream, sent.max_cost_usd AS max_cost_usd, sent.prompt_tokens AS prompt_tokens, sent.max_tokens AS max_tokens, sent.finish_by AS finish_by, sent.cache AS cache, sent.rule AS rule, sent.shadow AS shadow, sent.n AS n, sent.messages AS messages, sent.sampling AS sampling, sent.cache_key AS cache_key, sent.is_unstored AS is_unstored, sent.key AS key, sent.request_hash AS request_hash, sent.max_wait_s AS max_wait_s 
FROM json_to_recordset( E'[{"id":"01a21000-0000-7000-8000-000000000002","app_id":"01a22bb1-20b6-7322-8801-85041a288d7d","state":"queued","lane":"normal","pool":"chat","queue":"chat.normal","route":"pool","route_reason":"own pool","overflow":"allow","model_requested":"smollm2-135m","rule":null,"shadow":null,"adapter":null,"end_user":null,"metadata":{},"webhook_url":"https://r.example","background":true,"stream":false,"max_cost_usd":null,"prompt_tokens":8,"max_tokens":16,"n":null,"max_wait_s":30.0,"finish_by":null,"messages":[{"role":"user","content":"What is a headrace?"}],"sampling":{"max_tokens":16},"key":"k","request_hash":"\\\\x68617368"}]'::JSON) AS sent(id UUID, app_id UUID, state TEXT, lane TEXT, pool TEXT, queue TEXT, route TEXT, route_reason TEXT, overflow TEXT, model_requested TEXT, adapter TEXT, end_user TEXT, metadata JSONB, webhook_url TEXT, background BOOLEAN, stream BOOLEAN, max_cost_usd NUMERIC(18, 9), prompt_tokens INTEGER, max_tokens INTEGER, finish_by TIMESTAMP WITH TIME ZONE, cache TEXT, rule TEXT, shadow TEXT, n SMALLINT, messages JSONB, sampling JSONB, cache_key BYTEA, is_unstored BOOLEAN, key TEXT, request_hash BYTEA, max_wait_s DOUBLE PRECISION)), 
wanted AS 
(SELECT DISTINCT ON (given.app_id, given.key) given.app_id AS app_id, given.key AS key, given.request_hash AS request_hash, given.id AS id 
FROM given 
WHERE given.key IS NOT NULL ORDER BY given.app_id, given.key, given.id), 
free AS 
(SELECT wanted.app_id AS app_id, wanted.key AS key, wanted.request_hash AS request_hash, wanted.id AS id 
FROM wanted 
WHERE pg_try_advisory_xact_lock(hashtextextended((SELECT apps.webhook_secret 
FROM apps 
WHERE apps.id = wanted.app_id) || wanted.key, 0::INTEGER))), 
taken AS 
(INSERT INTO idempotency_keys (app_id, key, request_hash, job_id, expires_at) SELECT free.app_id AS app_id, free.key AS key, free.request_hash AS request_hash, free.id AS id, now() + '1 day 0:00:00'::interval AS anon_1 
FROM free ON CONFLICT (app_id, key) DO UPDATE SET request_hash = excluded.request_hash, job_id = excluded.job_id, expires_at = excluded.expires_at WHERE idempotency_keys.expires_at <= now() RETURNING idempotency_keys.job_id), 
texts AS 
(INSERT INTO job_texts (job_id, messages, sampling, cache_key, is_unstored) SELECT given.id AS id, given.messages AS messages, given.sampling AS sampling, given.cache_key AS cache_key, given.is_unstored AS is_unstored 
FROM given 
WHERE given.key IS NULL OR given.id IN (SELECT taken.job_id 
FROM taken))
 INSERT INTO jobs (id, app_id, state, lane, pool, queue, route, route_reason, overflow, model_requested, adapter, end_user, metadata, webhook_url, background, stream, max_cost_usd, prompt_tokens, max_tokens, finish_by, cache, rule, shadow, n, queued_at, start_by, overflow_at) SELECT given.id, given.app_id, given.state, given.lane, given.pool, given.queue, given.route, given.route_reason, given.overflow, given.model_requested, given.adapter, given.end_user, given.metadata, given.webhook_url, given.background, given.stream, given.max_cost_usd, given.prompt_tokens, given.max_tokens, given.finish_by, given.cache, given.rule, given.shadow, given.n, now() AS now_2, now() + given.max_wait_s * interval '1 s' AS anon_2, CASE WHEN (given.route = 'overflow'::VARCHAR) THEN now() END AS anon_3 
FROM given 
WHERE given.key IS NULL OR given.id IN (SELECT taken.job_id 
FROM taken) RETURNING jobs.id, jobs.start_by
-- ;

-- part: insert lost
WITH given AS 
(SELECT sent.id AS id, sent.app_id AS app_id, sent.state AS state, sent.lane AS lane, sent.pool AS pool, sent.queue AS queue, sent.route AS route, sent.route_reason AS route_reason, sent.overflow AS overflow, sent.model_requested AS model_requested, sent.adapter AS adapter, sent.end_user AS end_user, sent.metadata AS metadata, sent.webhook_url AS webhook_url, sent.background AS background, sent.stream AS stream, sent.max_cost_usd AS max_cost_usd, sent.prompt_tokens AS prompt_tokens, sent.max_tokens AS max_tokens, sent.finish_by AS finish_by, sent.cache AS cache, sent.rule AS rule, sent.shadow AS shadow, sent.n AS n, sent.messages AS messages, sent.sampling AS sampling, sent.cache_key AS cache_key, sent.is_unstored AS is_unstored, sent.key AS key, sent.request_hash AS request_hash, sent.max_wait_s AS max_wait_s 
FROM json_to_recordset('[{"id":"01a21000-0000-7000-8000-000000000003","app_id":"01a22bb1-20b6-7322-8801-85041a288d7d","state":"queued","lane":"normal","pool":"chat","queue":"chat.normal","route":"pool","route_reason":"own pool","overflow":"allow","model_requested":"smollm2-135m","rule":null,"shadow":null,"adapter":null,"end_user":"u","metadata":{"a":"b"},"webhook_url":null,"background":true,"stream":true,"max_cost_usd":"1","prompt_tokens":8,"max_tokens":16,"n":null,"max_wait_s":30.0,"finish_by":null,"messages":[{"role":"user","content":"What is a headrace?"}],"sampling":{"max_tokens":16},"key":null,"request_hash":null}]'::JSON) AS sent(id UUID, app_id UUID, state TEXT, lane TEXT, pool TEXT, queue TEXT, route TEXT, route_reason TEXT, overflow TEXT, model_requested TEXT, adapter TEXT, end_user TEXT, metadata JSONB, webhook_url TEXT, background BOOLEAN, stream BOOLEAN, max_cost_usd NUMERIC(18, 9), prompt_tokens INTEGER, max_tokens INTEGER, finish_by TIMESTAMP WITH TIME ZONE, cache TEXT, rule TEXT, shadow TEXT, n SMALLINT, messages JSONB, sampling JSONB, cache_key BYTEA, is_unstored BOOLEAN, key TEXT, request_hash BYTEA, max_wait_s DOUBLE PRECISION)), 
wanted AS 
(SELECT DISTINCT ON (given.app_id, given.key) given.app_id AS app_id, given.key AS key, given.request_hash AS request_hash, given.id AS id 
FROM given 
WHERE given.key IS NOT NULL ORDER BY given.app_id, given.key, given.id), 
free AS 
(SELECT wanted.app_id AS app_id, wanted.key AS key, wanted.request_hash AS request_hash, wanted.id AS id 
FROM wanted 
WHERE pg_try_advisory_xact_lock(hashtextextended((SELECT apps.webhook_secret 
FROM apps 
WHERE apps.id = wanted.app_id) || wanted.key, 0::INTEGER))), 
taken AS 
(INSERT INTO idempotency_keys (app_id, key, request_hash, job_id, expires_at) SELECT free.app_id AS app_id, free.key AS key, free.request_hash AS request_hash, free.id AS id, now() + '1 day 0:00:00'::interval AS anon_1 
FROM free ON CONFLICT (app_id, key) DO UPDATE SET request_hash = excluded.request_hash, job_id = excluded.job_id, expires_at = excluded.expires_at WHERE idempotency_keys.expires_at <= now() RETURNING idempotency_keys.job_id), 
texts AS 
(INSERT INTO job_texts (job_id, messages, sampling, cache_key, is_unstored) SELECT given.id AS id, given.messages AS messages, given.sampling AS sampling, given.cache_key AS cache_key, given.is_unstored AS is_unstored 
FROM given 
WHERE given.key IS NULL OR given.id IN (SELECT taken.job_id 
FROM taken))
 INSERT INTO jobs (id, app_id, state, lane, pool, queue, route, route_reason, overflow, model_requested, adapter, end_user, metadata, webhook_url, background, stream, max_cost_usd, prompt_tokens, max_tokens, finish_by, cache, rule, shadow, n, queued_at, start_by, overflow_at) SELECT given.id, given.app_id, given.state, given.lane, given.pool, given.queue, given.route, given.route_reason, given.overflow, given.model_requested, given.adapter, given.end_user, given.metadata, given.webhook_url, given.background, given.stream, given.max_cost_usd, given.prompt_tokens, given.max_tokens, given.finish_by, given.cache, given.rule, given.shadow, given.n, now() AS now_2, now() + given.max_wait_s * interval '1 s' AS anon_2, CASE WHEN (given.route = 'overflow'::VARCHAR) THEN now() END AS anon_3 
FROM given 
WHERE given.key IS NULL OR given.id IN (SELECT taken.job_id 
FROM taken) RETURNING jobs.id, jobs.start_by
-- ;

-- part: worker
SELECT current_setting('statement_timeout')::interval = '10000 ms' AND current_setting('lock_timeout')::interval = '4000 ms' AND current_setting('idle_in_transaction_session_timeout')::interval = '3000 ms'
-- ;
INSERT INTO workers (id, name, host_id, pool, engine, model, max_model_tokens, max_running, kv_tokens, kv_block_tokens, ready, lease_until, payload_version) VALUES ('000000000000000000000000000000a1'::uuid::UUID, 'gpu@old'::VARCHAR, 'host'::VARCHAR, 'chat'::VARCHAR, 'simulator'::VARCHAR, 'm'::VARCHAR, 2048::INTEGER, 4::INTEGER, 65536::INTEGER, 16::INTEGER, true, (now() + '1:00:00'::interval), 1::SMALLINT) ON CONFLICT (id) DO UPDATE SET lease_until = excluded.lease_until
-- ;
INSERT INTO workers (id, name, host_id, pool, engine, model, max_model_tokens, max_running, kv_tokens, kv_block_tokens, ready, lease_until, payload_version) VALUES ('000000000000000000000000000000a2'::uuid::UUID, 'gpu@old'::VARCHAR, 'host'::VARCHAR, 'chat'::VARCHAR, 'simulator'::VARCHAR, 'm'::VARCHAR, 2048::INTEGER, 4::INTEGER, 65536::INTEGER, 16::INTEGER, true, (now() + '1:00:00'::interval), 1::SMALLINT) ON CONFLICT (id) DO UPDATE SET lease_until = excluded.lease_until
-- ;
WITH renewed AS 
(UPDATE workers SET running=0::INTEGER, ready=true, draining=false, lease_until=(now() + '1:00:00'::interval) WHERE workers.id = '000000000000000000000000000000a1'::uuid::UUID RETURNING workers.id, workers.pool, workers.host_id)
 SELECT host.drains, host.confined, jobs.id, jobs.attempt, jobs.cancel_requested_at, coalesce(jobs.finish_by <= now(), false) AS is_overdue 
FROM (SELECT EXISTS (SELECT * 
FROM hosts, renewed 
WHERE hosts.pool = renewed.pool AND hosts.ended_at IS NULL AND (hosts.id = renewed.host_id OR hosts.provider_id = renewed.host_id) AND hosts.drain_at IS NOT NULL) AS drains, (SELECT json_agg(json_build_array(confinements.app_id, (SELECT confinements.job_id 
FROM workers AS other 
WHERE other.id = confinements.worker_id AND other.id != renewed.id AND other.lease_until > now()))) AS json_agg_1 
FROM confinements, renewed 
WHERE confinements.pool = renewed.pool AND confinements.until > now()) AS confined) AS host LEFT OUTER JOIN jobs ON jobs.worker_id = '000000000000000000000000000000a1'::uuid::UUID AND jobs.state = 'running'
-- ;

-- part: finish plain
WITH given AS 
(SELECT sent.job_id AS job_id, sent.engine AS engine, sent.enqueue_no AS enqueue_no, sent.worker_id AS worker_id 
FROM json_to_recordset('[{"job_id":"01a21000-0000-7000-8000-000000000001","enqueue_no":1,"worker_id":"00000000-0000-0000-0000-0000000000a1","engine":"simulator"}]'::JSON) AS sent(job_id UUID, engine TEXT, enqueue_no INTEGER, worker_id UUID) 
WHERE sent.enqueue_no BETWEEN 0::INTEGER AND 2147483647::INTEGER), 
claimed AS 
(UPDATE jobs SET state='running'::VARCHAR, attempt=(jobs.attempt + 1::INTEGER), worker_id=given.worker_id, started_at=coalesce(jobs.started_at, now()) FROM given WHERE (jobs.state || ''::VARCHAR) IN ('queued'::VARCHAR) AND jobs.id = given.job_id AND jobs.id >= '01a19467-e800-0000-0000-000000000000'::uuid AND jobs.id < '01a22ee6-b000-0000-0000-000000000000'::uuid AND jobs.id = ANY (ARRAY[('{01a21000000070008000000000000001}'::uuid[]::uuid[])[1], ('{01a21000000070008000000000000001}'::uuid[]::uuid[])[2], ('{01a21000000070008000000000000001}'::uuid[]::uuid[])[3], ('{01a21000000070008000000000000001}'::uuid[]::uuid[])[4], ('{01a21000000070008000000000000001}'::uuid[]::uuid[])[5], ('{01a21000000070008000000000000001}'::uuid[]::uuid[])[6], ('{01a21000000070008000000000000001}'::uuid[]::uuid[])[7], ('{01a21000000070008000000000000001}'::uuid[]::uuid[])[8]]) AND jobs.enqueue_no = given.enqueue_no AND jobs.cancel_requested_at IS NULL AND (jobs.started_at IS NOT NULL OR jobs.start_by > now()) AND (jobs.finish_by IS NULL OR jobs.finish_by > now()) AND (EXISTS (SELECT workers.id 
FROM workers 
WHERE workers.id = given.worker_id AND workers.lease_until > now())) RETURNING jobs.id, jobs.app_id, jobs.attempt, jobs.enqueue_no, jobs.worker_id, jobs.end_user, jobs.lane, jobs.pool, jobs.model_requested, jobs.overflow, jobs.max_cost_usd, jobs.prompt_tokens, jobs.start_by, jobs.finish_by, jobs.webhook_url, jobs.stream, jobs.suspicion, jobs.route, jobs.adapter, jobs.rule, jobs.stand_by, jobs.shadow_of, given.engine), 
begun AS 
(INSERT INTO attempts (job_id, number, worker_id, engine, started_at) SELECT claimed.id AS id, claimed.attempt AS attempt, claimed.worker_id AS worker_id, claimed.engine AS engine, now() AS now_1 
FROM claimed)
 SELECT claimed.id, claimed.app_id, claimed.attempt, claimed.enqueue_no, claimed.worker_id, claimed.end_user, claimed.lane, claimed.pool, claimed.model_requested, claimed.overflow, claimed.max_cost_usd, claimed.prompt_tokens, claimed.start_by, claimed.finish_by, claimed.webhook_url, claimed.stream, claimed.suspicion, claimed.route, claimed.adapter, claimed.rule, claimed.stand_by, claimed.shadow_of, claimed.engine, job_texts.messages, job_texts.sampling 
FROM claimed JOIN job_texts ON job_texts.job_id = claimed.id AND job_texts.job_id >= '01a19467-e800-0000-0000-000000000000'::uuid AND job_texts.job_id < '01a22ee6-b000-0000-0000-000000000000'::uuid AND job_texts.job_id = ANY (ARRAY[('{01a21000000070008000000000000001}'::uuid[]::uuid[])[1], ('{01a21000000070008000000000000001}'::uuid[]::uuid[])[2], ('{01a21000000070008000000000000001}'::uuid[]::uuid[])[3], ('{01a21000000070008000000000000001}'::uuid[]::uuid[])[4], ('{01a21000000070008000000000000001}'::uuid[]::uuid[])[5], ('{01a21000000070008000000000000001}'::uuid[]::uuid[])[6], ('{01a21000000070008000000000000001}'::uuid[]::uuid[])[7], ('{01a21000000070008000000000000001}'::uuid[]::uuid[])[8]])
-- ;
WITH given AS 
(SELECT sent.charged_usd AS charged_usd, sent.answer AS answer, sent.logprobs_json AS logprobs_json, sent.reasoning AS reasoning, sent.tool_calls AS tool_calls, sent.choices AS choices, sent.output_tokens AS output_tokens, sent.cached_tokens AS cached_tokens, sent.reasoning_tokens AS reasoning_tokens, sent.finish_reason AS finish_reason, sent.model_served AS model_served, sent.error_code AS error_code, sent.error_message AS error_message, sent.original_tokens AS original_tokens, sent.outcome AS outcome, sent.first_token_s AS first_token_s, sent.preemptions AS preemptions, sent.escalated_by AS escalated_by, sent.prompt_tokens AS prompt_tokens, sent.engine_s AS engine_s, sent.kind AS kind, sent.job_id AS job_id, sent.attempt AS attempt, sent.app_id AS app_id, sent.end_user AS end_user, sent.pool AS pool, sent.model AS model, sent.host_id AS host_id, sent.kv_token_s AS kv_token_s, sent.usd AS usd, sent.price_version AS price_version, sent.api_usd AS api_usd, sent.estimated AS estimated, sent.saved_usd AS saved_usd, sent.reason AS reason, sent.worker_id AS worker_id, sent.enqueue_no AS enqueue_no 
FROM json_to_recordset('[{"job_id":"01a21000-0000-7000-8000-000000000001","worker_id":"00000000-0000-0000-0000-0000000000a1","attempt":1,"enqueue_no":1,"app_id":"01a22bb1-20b6-7322-8801-85041a288d7d","end_user":null,"pool":"chat","model":"m","model_served":"m","host_id":"host","kind":"compute","outcome":"succeeded","error_code":null,"prompt_tokens":8,"cached_tokens":0,"output_tokens":3,"engine_s":0.5,"first_token_s":null,"preemptions":0,"kv_token_s":5.5,"usd":"0.000001","price_version":"old-1","api_usd":null,"estimated":false,"original_tokens":null,"saved_usd":null,"reason":null,"escalated_by":null,"charged_usd":"0.000001","finish_reason":"stop","error_message":null,"answer":"A channel.","logprobs_json":null,"reasoning":null,"tool_calls":null,"reasoning_tokens":0,"choices":null}]'::JSON) AS sent(charged_usd NUMERIC(18, 9), answer TEXT, logprobs_json JSON, reasoning TEXT, tool_calls JSONB, choices JSON, output_tokens INTEGER, cached_tokens INTEGER, reasoning_tokens INTEGER, finish_reason TEXT, model_served TEXT, error_code TEXT, error_message TEXT, original_tokens INTEGER, outcome TEXT, first_token_s FLOAT, preemptions INTEGER, escalated_by TEXT, prompt_tokens INTEGER, engine_s FLOAT, kind TEXT, job_id UUID, attempt INTEGER, app_id UUID, end_user TEXT, pool TEXT, model TEXT, host_id TEXT, kv_token_s FLOAT, usd NUMERIC(18, 9), price_version TEXT, api_usd NUMERIC(18, 9), estimated BOOLEAN, saved_usd NUMERIC(18, 9), reason TEXT, worker_id UUID, enqueue_no INTEGER) 
WHERE sent.enqueue_no BETWEEN 0::INTEGER AND 2147483647::INTEGER), 
moved AS 
(UPDATE jobs SET state='succeeded'::VARCHAR, model_served=given.model_served, prompt_tokens=coalesce(nullif(given.prompt_tokens, 0::INTEGER), jobs.prompt_tokens), output_tokens=given.output_tokens, cached_tokens=given.cached_tokens, reasoning_tokens=given.reasoning_tokens, finish_reason=given.finish_reason, usd=given.charged_usd, error_code=given.error_code, error_message=given.error_message, worker_id=NULL::UUID, ended_at=now(), original_tokens=given.original_tokens FROM given WHERE (jobs.state || ''::VARCHAR) IN ('running'::VARCHAR) AND jobs.id = given.job_id AND jobs.id >= '01a19467-e800-0000-0000-000000000000'::uuid AND jobs.id < '01a22ee6-b000-0000-0000-000000000000'::uuid AND jobs.id = ANY (ARRAY[('{01a21000000070008000000000000001}'::uuid[]::uuid[])[1], ('{01a21000000070008000000000000001}'::uuid[]::uuid[])[2], ('{01a21000000070008000000000000001}'::uuid[]::uuid[])[3], ('{01a21000000070008000000000000001}'::uuid[]::uuid[])[4], ('{01a21000000070008000000000000001}'::uuid[]::uuid[])[5], ('{01a21000000070008000000000000001}'::uuid[]::uuid[])[6], ('{01a21000000070008000000000000001}'::uuid[]::uuid[])[7], ('{01a21000000070008000000000000001}'::uuid[]::uuid[])[8]]) AND jobs.worker_id = given.worker_id AND jobs.attempt = given.attempt AND jobs.enqueue_no = given.enqueue_no RETURNING jobs.id, jobs.app_id, jobs.state, jobs.finish_reason, jobs.webhook_url), 
ended AS 
(UPDATE attempts SET model_served=given.model_served, ended_at=now(), outcome=given.outcome, error_code=given.error_code, prompt_tokens=given.prompt_tokens, cached_tokens=given.cached_tokens, output_tokens=given.output_tokens, engine_s=given.engine_s, first_token_s=given.first_token_s, preemptions=given.preemptions, escalated_by=given.escalated_by FROM given, moved WHERE attempts.job_id = given.job_id AND attempts.job_id >= '01a19467-e800-0000-0000-000000000000'::uuid AND attempts.job_id < '01a22ee6-b000-0000-0000-000000000000'::uuid AND attempts.job_id = ANY (ARRAY[('{01a21000000070008000000000000001}'::uuid[]::uuid[])[1], ('{01a21000000070008000000000000001}'::uuid[]::uuid[])[2], ('{01a21000000070008000000000000001}'::uuid[]::uuid[])[3], ('{01a21000000070008000000000000001}'::uuid[]::uuid[])[4], ('{01a21000000070008000000000000001}'::uuid[]::uuid[])[5], ('{01a21000000070008000000000000001}'::uuid[]::uuid[])[6], ('{01a21000000070008000000000000001}'::uuid[]::uuid[])[7], ('{01a21000000070008000000000000001}'::uuid[]::uuid[])[8]]) AND attempts.number = given.attempt AND moved.id = given.job_id), 
booked AS 
(INSERT INTO ledger (kind, job_id, attempt, app_id, end_user, pool, model, host_id, kv_token_s, usd, price_version, api_usd, estimated, saved_usd, reason, prompt_tokens, cached_tokens, output_tokens, engine_s) SELECT given.kind AS kind, given.job_id AS job_id, given.attempt AS attempt, given.app_id AS app_id, given.end_user AS end_user, given.pool AS pool, given.model AS model, given.host_id AS host_id, given.kv_token_s AS kv_token_s, given.usd AS usd, given.price_version AS price_version, given.api_usd AS api_usd, given.estimated AS estimated, given.saved_usd AS saved_usd, given.reason AS reason, given.prompt_tokens AS prompt_tokens, given.cached_tokens AS cached_tokens, given.output_tokens AS output_tokens, given.engine_s AS engine_s 
FROM given, moved 
WHERE moved.id = given.job_id), 
answered AS 
(UPDATE job_texts SET answer=given.answer, logprobs_json=given.logprobs_json, reasoning=given.reasoning, tool_calls=given.tool_calls, choices=given.choices FROM given, moved WHERE job_texts.job_id = given.job_id AND job_texts.job_id >= '01a19467-e800-0000-0000-000000000000'::uuid AND job_texts.job_id < '01a22ee6-b000-0000-0000-000000000000'::uuid AND job_texts.job_id = ANY (ARRAY[('{01a21000000070008000000000000001}'::uuid[]::uuid[])[1], ('{01a21000000070008000000000000001}'::uuid[]::uuid[])[2], ('{01a21000000070008000000000000001}'::uuid[]::uuid[])[3], ('{01a21000000070008000000000000001}'::uuid[]::uuid[])[4], ('{01a21000000070008000000000000001}'::uuid[]::uuid[])[5], ('{01a21000000070008000000000000001}'::uuid[]::uuid[])[6], ('{01a21000000070008000000000000001}'::uuid[]::uuid[])[7], ('{01a21000000070008000000000000001}'::uuid[]::uuid[])[8]]) AND given.answer IS NOT NULL AND moved.id = given.job_id)
 SELECT moved.id, moved.app_id, moved.state, moved.finish_reason, moved.webhook_url 
FROM moved
-- ;

-- part: finish hooked
WITH given AS 
(SELECT sent.job_id AS job_id, sent.engine AS engine, sent.enqueue_no AS enqueue_no, sent.worker_id AS worker_id 
FROM json_to_recordset('[{"job_id":"01a21000-0000-7000-8000-000000000002","enqueue_no":1,"worker_id":"00000000-0000-0000-0000-0000000000a1","engine":"simulator"}]'::JSON) AS sent(job_id UUID, engine TEXT, enqueue_no INTEGER, worker_id UUID) 
WHERE sent.enqueue_no BETWEEN 0::INTEGER AND 2147483647::INTEGER), 
claimed AS 
(UPDATE jobs SET state='running'::VARCHAR, attempt=(jobs.attempt + 1::INTEGER), worker_id=given.worker_id, started_at=coalesce(jobs.started_at, now()) FROM given WHERE (jobs.state || ''::VARCHAR) IN ('queued'::VARCHAR) AND jobs.id = given.job_id AND jobs.id >= '01a19467-e800-0000-0000-000000000000'::uuid AND jobs.id < '01a22ee6-b000-0000-0000-000000000000'::uuid AND jobs.id = ANY (ARRAY[('{01a21000000070008000000000000002}'::uuid[]::uuid[])[1], ('{01a21000000070008000000000000002}'::uuid[]::uuid[])[2], ('{01a21000000070008000000000000002}'::uuid[]::uuid[])[3], ('{01a21000000070008000000000000002}'::uuid[]::uuid[])[4], ('{01a21000000070008000000000000002}'::uuid[]::uuid[])[5], ('{01a21000000070008000000000000002}'::uuid[]::uuid[])[6], ('{01a21000000070008000000000000002}'::uuid[]::uuid[])[7], ('{01a21000000070008000000000000002}'::uuid[]::uuid[])[8]]) AND jobs.enqueue_no = given.enqueue_no AND jobs.cancel_requested_at IS NULL AND (jobs.started_at IS NOT NULL OR jobs.start_by > now()) AND (jobs.finish_by IS NULL OR jobs.finish_by > now()) AND (EXISTS (SELECT workers.id 
FROM workers 
WHERE workers.id = given.worker_id AND workers.lease_until > now())) RETURNING jobs.id, jobs.app_id, jobs.attempt, jobs.enqueue_no, jobs.worker_id, jobs.end_user, jobs.lane, jobs.pool, jobs.model_requested, jobs.overflow, jobs.max_cost_usd, jobs.prompt_tokens, jobs.start_by, jobs.finish_by, jobs.webhook_url, jobs.stream, jobs.suspicion, jobs.route, jobs.adapter, jobs.rule, jobs.stand_by, jobs.shadow_of, given.engine), 
begun AS 
(INSERT INTO attempts (job_id, number, worker_id, engine, started_at) SELECT claimed.id AS id, claimed.attempt AS attempt, claimed.worker_id AS worker_id, claimed.engine AS engine, now() AS now_1 
FROM claimed)
 SELECT claimed.id, claimed.app_id, claimed.attempt, claimed.enqueue_no, claimed.worker_id, claimed.end_user, claimed.lane, claimed.pool, claimed.model_requested, claimed.overflow, claimed.max_cost_usd, claimed.prompt_tokens, claimed.start_by, claimed.finish_by, claimed.webhook_url, claimed.stream, claimed.suspicion, claimed.route, claimed.adapter, claimed.rule, claimed.stand_by, claimed.shadow_of, claimed.engine, job_texts.messages, job_texts.sampling 
FROM claimed JOIN job_texts ON job_texts.job_id = claimed.id AND job_texts.job_id >= '01a19467-e800-0000-0000-000000000000'::uuid AND job_texts.job_id < '01a22ee6-b000-0000-0000-000000000000'::uuid AND job_texts.job_id = ANY (ARRAY[('{01a21000000070008000000000000002}'::uuid[]::uuid[])[1], ('{01a21000000070008000000000000002}'::uuid[]::uuid[])[2], ('{01a21000000070008000000000000002}'::uuid[]::uuid[])[3], ('{01a21000000070008000000000000002}'::uuid[]::uuid[])[4], ('{01a21000000070008000000000000002}'::uuid[]::uuid[])[5], ('{01a21000000070008000000000000002}'::uuid[]::uuid[])[6], ('{01a21000000070008000000000000002}'::uuid[]::uuid[])[7], ('{01a21000000070008000000000000002}'::uuid[]::uuid[])[8]])
-- ;
WITH given AS 
(SELECT sent.charged_usd AS charged_usd, sent.answer AS answer, sent.logprobs_json AS logprobs_json, sent.reasoning AS reasoning, sent.tool_calls AS tool_calls, sent.choices AS choices, sent.output_tokens AS output_tokens, sent.cached_tokens AS cached_tokens, sent.reasoning_tokens AS reasoning_tokens, sent.finish_reason AS finish_reason, sent.model_served AS model_served, sent.error_code AS error_code, sent.error_message AS error_message, sent.original_tokens AS original_tokens, sent.outcome AS outcome, sent.first_token_s AS first_token_s, sent.preemptions AS preemptions, sent.escalated_by AS escalated_by, sent.prompt_tokens AS prompt_tokens, sent.engine_s AS engine_s, sent.kind AS kind, sent.job_id AS job_id, sent.attempt AS attempt, sent.app_id AS app_id, sent.end_user AS end_user, sent.pool AS pool, sent.model AS model, sent.host_id AS host_id, sent.kv_token_s AS kv_token_s, sent.usd AS usd, sent.price_version AS price_version, sent.api_usd AS api_usd, sent.estimated AS estimated, sent.saved_usd AS saved_usd, sent.reason AS reason, sent.worker_id AS worker_id, sent.enqueue_no AS enqueue_no 
FROM json_to_recordset('[{"job_id":"01a21000-0000-7000-8000-000000000002","worker_id":"00000000-0000-0000-0000-0000000000a1","attempt":1,"enqueue_no":1,"app_id":"01a22bb1-20b6-7322-8801-85041a288d7d","end_user":null,"pool":"chat","model":"m","model_served":"m","host_id":"host","kind":"compute","outcome":"succeeded","error_code":null,"prompt_tokens":8,"cached_tokens":0,"output_tokens":3,"engine_s":0.5,"first_token_s":null,"preemptions":0,"kv_token_s":5.5,"usd":"0.000001","price_version":"old-1","api_usd":null,"estimated":false,"original_tokens":null,"saved_usd":null,"reason":null,"escalated_by":null,"charged_usd":"0.000001","finish_reason":"stop","error_message":null,"answer":"A channel.","logprobs_json":null,"reasoning":null,"tool_calls":null,"reasoning_tokens":0,"choices":null}]'::JSON) AS sent(charged_usd NUMERIC(18, 9), answer TEXT, logprobs_json JSON, reasoning TEXT, tool_calls JSONB, choices JSON, output_tokens INTEGER, cached_tokens INTEGER, reasoning_tokens INTEGER, finish_reason TEXT, model_served TEXT, error_code TEXT, error_message TEXT, original_tokens INTEGER, outcome TEXT, first_token_s FLOAT, preemptions INTEGER, escalated_by TEXT, prompt_tokens INTEGER, engine_s FLOAT, kind TEXT, job_id UUID, attempt INTEGER, app_id UUID, end_user TEXT, pool TEXT, model TEXT, host_id TEXT, kv_token_s FLOAT, usd NUMERIC(18, 9), price_version TEXT, api_usd NUMERIC(18, 9), estimated BOOLEAN, saved_usd NUMERIC(18, 9), reason TEXT, worker_id UUID, enqueue_no INTEGER) 
WHERE sent.enqueue_no BETWEEN 0::INTEGER AND 2147483647::INTEGER), 
moved AS 
(UPDATE jobs SET state='succeeded'::VARCHAR, model_served=given.model_served, prompt_tokens=coalesce(nullif(given.prompt_tokens, 0::INTEGER), jobs.prompt_tokens), output_tokens=given.output_tokens, cached_tokens=given.cached_tokens, reasoning_tokens=given.reasoning_tokens, finish_reason=given.finish_reason, usd=given.charged_usd, error_code=given.error_code, error_message=given.error_message, worker_id=NULL::UUID, ended_at=now(), original_tokens=given.original_tokens FROM given WHERE (jobs.state || ''::VARCHAR) IN ('running'::VARCHAR) AND jobs.id = given.job_id AND jobs.id >= '01a19467-e800-0000-0000-000000000000'::uuid AND jobs.id < '01a22ee6-b000-0000-0000-000000000000'::uuid AND jobs.id = ANY (ARRAY[('{01a21000000070008000000000000002}'::uuid[]::uuid[])[1], ('{01a21000000070008000000000000002}'::uuid[]::uuid[])[2], ('{01a21000000070008000000000000002}'::uuid[]::uuid[])[3], ('{01a21000000070008000000000000002}'::uuid[]::uuid[])[4], ('{01a21000000070008000000000000002}'::uuid[]::uuid[])[5], ('{01a21000000070008000000000000002}'::uuid[]::uuid[])[6], ('{01a21000000070008000000000000002}'::uuid[]::uuid[])[7], ('{01a21000000070008000000000000002}'::uuid[]::uuid[])[8]]) AND jobs.worker_id = given.worker_id AND jobs.attempt = given.attempt AND jobs.enqueue_no = given.enqueue_no RETURNING jobs.id, jobs.app_id, jobs.state, jobs.finish_reason, jobs.webhook_url), 
ended AS 
(UPDATE attempts SET model_served=given.model_served, ended_at=now(), outcome=given.outcome, error_code=given.error_code, prompt_tokens=given.prompt_tokens, cached_tokens=given.cached_tokens, output_tokens=given.output_tokens, engine_s=given.engine_s, first_token_s=given.first_token_s, preemptions=given.preemptions, escalated_by=given.escalated_by FROM given, moved WHERE attempts.job_id = given.job_id AND attempts.job_id >= '01a19467-e800-0000-0000-000000000000'::uuid AND attempts.job_id < '01a22ee6-b000-0000-0000-000000000000'::uuid AND attempts.job_id = ANY (ARRAY[('{01a21000000070008000000000000002}'::uuid[]::uuid[])[1], ('{01a21000000070008000000000000002}'::uuid[]::uuid[])[2], ('{01a21000000070008000000000000002}'::uuid[]::uuid[])[3], ('{01a21000000070008000000000000002}'::uuid[]::uuid[])[4], ('{01a21000000070008000000000000002}'::uuid[]::uuid[])[5], ('{01a21000000070008000000000000002}'::uuid[]::uuid[])[6], ('{01a21000000070008000000000000002}'::uuid[]::uuid[])[7], ('{01a21000000070008000000000000002}'::uuid[]::uuid[])[8]]) AND attempts.number = given.attempt AND moved.id = given.job_id), 
booked AS 
(INSERT INTO ledger (kind, job_id, attempt, app_id, end_user, pool, model, host_id, kv_token_s, usd, price_version, api_usd, estimated, saved_usd, reason, prompt_tokens, cached_tokens, output_tokens, engine_s) SELECT given.kind AS kind, given.job_id AS job_id, given.attempt AS attempt, given.app_id AS app_id, given.end_user AS end_user, given.pool AS pool, given.model AS model, given.host_id AS host_id, given.kv_token_s AS kv_token_s, given.usd AS usd, given.price_version AS price_version, given.api_usd AS api_usd, given.estimated AS estimated, given.saved_usd AS saved_usd, given.reason AS reason, given.prompt_tokens AS prompt_tokens, given.cached_tokens AS cached_tokens, given.output_tokens AS output_tokens, given.engine_s AS engine_s 
FROM given, moved 
WHERE moved.id = given.job_id), 
answered AS 
(UPDATE job_texts SET answer=given.answer, logprobs_json=given.logprobs_json, reasoning=given.reasoning, tool_calls=given.tool_calls, choices=given.choices FROM given, moved WHERE job_texts.job_id = given.job_id AND job_texts.job_id >= '01a19467-e800-0000-0000-000000000000'::uuid AND job_texts.job_id < '01a22ee6-b000-0000-0000-000000000000'::uuid AND job_texts.job_id = ANY (ARRAY[('{01a21000000070008000000000000002}'::uuid[]::uuid[])[1], ('{01a21000000070008000000000000002}'::uuid[]::uuid[])[2], ('{01a21000000070008000000000000002}'::uuid[]::uuid[])[3], ('{01a21000000070008000000000000002}'::uuid[]::uuid[])[4], ('{01a21000000070008000000000000002}'::uuid[]::uuid[])[5], ('{01a21000000070008000000000000002}'::uuid[]::uuid[])[6], ('{01a21000000070008000000000000002}'::uuid[]::uuid[])[7], ('{01a21000000070008000000000000002}'::uuid[]::uuid[])[8]]) AND given.answer IS NOT NULL AND moved.id = given.job_id)
 SELECT moved.id, moved.app_id, moved.state, moved.finish_reason, moved.webhook_url 
FROM moved
-- ;
INSERT INTO deliveries (id, job_id, app_id, event, url) VALUES ('01a22bb121727363b589db4d5ecb4724'::uuid::UUID, '01a21000000070008000000000000002'::uuid::UUID, '01a22bb120b67322880185041a288d7d'::uuid::UUID, 'response.completed'::VARCHAR, 'https://r.example'::VARCHAR)
-- ;
SELECT EXISTS (SELECT * 
FROM deliveries 
WHERE deliveries.state = 'pending' AND deliveries.next_at <= now()) AS anon_1
-- ;
WITH RECURSIVE held_apps (app, n) AS MATERIALIZED (
    SELECT * FROM unnest(CAST('{}' AS uuid[]), CAST('{}' AS int[]))
), held_receivers (receiver, n) AS MATERIALIZED (
    SELECT name COLLATE "C", n FROM unnest(CAST('{}' AS text[]), CAST('{}' AS int[])) held (name, n)
), groups (app, receiver, n) AS (
    (SELECT coalesce(app_id, '00000000-0000-0000-0000-000000000000'::uuid), lower("substring"(url COLLATE "C", '://([^/?#]*)'::text)), 1 FROM deliveries
     WHERE state = 'pending' AND (coalesce(app_id, '00000000-0000-0000-0000-000000000000'::uuid), lower("substring"(url COLLATE "C", '://([^/?#]*)'::text))) > (CAST('00000000000000000000000000000000'::uuid AS uuid), '' COLLATE "C")
     ORDER BY 1, 2 LIMIT 1)
    UNION ALL
    SELECT later.app, later.receiver, groups.n + 1 FROM groups CROSS JOIN LATERAL (
        SELECT coalesce(app_id, '00000000-0000-0000-0000-000000000000'::uuid) AS app, lower("substring"(url COLLATE "C", '://([^/?#]*)'::text)) AS receiver FROM deliveries
        WHERE state = 'pending' AND (coalesce(app_id, '00000000-0000-0000-0000-000000000000'::uuid), lower("substring"(url COLLATE "C", '://([^/?#]*)'::text))) > (
            groups.app,
            CASE WHEN groups.app = ANY (CAST('{}' AS uuid[])) THEN chr(1114111) ELSE groups.receiver END
                COLLATE "C"
        )
        ORDER BY 1, 2 LIMIT 1
    ) later
    WHERE groups.n < 500
), due AS (
    SELECT head.id, head.next_at, groups.app, groups.receiver,
           coalesce(held_apps.n, 0) AS of_app, coalesce(held_receivers.n, 0) AS of_receiver,
           head.nth + coalesce(held_apps.n, 0) + coalesce(held_receivers.n, 0) AS turn
    FROM groups
    LEFT JOIN held_apps ON held_apps.app = groups.app
    LEFT JOIN held_receivers ON held_receivers.receiver = groups.receiver
    CROSS JOIN LATERAL (
        SELECT first.id, first.next_at, row_number() OVER (ORDER BY first.next_at) AS nth FROM (
            SELECT id, next_at FROM deliveries
            WHERE state = 'pending' AND coalesce(app_id, '00000000-0000-0000-0000-000000000000'::uuid) = groups.app AND lower("substring"(url COLLATE "C", '://([^/?#]*)'::text)) = groups.receiver AND next_at <= now()
            ORDER BY next_at
            LIMIT greatest(0, least(
                1, 1 - coalesce(held_apps.n, 0), 1 - coalesce(held_receivers.n, 0)
            ))
        ) first
    ) head
), fair AS (
    SELECT id, next_at, turn,
           of_app + row_number() OVER (PARTITION BY app ORDER BY turn, next_at) AS app_nth,
           of_receiver + row_number() OVER (PARTITION BY receiver ORDER BY turn, next_at) AS receiver_nth
    FROM due
), chosen AS (
    SELECT id FROM fair WHERE app_nth <= 1 AND receiver_nth <= 1 ORDER BY turn, next_at LIMIT 1
)
SELECT (SELECT coalesce(array_agg(id), '{}') FROM chosen) AS ids,
       (SELECT count(*) FROM fair) > (SELECT count(*) FROM chosen) AS is_more, n, app, receiver
FROM groups ORDER BY n DESC LIMIT 1
-- ;
UPDATE deliveries SET state=CASE WHEN (deliveries.tries - deliveries.tries_before < 9::INTEGER) THEN 'pending'::VARCHAR ELSE 'failed'::VARCHAR END, tries=(deliveries.tries + CASE WHEN (deliveries.tries - deliveries.tries_before < 9::INTEGER) THEN 1::INTEGER ELSE 0::INTEGER END), last_error=CASE WHEN (deliveries.tries - deliveries.tries_before < 9::INTEGER) THEN deliveries.last_error ELSE 'The last try was begun and never reported: its worker died.'::VARCHAR END, next_at=(now() + '0:01:00'::interval) WHERE deliveries.id IN (SELECT deliveries.id 
FROM deliveries 
WHERE deliveries.id IN ('01a22bb121727363b589db4d5ecb4724'::uuid::UUID) AND deliveries.state = 'pending'::VARCHAR AND deliveries.next_at <= now() FOR UPDATE SKIP LOCKED) RETURNING deliveries.id, deliveries.job_id, deliveries.app_id, deliveries.event, deliveries.data, deliveries.url, deliveries.state, deliveries.tries, deliveries.last_status, deliveries.last_error, deliveries.created_at, deliveries.next_at, deliveries.delivered_at, deliveries.tries_before, lower("substring"(url COLLATE "C", '://([^/?#]*)'::text)) AS receiver
-- ;
SELECT gone_receivers.digest 
FROM gone_receivers 
WHERE gone_receivers.digest IN ('\x9c75ef138ac1cf2d43fc30775ded73a244d2e4ff315679d0d009d54ae800ab40'::bytea)
-- ;
SELECT jobs.id, jobs.state, jobs.ended_at, apps.webhook_secret, CASE WHEN (apps.webhook_secret_old_until > now()) THEN apps.webhook_secret_old END AS old_secret 
FROM jobs JOIN apps ON apps.id = jobs.app_id 
WHERE jobs.id IN ('01a21000000070008000000000000002'::uuid::UUID)
-- ;
UPDATE deliveries SET state='delivered'::VARCHAR, last_status=204::INTEGER, last_error=NULL::VARCHAR, delivered_at=now() WHERE deliveries.id = '01a22bb121727363b589db4d5ecb4724'::uuid::UUID AND deliveries.tries = 1::INTEGER
-- ;

-- part: lose
WITH given AS 
(SELECT sent.job_id AS job_id, sent.engine AS engine, sent.enqueue_no AS enqueue_no, sent.worker_id AS worker_id 
FROM json_to_recordset('[{"job_id":"01a21000-0000-7000-8000-000000000003","enqueue_no":1,"worker_id":"00000000-0000-0000-0000-0000000000a2","engine":"simulator"}]'::JSON) AS sent(job_id UUID, engine TEXT, enqueue_no INTEGER, worker_id UUID) 
WHERE sent.enqueue_no BETWEEN 0::INTEGER AND 2147483647::INTEGER), 
claimed AS 
(UPDATE jobs SET state='running'::VARCHAR, attempt=(jobs.attempt + 1::INTEGER), worker_id=given.worker_id, started_at=coalesce(jobs.started_at, now()) FROM given WHERE (jobs.state || ''::VARCHAR) IN ('queued'::VARCHAR) AND jobs.id = given.job_id AND jobs.id >= '01a19467-e800-0000-0000-000000000000'::uuid AND jobs.id < '01a22ee6-b000-0000-0000-000000000000'::uuid AND jobs.id = ANY (ARRAY[('{01a21000000070008000000000000003}'::uuid[]::uuid[])[1], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[2], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[3], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[4], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[5], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[6], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[7], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[8]]) AND jobs.enqueue_no = given.enqueue_no AND jobs.cancel_requested_at IS NULL AND (jobs.started_at IS NOT NULL OR jobs.start_by > now()) AND (jobs.finish_by IS NULL OR jobs.finish_by > now()) AND (EXISTS (SELECT workers.id 
FROM workers 
WHERE workers.id = given.worker_id AND workers.lease_until > now())) RETURNING jobs.id, jobs.app_id, jobs.attempt, jobs.enqueue_no, jobs.worker_id, jobs.end_user, jobs.lane, jobs.pool, jobs.model_requested, jobs.overflow, jobs.max_cost_usd, jobs.prompt_tokens, jobs.start_by, jobs.finish_by, jobs.webhook_url, jobs.stream, jobs.suspicion, jobs.route, jobs.adapter, jobs.rule, jobs.stand_by, jobs.shadow_of, given.engine), 
begun AS 
(INSERT INTO attempts (job_id, number, worker_id, engine, started_at) SELECT claimed.id AS id, claimed.attempt AS attempt, claimed.worker_id AS worker_id, claimed.engine AS engine, now() AS now_1 
FROM claimed)
 SELECT claimed.id, claimed.app_id, claimed.attempt, claimed.enqueue_no, claimed.worker_id, claimed.end_user, claimed.lane, claimed.pool, claimed.model_requested, claimed.overflow, claimed.max_cost_usd, claimed.prompt_tokens, claimed.start_by, claimed.finish_by, claimed.webhook_url, claimed.stream, claimed.suspicion, claimed.route, claimed.adapter, claimed.rule, claimed.stand_by, claimed.shadow_of, claimed.engine, job_texts.messages, job_texts.sampling 
FROM claimed JOIN job_texts ON job_texts.job_id = claimed.id AND job_texts.job_id >= '01a19467-e800-0000-0000-000000000000'::uuid AND job_texts.job_id < '01a22ee6-b000-0000-0000-000000000000'::uuid AND job_texts.job_id = ANY (ARRAY[('{01a21000000070008000000000000003}'::uuid[]::uuid[])[1], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[2], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[3], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[4], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[5], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[6], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[7], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[8]])
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
SELECT jobs.id, jobs.app_id, jobs.state, jobs.lane, jobs.pool, jobs.queue, jobs.route, jobs.route_reason, jobs.overflow, jobs.model_requested, jobs.model_served, jobs.adapter, jobs.batch_id, jobs.custom_id, jobs.end_user, jobs.served_by_job, jobs.metadata, jobs.webhook_url, jobs.background, jobs.max_cost_usd, jobs.prompt_tokens, jobs.max_tokens, jobs.output_tokens, jobs.cached_tokens, jobs.reasoning_tokens, jobs.finish_reason, jobs.usd, jobs.error_code, jobs.error_message, jobs.enqueue_no, jobs.attempt, jobs.worker_id, jobs.created_at, jobs.start_by, jobs.finish_by, jobs.not_before, jobs.queued_at, jobs.started_at, jobs.ended_at, jobs.cancel_requested_at, jobs.stream, jobs.erased_at, jobs.suspicion, jobs.retry_of, jobs.overflow_at, jobs.original_tokens, jobs.cache, jobs.rule, jobs.stand_by, jobs.shadow, jobs.shadow_of, jobs.n, jobs.needs_version 
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
UPDATE jobs SET state='waiting'::VARCHAR, worker_id=NULL::UUID, not_before=now() WHERE jobs.state IN ('running'::VARCHAR) AND (jobs.id, jobs.worker_id, jobs.attempt) IN (('01a21000000070008000000000000003'::uuid, '000000000000000000000000000000a2'::uuid, 1)) RETURNING jobs.id, jobs.app_id, jobs.state, jobs.lane, jobs.pool, jobs.queue, jobs.route, jobs.route_reason, jobs.overflow, jobs.model_requested, jobs.model_served, jobs.adapter, jobs.batch_id, jobs.custom_id, jobs.end_user, jobs.served_by_job, jobs.metadata, jobs.webhook_url, jobs.background, jobs.max_cost_usd, jobs.prompt_tokens, jobs.max_tokens, jobs.output_tokens, jobs.cached_tokens, jobs.reasoning_tokens, jobs.finish_reason, jobs.usd, jobs.error_code, jobs.error_message, jobs.enqueue_no, jobs.attempt, jobs.worker_id, jobs.created_at, jobs.start_by, jobs.finish_by, jobs.not_before, jobs.queued_at, jobs.started_at, jobs.ended_at, jobs.cancel_requested_at, jobs.stream, jobs.erased_at, jobs.suspicion, jobs.retry_of, jobs.overflow_at, jobs.original_tokens, jobs.cache, jobs.rule, jobs.stand_by, jobs.shadow, jobs.shadow_of, jobs.n, jobs.needs_version
-- ;
UPDATE attempts SET ended_at=now(), outcome='lost'::VARCHAR WHERE (attempts.job_id, attempts.number) IN (('01a21000000070008000000000000003'::uuid, 1))
-- ;
INSERT INTO ledger (kind, job_id, attempt, app_id, end_user, pool, model, prompt_tokens, usd, price_version, estimated) VALUES ('waste'::VARCHAR, '01a21000000070008000000000000003'::uuid::UUID, 1::INTEGER, '01a22bb120b67322880185041a288d7d'::uuid::UUID, 'u'::VARCHAR, 'chat'::VARCHAR, 'smollm2-135m'::VARCHAR, 8::INTEGER, 4E-7, 'own-2026-11'::VARCHAR, true) RETURNING ledger.id
-- ;
UPDATE jobs SET state='queued'::VARCHAR, enqueue_no=(jobs.enqueue_no + 1::INTEGER), worker_id=NULL::UUID, not_before=NULL::TIMESTAMP WITH TIME ZONE, queued_at=now() WHERE jobs.state IN ('waiting'::VARCHAR) AND jobs.id = ANY (array((SELECT jobs.id 
FROM jobs 
WHERE jobs.state = 'waiting' AND jobs.not_before <= now() AND (jobs.needs_version IS NULL OR (EXISTS (SELECT * 
FROM workers 
WHERE workers.lease_until > now() AND workers.ready AND workers.pool = CASE WHEN (jobs.route = 'overflow'::VARCHAR) THEN 'overflow'::VARCHAR ELSE jobs.pool END AND workers.payload_version >= jobs.needs_version))) ORDER BY jobs.not_before 
 LIMIT 1000::INTEGER FOR UPDATE SKIP LOCKED))) RETURNING jobs.id, jobs.app_id, jobs.state, jobs.lane, jobs.pool, jobs.queue, jobs.route, jobs.route_reason, jobs.overflow, jobs.model_requested, jobs.model_served, jobs.adapter, jobs.batch_id, jobs.custom_id, jobs.end_user, jobs.served_by_job, jobs.metadata, jobs.webhook_url, jobs.background, jobs.max_cost_usd, jobs.prompt_tokens, jobs.max_tokens, jobs.output_tokens, jobs.cached_tokens, jobs.reasoning_tokens, jobs.finish_reason, jobs.usd, jobs.error_code, jobs.error_message, jobs.enqueue_no, jobs.attempt, jobs.worker_id, jobs.created_at, jobs.start_by, jobs.finish_by, jobs.not_before, jobs.queued_at, jobs.started_at, jobs.ended_at, jobs.cancel_requested_at, jobs.stream, jobs.erased_at, jobs.suspicion, jobs.retry_of, jobs.overflow_at, jobs.original_tokens, jobs.cache, jobs.rule, jobs.stand_by, jobs.shadow, jobs.shadow_of, jobs.n, jobs.needs_version
-- ;

-- part: finish lost
WITH given AS 
(SELECT sent.job_id AS job_id, sent.engine AS engine, sent.enqueue_no AS enqueue_no, sent.worker_id AS worker_id 
FROM json_to_recordset('[{"job_id":"01a21000-0000-7000-8000-000000000003","enqueue_no":2,"worker_id":"00000000-0000-0000-0000-0000000000a1","engine":"simulator"}]'::JSON) AS sent(job_id UUID, engine TEXT, enqueue_no INTEGER, worker_id UUID) 
WHERE sent.enqueue_no BETWEEN 0::INTEGER AND 2147483647::INTEGER), 
claimed AS 
(UPDATE jobs SET state='running'::VARCHAR, attempt=(jobs.attempt + 1::INTEGER), worker_id=given.worker_id, started_at=coalesce(jobs.started_at, now()) FROM given WHERE (jobs.state || ''::VARCHAR) IN ('queued'::VARCHAR) AND jobs.id = given.job_id AND jobs.id >= '01a19467-e800-0000-0000-000000000000'::uuid AND jobs.id < '01a22ee6-b000-0000-0000-000000000000'::uuid AND jobs.id = ANY (ARRAY[('{01a21000000070008000000000000003}'::uuid[]::uuid[])[1], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[2], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[3], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[4], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[5], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[6], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[7], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[8]]) AND jobs.enqueue_no = given.enqueue_no AND jobs.cancel_requested_at IS NULL AND (jobs.started_at IS NOT NULL OR jobs.start_by > now()) AND (jobs.finish_by IS NULL OR jobs.finish_by > now()) AND (EXISTS (SELECT workers.id 
FROM workers 
WHERE workers.id = given.worker_id AND workers.lease_until > now())) RETURNING jobs.id, jobs.app_id, jobs.attempt, jobs.enqueue_no, jobs.worker_id, jobs.end_user, jobs.lane, jobs.pool, jobs.model_requested, jobs.overflow, jobs.max_cost_usd, jobs.prompt_tokens, jobs.start_by, jobs.finish_by, jobs.webhook_url, jobs.stream, jobs.suspicion, jobs.route, jobs.adapter, jobs.rule, jobs.stand_by, jobs.shadow_of, given.engine), 
begun AS 
(INSERT INTO attempts (job_id, number, worker_id, engine, started_at) SELECT claimed.id AS id, claimed.attempt AS attempt, claimed.worker_id AS worker_id, claimed.engine AS engine, now() AS now_1 
FROM claimed)
 SELECT claimed.id, claimed.app_id, claimed.attempt, claimed.enqueue_no, claimed.worker_id, claimed.end_user, claimed.lane, claimed.pool, claimed.model_requested, claimed.overflow, claimed.max_cost_usd, claimed.prompt_tokens, claimed.start_by, claimed.finish_by, claimed.webhook_url, claimed.stream, claimed.suspicion, claimed.route, claimed.adapter, claimed.rule, claimed.stand_by, claimed.shadow_of, claimed.engine, job_texts.messages, job_texts.sampling 
FROM claimed JOIN job_texts ON job_texts.job_id = claimed.id AND job_texts.job_id >= '01a19467-e800-0000-0000-000000000000'::uuid AND job_texts.job_id < '01a22ee6-b000-0000-0000-000000000000'::uuid AND job_texts.job_id = ANY (ARRAY[('{01a21000000070008000000000000003}'::uuid[]::uuid[])[1], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[2], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[3], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[4], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[5], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[6], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[7], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[8]])
-- ;
WITH given AS 
(SELECT sent.charged_usd AS charged_usd, sent.answer AS answer, sent.logprobs_json AS logprobs_json, sent.reasoning AS reasoning, sent.tool_calls AS tool_calls, sent.choices AS choices, sent.output_tokens AS output_tokens, sent.cached_tokens AS cached_tokens, sent.reasoning_tokens AS reasoning_tokens, sent.finish_reason AS finish_reason, sent.model_served AS model_served, sent.error_code AS error_code, sent.error_message AS error_message, sent.original_tokens AS original_tokens, sent.outcome AS outcome, sent.first_token_s AS first_token_s, sent.preemptions AS preemptions, sent.escalated_by AS escalated_by, sent.prompt_tokens AS prompt_tokens, sent.engine_s AS engine_s, sent.kind AS kind, sent.job_id AS job_id, sent.attempt AS attempt, sent.app_id AS app_id, sent.end_user AS end_user, sent.pool AS pool, sent.model AS model, sent.host_id AS host_id, sent.kv_token_s AS kv_token_s, sent.usd AS usd, sent.price_version AS price_version, sent.api_usd AS api_usd, sent.estimated AS estimated, sent.saved_usd AS saved_usd, sent.reason AS reason, sent.worker_id AS worker_id, sent.enqueue_no AS enqueue_no 
FROM json_to_recordset('[{"job_id":"01a21000-0000-7000-8000-000000000003","worker_id":"00000000-0000-0000-0000-0000000000a1","attempt":2,"enqueue_no":2,"app_id":"01a22bb1-20b6-7322-8801-85041a288d7d","end_user":"u","pool":"chat","model":"m","model_served":"m","host_id":"host","kind":"compute","outcome":"succeeded","error_code":null,"prompt_tokens":8,"cached_tokens":0,"output_tokens":3,"engine_s":0.5,"first_token_s":null,"preemptions":0,"kv_token_s":5.5,"usd":"0.000001","price_version":"old-1","api_usd":null,"estimated":false,"original_tokens":null,"saved_usd":null,"reason":null,"escalated_by":null,"charged_usd":"0.000001","finish_reason":"stop","error_message":null,"answer":"A channel.","logprobs_json":null,"reasoning":null,"tool_calls":null,"reasoning_tokens":0,"choices":null}]'::JSON) AS sent(charged_usd NUMERIC(18, 9), answer TEXT, logprobs_json JSON, reasoning TEXT, tool_calls JSONB, choices JSON, output_tokens INTEGER, cached_tokens INTEGER, reasoning_tokens INTEGER, finish_reason TEXT, model_served TEXT, error_code TEXT, error_message TEXT, original_tokens INTEGER, outcome TEXT, first_token_s FLOAT, preemptions INTEGER, escalated_by TEXT, prompt_tokens INTEGER, engine_s FLOAT, kind TEXT, job_id UUID, attempt INTEGER, app_id UUID, end_user TEXT, pool TEXT, model TEXT, host_id TEXT, kv_token_s FLOAT, usd NUMERIC(18, 9), price_version TEXT, api_usd NUMERIC(18, 9), estimated BOOLEAN, saved_usd NUMERIC(18, 9), reason TEXT, worker_id UUID, enqueue_no INTEGER) 
WHERE sent.enqueue_no BETWEEN 0::INTEGER AND 2147483647::INTEGER), 
moved AS 
(UPDATE jobs SET state='succeeded'::VARCHAR, model_served=given.model_served, prompt_tokens=coalesce(nullif(given.prompt_tokens, 0::INTEGER), jobs.prompt_tokens), output_tokens=given.output_tokens, cached_tokens=given.cached_tokens, reasoning_tokens=given.reasoning_tokens, finish_reason=given.finish_reason, usd=given.charged_usd, error_code=given.error_code, error_message=given.error_message, worker_id=NULL::UUID, ended_at=now(), original_tokens=given.original_tokens FROM given WHERE (jobs.state || ''::VARCHAR) IN ('running'::VARCHAR) AND jobs.id = given.job_id AND jobs.id >= '01a19467-e800-0000-0000-000000000000'::uuid AND jobs.id < '01a22ee6-b000-0000-0000-000000000000'::uuid AND jobs.id = ANY (ARRAY[('{01a21000000070008000000000000003}'::uuid[]::uuid[])[1], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[2], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[3], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[4], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[5], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[6], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[7], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[8]]) AND jobs.worker_id = given.worker_id AND jobs.attempt = given.attempt AND jobs.enqueue_no = given.enqueue_no RETURNING jobs.id, jobs.app_id, jobs.state, jobs.finish_reason, jobs.webhook_url), 
ended AS 
(UPDATE attempts SET model_served=given.model_served, ended_at=now(), outcome=given.outcome, error_code=given.error_code, prompt_tokens=given.prompt_tokens, cached_tokens=given.cached_tokens, output_tokens=given.output_tokens, engine_s=given.engine_s, first_token_s=given.first_token_s, preemptions=given.preemptions, escalated_by=given.escalated_by FROM given, moved WHERE attempts.job_id = given.job_id AND attempts.job_id >= '01a19467-e800-0000-0000-000000000000'::uuid AND attempts.job_id < '01a22ee6-b000-0000-0000-000000000000'::uuid AND attempts.job_id = ANY (ARRAY[('{01a21000000070008000000000000003}'::uuid[]::uuid[])[1], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[2], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[3], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[4], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[5], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[6], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[7], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[8]]) AND attempts.number = given.attempt AND moved.id = given.job_id), 
booked AS 
(INSERT INTO ledger (kind, job_id, attempt, app_id, end_user, pool, model, host_id, kv_token_s, usd, price_version, api_usd, estimated, saved_usd, reason, prompt_tokens, cached_tokens, output_tokens, engine_s) SELECT given.kind AS kind, given.job_id AS job_id, given.attempt AS attempt, given.app_id AS app_id, given.end_user AS end_user, given.pool AS pool, given.model AS model, given.host_id AS host_id, given.kv_token_s AS kv_token_s, given.usd AS usd, given.price_version AS price_version, given.api_usd AS api_usd, given.estimated AS estimated, given.saved_usd AS saved_usd, given.reason AS reason, given.prompt_tokens AS prompt_tokens, given.cached_tokens AS cached_tokens, given.output_tokens AS output_tokens, given.engine_s AS engine_s 
FROM given, moved 
WHERE moved.id = given.job_id), 
answered AS 
(UPDATE job_texts SET answer=given.answer, logprobs_json=given.logprobs_json, reasoning=given.reasoning, tool_calls=given.tool_calls, choices=given.choices FROM given, moved WHERE job_texts.job_id = given.job_id AND job_texts.job_id >= '01a19467-e800-0000-0000-000000000000'::uuid AND job_texts.job_id < '01a22ee6-b000-0000-0000-000000000000'::uuid AND job_texts.job_id = ANY (ARRAY[('{01a21000000070008000000000000003}'::uuid[]::uuid[])[1], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[2], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[3], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[4], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[5], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[6], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[7], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[8]]) AND given.answer IS NOT NULL AND moved.id = given.job_id)
 SELECT moved.id, moved.app_id, moved.state, moved.finish_reason, moved.webhook_url 
FROM moved
-- ;

-- part: look
SELECT jobs.id, jobs.app_id, jobs.state, jobs.lane, jobs.pool, jobs.queue, jobs.route, jobs.route_reason, jobs.overflow, jobs.model_requested, jobs.model_served, jobs.metadata, jobs.end_user, jobs.background, jobs.stream, jobs.prompt_tokens, jobs.max_tokens, jobs.output_tokens, jobs.cached_tokens, jobs.finish_reason, jobs.usd, jobs.error_code, jobs.error_message, jobs.enqueue_no, jobs.attempt, jobs.suspicion, jobs.created_at, jobs.start_by, jobs.finish_by, jobs.started_at, jobs.ended_at, jobs.cancel_requested_at, jobs.retry_of, jobs.reasoning_tokens, jobs.cache, jobs.served_by_job, jobs.original_tokens, jobs.n, attempts.engine, ledger.price_version, job_texts.sampling ->> 'reasoning_effort'::TEXT AS reasoning_effort, job_texts.tool_calls, job_texts.answer, coalesce(CAST(job_texts.logprobs_json AS TEXT), CAST(job_texts.logprobs AS TEXT)) AS logprobs, job_texts.reasoning, job_texts.sampling['tools'::TEXT] AS tools, job_texts.choices AS others, jobs.state IN ('waiting'::VARCHAR, 'queued'::VARCHAR) AND (jobs.started_at IS NULL AND jobs.start_by <= now() OR jobs.finish_by IS NOT NULL AND jobs.finish_by <= now()) AS is_over, false AS is_leader_ended 
FROM jobs JOIN job_texts ON job_texts.job_id = jobs.id AND job_texts.job_id >= '01a19467-e800-0000-0000-000000000000'::uuid AND job_texts.job_id < '01a22ee6-b000-0000-0000-000000000000'::uuid AND job_texts.job_id = ANY (ARRAY[('{01a21000000070008000000000000001}'::uuid[]::uuid[])[1], ('{01a21000000070008000000000000001}'::uuid[]::uuid[])[2], ('{01a21000000070008000000000000001}'::uuid[]::uuid[])[3], ('{01a21000000070008000000000000001}'::uuid[]::uuid[])[4], ('{01a21000000070008000000000000001}'::uuid[]::uuid[])[5], ('{01a21000000070008000000000000001}'::uuid[]::uuid[])[6], ('{01a21000000070008000000000000001}'::uuid[]::uuid[])[7], ('{01a21000000070008000000000000001}'::uuid[]::uuid[])[8]]) LEFT OUTER JOIN attempts ON attempts.job_id = jobs.id AND attempts.job_id >= '01a19467-e800-0000-0000-000000000000'::uuid AND attempts.job_id < '01a22ee6-b000-0000-0000-000000000000'::uuid AND attempts.job_id = ANY (ARRAY[('{01a21000000070008000000000000001}'::uuid[]::uuid[])[1], ('{01a21000000070008000000000000001}'::uuid[]::uuid[])[2], ('{01a21000000070008000000000000001}'::uuid[]::uuid[])[3], ('{01a21000000070008000000000000001}'::uuid[]::uuid[])[4], ('{01a21000000070008000000000000001}'::uuid[]::uuid[])[5], ('{01a21000000070008000000000000001}'::uuid[]::uuid[])[6], ('{01a21000000070008000000000000001}'::uuid[]::uuid[])[7], ('{01a21000000070008000000000000001}'::uuid[]::uuid[])[8]]) AND attempts.number = jobs.attempt LEFT OUTER JOIN ledger ON ledger.job_id = jobs.id AND ledger.job_id >= '01a19467-e800-0000-0000-000000000000'::uuid AND ledger.job_id < '01a22ee6-b000-0000-0000-000000000000'::uuid AND ledger.job_id = ANY (ARRAY[('{01a21000000070008000000000000001}'::uuid[]::uuid[])[1], ('{01a21000000070008000000000000001}'::uuid[]::uuid[])[2], ('{01a21000000070008000000000000001}'::uuid[]::uuid[])[3], ('{01a21000000070008000000000000001}'::uuid[]::uuid[])[4], ('{01a21000000070008000000000000001}'::uuid[]::uuid[])[5], ('{01a21000000070008000000000000001}'::uuid[]::uuid[])[6], ('{01a21000000070008000000000000001}'::uuid[]::uuid[])[7], ('{01a21000000070008000000000000001}'::uuid[]::uuid[])[8]]) AND ledger.kind IN ('compute', 'api', 'cache') JOIN json_to_recordset('[{"app_id":"01a22bb1-20b6-7322-8801-85041a288d7d","job_id":"01a21000-0000-7000-8000-000000000001"}]'::JSON) AS given(app_id UUID, job_id UUID) ON jobs.id = given.job_id AND jobs.app_id = given.app_id AND jobs.id >= '01a19467-e800-0000-0000-000000000000'::uuid AND jobs.id < '01a22ee6-b000-0000-0000-000000000000'::uuid AND jobs.id = ANY (ARRAY[('{01a21000000070008000000000000001}'::uuid[]::uuid[])[1], ('{01a21000000070008000000000000001}'::uuid[]::uuid[])[2], ('{01a21000000070008000000000000001}'::uuid[]::uuid[])[3], ('{01a21000000070008000000000000001}'::uuid[]::uuid[])[4], ('{01a21000000070008000000000000001}'::uuid[]::uuid[])[5], ('{01a21000000070008000000000000001}'::uuid[]::uuid[])[6], ('{01a21000000070008000000000000001}'::uuid[]::uuid[])[7], ('{01a21000000070008000000000000001}'::uuid[]::uuid[])[8]]) 
WHERE given.job_id BETWEEN '00000000000000000000000000000000'::uuid::UUID AND 'ffffffffffffffffffffffffffffffff'::uuid::UUID
-- ;
SELECT jobs.id, jobs.app_id, jobs.state, jobs.lane, jobs.pool, jobs.queue, jobs.route, jobs.route_reason, jobs.overflow, jobs.model_requested, jobs.model_served, jobs.metadata, jobs.end_user, jobs.background, jobs.stream, jobs.prompt_tokens, jobs.max_tokens, jobs.output_tokens, jobs.cached_tokens, jobs.finish_reason, jobs.usd, jobs.error_code, jobs.error_message, jobs.enqueue_no, jobs.attempt, jobs.suspicion, jobs.created_at, jobs.start_by, jobs.finish_by, jobs.started_at, jobs.ended_at, jobs.cancel_requested_at, jobs.retry_of, jobs.reasoning_tokens, jobs.cache, jobs.served_by_job, jobs.original_tokens, jobs.n, attempts.engine, ledger.price_version, job_texts.sampling ->> 'reasoning_effort'::TEXT AS reasoning_effort, job_texts.tool_calls, job_texts.answer, coalesce(CAST(job_texts.logprobs_json AS TEXT), CAST(job_texts.logprobs AS TEXT)) AS logprobs, job_texts.reasoning, job_texts.sampling['tools'::TEXT] AS tools, job_texts.choices AS others, jobs.state IN ('waiting'::VARCHAR, 'queued'::VARCHAR) AND (jobs.started_at IS NULL AND jobs.start_by <= now() OR jobs.finish_by IS NOT NULL AND jobs.finish_by <= now()) AS is_over, false AS is_leader_ended 
FROM jobs JOIN job_texts ON job_texts.job_id = jobs.id AND job_texts.job_id >= '01a19467-e800-0000-0000-000000000000'::uuid AND job_texts.job_id < '01a22ee6-b000-0000-0000-000000000000'::uuid AND job_texts.job_id = ANY (ARRAY[('{01a21000000070008000000000000002}'::uuid[]::uuid[])[1], ('{01a21000000070008000000000000002}'::uuid[]::uuid[])[2], ('{01a21000000070008000000000000002}'::uuid[]::uuid[])[3], ('{01a21000000070008000000000000002}'::uuid[]::uuid[])[4], ('{01a21000000070008000000000000002}'::uuid[]::uuid[])[5], ('{01a21000000070008000000000000002}'::uuid[]::uuid[])[6], ('{01a21000000070008000000000000002}'::uuid[]::uuid[])[7], ('{01a21000000070008000000000000002}'::uuid[]::uuid[])[8]]) LEFT OUTER JOIN attempts ON attempts.job_id = jobs.id AND attempts.job_id >= '01a19467-e800-0000-0000-000000000000'::uuid AND attempts.job_id < '01a22ee6-b000-0000-0000-000000000000'::uuid AND attempts.job_id = ANY (ARRAY[('{01a21000000070008000000000000002}'::uuid[]::uuid[])[1], ('{01a21000000070008000000000000002}'::uuid[]::uuid[])[2], ('{01a21000000070008000000000000002}'::uuid[]::uuid[])[3], ('{01a21000000070008000000000000002}'::uuid[]::uuid[])[4], ('{01a21000000070008000000000000002}'::uuid[]::uuid[])[5], ('{01a21000000070008000000000000002}'::uuid[]::uuid[])[6], ('{01a21000000070008000000000000002}'::uuid[]::uuid[])[7], ('{01a21000000070008000000000000002}'::uuid[]::uuid[])[8]]) AND attempts.number = jobs.attempt LEFT OUTER JOIN ledger ON ledger.job_id = jobs.id AND ledger.job_id >= '01a19467-e800-0000-0000-000000000000'::uuid AND ledger.job_id < '01a22ee6-b000-0000-0000-000000000000'::uuid AND ledger.job_id = ANY (ARRAY[('{01a21000000070008000000000000002}'::uuid[]::uuid[])[1], ('{01a21000000070008000000000000002}'::uuid[]::uuid[])[2], ('{01a21000000070008000000000000002}'::uuid[]::uuid[])[3], ('{01a21000000070008000000000000002}'::uuid[]::uuid[])[4], ('{01a21000000070008000000000000002}'::uuid[]::uuid[])[5], ('{01a21000000070008000000000000002}'::uuid[]::uuid[])[6], ('{01a21000000070008000000000000002}'::uuid[]::uuid[])[7], ('{01a21000000070008000000000000002}'::uuid[]::uuid[])[8]]) AND ledger.kind IN ('compute', 'api', 'cache') JOIN json_to_recordset('[{"app_id":"01a22bb1-20b6-7322-8801-85041a288d7d","job_id":"01a21000-0000-7000-8000-000000000002"}]'::JSON) AS given(app_id UUID, job_id UUID) ON jobs.id = given.job_id AND jobs.app_id = given.app_id AND jobs.id >= '01a19467-e800-0000-0000-000000000000'::uuid AND jobs.id < '01a22ee6-b000-0000-0000-000000000000'::uuid AND jobs.id = ANY (ARRAY[('{01a21000000070008000000000000002}'::uuid[]::uuid[])[1], ('{01a21000000070008000000000000002}'::uuid[]::uuid[])[2], ('{01a21000000070008000000000000002}'::uuid[]::uuid[])[3], ('{01a21000000070008000000000000002}'::uuid[]::uuid[])[4], ('{01a21000000070008000000000000002}'::uuid[]::uuid[])[5], ('{01a21000000070008000000000000002}'::uuid[]::uuid[])[6], ('{01a21000000070008000000000000002}'::uuid[]::uuid[])[7], ('{01a21000000070008000000000000002}'::uuid[]::uuid[])[8]]) 
WHERE given.job_id BETWEEN '00000000000000000000000000000000'::uuid::UUID AND 'ffffffffffffffffffffffffffffffff'::uuid::UUID
-- ;
SELECT jobs.id, jobs.app_id, jobs.state, jobs.lane, jobs.pool, jobs.queue, jobs.route, jobs.route_reason, jobs.overflow, jobs.model_requested, jobs.model_served, jobs.metadata, jobs.end_user, jobs.background, jobs.stream, jobs.prompt_tokens, jobs.max_tokens, jobs.output_tokens, jobs.cached_tokens, jobs.finish_reason, jobs.usd, jobs.error_code, jobs.error_message, jobs.enqueue_no, jobs.attempt, jobs.suspicion, jobs.created_at, jobs.start_by, jobs.finish_by, jobs.started_at, jobs.ended_at, jobs.cancel_requested_at, jobs.retry_of, jobs.reasoning_tokens, jobs.cache, jobs.served_by_job, jobs.original_tokens, jobs.n, attempts.engine, ledger.price_version, job_texts.sampling ->> 'reasoning_effort'::TEXT AS reasoning_effort, job_texts.tool_calls, job_texts.answer, coalesce(CAST(job_texts.logprobs_json AS TEXT), CAST(job_texts.logprobs AS TEXT)) AS logprobs, job_texts.reasoning, job_texts.sampling['tools'::TEXT] AS tools, job_texts.choices AS others, jobs.state IN ('waiting'::VARCHAR, 'queued'::VARCHAR) AND (jobs.started_at IS NULL AND jobs.start_by <= now() OR jobs.finish_by IS NOT NULL AND jobs.finish_by <= now()) AS is_over, false AS is_leader_ended 
FROM jobs JOIN job_texts ON job_texts.job_id = jobs.id AND job_texts.job_id >= '01a19467-e800-0000-0000-000000000000'::uuid AND job_texts.job_id < '01a22ee6-b000-0000-0000-000000000000'::uuid AND job_texts.job_id = ANY (ARRAY[('{01a21000000070008000000000000003}'::uuid[]::uuid[])[1], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[2], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[3], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[4], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[5], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[6], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[7], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[8]]) LEFT OUTER JOIN attempts ON attempts.job_id = jobs.id AND attempts.job_id >= '01a19467-e800-0000-0000-000000000000'::uuid AND attempts.job_id < '01a22ee6-b000-0000-0000-000000000000'::uuid AND attempts.job_id = ANY (ARRAY[('{01a21000000070008000000000000003}'::uuid[]::uuid[])[1], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[2], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[3], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[4], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[5], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[6], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[7], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[8]]) AND attempts.number = jobs.attempt LEFT OUTER JOIN ledger ON ledger.job_id = jobs.id AND ledger.job_id >= '01a19467-e800-0000-0000-000000000000'::uuid AND ledger.job_id < '01a22ee6-b000-0000-0000-000000000000'::uuid AND ledger.job_id = ANY (ARRAY[('{01a21000000070008000000000000003}'::uuid[]::uuid[])[1], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[2], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[3], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[4], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[5], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[6], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[7], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[8]]) AND ledger.kind IN ('compute', 'api', 'cache') JOIN json_to_recordset('[{"app_id":"01a22bb1-20b6-7322-8801-85041a288d7d","job_id":"01a21000-0000-7000-8000-000000000003"}]'::JSON) AS given(app_id UUID, job_id UUID) ON jobs.id = given.job_id AND jobs.app_id = given.app_id AND jobs.id >= '01a19467-e800-0000-0000-000000000000'::uuid AND jobs.id < '01a22ee6-b000-0000-0000-000000000000'::uuid AND jobs.id = ANY (ARRAY[('{01a21000000070008000000000000003}'::uuid[]::uuid[])[1], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[2], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[3], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[4], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[5], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[6], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[7], ('{01a21000000070008000000000000003}'::uuid[]::uuid[])[8]]) 
WHERE given.job_id BETWEEN '00000000000000000000000000000000'::uuid::UUID AND 'ffffffffffffffffffffffffffffffff'::uuid::UUID
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
 LIMIT 1000::INTEGER FOR UPDATE SKIP LOCKED))) RETURNING jobs.id, jobs.app_id, jobs.state, jobs.lane, jobs.pool, jobs.queue, jobs.route, jobs.route_reason, jobs.overflow, jobs.model_requested, jobs.model_served, jobs.adapter, jobs.batch_id, jobs.custom_id, jobs.end_user, jobs.served_by_job, jobs.metadata, jobs.webhook_url, jobs.background, jobs.max_cost_usd, jobs.prompt_tokens, jobs.max_tokens, jobs.output_tokens, jobs.cached_tokens, jobs.reasoning_tokens, jobs.finish_reason, jobs.usd, jobs.error_code, jobs.error_message, jobs.enqueue_no, jobs.attempt, jobs.worker_id, jobs.created_at, jobs.start_by, jobs.finish_by, jobs.not_before, jobs.queued_at, jobs.started_at, jobs.ended_at, jobs.cancel_requested_at, jobs.stream, jobs.erased_at, jobs.suspicion, jobs.retry_of, jobs.overflow_at, jobs.original_tokens, jobs.cache, jobs.rule, jobs.stand_by, jobs.shadow, jobs.shadow_of, jobs.n, jobs.needs_version
-- ;
SELECT least(now() - '0:00:02'::interval, min(xact_start)) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name LIKE 'headrace%' AND pid <> pg_backend_pid()
          AND xact_start > now() - '0:01:00'::interval
-- ;
SELECT concat_ws('.', (pg_control_system()).system_identifier, (pg_control_checkpoint()).timeline_id)
-- ;
SELECT page.id, page.app_id, page.state, page.lane, page.pool, page.queue, page.route, page.route_reason, page.overflow, page.model_requested, page.model_served, page.adapter, page.batch_id, page.custom_id, page.end_user, page.served_by_job, page.metadata, page.webhook_url, page.background, page.max_cost_usd, page.prompt_tokens, page.max_tokens, page.output_tokens, page.cached_tokens, page.reasoning_tokens, page.finish_reason, page.usd, page.error_code, page.error_message, page.enqueue_no, page.attempt, page.worker_id, page.created_at, page.start_by, page.finish_by, page.not_before, page.queued_at, page.started_at, page.ended_at, page.cancel_requested_at, page.stream, page.erased_at, page.suspicion, page.retry_of, page.overflow_at, page.original_tokens, page.cache, page.rule, page.stand_by, page.shadow, page.shadow_of, page.n, page.needs_version 
FROM unnest('{chat.high,chat.normal,chat.low,chat.batch,overflow.high,overflow.normal,overflow.low,overflow.batch}'::TEXT[], CAST('{-infinity,-infinity,-infinity,-infinity,-infinity,-infinity,-infinity,-infinity}'::TEXT[] AS TIMESTAMP WITH TIME ZONE[]), '{00000000000000000000000000000000,00000000000000000000000000000000,00000000000000000000000000000000,00000000000000000000000000000000,00000000000000000000000000000000,00000000000000000000000000000000,00000000000000000000000000000000,00000000000000000000000000000000}'::uuid[]::UUID[]) AS marks("of", at, job) JOIN LATERAL (SELECT jobs.id AS id, jobs.app_id AS app_id, jobs.state AS state, jobs.lane AS lane, jobs.pool AS pool, jobs.queue AS queue, jobs.route AS route, jobs.route_reason AS route_reason, jobs.overflow AS overflow, jobs.model_requested AS model_requested, jobs.model_served AS model_served, jobs.adapter AS adapter, jobs.batch_id AS batch_id, jobs.custom_id AS custom_id, jobs.end_user AS end_user, jobs.served_by_job AS served_by_job, jobs.metadata AS metadata, jobs.webhook_url AS webhook_url, jobs.background AS background, jobs.max_cost_usd AS max_cost_usd, jobs.prompt_tokens AS prompt_tokens, jobs.max_tokens AS max_tokens, jobs.output_tokens AS output_tokens, jobs.cached_tokens AS cached_tokens, jobs.reasoning_tokens AS reasoning_tokens, jobs.finish_reason AS finish_reason, jobs.usd AS usd, jobs.error_code AS error_code, jobs.error_message AS error_message, jobs.enqueue_no AS enqueue_no, jobs.attempt AS attempt, jobs.worker_id AS worker_id, jobs.created_at AS created_at, jobs.start_by AS start_by, jobs.finish_by AS finish_by, jobs.not_before AS not_before, jobs.queued_at AS queued_at, jobs.started_at AS started_at, jobs.ended_at AS ended_at, jobs.cancel_requested_at AS cancel_requested_at, jobs.stream AS stream, jobs.erased_at AS erased_at, jobs.suspicion AS suspicion, jobs.retry_of AS retry_of, jobs.overflow_at AS overflow_at, jobs.original_tokens AS original_tokens, jobs.cache AS cache, jobs.rule AS rule, jobs.stand_by AS stand_by, jobs.shadow AS shadow, jobs.shadow_of AS shadow_of, jobs.n AS n, jobs.needs_version AS needs_version 
FROM jobs 
WHERE jobs.state = 'queued' AND jobs.queue = marks."of" AND (jobs.queued_at, jobs.id) > (marks.at, marks.job) AND jobs.queued_at < '2026-11-30 09:02:36.662872+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE ORDER BY jobs.queued_at, jobs.id 
 LIMIT 1000) AS page ON true ORDER BY page.queue, page.queued_at, page.id
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
DELETE FROM idempotency_keys WHERE (idempotency_keys.app_id, idempotency_keys.key) IN (SELECT idempotency_keys.app_id, idempotency_keys.key 
FROM idempotency_keys 
WHERE idempotency_keys.expires_at <= now() ORDER BY idempotency_keys.expires_at 
 LIMIT 10000::INTEGER FOR UPDATE SKIP LOCKED) RETURNING idempotency_keys.key
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
WHERE queue_samples.at <= '2026-11-30 09:02:38.706566+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE
-- ;
SELECT workers.pool, workers.expected_outputs 
FROM workers 
WHERE workers.lease_until > now() AND workers.expected_outputs IS NOT NULL
-- ;
SELECT jobs.pool, jobs.lane, jobs.queue, jobs.overflow, jobs.max_tokens, coalesce(jobs.n, 1::INTEGER) AS n, count(*) AS jobs, CAST(sum(jobs.prompt_tokens) AS BIGINT) AS prompt_tokens 
FROM jobs 
WHERE jobs.created_at > '2026-11-30 09:02:33.706566+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE AND jobs.created_at <= '2026-11-30 09:02:38.706566+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE AND (jobs.state = 'queued' AND jobs.queue = ANY (CAST('{chat.high,chat.normal,chat.low,chat.batch,overflow.high,overflow.normal,overflow.low,overflow.batch}'::TEXT[] AS TEXT[])) AND jobs.queued_at > '2026-11-30 09:02:32.706566+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE OR jobs.started_at > '2026-11-30 09:02:32.706566+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE OR jobs.started_at IS NULL AND jobs.ended_at > '2026-11-30 09:02:32.706566+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE OR jobs.state = 'waiting' AND jobs.started_at IS NULL) AND jobs.served_by_job IS NULL GROUP BY jobs.pool, jobs.lane, jobs.queue, jobs.overflow, jobs.max_tokens, jobs.n
-- ;
WITH due AS 
(SELECT refusals.minute AS minute, refusals.app_id AS app_id, refusals.queue AS queue, refusals.reason AS reason, refusals.sampled_jobs AS sampled_jobs, refusals.sampled_tokens AS sampled_tokens 
FROM refusals 
WHERE refusals.minute >= date_trunc('minute'::VARCHAR, '2026-11-30 08:57:33.706566+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE) AND refusals.jobs > refusals.sampled_jobs AND refusals.reason IN ('depth'::VARCHAR, 'tokens'::VARCHAR, 'wait'::VARCHAR, 'share'::VARCHAR, 'token_share'::VARCHAR) FOR UPDATE SKIP LOCKED)
 UPDATE refusals SET sampled_jobs=refusals.jobs, sampled_tokens=refusals.expected_tokens FROM due WHERE refusals.minute = due.minute AND refusals.app_id = due.app_id AND refusals.queue = due.queue AND refusals.reason = due.reason RETURNING refusals.queue, refusals.jobs - due.sampled_jobs AS anon_1, refusals.expected_tokens - due.sampled_tokens AS anon_2
-- ;
SELECT jobs.pool, jobs.lane, jobs.queue, jobs.overflow, jobs.max_tokens, coalesce(jobs.n, 1::INTEGER) AS n, count(*) AS jobs, CAST(sum(jobs.prompt_tokens) AS BIGINT) AS prompt_tokens 
FROM jobs 
WHERE jobs.overflow_at > '2026-11-30 09:02:33.706566+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE AND jobs.overflow_at <= '2026-11-30 09:02:38.706566+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE GROUP BY jobs.pool, jobs.lane, jobs.queue, jobs.overflow, jobs.max_tokens, jobs.n
-- ;
SELECT jobs.pool, jobs.lane, jobs.queue, jobs.overflow, jobs.max_tokens, coalesce(jobs.n, 1::INTEGER) AS n, count(*) AS jobs, CAST(sum(jobs.prompt_tokens) AS BIGINT) AS prompt_tokens 
FROM jobs 
WHERE jobs.started_at > '2026-11-30 09:02:33.706566+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE AND jobs.started_at <= '2026-11-30 09:02:38.706566+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE GROUP BY jobs.pool, jobs.lane, jobs.queue, jobs.overflow, jobs.max_tokens, jobs.n
-- ;
SELECT ledger.id 
FROM ledger 
WHERE ledger.at <= '2026-11-30 09:02:23.706566+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE ORDER BY ledger.id DESC 
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
WHERE ledger.id > 0::BIGINT AND ledger.at > '2026-11-30 09:02:33.706566+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE AND ledger.at <= '2026-11-30 09:02:38.706566+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE AND ledger.kind != 'cache'::VARCHAR GROUP BY jobs.queue
-- ;
SELECT anon_1.queue, 17::INTEGER - width_bucket(-anon_1.s, CAST('{-86400.0,-3600.0,-1800.0,-600.0,-300.0,-120.0,-60.0,-30.0,-20.0,-10.0,-5.0,-2.5,-1.0,-0.5,-0.25,-0.1,-0.05}'::float8[]::FLOAT[] AS FLOAT[])) AS bucket, count(*) AS jobs, sum(anon_1.s) AS seconds 
FROM (SELECT jobs.queue AS queue, CAST(greatest(EXTRACT(epoch FROM jobs.started_at - jobs.created_at), 0::INTEGER) AS FLOAT) AS s 
FROM jobs 
WHERE jobs.started_at > '2026-11-30 09:02:33.706566+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE AND jobs.started_at <= '2026-11-30 09:02:38.706566+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE) AS anon_1 GROUP BY anon_1.queue, 17::INTEGER - width_bucket(-anon_1.s, CAST('{-86400.0,-3600.0,-1800.0,-600.0,-300.0,-120.0,-60.0,-30.0,-20.0,-10.0,-5.0,-2.5,-1.0,-0.5,-0.25,-0.1,-0.05}'::float8[]::FLOAT[] AS FLOAT[]))
-- ;
SELECT ledger.id 
FROM ledger 
WHERE ledger.at <= '2026-11-30 09:02:23.706566+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE ORDER BY ledger.id DESC 
 LIMIT 1::INTEGER
-- ;
SELECT anon_1.queue, anon_1.state, anon_1.error_code, 17::INTEGER - width_bucket(-anon_1.s, CAST('{-86400.0,-3600.0,-1800.0,-600.0,-300.0,-120.0,-60.0,-30.0,-20.0,-10.0,-5.0,-2.5,-1.0,-0.5,-0.25,-0.1,-0.05}'::float8[]::FLOAT[] AS FLOAT[])) AS bucket, count(*) AS jobs, coalesce(sum(anon_1.s), 0.0) AS seconds 
FROM (SELECT jobs.queue AS queue, jobs.state AS state, coalesce(jobs.error_code, ''::VARCHAR) AS error_code, CAST(greatest(EXTRACT(epoch FROM jobs.ended_at - jobs.started_at), 0::INTEGER) AS FLOAT) AS s 
FROM jobs, (SELECT DISTINCT ledger.job_id AS job_id, ledger.at AS at 
FROM ledger 
WHERE ledger.id > 0::BIGINT AND ledger.at > '2026-11-30 09:02:33.706566+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE AND ledger.at <= '2026-11-30 09:02:38.706566+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE) AS anon_2 
WHERE jobs.id = anon_2.job_id AND jobs.ended_at = anon_2.at AND jobs.started_at IS NOT NULL UNION ALL SELECT jobs.queue AS queue, jobs.state AS state, coalesce(jobs.error_code, ''::VARCHAR) AS error_code, CAST(greatest(EXTRACT(epoch FROM jobs.ended_at - jobs.started_at), 0::INTEGER) AS FLOAT) AS s 
FROM jobs 
WHERE jobs.started_at IS NOT NULL AND (jobs.state = 'cancelled' OR jobs.error_code = 'deadline_exceeded') AND jobs.ended_at > '2026-11-30 09:02:33.706566+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE AND jobs.ended_at <= '2026-11-30 09:02:38.706566+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE AND NOT (EXISTS (SELECT ledger.id 
FROM ledger 
WHERE ledger.job_id = jobs.id AND ledger.at = jobs.ended_at)) UNION ALL SELECT jobs.queue AS queue, jobs.state AS state, coalesce(jobs.error_code, ''::VARCHAR) AS error_code, CAST(NULL AS FLOAT) AS anon_3 
FROM jobs 
WHERE jobs.started_at IS NULL AND jobs.ended_at > '2026-11-30 09:02:33.706566+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE AND jobs.ended_at <= '2026-11-30 09:02:38.706566+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE) AS anon_1 GROUP BY anon_1.queue, anon_1.state, anon_1.error_code, 17::INTEGER - width_bucket(-anon_1.s, CAST('{-86400.0,-3600.0,-1800.0,-600.0,-300.0,-120.0,-60.0,-30.0,-20.0,-10.0,-5.0,-2.5,-1.0,-0.5,-0.25,-0.1,-0.05}'::float8[]::FLOAT[] AS FLOAT[]))
-- ;
SELECT workers.pool, (SELECT avg(worker_samples.kv_use) AS avg_1 
FROM worker_samples 
WHERE worker_samples.taken_at > now() - '0:00:15'::interval AND worker_samples.pool = workers.pool) AS kv_use, (SELECT avg(worker_samples.kv_reserved) AS avg_2 
FROM worker_samples 
WHERE worker_samples.taken_at > now() - '0:00:15'::interval AND worker_samples.pool = workers.pool) AS kv_reserved, count(*) AS workers, count(DISTINCT anon_1.host) FILTER (WHERE NOT anon_1.is_draining) AS hosts, coalesce(sum(workers.max_running) FILTER (WHERE workers.ready AND NOT anon_1.is_draining), 0::INTEGER) AS slots, CAST(coalesce(sum((SELECT count(*) AS count_1 
FROM jobs 
WHERE jobs.worker_id = workers.id AND jobs.state = 'running')) FILTER (WHERE NOT anon_1.is_draining), 0::INTEGER) AS BIGINT) AS running, min(workers.max_model_tokens) AS max_model_tokens, min(workers.kv_tokens) AS kv_tokens, min(workers.payload_version) AS payload_version 
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
WHERE ledger.at <= '2026-11-30 09:02:23.706566+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE ORDER BY ledger.id DESC 
 LIMIT 1::INTEGER
-- ;
SELECT l.pool, j.cache, count(*) AS jobs, coalesce(sum(l.saved_usd), 0) AS saved_usd
    FROM ledger l JOIN jobs j ON j.id = l.job_id
    WHERE l.id > 0 AND l.at > '2026-11-30 09:02:33.706566+00:00'::timestamptz AND l.at <= '2026-11-30 09:02:38.706566+00:00'::timestamptz AND l.kind = 'cache' AND j.cache IS NOT NULL
    GROUP BY l.pool, j.cache
-- ;
INSERT INTO queue_samples (queue, at, depth, oldest_wait_s, arrivals, refused, started, running, slots, hosts, depth_tokens, started_tokens, offered, offered_tokens, spilled, finished, hosts_requested, hosts_draining, kv_use) VALUES ('chat.high'::VARCHAR, '2026-11-30 09:02:38.706566+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, 0::INTEGER, 0.0, 0::INTEGER, 0::INTEGER, 0::INTEGER, 0::INTEGER, 4::INTEGER, 1::INTEGER, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0, 0, NULL) ON CONFLICT DO NOTHING
-- ;
INSERT INTO queue_samples (queue, at, depth, oldest_wait_s, arrivals, refused, started, running, slots, hosts, depth_tokens, started_tokens, offered, offered_tokens, spilled, finished, hosts_requested, hosts_draining, kv_use) VALUES ('chat.normal'::VARCHAR, '2026-11-30 09:02:38.706566+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, 0::INTEGER, 0.0, 3::INTEGER, 0::INTEGER, 3::INTEGER, 0::INTEGER, 4::INTEGER, 1::INTEGER, 0::BIGINT, 72::BIGINT, 3::BIGINT, 72::BIGINT, 0::BIGINT, 3::BIGINT, 0, 0, NULL) ON CONFLICT DO NOTHING
-- ;
INSERT INTO queue_samples (queue, at, depth, oldest_wait_s, arrivals, refused, started, running, slots, hosts, depth_tokens, started_tokens, offered, offered_tokens, spilled, finished, hosts_requested, hosts_draining, kv_use) VALUES ('chat.low'::VARCHAR, '2026-11-30 09:02:38.706566+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, 0::INTEGER, 0.0, 0::INTEGER, 0::INTEGER, 0::INTEGER, 0::INTEGER, 4::INTEGER, 1::INTEGER, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0, 0, NULL) ON CONFLICT DO NOTHING
-- ;
INSERT INTO queue_samples (queue, at, depth, oldest_wait_s, arrivals, refused, started, running, slots, hosts, depth_tokens, started_tokens, offered, offered_tokens, spilled, finished, hosts_requested, hosts_draining, kv_use) VALUES ('chat.batch'::VARCHAR, '2026-11-30 09:02:38.706566+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, 0::INTEGER, 0.0, 0::INTEGER, 0::INTEGER, 0::INTEGER, 0::INTEGER, 4::INTEGER, 1::INTEGER, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0, 0, NULL) ON CONFLICT DO NOTHING
-- ;
INSERT INTO queue_samples (queue, at, depth, oldest_wait_s, arrivals, refused, started, running, slots, hosts, depth_tokens, started_tokens, offered, offered_tokens, spilled, finished, hosts_requested, hosts_draining, kv_use) VALUES ('overflow.high'::VARCHAR, '2026-11-30 09:02:38.706566+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, 0::INTEGER, 0.0, 0::INTEGER, 0::INTEGER, 0::INTEGER, 0::INTEGER, 0::INTEGER, 0::INTEGER, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0, 0, NULL) ON CONFLICT DO NOTHING
-- ;
INSERT INTO queue_samples (queue, at, depth, oldest_wait_s, arrivals, refused, started, running, slots, hosts, depth_tokens, started_tokens, offered, offered_tokens, spilled, finished, hosts_requested, hosts_draining, kv_use) VALUES ('overflow.normal'::VARCHAR, '2026-11-30 09:02:38.706566+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, 0::INTEGER, 0.0, 0::INTEGER, 0::INTEGER, 0::INTEGER, 0::INTEGER, 0::INTEGER, 0::INTEGER, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0, 0, NULL) ON CONFLICT DO NOTHING
-- ;
INSERT INTO queue_samples (queue, at, depth, oldest_wait_s, arrivals, refused, started, running, slots, hosts, depth_tokens, started_tokens, offered, offered_tokens, spilled, finished, hosts_requested, hosts_draining, kv_use) VALUES ('overflow.low'::VARCHAR, '2026-11-30 09:02:38.706566+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, 0::INTEGER, 0.0, 0::INTEGER, 0::INTEGER, 0::INTEGER, 0::INTEGER, 0::INTEGER, 0::INTEGER, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0, 0, NULL) ON CONFLICT DO NOTHING
-- ;
INSERT INTO queue_samples (queue, at, depth, oldest_wait_s, arrivals, refused, started, running, slots, hosts, depth_tokens, started_tokens, offered, offered_tokens, spilled, finished, hosts_requested, hosts_draining, kv_use) VALUES ('overflow.batch'::VARCHAR, '2026-11-30 09:02:38.706566+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, 0::INTEGER, 0.0, 0::INTEGER, 0::INTEGER, 0::INTEGER, 0::INTEGER, 0::INTEGER, 0::INTEGER, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0::BIGINT, 0, 0, NULL) ON CONFLICT DO NOTHING
-- ;
SELECT queue_samples.queue, queue_samples.at, queue_samples.depth, queue_samples.oldest_wait_s, queue_samples.arrivals, queue_samples.refused, queue_samples.started, queue_samples.running, queue_samples.slots, queue_samples.hosts, queue_samples.depth_tokens, queue_samples.started_tokens, queue_samples.offered, queue_samples.offered_tokens, queue_samples.spilled, queue_samples.finished, queue_samples.hosts_requested, queue_samples.hosts_draining, queue_samples.kv_use 
FROM queue_samples 
WHERE queue_samples.queue IN ('chat.high'::VARCHAR, 'chat.normal'::VARCHAR, 'chat.low'::VARCHAR, 'chat.batch'::VARCHAR, 'overflow.high'::VARCHAR, 'overflow.normal'::VARCHAR, 'overflow.low'::VARCHAR, 'overflow.batch'::VARCHAR) AND queue_samples.at > '2026-11-30 09:00:38.706566+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE ORDER BY queue_samples.at
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
WHERE queue_samples.queue IN ('chat.high'::VARCHAR, 'chat.normal'::VARCHAR, 'chat.low'::VARCHAR, 'chat.batch'::VARCHAR) AND queue_samples.at >= '2026-11-23 09:02:38.823269+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE UNION ALL SELECT queue_rollups.at AS at, queue_rollups.samples AS samples, CAST(queue_rollups.depth AS FLOAT) AS depth, CAST(queue_rollups.running AS FLOAT) AS running, CAST(queue_rollups.slots AS FLOAT) AS slots, CAST(queue_rollups.kv_use AS FLOAT) AS kv_use, CAST(queue_rollups.started AS FLOAT) AS started, CAST(queue_rollups.started_tokens AS FLOAT) AS started_tokens, CAST(queue_rollups.hosts_draining AS FLOAT) AS hosts_draining 
FROM queue_rollups 
WHERE queue_rollups.queue IN ('chat.high'::VARCHAR, 'chat.normal'::VARCHAR, 'chat.low'::VARCHAR, 'chat.batch'::VARCHAR) AND queue_rollups.at >= '2026-11-23 09:02:38.823269+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE AND queue_rollups.span_s = 60::INTEGER) AS anon_2 GROUP BY anon_2.at 
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
WHERE jobs.worker_id = workers.id AND jobs.state = 'running')) FILTER (WHERE NOT anon_1.is_draining), 0::INTEGER) AS BIGINT) AS running, min(workers.max_model_tokens) AS max_model_tokens, min(workers.kv_tokens) AS kv_tokens, min(workers.payload_version) AS payload_version 
FROM workers JOIN (SELECT workers.id AS id, workers.pool AS pool, coalesce(lease.id, workers.host_id) AS host, lease.id AS lease, workers.draining OR lease.drain_at IS NOT NULL AS is_draining 
FROM workers LEFT OUTER JOIN LATERAL (SELECT hosts.id AS id, hosts.drain_at AS drain_at 
FROM hosts 
WHERE hosts.pool = workers.pool AND hosts.ended_at IS NULL AND (hosts.id = workers.host_id OR hosts.provider_id = workers.host_id) ORDER BY hosts.id != workers.host_id 
 LIMIT 1::INTEGER) AS lease ON true 
WHERE workers.lease_until > now()) AS anon_1 ON anon_1.id = workers.id GROUP BY workers.pool
-- ;
SELECT count(*) AS count_1, percentile_cont('{0.5,0.9,0.99}'::float8[]::FLOAT[]) WITHIN GROUP (ORDER BY anon_1.took_s) AS percentile_cont_1 
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
SELECT queue_samples.at, CAST(sum(queue_samples.offered) AS BIGINT) AS sum_1, CAST(sum(queue_samples.offered_tokens) AS BIGINT) AS sum_2, CAST(sum(queue_samples.refused) AS BIGINT) AS sum_3, CAST(sum(queue_samples.spilled) AS BIGINT) AS sum_4, CAST(sum(queue_samples.depth) AS BIGINT) AS sum_5, CAST(sum(queue_samples.depth_tokens) AS BIGINT) AS sum_6, CAST(sum(queue_samples.running) AS BIGINT) AS sum_7, max(queue_samples.slots) AS max_1 
FROM queue_samples 
WHERE queue_samples.queue IN ('chat.high'::VARCHAR, 'chat.normal'::VARCHAR, 'chat.low'::VARCHAR, 'chat.batch'::VARCHAR) AND queue_samples.at > '2026-11-30 08:42:38.823269+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE AND queue_samples.at <= '2026-11-30 09:02:38.823269+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE GROUP BY queue_samples.at ORDER BY queue_samples.at
-- ;
UPDATE decisions SET actual_tokens_per_s=found.rate FROM (SELECT own.id AS id, came.rate AS rate 
FROM decisions AS own, LATERAL (SELECT sum(anon_1.tokens) / CAST(((EXTRACT(epoch FROM max(anon_1.at) - min(anon_1.at)) * count(*)) / CAST(nullif(count(*) - 1::INTEGER, 0::INTEGER) AS NUMERIC)) AS NUMERIC) AS rate, (EXTRACT(epoch FROM max(anon_1.at) - min(anon_1.at)) * count(*)) / CAST(nullif(count(*) - 1::INTEGER, 0::INTEGER) AS NUMERIC) AS seconds 
FROM (SELECT queue_samples.at AS at, sum(queue_samples.offered_tokens) AS tokens 
FROM queue_samples 
WHERE queue_samples.queue IN ('chat.high'::VARCHAR, 'chat.normal'::VARCHAR, 'chat.low'::VARCHAR, 'chat.batch'::VARCHAR) AND queue_samples.at > own.forecast_at - '0:05:00'::interval AND queue_samples.at <= own.forecast_at + '0:05:00'::interval GROUP BY queue_samples.at) AS anon_1) AS came 
WHERE own.pool = 'chat'::VARCHAR AND own.at > '2026-11-29 09:02:38.706566+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE AND own.forecast_at <= '2026-11-30 08:57:38.706566+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE AND own.forecast_at > '2026-11-30 07:57:38.706566+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE AND own.actual_tokens_per_s IS NULL AND came.seconds >= 480.0) AS found WHERE decisions.id = found.id RETURNING decisions.id
-- ;
SELECT lanes.start, CAST(max(lanes.seconds) AS FLOAT) AS max_1, CAST(sum(lanes.tokens) AS FLOAT) AS sum_1 
FROM (SELECT parts.queue AS queue, parts.start AS start, parts.is_hour AS is_hour, sum(parts.seconds) AS seconds, sum(parts.tokens) AS tokens 
FROM (SELECT queue_samples.queue AS queue, date_bin('0:10:00'::interval, queue_samples.at - '0:00:00.000001'::interval, '2000-01-01 00:00:00+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE) AS start, false AS is_hour, least((EXTRACT(epoch FROM max(queue_samples.at) - min(queue_samples.at)) * count(*)) / CAST((count(*) - 1::INTEGER) AS NUMERIC), 600.0) AS seconds, sum(queue_samples.offered_tokens) AS tokens 
FROM queue_samples 
WHERE queue_samples.queue IN ('chat.high'::VARCHAR, 'chat.normal'::VARCHAR, 'chat.low'::VARCHAR, 'chat.batch'::VARCHAR) AND queue_samples.at > '2026-11-08 00:00:00+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE AND queue_samples.at <= '2026-11-30 00:00:00+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE GROUP BY queue_samples.queue, date_bin('0:10:00'::interval, queue_samples.at - '0:00:00.000001'::interval, '2000-01-01 00:00:00+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE) 
HAVING count(*) > 1::INTEGER UNION ALL SELECT queue_rollups.queue AS queue, date_bin('0:10:00'::interval, queue_rollups.at, '2000-01-01 00:00:00+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE) AS start, false AS is_hour, 60::INTEGER * count(*) AS seconds, sum(queue_rollups.offered_tokens) AS tokens 
FROM queue_rollups 
WHERE queue_rollups.queue IN ('chat.high'::VARCHAR, 'chat.normal'::VARCHAR, 'chat.low'::VARCHAR, 'chat.batch'::VARCHAR) AND queue_rollups.span_s = 60::INTEGER AND queue_rollups.at >= '2026-11-08 00:00:00+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE AND queue_rollups.at < '2026-11-30 00:00:00+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE GROUP BY queue_rollups.queue, date_bin('0:10:00'::interval, queue_rollups.at, '2000-01-01 00:00:00+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE) UNION ALL SELECT queue_rollups.queue AS queue, queue_rollups.at AS start, true AS is_hour, 3600::INTEGER * count(*) AS seconds, sum(queue_rollups.offered_tokens) AS tokens 
FROM queue_rollups 
WHERE queue_rollups.queue IN ('chat.high'::VARCHAR, 'chat.normal'::VARCHAR, 'chat.low'::VARCHAR, 'chat.batch'::VARCHAR) AND queue_rollups.span_s = 3600::INTEGER AND queue_rollups.at >= '2026-11-08 00:00:00+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE AND queue_rollups.at < '2026-11-30 00:00:00+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE GROUP BY queue_rollups.queue, queue_rollups.at) AS parts GROUP BY parts.queue, parts.start, parts.is_hour) AS lanes GROUP BY lanes.start, lanes.is_hour
-- ;
SELECT decisions.at, decisions.need, decisions.spare_need 
FROM decisions 
WHERE decisions.pool = 'chat'::VARCHAR AND decisions.at > '2026-11-30 08:52:38.823269+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE AND decisions.need IS NOT NULL AND decisions.spare_need IS NOT NULL ORDER BY decisions.at
-- ;
SELECT decisions.burst_until 
FROM decisions 
WHERE decisions.pool = 'chat'::VARCHAR ORDER BY decisions.at DESC 
 LIMIT 1::INTEGER
-- ;
INSERT INTO decisions (pool, mode, hosts, target, reason, inputs, action, policy, version, need, spare_need, forecast_tokens_per_s, forecast_at, burst_until) VALUES ('chat'::VARCHAR, 'advisory'::VARCHAR, 1::INTEGER, 1::INTEGER, 'hold: load 0.00 is below 0.30, at the limit of 1 to 20 hosts (thresholds decide: the rate of a host is unknown)'::VARCHAR, '{"history": {"moments": [{"at": "2026-11-30T09:02:38.706566Z", "seconds": 5.0, "offered_jobs": 3, "offered_tokens": 72, "refused_jobs": 0, "spilled_jobs": 0, "depth": 0, "depth_tokens": 0, "running": 0, "slots": 4}], "season": null, "errors": [], "needs": [], "burst_until": null, "tokens_per_job": null}, "hosts": {"ready": 1, "requested": 0, "draining": 0, "tokens_per_s": null, "slots_per_host": 4.0, "provision_s": 300.0, "usd_per_hour": null, "spill_usd": null, "spill_tokens_per_s": null, "up_at": null, "down_at": null}, "policy": {"mode": "advisory", "policy": "predictive", "actuator": null, "min_hosts": 1, "max_hosts": 20, "fixed_hosts": null, "host_type": null, "up_depth": 100, "up_load": 0.8, "down_load": 0.3, "up_step": 2, "down_step": 1, "cooldown_s": 300.0, "stale_after_s": 60.0, "window_s": 600.0, "staffing_beta": 0.5, "refused_job_usd": "0.015", "drain_host_s": 900.0, "overflow_share": 0.5, "events": [], "pools": {}, "command": {"argv": [], "timeout_s": 60.0}, "aws": {"groups": {}, "region": null, "endpoint_url": null, "timeout_s": 10.0}, "kubernetes": {"deployments": {}, "namespace": "default", "kubeconfig": null, "timeout_s": 10.0}, "local": {"socket": null, "provision_s": 0.0}}, "now": "2026-11-30T09:02:38.823269Z"}'::jsonb::JSONB, 'hold'::VARCHAR, 'predictive'::VARCHAR, 1::INTEGER, NULL::INTEGER, NULL::INTEGER, NULL, NULL::TIMESTAMP WITH TIME ZONE, NULL::TIMESTAMP WITH TIME ZONE) RETURNING decisions.id
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
