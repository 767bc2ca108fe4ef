-- part: app
INSERT INTO apps (id, name, webhook_secret) VALUES ('01a21aa1d04b74e88813b261b7c19141'::uuid::UUID, 'old'::VARCHAR, 'whsec_recorded'::VARCHAR) ON CONFLICT (name) DO NOTHING RETURNING apps.id
-- ;
SELECT apps.id, apps.name, apps.webhook_secret, apps.queued_jobs, apps.requests_per_minute, apps.tokens_per_minute, apps.day_usd, apps.month_usd, apps.lanes 
FROM apps 
WHERE apps.name = 'old'::VARCHAR
-- ;
INSERT INTO api_keys (id, app_id, hint, digest, expires_at, scopes) VALUES ('01a21aa1d04f7059a350789e6c0b8dfc'::uuid::UUID, '01a21aa1d04b74e88813b261b7c19141'::uuid::UUID, 'hr-OPYks'::VARCHAR, '\x821ac8262d730ced8506d5ad8ef92cd8cae4502c995182e529867ad75bf969d2'::bytea, NULL::TIMESTAMP WITH TIME ZONE, '{read,submit}'::TEXT[])
-- ;
SELECT apps.id, apps.name, apps.webhook_secret, apps.queued_jobs, apps.requests_per_minute, apps.tokens_per_minute, apps.day_usd, apps.month_usd, apps.lanes, api_keys.digest, api_keys.scopes 
FROM apps JOIN api_keys ON api_keys.app_id = apps.id 
WHERE api_keys.digest = '\x821ac8262d730ced8506d5ad8ef92cd8cae4502c995182e529867ad75bf969d2'::bytea AND api_keys.revoked_at IS NULL AND (api_keys.expires_at IS NULL OR api_keys.expires_at > now())
-- ;

-- part: insert plain
WITH given AS 
(SELECT sent.id AS id, sent.app_id AS app_id, sent.state AS state, sent.lane AS lane, sent.pool AS pool, sent.queue AS queue, sent.route AS route, sent.route_reason AS route_reason, sent.overflow AS overflow, sent.model_requested AS model_requested, sent.adapter AS adapter, sent.end_user AS end_user, sent.metadata AS metadata, sent.webhook_url AS webhook_url, sent.background AS background, sent.stream AS stream, sent.max_cost_usd AS max_cost_usd, sent.prompt_tokens AS prompt_tokens, sent.max_tokens AS max_tokens, sent.finish_by AS finish_by, sent.messages AS messages, sent.sampling AS sampling, sent.key AS key, sent.request_hash AS request_hash, sent.max_wait_s AS max_wait_s 
FROM json_to_recordset('[{"id":"01900000-0000-7000-8000-000000000001","app_id":"01a21aa1-d04b-74e8-8813-b261b7c19141","state":"queued","lane":"normal","pool":"chat","queue":"chat.normal","route":"pool","route_reason":"own pool","overflow":"allow","model_requested":"smollm2-135m","adapter":null,"end_user":null,"metadata":{},"webhook_url":null,"background":true,"stream":false,"max_cost_usd":null,"prompt_tokens":8,"max_tokens":16,"max_wait_s":30.0,"finish_by":null,"messages":[{"role":"user","content":"What is a headrace?"}],"sampling":{"max_tokens":16},"key":null,"request_hash":null}]'::JSON) AS sent(id UUID, app_id UUID, state TEXT, lane TEXT, pool TEXT, queue TEXT, route TEXT, route_reason TEXT, overflow TEXT, model_requested TEXT, adapter TEXT, end_user TEXT, metadata JSONB, webhook_url TEXT, background BOOLEAN, stream BOOLEAN, max_cost_usd NUMERIC(18, 9), prompt_tokens INTEGER, max_tokens INTEGER, finish_by TIMESTAMP WITH TIME ZONE, messages JSONB, sampling JSONB, key TEXT, request_hash BYTEA, max_wait_s DOUBLE PRECISION)), 
wanted AS 
(SELECT DISTINCT ON (given.app_id, given.key) given.app_id AS app_id, given.key AS key, given.request_hash AS request_hash, given.id AS id 
FROM given 
WHERE given.key IS NOT NULL ORDER BY given.app_id, given.key, given.id), 
free AS 
(SELECT wanted.app_id AS app_id, wanted.key AS key, wanted.request_hash AS request_hash, wanted.id AS id 
FROM wanted 
WHERE pg_try_advisory_xact_lock(hashtextextended(CAST(wanted.app_id AS TEXT) || wanted.key, 1214603620::INTEGER))), 
taken AS 
(INSERT INTO idempotency_keys (app_id, key, request_hash, job_id, expires_at) SELECT free.app_id AS app_id, free.key AS key, free.request_hash AS request_hash, free.id AS id, now() + '1 day 0:00:00'::interval AS anon_1 
FROM free ON CONFLICT (app_id, key) DO UPDATE SET request_hash = excluded.request_hash, job_id = excluded.job_id, expires_at = excluded.expires_at WHERE idempotency_keys.expires_at <= now() RETURNING idempotency_keys.job_id), 
texts AS 
(INSERT INTO job_texts (job_id, messages, sampling) SELECT given.id AS id, given.messages AS messages, given.sampling AS sampling 
FROM given 
WHERE given.key IS NULL OR given.id IN (SELECT taken.job_id 
FROM taken))
 INSERT INTO jobs (id, app_id, state, lane, pool, queue, route, route_reason, overflow, model_requested, adapter, end_user, metadata, webhook_url, background, stream, max_cost_usd, prompt_tokens, max_tokens, finish_by, queued_at, start_by) SELECT given.id, given.app_id, given.state, given.lane, given.pool, given.queue, given.route, given.route_reason, given.overflow, given.model_requested, given.adapter, given.end_user, given.metadata, given.webhook_url, given.background, given.stream, given.max_cost_usd, given.prompt_tokens, given.max_tokens, given.finish_by, now() AS now_2, now() + given.max_wait_s * interval '1 s' AS anon_2 
FROM given 
WHERE given.key IS NULL OR given.id IN (SELECT taken.job_id 
FROM taken) RETURNING jobs.id, jobs.start_by
-- ;

-- part: insert hooked
WITH given AS 
(SELECT sent.id AS id, sent.app_id AS app_id, sent.state AS state, sent.lane AS lane, sent.pool AS pool, sent.queue AS queue, sent.route AS route, sent.route_reason AS route_reason, sent.overflow AS overflow, sent.model_requested AS model_requested, sent.adapter AS adapter, sent.end_user AS end_user, sent.metadata AS metadata, sent.webhook_url AS webhook_url, sent.background AS background, sent.stream AS stream, sent.max_cost_usd AS max_cost_usd, sent.prompt_tokens AS prompt_tokens, sent.max_tokens AS max_tokens, sent.finish_by AS finish_by, sent.messages AS messages, sent.sampling AS sampling, sent.key AS key, sent.request_hash AS request_hash, sent.max_wait_s AS max_wait_s 
FROM json_to_recordset( E'[{"id":"01900000-0000-7000-8000-000000000002","app_id":"01a21aa1-d04b-74e8-8813-b261b7c19141","state":"queued","lane":"normal","pool":"chat","queue":"chat.normal","route":"pool","route_reason":"own pool","overflow":"allow","model_requested":"smollm2-135m","adapter":null,"end_user":null,"metadata":{},"webhook_url":"https://r.example","background":true,"stream":false,"max_cost_usd":null,"prompt_tokens":8,"max_tokens":16,"max_wait_s":30.0,"finish_by":null,"messages":[{"role":"user","content":"What is a headrace?"}],"sampling":{"max_tokens":16},"key":"k","request_hash":"\\\\x68617368"}]'::JSON) AS sent(id UUID, app_id UUID, state TEXT, lane TEXT, pool TEXT, queue TEXT, route TEXT, route_reason TEXT, overflow TEXT, model_requested TEXT, adapter TEXT, end_user TEXT, metadata JSONB, webhook_url TEXT, background BOOLEAN, stream BOOLEAN, max_cost_usd NUMERIC(18, 9), prompt_tokens INTEGER, max_tokens INTEGER, finish_by TIMESTAMP WITH TIME ZONE, messages JSONB, sampling JSONB, key TEXT, request_hash BYTEA, max_wait_s DOUBLE PRECISION)), 
wanted AS 
(SELECT DISTINCT ON (given.app_id, given.key) given.app_id AS app_id, given.key AS key, given.request_hash AS request_hash, given.id AS id 
FROM given 
WHERE given.key IS NOT NULL ORDER BY given.app_id, given.key, given.id), 
free AS 
(SELECT wanted.app_id AS app_id, wanted.key AS key, wanted.request_hash AS request_hash, wanted.id AS id 
FROM wanted 
WHERE pg_try_advisory_xact_lock(hashtextextended(CAST(wanted.app_id AS TEXT) || wanted.key, 1214603620::INTEGER))), 
taken AS 
(INSERT INTO idempotency_keys (app_id, key, request_hash, job_id, expires_at) SELECT free.app_id AS app_id, free.key AS key, free.request_hash AS request_hash, free.id AS id, now() + '1 day 0:00:00'::interval AS anon_1 
FROM free ON CONFLICT (app_id, key) DO UPDATE SET request_hash = excluded.request_hash, job_id = excluded.job_id, expires_at = excluded.expires_at WHERE idempotency_keys.expires_at <= now() RETURNING idempotency_keys.job_id), 
texts AS 
(INSERT INTO job_texts (job_id, messages, sampling) SELECT given.id AS id, given.messages AS messages, given.sampling AS sampling 
FROM given 
WHERE given.key IS NULL OR given.id IN (SELECT taken.job_id 
FROM taken))
 INSERT INTO jobs (id, app_id, state, lane, pool, queue, route, route_reason, overflow, model_requested, adapter, end_user, metadata, webhook_url, background, stream, max_cost_usd, prompt_tokens, max_tokens, finish_by, queued_at, start_by) SELECT given.id, given.app_id, given.state, given.lane, given.pool, given.queue, given.route, given.route_reason, given.overflow, given.model_requested, given.adapter, given.end_user, given.metadata, given.webhook_url, given.background, given.stream, given.max_cost_usd, given.prompt_tokens, given.max_tokens, given.finish_by, now() AS now_2, now() + given.max_wait_s * interval '1 s' AS anon_2 
FROM given 
WHERE given.key IS NULL OR given.id IN (SELECT taken.job_id 
FROM taken) RETURNING jobs.id, jobs.start_by
-- ;

-- part: insert lost
WITH given AS 
(SELECT sent.id AS id, sent.app_id AS app_id, sent.state AS state, sent.lane AS lane, sent.pool AS pool, sent.queue AS queue, sent.route AS route, sent.route_reason AS route_reason, sent.overflow AS overflow, sent.model_requested AS model_requested, sent.adapter AS adapter, sent.end_user AS end_user, sent.metadata AS metadata, sent.webhook_url AS webhook_url, sent.background AS background, sent.stream AS stream, sent.max_cost_usd AS max_cost_usd, sent.prompt_tokens AS prompt_tokens, sent.max_tokens AS max_tokens, sent.finish_by AS finish_by, sent.messages AS messages, sent.sampling AS sampling, sent.key AS key, sent.request_hash AS request_hash, sent.max_wait_s AS max_wait_s 
FROM json_to_recordset('[{"id":"01900000-0000-7000-8000-000000000003","app_id":"01a21aa1-d04b-74e8-8813-b261b7c19141","state":"queued","lane":"normal","pool":"chat","queue":"chat.normal","route":"pool","route_reason":"own pool","overflow":"allow","model_requested":"smollm2-135m","adapter":null,"end_user":"u","metadata":{"a":"b"},"webhook_url":null,"background":true,"stream":true,"max_cost_usd":"1","prompt_tokens":8,"max_tokens":16,"max_wait_s":30.0,"finish_by":null,"messages":[{"role":"user","content":"What is a headrace?"}],"sampling":{"max_tokens":16},"key":null,"request_hash":null}]'::JSON) AS sent(id UUID, app_id UUID, state TEXT, lane TEXT, pool TEXT, queue TEXT, route TEXT, route_reason TEXT, overflow TEXT, model_requested TEXT, adapter TEXT, end_user TEXT, metadata JSONB, webhook_url TEXT, background BOOLEAN, stream BOOLEAN, max_cost_usd NUMERIC(18, 9), prompt_tokens INTEGER, max_tokens INTEGER, finish_by TIMESTAMP WITH TIME ZONE, messages JSONB, sampling JSONB, key TEXT, request_hash BYTEA, max_wait_s DOUBLE PRECISION)), 
wanted AS 
(SELECT DISTINCT ON (given.app_id, given.key) given.app_id AS app_id, given.key AS key, given.request_hash AS request_hash, given.id AS id 
FROM given 
WHERE given.key IS NOT NULL ORDER BY given.app_id, given.key, given.id), 
free AS 
(SELECT wanted.app_id AS app_id, wanted.key AS key, wanted.request_hash AS request_hash, wanted.id AS id 
FROM wanted 
WHERE pg_try_advisory_xact_lock(hashtextextended(CAST(wanted.app_id AS TEXT) || wanted.key, 1214603620::INTEGER))), 
taken AS 
(INSERT INTO idempotency_keys (app_id, key, request_hash, job_id, expires_at) SELECT free.app_id AS app_id, free.key AS key, free.request_hash AS request_hash, free.id AS id, now() + '1 day 0:00:00'::interval AS anon_1 
FROM free ON CONFLICT (app_id, key) DO UPDATE SET request_hash = excluded.request_hash, job_id = excluded.job_id, expires_at = excluded.expires_at WHERE idempotency_keys.expires_at <= now() RETURNING idempotency_keys.job_id), 
texts AS 
(INSERT INTO job_texts (job_id, messages, sampling) SELECT given.id AS id, given.messages AS messages, given.sampling AS sampling 
FROM given 
WHERE given.key IS NULL OR given.id IN (SELECT taken.job_id 
FROM taken))
 INSERT INTO jobs (id, app_id, state, lane, pool, queue, route, route_reason, overflow, model_requested, adapter, end_user, metadata, webhook_url, background, stream, max_cost_usd, prompt_tokens, max_tokens, finish_by, queued_at, start_by) SELECT given.id, given.app_id, given.state, given.lane, given.pool, given.queue, given.route, given.route_reason, given.overflow, given.model_requested, given.adapter, given.end_user, given.metadata, given.webhook_url, given.background, given.stream, given.max_cost_usd, given.prompt_tokens, given.max_tokens, given.finish_by, now() AS now_2, now() + given.max_wait_s * interval '1 s' AS anon_2 
FROM given 
WHERE given.key IS NULL OR given.id IN (SELECT taken.job_id 
FROM taken) RETURNING jobs.id, jobs.start_by
-- ;

-- part: worker
INSERT INTO workers (id, name, host_id, pool, engine, model, max_model_tokens, max_running, kv_tokens, kv_block_tokens, ready, lease_until) VALUES ('000000000000000000000000000000a1'::uuid::UUID, 'gpu@old'::VARCHAR, 'host'::VARCHAR, 'chat'::VARCHAR, 'simulator'::VARCHAR, 'm'::VARCHAR, 2048::INTEGER, 4::INTEGER, 65536::INTEGER, 16::INTEGER, true, (now() + '1:00:00'::interval)) ON CONFLICT (id) DO UPDATE SET lease_until = excluded.lease_until
-- ;
INSERT INTO workers (id, name, host_id, pool, engine, model, max_model_tokens, max_running, kv_tokens, kv_block_tokens, ready, lease_until) VALUES ('000000000000000000000000000000a2'::uuid::UUID, 'gpu@old'::VARCHAR, 'host'::VARCHAR, 'chat'::VARCHAR, 'simulator'::VARCHAR, 'm'::VARCHAR, 2048::INTEGER, 4::INTEGER, 65536::INTEGER, 16::INTEGER, true, (now() + '1:00:00'::interval)) ON CONFLICT (id) DO UPDATE SET lease_until = excluded.lease_until
-- ;
WITH renewed AS 
(UPDATE workers SET running=0::INTEGER, ready=true, lease_until=(now() + '1:00:00'::interval) WHERE workers.id = '000000000000000000000000000000a1'::uuid::UUID RETURNING workers.id)
 SELECT jobs.id, jobs.attempt, jobs.cancel_requested_at, coalesce(jobs.finish_by <= now(), false) AS is_overdue 
FROM jobs 
WHERE jobs.worker_id = '000000000000000000000000000000a1'::uuid::UUID AND jobs.state = 'running'::VARCHAR
-- ;

-- part: finish plain
WITH given AS 
(SELECT sent.job_id AS job_id, sent.engine AS engine, sent.enqueue_no AS enqueue_no, sent.worker_id AS worker_id 
FROM json_to_recordset('[{"job_id":"01900000-0000-7000-8000-000000000001","enqueue_no":1,"worker_id":"00000000-0000-0000-0000-0000000000a1","engine":"simulator"}]'::JSON) AS sent(job_id UUID, engine TEXT, enqueue_no INTEGER, worker_id UUID) 
WHERE sent.enqueue_no BETWEEN 0::INTEGER AND 2147483647::INTEGER), 
claimed AS 
(UPDATE jobs SET state='running'::VARCHAR, attempt=(jobs.attempt + 1::INTEGER), worker_id=given.worker_id, started_at=coalesce(jobs.started_at, now()) FROM given WHERE (jobs.state || ''::VARCHAR) IN ('queued'::VARCHAR) AND jobs.id = given.job_id AND jobs.enqueue_no = given.enqueue_no AND jobs.cancel_requested_at IS NULL AND (jobs.started_at IS NOT NULL OR jobs.start_by > now()) AND (jobs.finish_by IS NULL OR jobs.finish_by > now()) AND (EXISTS (SELECT workers.id 
FROM workers 
WHERE workers.id = given.worker_id AND workers.lease_until > now())) RETURNING jobs.id, jobs.app_id, jobs.attempt, jobs.enqueue_no, jobs.worker_id, jobs.end_user, jobs.lane, jobs.pool, jobs.model_requested, jobs.overflow, jobs.max_cost_usd, jobs.prompt_tokens, jobs.start_by, jobs.finish_by, jobs.webhook_url, jobs.stream, jobs.suspicion, jobs.route, jobs.adapter, given.engine), 
begun AS 
(INSERT INTO attempts (job_id, number, worker_id, engine, started_at) SELECT claimed.id AS id, claimed.attempt AS attempt, claimed.worker_id AS worker_id, claimed.engine AS engine, now() AS now_1 
FROM claimed)
 SELECT claimed.id, claimed.app_id, claimed.attempt, claimed.enqueue_no, claimed.worker_id, claimed.end_user, claimed.lane, claimed.pool, claimed.model_requested, claimed.overflow, claimed.max_cost_usd, claimed.prompt_tokens, claimed.start_by, claimed.finish_by, claimed.webhook_url, claimed.stream, claimed.suspicion, claimed.route, claimed.adapter, claimed.engine, job_texts.messages, job_texts.sampling 
FROM claimed JOIN job_texts ON job_texts.job_id = claimed.id
-- ;
WITH given AS 
(SELECT sent.charged_usd AS charged_usd, sent.answer AS answer, sent.logprobs AS logprobs, sent.reasoning AS reasoning, sent.output_tokens AS output_tokens, sent.cached_tokens AS cached_tokens, sent.reasoning_tokens AS reasoning_tokens, sent.finish_reason AS finish_reason, sent.model_served AS model_served, sent.error_code AS error_code, sent.error_message AS error_message, sent.outcome AS outcome, sent.first_token_s AS first_token_s, sent.preemptions AS preemptions, sent.prompt_tokens AS prompt_tokens, sent.engine_s AS engine_s, sent.kind AS kind, sent.job_id AS job_id, sent.attempt AS attempt, sent.app_id AS app_id, sent.end_user AS end_user, sent.pool AS pool, sent.model AS model, sent.host_id AS host_id, sent.kv_token_s AS kv_token_s, sent.usd AS usd, sent.price_version AS price_version, sent.api_usd AS api_usd, sent.estimated AS estimated, sent.worker_id AS worker_id, sent.enqueue_no AS enqueue_no 
FROM json_to_recordset('[{"job_id":"01900000-0000-7000-8000-000000000001","worker_id":"00000000-0000-0000-0000-0000000000a1","attempt":1,"enqueue_no":1,"app_id":"01a21aa1-d04b-74e8-8813-b261b7c19141","end_user":null,"pool":"chat","model":"m","model_served":"m","host_id":"host","kind":"compute","outcome":"succeeded","error_code":null,"prompt_tokens":8,"cached_tokens":0,"output_tokens":3,"engine_s":0.5,"first_token_s":null,"preemptions":0,"kv_token_s":5.5,"usd":"0.000001","price_version":"old-1","api_usd":null,"estimated":false,"charged_usd":"0.000001","finish_reason":"stop","error_message":null,"answer":"A channel.","logprobs":null,"reasoning":null,"reasoning_tokens":0}]'::JSON) AS sent(charged_usd NUMERIC(18, 9), answer TEXT, logprobs JSONB, reasoning TEXT, output_tokens INTEGER, cached_tokens INTEGER, reasoning_tokens INTEGER, finish_reason TEXT, model_served TEXT, error_code TEXT, error_message TEXT, outcome TEXT, first_token_s FLOAT, preemptions INTEGER, prompt_tokens INTEGER, engine_s FLOAT, kind TEXT, job_id UUID, attempt INTEGER, app_id UUID, end_user TEXT, pool TEXT, model TEXT, host_id TEXT, kv_token_s FLOAT, usd NUMERIC(18, 9), price_version TEXT, api_usd NUMERIC(18, 9), estimated BOOLEAN, worker_id UUID, enqueue_no INTEGER) 
WHERE sent.enqueue_no BETWEEN 0::INTEGER AND 2147483647::INTEGER), 
moved AS 
(UPDATE jobs SET state='succeeded'::VARCHAR, model_served=given.model_served, prompt_tokens=coalesce(nullif(given.prompt_tokens, 0::INTEGER), jobs.prompt_tokens), output_tokens=given.output_tokens, cached_tokens=given.cached_tokens, reasoning_tokens=given.reasoning_tokens, finish_reason=given.finish_reason, usd=given.charged_usd, error_code=given.error_code, error_message=given.error_message, worker_id=NULL::UUID, ended_at=now() FROM given WHERE (jobs.state || ''::VARCHAR) IN ('running'::VARCHAR) AND jobs.id = given.job_id AND jobs.worker_id = given.worker_id AND jobs.attempt = given.attempt AND jobs.enqueue_no = given.enqueue_no RETURNING jobs.id, jobs.app_id, jobs.state, jobs.finish_reason, jobs.webhook_url), 
ended AS 
(UPDATE attempts SET model_served=given.model_served, ended_at=now(), outcome=given.outcome, error_code=given.error_code, prompt_tokens=given.prompt_tokens, cached_tokens=given.cached_tokens, output_tokens=given.output_tokens, engine_s=given.engine_s, first_token_s=given.first_token_s, preemptions=given.preemptions FROM given, moved WHERE attempts.job_id = given.job_id AND attempts.number = given.attempt AND moved.id = given.job_id), 
booked AS 
(INSERT INTO ledger (kind, job_id, attempt, app_id, end_user, pool, model, host_id, kv_token_s, usd, price_version, api_usd, estimated, prompt_tokens, cached_tokens, output_tokens, engine_s) SELECT given.kind AS kind, given.job_id AS job_id, given.attempt AS attempt, given.app_id AS app_id, given.end_user AS end_user, given.pool AS pool, given.model AS model, given.host_id AS host_id, given.kv_token_s AS kv_token_s, given.usd AS usd, given.price_version AS price_version, given.api_usd AS api_usd, given.estimated AS estimated, given.prompt_tokens AS prompt_tokens, given.cached_tokens AS cached_tokens, given.output_tokens AS output_tokens, given.engine_s AS engine_s 
FROM given, moved 
WHERE moved.id = given.job_id), 
answered AS 
(UPDATE job_texts SET answer=given.answer, logprobs=given.logprobs, reasoning=given.reasoning FROM given, moved WHERE job_texts.job_id = given.job_id AND given.answer IS NOT NULL AND moved.id = given.job_id)
 SELECT moved.id, moved.app_id, moved.state, moved.finish_reason, moved.webhook_url 
FROM moved
-- ;

-- part: finish hooked
WITH given AS 
(SELECT sent.job_id AS job_id, sent.engine AS engine, sent.enqueue_no AS enqueue_no, sent.worker_id AS worker_id 
FROM json_to_recordset('[{"job_id":"01900000-0000-7000-8000-000000000002","enqueue_no":1,"worker_id":"00000000-0000-0000-0000-0000000000a1","engine":"simulator"}]'::JSON) AS sent(job_id UUID, engine TEXT, enqueue_no INTEGER, worker_id UUID) 
WHERE sent.enqueue_no BETWEEN 0::INTEGER AND 2147483647::INTEGER), 
claimed AS 
(UPDATE jobs SET state='running'::VARCHAR, attempt=(jobs.attempt + 1::INTEGER), worker_id=given.worker_id, started_at=coalesce(jobs.started_at, now()) FROM given WHERE (jobs.state || ''::VARCHAR) IN ('queued'::VARCHAR) AND jobs.id = given.job_id AND jobs.enqueue_no = given.enqueue_no AND jobs.cancel_requested_at IS NULL AND (jobs.started_at IS NOT NULL OR jobs.start_by > now()) AND (jobs.finish_by IS NULL OR jobs.finish_by > now()) AND (EXISTS (SELECT workers.id 
FROM workers 
WHERE workers.id = given.worker_id AND workers.lease_until > now())) RETURNING jobs.id, jobs.app_id, jobs.attempt, jobs.enqueue_no, jobs.worker_id, jobs.end_user, jobs.lane, jobs.pool, jobs.model_requested, jobs.overflow, jobs.max_cost_usd, jobs.prompt_tokens, jobs.start_by, jobs.finish_by, jobs.webhook_url, jobs.stream, jobs.suspicion, jobs.route, jobs.adapter, given.engine), 
begun AS 
(INSERT INTO attempts (job_id, number, worker_id, engine, started_at) SELECT claimed.id AS id, claimed.attempt AS attempt, claimed.worker_id AS worker_id, claimed.engine AS engine, now() AS now_1 
FROM claimed)
 SELECT claimed.id, claimed.app_id, claimed.attempt, claimed.enqueue_no, claimed.worker_id, claimed.end_user, claimed.lane, claimed.pool, claimed.model_requested, claimed.overflow, claimed.max_cost_usd, claimed.prompt_tokens, claimed.start_by, claimed.finish_by, claimed.webhook_url, claimed.stream, claimed.suspicion, claimed.route, claimed.adapter, claimed.engine, job_texts.messages, job_texts.sampling 
FROM claimed JOIN job_texts ON job_texts.job_id = claimed.id
-- ;
WITH given AS 
(SELECT sent.charged_usd AS charged_usd, sent.answer AS answer, sent.logprobs AS logprobs, sent.reasoning AS reasoning, sent.output_tokens AS output_tokens, sent.cached_tokens AS cached_tokens, sent.reasoning_tokens AS reasoning_tokens, sent.finish_reason AS finish_reason, sent.model_served AS model_served, sent.error_code AS error_code, sent.error_message AS error_message, sent.outcome AS outcome, sent.first_token_s AS first_token_s, sent.preemptions AS preemptions, sent.prompt_tokens AS prompt_tokens, sent.engine_s AS engine_s, sent.kind AS kind, sent.job_id AS job_id, sent.attempt AS attempt, sent.app_id AS app_id, sent.end_user AS end_user, sent.pool AS pool, sent.model AS model, sent.host_id AS host_id, sent.kv_token_s AS kv_token_s, sent.usd AS usd, sent.price_version AS price_version, sent.api_usd AS api_usd, sent.estimated AS estimated, sent.worker_id AS worker_id, sent.enqueue_no AS enqueue_no 
FROM json_to_recordset('[{"job_id":"01900000-0000-7000-8000-000000000002","worker_id":"00000000-0000-0000-0000-0000000000a1","attempt":1,"enqueue_no":1,"app_id":"01a21aa1-d04b-74e8-8813-b261b7c19141","end_user":null,"pool":"chat","model":"m","model_served":"m","host_id":"host","kind":"compute","outcome":"succeeded","error_code":null,"prompt_tokens":8,"cached_tokens":0,"output_tokens":3,"engine_s":0.5,"first_token_s":null,"preemptions":0,"kv_token_s":5.5,"usd":"0.000001","price_version":"old-1","api_usd":null,"estimated":false,"charged_usd":"0.000001","finish_reason":"stop","error_message":null,"answer":"A channel.","logprobs":null,"reasoning":null,"reasoning_tokens":0}]'::JSON) AS sent(charged_usd NUMERIC(18, 9), answer TEXT, logprobs JSONB, reasoning TEXT, output_tokens INTEGER, cached_tokens INTEGER, reasoning_tokens INTEGER, finish_reason TEXT, model_served TEXT, error_code TEXT, error_message TEXT, outcome TEXT, first_token_s FLOAT, preemptions INTEGER, prompt_tokens INTEGER, engine_s FLOAT, kind TEXT, job_id UUID, attempt INTEGER, app_id UUID, end_user TEXT, pool TEXT, model TEXT, host_id TEXT, kv_token_s FLOAT, usd NUMERIC(18, 9), price_version TEXT, api_usd NUMERIC(18, 9), estimated BOOLEAN, worker_id UUID, enqueue_no INTEGER) 
WHERE sent.enqueue_no BETWEEN 0::INTEGER AND 2147483647::INTEGER), 
moved AS 
(UPDATE jobs SET state='succeeded'::VARCHAR, model_served=given.model_served, prompt_tokens=coalesce(nullif(given.prompt_tokens, 0::INTEGER), jobs.prompt_tokens), output_tokens=given.output_tokens, cached_tokens=given.cached_tokens, reasoning_tokens=given.reasoning_tokens, finish_reason=given.finish_reason, usd=given.charged_usd, error_code=given.error_code, error_message=given.error_message, worker_id=NULL::UUID, ended_at=now() FROM given WHERE (jobs.state || ''::VARCHAR) IN ('running'::VARCHAR) AND jobs.id = given.job_id AND jobs.worker_id = given.worker_id AND jobs.attempt = given.attempt AND jobs.enqueue_no = given.enqueue_no RETURNING jobs.id, jobs.app_id, jobs.state, jobs.finish_reason, jobs.webhook_url), 
ended AS 
(UPDATE attempts SET model_served=given.model_served, ended_at=now(), outcome=given.outcome, error_code=given.error_code, prompt_tokens=given.prompt_tokens, cached_tokens=given.cached_tokens, output_tokens=given.output_tokens, engine_s=given.engine_s, first_token_s=given.first_token_s, preemptions=given.preemptions FROM given, moved WHERE attempts.job_id = given.job_id AND attempts.number = given.attempt AND moved.id = given.job_id), 
booked AS 
(INSERT INTO ledger (kind, job_id, attempt, app_id, end_user, pool, model, host_id, kv_token_s, usd, price_version, api_usd, estimated, prompt_tokens, cached_tokens, output_tokens, engine_s) SELECT given.kind AS kind, given.job_id AS job_id, given.attempt AS attempt, given.app_id AS app_id, given.end_user AS end_user, given.pool AS pool, given.model AS model, given.host_id AS host_id, given.kv_token_s AS kv_token_s, given.usd AS usd, given.price_version AS price_version, given.api_usd AS api_usd, given.estimated AS estimated, given.prompt_tokens AS prompt_tokens, given.cached_tokens AS cached_tokens, given.output_tokens AS output_tokens, given.engine_s AS engine_s 
FROM given, moved 
WHERE moved.id = given.job_id), 
answered AS 
(UPDATE job_texts SET answer=given.answer, logprobs=given.logprobs, reasoning=given.reasoning FROM given, moved WHERE job_texts.job_id = given.job_id AND given.answer IS NOT NULL AND moved.id = given.job_id)
 SELECT moved.id, moved.app_id, moved.state, moved.finish_reason, moved.webhook_url 
FROM moved
-- ;
INSERT INTO deliveries (id, job_id, app_id, event, url) VALUES ('01a21aa1d0867252b7630ac0e55bdcd5'::uuid::UUID, '01900000000070008000000000000002'::uuid::UUID, '01a21aa1d04b74e88813b261b7c19141'::uuid::UUID, 'response.completed'::VARCHAR, 'https://r.example'::VARCHAR)
-- ;
UPDATE deliveries SET published_at=now() WHERE deliveries.job_id IN ('01900000000070008000000000000002'::uuid::UUID) AND deliveries.state = 'pending'::VARCHAR RETURNING deliveries.id
-- ;
UPDATE deliveries SET tries=(deliveries.tries + 1::INTEGER), next_at=(now() + '0:01:00'::interval) WHERE deliveries.id = '01a21aa1d0867252b7630ac0e55bdcd5'::uuid::UUID AND deliveries.state = 'pending'::VARCHAR AND deliveries.next_at <= now() RETURNING deliveries.id, deliveries.event, deliveries.url, deliveries.tries, deliveries.job_id, deliveries.data, deliveries.created_at
-- ;
SELECT jobs.state, jobs.ended_at, apps.webhook_secret 
FROM jobs JOIN apps ON apps.id = jobs.app_id 
WHERE jobs.id = '01900000000070008000000000000002'::uuid::UUID
-- ;
UPDATE deliveries SET state='delivered'::VARCHAR, last_status=204::INTEGER, last_error=NULL::VARCHAR, delivered_at=now() WHERE deliveries.id = '01a21aa1d0867252b7630ac0e55bdcd5'::uuid::UUID AND deliveries.tries = 1::INTEGER AND deliveries.state = 'pending'::VARCHAR
-- ;

-- part: lose
WITH given AS 
(SELECT sent.job_id AS job_id, sent.engine AS engine, sent.enqueue_no AS enqueue_no, sent.worker_id AS worker_id 
FROM json_to_recordset('[{"job_id":"01900000-0000-7000-8000-000000000003","enqueue_no":1,"worker_id":"00000000-0000-0000-0000-0000000000a2","engine":"simulator"}]'::JSON) AS sent(job_id UUID, engine TEXT, enqueue_no INTEGER, worker_id UUID) 
WHERE sent.enqueue_no BETWEEN 0::INTEGER AND 2147483647::INTEGER), 
claimed AS 
(UPDATE jobs SET state='running'::VARCHAR, attempt=(jobs.attempt + 1::INTEGER), worker_id=given.worker_id, started_at=coalesce(jobs.started_at, now()) FROM given WHERE (jobs.state || ''::VARCHAR) IN ('queued'::VARCHAR) AND jobs.id = given.job_id AND jobs.enqueue_no = given.enqueue_no AND jobs.cancel_requested_at IS NULL AND (jobs.started_at IS NOT NULL OR jobs.start_by > now()) AND (jobs.finish_by IS NULL OR jobs.finish_by > now()) AND (EXISTS (SELECT workers.id 
FROM workers 
WHERE workers.id = given.worker_id AND workers.lease_until > now())) RETURNING jobs.id, jobs.app_id, jobs.attempt, jobs.enqueue_no, jobs.worker_id, jobs.end_user, jobs.lane, jobs.pool, jobs.model_requested, jobs.overflow, jobs.max_cost_usd, jobs.prompt_tokens, jobs.start_by, jobs.finish_by, jobs.webhook_url, jobs.stream, jobs.suspicion, jobs.route, jobs.adapter, given.engine), 
begun AS 
(INSERT INTO attempts (job_id, number, worker_id, engine, started_at) SELECT claimed.id AS id, claimed.attempt AS attempt, claimed.worker_id AS worker_id, claimed.engine AS engine, now() AS now_1 
FROM claimed)
 SELECT claimed.id, claimed.app_id, claimed.attempt, claimed.enqueue_no, claimed.worker_id, claimed.end_user, claimed.lane, claimed.pool, claimed.model_requested, claimed.overflow, claimed.max_cost_usd, claimed.prompt_tokens, claimed.start_by, claimed.finish_by, claimed.webhook_url, claimed.stream, claimed.suspicion, claimed.route, claimed.adapter, claimed.engine, job_texts.messages, job_texts.sampling 
FROM claimed JOIN job_texts ON job_texts.job_id = claimed.id
-- ;
UPDATE workers SET running=0::INTEGER, ready=false, lease_until=now(), stopped_at=now(), stop_reason=NULL::VARCHAR WHERE workers.id = '000000000000000000000000000000a2'::uuid::UUID
-- ;
SELECT pg_try_advisory_xact_lock(1214603620::INTEGER, hashtext('rescue'::VARCHAR)) AS pg_try_advisory_xact_lock_1
-- ;
SELECT now() AS now_1
-- ;
SELECT jobs.id, jobs.app_id, jobs.state, jobs.lane, jobs.pool, jobs.queue, jobs.route, jobs.route_reason, jobs.overflow, jobs.model_requested, jobs.model_served, jobs.adapter, jobs.batch_id, jobs.custom_id, jobs.end_user, jobs.served_by_job, jobs.metadata, jobs.webhook_url, jobs.background, jobs.max_cost_usd, jobs.prompt_tokens, jobs.max_tokens, jobs.output_tokens, jobs.cached_tokens, jobs.reasoning_tokens, jobs.finish_reason, jobs.usd, jobs.error_code, jobs.error_message, jobs.enqueue_no, jobs.attempt, jobs.worker_id, jobs.created_at, jobs.start_by, jobs.finish_by, jobs.not_before, jobs.queued_at, jobs.started_at, jobs.ended_at, jobs.cancel_requested_at, jobs.stream, jobs.erased_at, jobs.suspicion, jobs.retry_of 
FROM jobs 
WHERE jobs.state = 'running'::VARCHAR AND (jobs.worker_id IN (SELECT workers.id 
FROM workers 
WHERE workers.lease_until < now()) OR jobs.worker_id = '00000000000000000000000000000000'::uuid::UUID) 
 LIMIT 1000::INTEGER FOR UPDATE SKIP LOCKED
-- ;
UPDATE jobs SET state='waiting'::VARCHAR, worker_id=NULL::UUID, not_before=now() WHERE jobs.state IN ('running'::VARCHAR) AND jobs.id = '01900000000070008000000000000003'::uuid::UUID AND jobs.worker_id = '000000000000000000000000000000a2'::uuid::UUID AND jobs.attempt = 1::INTEGER RETURNING jobs.id, jobs.app_id, jobs.state, jobs.lane, jobs.pool, jobs.queue, jobs.route, jobs.route_reason, jobs.overflow, jobs.model_requested, jobs.model_served, jobs.adapter, jobs.batch_id, jobs.custom_id, jobs.end_user, jobs.served_by_job, jobs.metadata, jobs.webhook_url, jobs.background, jobs.max_cost_usd, jobs.prompt_tokens, jobs.max_tokens, jobs.output_tokens, jobs.cached_tokens, jobs.reasoning_tokens, jobs.finish_reason, jobs.usd, jobs.error_code, jobs.error_message, jobs.enqueue_no, jobs.attempt, jobs.worker_id, jobs.created_at, jobs.start_by, jobs.finish_by, jobs.not_before, jobs.queued_at, jobs.started_at, jobs.ended_at, jobs.cancel_requested_at, jobs.stream, jobs.erased_at, jobs.suspicion, jobs.retry_of
-- ;
UPDATE attempts SET ended_at=now(), outcome='lost'::VARCHAR WHERE attempts.job_id = '01900000000070008000000000000003'::uuid::UUID AND attempts.number = 1::INTEGER
-- ;
INSERT INTO ledger (kind, job_id, attempt, app_id, end_user, pool, model, prompt_tokens, usd, price_version, estimated) VALUES ('waste'::VARCHAR, '01900000000070008000000000000003'::uuid::UUID, 1::INTEGER, '01a21aa1d04b74e88813b261b7c19141'::uuid::UUID, 'u'::VARCHAR, 'chat'::VARCHAR, 'smollm2-135m'::VARCHAR, 8::INTEGER, 4E-7, 'own-2026-11'::VARCHAR, true) RETURNING ledger.id
-- ;
UPDATE deliveries SET published_at=now() WHERE deliveries.job_id IN (NULL) AND (1 != 1) AND deliveries.state = 'pending'::VARCHAR RETURNING deliveries.id
-- ;
UPDATE jobs SET state='queued'::VARCHAR, enqueue_no=(jobs.enqueue_no + 1::INTEGER), worker_id=NULL::UUID, not_before=NULL::TIMESTAMP WITH TIME ZONE, queued_at=now() WHERE jobs.state IN ('waiting'::VARCHAR) AND jobs.id IN (SELECT jobs.id 
FROM jobs 
WHERE jobs.state = 'waiting'::VARCHAR AND jobs.not_before <= now() ORDER BY jobs.not_before 
 LIMIT 1000::INTEGER) RETURNING jobs.id, jobs.app_id, jobs.state, jobs.lane, jobs.pool, jobs.queue, jobs.route, jobs.route_reason, jobs.overflow, jobs.model_requested, jobs.model_served, jobs.adapter, jobs.batch_id, jobs.custom_id, jobs.end_user, jobs.served_by_job, jobs.metadata, jobs.webhook_url, jobs.background, jobs.max_cost_usd, jobs.prompt_tokens, jobs.max_tokens, jobs.output_tokens, jobs.cached_tokens, jobs.reasoning_tokens, jobs.finish_reason, jobs.usd, jobs.error_code, jobs.error_message, jobs.enqueue_no, jobs.attempt, jobs.worker_id, jobs.created_at, jobs.start_by, jobs.finish_by, jobs.not_before, jobs.queued_at, jobs.started_at, jobs.ended_at, jobs.cancel_requested_at, jobs.stream, jobs.erased_at, jobs.suspicion, jobs.retry_of
-- ;

-- part: finish lost
WITH given AS 
(SELECT sent.job_id AS job_id, sent.engine AS engine, sent.enqueue_no AS enqueue_no, sent.worker_id AS worker_id 
FROM json_to_recordset('[{"job_id":"01900000-0000-7000-8000-000000000003","enqueue_no":2,"worker_id":"00000000-0000-0000-0000-0000000000a1","engine":"simulator"}]'::JSON) AS sent(job_id UUID, engine TEXT, enqueue_no INTEGER, worker_id UUID) 
WHERE sent.enqueue_no BETWEEN 0::INTEGER AND 2147483647::INTEGER), 
claimed AS 
(UPDATE jobs SET state='running'::VARCHAR, attempt=(jobs.attempt + 1::INTEGER), worker_id=given.worker_id, started_at=coalesce(jobs.started_at, now()) FROM given WHERE (jobs.state || ''::VARCHAR) IN ('queued'::VARCHAR) AND jobs.id = given.job_id AND jobs.enqueue_no = given.enqueue_no AND jobs.cancel_requested_at IS NULL AND (jobs.started_at IS NOT NULL OR jobs.start_by > now()) AND (jobs.finish_by IS NULL OR jobs.finish_by > now()) AND (EXISTS (SELECT workers.id 
FROM workers 
WHERE workers.id = given.worker_id AND workers.lease_until > now())) RETURNING jobs.id, jobs.app_id, jobs.attempt, jobs.enqueue_no, jobs.worker_id, jobs.end_user, jobs.lane, jobs.pool, jobs.model_requested, jobs.overflow, jobs.max_cost_usd, jobs.prompt_tokens, jobs.start_by, jobs.finish_by, jobs.webhook_url, jobs.stream, jobs.suspicion, jobs.route, jobs.adapter, given.engine), 
begun AS 
(INSERT INTO attempts (job_id, number, worker_id, engine, started_at) SELECT claimed.id AS id, claimed.attempt AS attempt, claimed.worker_id AS worker_id, claimed.engine AS engine, now() AS now_1 
FROM claimed)
 SELECT claimed.id, claimed.app_id, claimed.attempt, claimed.enqueue_no, claimed.worker_id, claimed.end_user, claimed.lane, claimed.pool, claimed.model_requested, claimed.overflow, claimed.max_cost_usd, claimed.prompt_tokens, claimed.start_by, claimed.finish_by, claimed.webhook_url, claimed.stream, claimed.suspicion, claimed.route, claimed.adapter, claimed.engine, job_texts.messages, job_texts.sampling 
FROM claimed JOIN job_texts ON job_texts.job_id = claimed.id
-- ;
WITH given AS 
(SELECT sent.charged_usd AS charged_usd, sent.answer AS answer, sent.logprobs AS logprobs, sent.reasoning AS reasoning, sent.output_tokens AS output_tokens, sent.cached_tokens AS cached_tokens, sent.reasoning_tokens AS reasoning_tokens, sent.finish_reason AS finish_reason, sent.model_served AS model_served, sent.error_code AS error_code, sent.error_message AS error_message, sent.outcome AS outcome, sent.first_token_s AS first_token_s, sent.preemptions AS preemptions, sent.prompt_tokens AS prompt_tokens, sent.engine_s AS engine_s, sent.kind AS kind, sent.job_id AS job_id, sent.attempt AS attempt, sent.app_id AS app_id, sent.end_user AS end_user, sent.pool AS pool, sent.model AS model, sent.host_id AS host_id, sent.kv_token_s AS kv_token_s, sent.usd AS usd, sent.price_version AS price_version, sent.api_usd AS api_usd, sent.estimated AS estimated, sent.worker_id AS worker_id, sent.enqueue_no AS enqueue_no 
FROM json_to_recordset('[{"job_id":"01900000-0000-7000-8000-000000000003","worker_id":"00000000-0000-0000-0000-0000000000a1","attempt":2,"enqueue_no":2,"app_id":"01a21aa1-d04b-74e8-8813-b261b7c19141","end_user":"u","pool":"chat","model":"m","model_served":"m","host_id":"host","kind":"compute","outcome":"succeeded","error_code":null,"prompt_tokens":8,"cached_tokens":0,"output_tokens":3,"engine_s":0.5,"first_token_s":null,"preemptions":0,"kv_token_s":5.5,"usd":"0.000001","price_version":"old-1","api_usd":null,"estimated":false,"charged_usd":"0.000001","finish_reason":"stop","error_message":null,"answer":"A channel.","logprobs":null,"reasoning":null,"reasoning_tokens":0}]'::JSON) AS sent(charged_usd NUMERIC(18, 9), answer TEXT, logprobs JSONB, reasoning TEXT, output_tokens INTEGER, cached_tokens INTEGER, reasoning_tokens INTEGER, finish_reason TEXT, model_served TEXT, error_code TEXT, error_message TEXT, outcome TEXT, first_token_s FLOAT, preemptions INTEGER, prompt_tokens INTEGER, engine_s FLOAT, kind TEXT, job_id UUID, attempt INTEGER, app_id UUID, end_user TEXT, pool TEXT, model TEXT, host_id TEXT, kv_token_s FLOAT, usd NUMERIC(18, 9), price_version TEXT, api_usd NUMERIC(18, 9), estimated BOOLEAN, worker_id UUID, enqueue_no INTEGER) 
WHERE sent.enqueue_no BETWEEN 0::INTEGER AND 2147483647::INTEGER), 
moved AS 
(UPDATE jobs SET state='succeeded'::VARCHAR, model_served=given.model_served, prompt_tokens=coalesce(nullif(given.prompt_tokens, 0::INTEGER), jobs.prompt_tokens), output_tokens=given.output_tokens, cached_tokens=given.cached_tokens, reasoning_tokens=given.reasoning_tokens, finish_reason=given.finish_reason, usd=given.charged_usd, error_code=given.error_code, error_message=given.error_message, worker_id=NULL::UUID, ended_at=now() FROM given WHERE (jobs.state || ''::VARCHAR) IN ('running'::VARCHAR) AND jobs.id = given.job_id AND jobs.worker_id = given.worker_id AND jobs.attempt = given.attempt AND jobs.enqueue_no = given.enqueue_no RETURNING jobs.id, jobs.app_id, jobs.state, jobs.finish_reason, jobs.webhook_url), 
ended AS 
(UPDATE attempts SET model_served=given.model_served, ended_at=now(), outcome=given.outcome, error_code=given.error_code, prompt_tokens=given.prompt_tokens, cached_tokens=given.cached_tokens, output_tokens=given.output_tokens, engine_s=given.engine_s, first_token_s=given.first_token_s, preemptions=given.preemptions FROM given, moved WHERE attempts.job_id = given.job_id AND attempts.number = given.attempt AND moved.id = given.job_id), 
booked AS 
(INSERT INTO ledger (kind, job_id, attempt, app_id, end_user, pool, model, host_id, kv_token_s, usd, price_version, api_usd, estimated, prompt_tokens, cached_tokens, output_tokens, engine_s) SELECT given.kind AS kind, given.job_id AS job_id, given.attempt AS attempt, given.app_id AS app_id, given.end_user AS end_user, given.pool AS pool, given.model AS model, given.host_id AS host_id, given.kv_token_s AS kv_token_s, given.usd AS usd, given.price_version AS price_version, given.api_usd AS api_usd, given.estimated AS estimated, given.prompt_tokens AS prompt_tokens, given.cached_tokens AS cached_tokens, given.output_tokens AS output_tokens, given.engine_s AS engine_s 
FROM given, moved 
WHERE moved.id = given.job_id), 
answered AS 
(UPDATE job_texts SET answer=given.answer, logprobs=given.logprobs, reasoning=given.reasoning FROM given, moved WHERE job_texts.job_id = given.job_id AND given.answer IS NOT NULL AND moved.id = given.job_id)
 SELECT moved.id, moved.app_id, moved.state, moved.finish_reason, moved.webhook_url 
FROM moved
-- ;

-- part: look
SELECT jobs.id, jobs.app_id, jobs.state, jobs.lane, jobs.pool, jobs.queue, jobs.route, jobs.route_reason, jobs.overflow, jobs.model_requested, jobs.model_served, jobs.metadata, jobs.end_user, jobs.background, jobs.stream, jobs.prompt_tokens, jobs.max_tokens, jobs.output_tokens, jobs.cached_tokens, jobs.finish_reason, jobs.usd, jobs.error_code, jobs.error_message, jobs.enqueue_no, jobs.attempt, jobs.suspicion, jobs.created_at, jobs.start_by, jobs.finish_by, jobs.started_at, jobs.ended_at, jobs.cancel_requested_at, jobs.retry_of, jobs.reasoning_tokens, job_texts.answer, attempts.engine, ledger.price_version, jobs.state IN ('waiting'::VARCHAR, 'queued'::VARCHAR) AND (jobs.started_at IS NULL AND jobs.start_by <= now() OR jobs.finish_by IS NOT NULL AND jobs.finish_by <= now()) AS is_over, job_texts.sampling ->> 'reasoning_effort'::TEXT AS reasoning_effort, job_texts.logprobs, job_texts.reasoning 
FROM jobs JOIN job_texts ON job_texts.job_id = jobs.id LEFT OUTER JOIN attempts ON attempts.job_id = jobs.id AND attempts.number = jobs.attempt LEFT OUTER JOIN ledger ON ledger.job_id = jobs.id AND ledger.kind IN ('compute', 'api', 'cache') JOIN json_to_recordset('[{"app_id": "01a21aa1-d04b-74e8-8813-b261b7c19141", "id": "01900000-0000-7000-8000-000000000001"}]'::JSON) AS given(app_id UUID, id UUID) ON jobs.id = given.id AND jobs.app_id = given.app_id 
WHERE given.id BETWEEN '00000000000000000000000000000000'::uuid::UUID AND 'ffffffffffffffffffffffffffffffff'::uuid::UUID
-- ;
SELECT jobs.id, jobs.app_id, jobs.state, jobs.lane, jobs.pool, jobs.queue, jobs.route, jobs.route_reason, jobs.overflow, jobs.model_requested, jobs.model_served, jobs.metadata, jobs.end_user, jobs.background, jobs.stream, jobs.prompt_tokens, jobs.max_tokens, jobs.output_tokens, jobs.cached_tokens, jobs.finish_reason, jobs.usd, jobs.error_code, jobs.error_message, jobs.enqueue_no, jobs.attempt, jobs.suspicion, jobs.created_at, jobs.start_by, jobs.finish_by, jobs.started_at, jobs.ended_at, jobs.cancel_requested_at, jobs.retry_of, jobs.reasoning_tokens, job_texts.answer, attempts.engine, ledger.price_version, jobs.state IN ('waiting'::VARCHAR, 'queued'::VARCHAR) AND (jobs.started_at IS NULL AND jobs.start_by <= now() OR jobs.finish_by IS NOT NULL AND jobs.finish_by <= now()) AS is_over, job_texts.sampling ->> 'reasoning_effort'::TEXT AS reasoning_effort, job_texts.logprobs, job_texts.reasoning 
FROM jobs JOIN job_texts ON job_texts.job_id = jobs.id LEFT OUTER JOIN attempts ON attempts.job_id = jobs.id AND attempts.number = jobs.attempt LEFT OUTER JOIN ledger ON ledger.job_id = jobs.id AND ledger.kind IN ('compute', 'api', 'cache') JOIN json_to_recordset('[{"app_id": "01a21aa1-d04b-74e8-8813-b261b7c19141", "id": "01900000-0000-7000-8000-000000000002"}]'::JSON) AS given(app_id UUID, id UUID) ON jobs.id = given.id AND jobs.app_id = given.app_id 
WHERE given.id BETWEEN '00000000000000000000000000000000'::uuid::UUID AND 'ffffffffffffffffffffffffffffffff'::uuid::UUID
-- ;
SELECT jobs.id, jobs.app_id, jobs.state, jobs.lane, jobs.pool, jobs.queue, jobs.route, jobs.route_reason, jobs.overflow, jobs.model_requested, jobs.model_served, jobs.metadata, jobs.end_user, jobs.background, jobs.stream, jobs.prompt_tokens, jobs.max_tokens, jobs.output_tokens, jobs.cached_tokens, jobs.finish_reason, jobs.usd, jobs.error_code, jobs.error_message, jobs.enqueue_no, jobs.attempt, jobs.suspicion, jobs.created_at, jobs.start_by, jobs.finish_by, jobs.started_at, jobs.ended_at, jobs.cancel_requested_at, jobs.retry_of, jobs.reasoning_tokens, job_texts.answer, attempts.engine, ledger.price_version, jobs.state IN ('waiting'::VARCHAR, 'queued'::VARCHAR) AND (jobs.started_at IS NULL AND jobs.start_by <= now() OR jobs.finish_by IS NOT NULL AND jobs.finish_by <= now()) AS is_over, job_texts.sampling ->> 'reasoning_effort'::TEXT AS reasoning_effort, job_texts.logprobs, job_texts.reasoning 
FROM jobs JOIN job_texts ON job_texts.job_id = jobs.id LEFT OUTER JOIN attempts ON attempts.job_id = jobs.id AND attempts.number = jobs.attempt LEFT OUTER JOIN ledger ON ledger.job_id = jobs.id AND ledger.kind IN ('compute', 'api', 'cache') JOIN json_to_recordset('[{"app_id": "01a21aa1-d04b-74e8-8813-b261b7c19141", "id": "01900000-0000-7000-8000-000000000003"}]'::JSON) AS given(app_id UUID, id UUID) ON jobs.id = given.id AND jobs.app_id = given.app_id 
WHERE given.id BETWEEN '00000000000000000000000000000000'::uuid::UUID AND 'ffffffffffffffffffffffffffffffff'::uuid::UUID
-- ;

-- part: sweep publish_due
SELECT pg_try_advisory_xact_lock(1214603620::INTEGER, hashtext('publish_due'::VARCHAR)) AS pg_try_advisory_xact_lock_1
-- ;
SELECT jobs.id, jobs.app_id, jobs.state, jobs.lane, jobs.pool, jobs.queue, jobs.route, jobs.route_reason, jobs.overflow, jobs.model_requested, jobs.model_served, jobs.adapter, jobs.batch_id, jobs.custom_id, jobs.end_user, jobs.served_by_job, jobs.metadata, jobs.webhook_url, jobs.background, jobs.max_cost_usd, jobs.prompt_tokens, jobs.max_tokens, jobs.output_tokens, jobs.cached_tokens, jobs.reasoning_tokens, jobs.finish_reason, jobs.usd, jobs.error_code, jobs.error_message, jobs.enqueue_no, jobs.attempt, jobs.worker_id, jobs.created_at, jobs.start_by, jobs.finish_by, jobs.not_before, jobs.queued_at, jobs.started_at, jobs.ended_at, jobs.cancel_requested_at, jobs.stream, jobs.erased_at, jobs.suspicion, jobs.retry_of 
FROM jobs 
WHERE jobs.state = 'queued'::VARCHAR AND jobs.queued_at < now() - '0:00:02'::interval ORDER BY jobs.queued_at
-- ;
UPDATE jobs SET state='queued'::VARCHAR, enqueue_no=(jobs.enqueue_no + 1::INTEGER), worker_id=NULL::UUID, not_before=NULL::TIMESTAMP WITH TIME ZONE, queued_at=now() WHERE jobs.state IN ('waiting'::VARCHAR) AND jobs.id IN (SELECT jobs.id 
FROM jobs 
WHERE jobs.state = 'waiting'::VARCHAR AND jobs.not_before <= now() ORDER BY jobs.not_before 
 LIMIT 1000::INTEGER) RETURNING jobs.id, jobs.app_id, jobs.state, jobs.lane, jobs.pool, jobs.queue, jobs.route, jobs.route_reason, jobs.overflow, jobs.model_requested, jobs.model_served, jobs.adapter, jobs.batch_id, jobs.custom_id, jobs.end_user, jobs.served_by_job, jobs.metadata, jobs.webhook_url, jobs.background, jobs.max_cost_usd, jobs.prompt_tokens, jobs.max_tokens, jobs.output_tokens, jobs.cached_tokens, jobs.reasoning_tokens, jobs.finish_reason, jobs.usd, jobs.error_code, jobs.error_message, jobs.enqueue_no, jobs.attempt, jobs.worker_id, jobs.created_at, jobs.start_by, jobs.finish_by, jobs.not_before, jobs.queued_at, jobs.started_at, jobs.ended_at, jobs.cancel_requested_at, jobs.stream, jobs.erased_at, jobs.suspicion, jobs.retry_of
-- ;

-- part: sweep expire
SELECT pg_try_advisory_xact_lock(1214603620::INTEGER, hashtext('expire'::VARCHAR)) AS pg_try_advisory_xact_lock_1
-- ;
UPDATE jobs SET state='expired'::VARCHAR, error_code='expired'::VARCHAR, error_message='It could not start within its max_wait.'::VARCHAR, worker_id=NULL::UUID, ended_at=now() WHERE jobs.state IN ('waiting'::VARCHAR, 'queued'::VARCHAR) AND jobs.started_at IS NULL AND jobs.start_by <= now() RETURNING jobs.id, jobs.app_id, jobs.state, jobs.lane, jobs.pool, jobs.queue, jobs.route, jobs.route_reason, jobs.overflow, jobs.model_requested, jobs.model_served, jobs.adapter, jobs.batch_id, jobs.custom_id, jobs.end_user, jobs.served_by_job, jobs.metadata, jobs.webhook_url, jobs.background, jobs.max_cost_usd, jobs.prompt_tokens, jobs.max_tokens, jobs.output_tokens, jobs.cached_tokens, jobs.reasoning_tokens, jobs.finish_reason, jobs.usd, jobs.error_code, jobs.error_message, jobs.enqueue_no, jobs.attempt, jobs.worker_id, jobs.created_at, jobs.start_by, jobs.finish_by, jobs.not_before, jobs.queued_at, jobs.started_at, jobs.ended_at, jobs.cancel_requested_at, jobs.stream, jobs.erased_at, jobs.suspicion, jobs.retry_of
-- ;
UPDATE jobs SET state='failed'::VARCHAR, error_code='deadline_exceeded'::VARCHAR, error_message='Its deadline passed before it could finish.'::VARCHAR, worker_id=NULL::UUID, ended_at=now() WHERE jobs.state IN ('waiting'::VARCHAR, 'queued'::VARCHAR) AND jobs.finish_by IS NOT NULL AND jobs.finish_by <= now() RETURNING jobs.id, jobs.app_id, jobs.state, jobs.lane, jobs.pool, jobs.queue, jobs.route, jobs.route_reason, jobs.overflow, jobs.model_requested, jobs.model_served, jobs.adapter, jobs.batch_id, jobs.custom_id, jobs.end_user, jobs.served_by_job, jobs.metadata, jobs.webhook_url, jobs.background, jobs.max_cost_usd, jobs.prompt_tokens, jobs.max_tokens, jobs.output_tokens, jobs.cached_tokens, jobs.reasoning_tokens, jobs.finish_reason, jobs.usd, jobs.error_code, jobs.error_message, jobs.enqueue_no, jobs.attempt, jobs.worker_id, jobs.created_at, jobs.start_by, jobs.finish_by, jobs.not_before, jobs.queued_at, jobs.started_at, jobs.ended_at, jobs.cancel_requested_at, jobs.stream, jobs.erased_at, jobs.suspicion, jobs.retry_of
-- ;
UPDATE deliveries SET published_at=now() WHERE deliveries.job_id IN (NULL) AND (1 != 1) AND deliveries.state = 'pending'::VARCHAR RETURNING deliveries.id
-- ;

-- part: sweep redeliver
SELECT pg_try_advisory_xact_lock(1214603620::INTEGER, hashtext('redeliver'::VARCHAR)) AS pg_try_advisory_xact_lock_1
-- ;
UPDATE deliveries SET published_at=now() WHERE deliveries.id IN (SELECT deliveries.id 
FROM deliveries 
WHERE deliveries.state = 'pending'::VARCHAR AND deliveries.next_at <= now() AND (deliveries.published_at IS NULL OR deliveries.published_at < now() - '0:00:30'::interval) ORDER BY deliveries.next_at 
 LIMIT 500::INTEGER FOR UPDATE SKIP LOCKED) RETURNING deliveries.id
-- ;

-- part: sweep forget_keys
SELECT pg_try_advisory_xact_lock(1214603620::INTEGER, hashtext('forget_keys'::VARCHAR)) AS pg_try_advisory_xact_lock_1
-- ;
DELETE FROM idempotency_keys WHERE (idempotency_keys.app_id, idempotency_keys.key) IN (SELECT idempotency_keys.app_id, idempotency_keys.key 
FROM idempotency_keys 
WHERE idempotency_keys.expires_at <= now() 
 LIMIT 10000::INTEGER FOR UPDATE SKIP LOCKED) RETURNING idempotency_keys.key
-- ;

-- part: sweep observe
SELECT pg_try_advisory_xact_lock(1214603620::INTEGER, hashtext('observe'::VARCHAR)) AS pg_try_advisory_xact_lock_1
-- ;
SELECT now() AS now_1
-- ;
SELECT max(queue_samples.at) AS max_1 
FROM queue_samples
-- ;
SELECT jobs.queue, coalesce(EXTRACT(epoch FROM now() - (min(jobs.queued_at) FILTER (WHERE jobs.state = 'queued'::VARCHAR))), 0::INTEGER) AS oldest_wait_s, count(*) FILTER (WHERE jobs.created_at > '2026-11-27 01:32:17.097931+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE) AS arrivals, count(*) FILTER (WHERE jobs.started_at > '2026-11-27 01:32:17.097931+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE) AS started, coalesce(sum(CAST(jobs.prompt_tokens AS BIGINT) + jobs.max_tokens) FILTER (WHERE jobs.started_at > '2026-11-27 01:32:17.097931+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE), 0::INTEGER) AS started_tokens, count(*) FILTER (WHERE jobs.state = 'running'::VARCHAR) AS running 
FROM jobs 
WHERE jobs.state = 'queued'::VARCHAR OR jobs.state = 'running'::VARCHAR OR jobs.id > '01a21a9d296900000000000000000000'::uuid::UUID AND jobs.created_at > '2026-11-27 01:32:17.097931+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE OR jobs.started_at > '2026-11-27 01:32:17.097931+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE GROUP BY jobs.queue
-- ;
SELECT refusals.queue, sum(refusals.jobs) AS sum_1 
FROM refusals 
WHERE refusals.minute >= date_trunc('minute'::VARCHAR, '2026-11-27 01:32:17.097931+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE) GROUP BY refusals.queue
-- ;
SELECT workers.pool, (SELECT avg(worker_samples.kv_use) AS avg_1 
FROM worker_samples 
WHERE worker_samples.taken_at > now() - '0:00:15'::interval AND worker_samples.pool = workers.pool) AS kv_use, count(*) AS workers, count(DISTINCT workers.host_id) AS hosts, coalesce(sum(workers.max_running) FILTER (WHERE workers.ready), 0::INTEGER) AS slots, CAST(sum((SELECT count(*) AS count_1 
FROM jobs 
WHERE jobs.worker_id = workers.id AND jobs.state = 'running'::VARCHAR)) AS BIGINT) AS running, min(workers.max_model_tokens) AS max_model_tokens, min(workers.kv_tokens) AS kv_tokens 
FROM workers 
WHERE workers.lease_until > now() GROUP BY workers.pool
-- ;
INSERT INTO queue_samples (queue, at, depth, oldest_wait_s, arrivals, refused, started, running, slots, hosts, depth_tokens, started_tokens) VALUES ('chat.high'::VARCHAR, '2026-11-27 01:32:22.097931+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, 0::INTEGER, 0.0, 0::INTEGER, 0::INTEGER, 0::INTEGER, 0::INTEGER, 4::INTEGER, 1::INTEGER, 0::BIGINT, 0::BIGINT) ON CONFLICT DO NOTHING
-- ;
INSERT INTO queue_samples (queue, at, depth, oldest_wait_s, arrivals, refused, started, running, slots, hosts, depth_tokens, started_tokens) VALUES ('chat.normal'::VARCHAR, '2026-11-27 01:32:22.097931+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, 0::INTEGER, 0.0, 3::INTEGER, 0::INTEGER, 3::INTEGER, 0::INTEGER, 4::INTEGER, 1::INTEGER, 0::BIGINT, 72::BIGINT) ON CONFLICT DO NOTHING
-- ;
INSERT INTO queue_samples (queue, at, depth, oldest_wait_s, arrivals, refused, started, running, slots, hosts, depth_tokens, started_tokens) VALUES ('chat.low'::VARCHAR, '2026-11-27 01:32:22.097931+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, 0::INTEGER, 0.0, 0::INTEGER, 0::INTEGER, 0::INTEGER, 0::INTEGER, 4::INTEGER, 1::INTEGER, 0::BIGINT, 0::BIGINT) ON CONFLICT DO NOTHING
-- ;
INSERT INTO queue_samples (queue, at, depth, oldest_wait_s, arrivals, refused, started, running, slots, hosts, depth_tokens, started_tokens) VALUES ('chat.batch'::VARCHAR, '2026-11-27 01:32:22.097931+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, 0::INTEGER, 0.0, 0::INTEGER, 0::INTEGER, 0::INTEGER, 0::INTEGER, 4::INTEGER, 1::INTEGER, 0::BIGINT, 0::BIGINT) ON CONFLICT DO NOTHING
-- ;
INSERT INTO queue_samples (queue, at, depth, oldest_wait_s, arrivals, refused, started, running, slots, hosts, depth_tokens, started_tokens) VALUES ('overflow.high'::VARCHAR, '2026-11-27 01:32:22.097931+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, 0::INTEGER, 0.0, 0::INTEGER, 0::INTEGER, 0::INTEGER, 0::INTEGER, 0::INTEGER, 0::INTEGER, 0::BIGINT, 0::BIGINT) ON CONFLICT DO NOTHING
-- ;
INSERT INTO queue_samples (queue, at, depth, oldest_wait_s, arrivals, refused, started, running, slots, hosts, depth_tokens, started_tokens) VALUES ('overflow.normal'::VARCHAR, '2026-11-27 01:32:22.097931+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, 0::INTEGER, 0.0, 0::INTEGER, 0::INTEGER, 0::INTEGER, 0::INTEGER, 0::INTEGER, 0::INTEGER, 0::BIGINT, 0::BIGINT) ON CONFLICT DO NOTHING
-- ;
INSERT INTO queue_samples (queue, at, depth, oldest_wait_s, arrivals, refused, started, running, slots, hosts, depth_tokens, started_tokens) VALUES ('overflow.low'::VARCHAR, '2026-11-27 01:32:22.097931+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, 0::INTEGER, 0.0, 0::INTEGER, 0::INTEGER, 0::INTEGER, 0::INTEGER, 0::INTEGER, 0::INTEGER, 0::BIGINT, 0::BIGINT) ON CONFLICT DO NOTHING
-- ;
INSERT INTO queue_samples (queue, at, depth, oldest_wait_s, arrivals, refused, started, running, slots, hosts, depth_tokens, started_tokens) VALUES ('overflow.batch'::VARCHAR, '2026-11-27 01:32:22.097931+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE, 0::INTEGER, 0.0, 0::INTEGER, 0::INTEGER, 0::INTEGER, 0::INTEGER, 0::INTEGER, 0::INTEGER, 0::BIGINT, 0::BIGINT) ON CONFLICT DO NOTHING
-- ;
SELECT queue_samples.queue, queue_samples.at, queue_samples.depth, queue_samples.oldest_wait_s, queue_samples.arrivals, queue_samples.refused, queue_samples.started, queue_samples.running, queue_samples.slots, queue_samples.hosts, queue_samples.depth_tokens, queue_samples.started_tokens 
FROM queue_samples 
WHERE queue_samples.queue IN ('chat.high'::VARCHAR, 'chat.normal'::VARCHAR, 'chat.low'::VARCHAR, 'chat.batch'::VARCHAR, 'overflow.high'::VARCHAR, 'overflow.normal'::VARCHAR, 'overflow.low'::VARCHAR, 'overflow.batch'::VARCHAR) AND queue_samples.at > '2026-11-27 01:30:22.097931+00:00'::timestamptz::TIMESTAMP WITH TIME ZONE ORDER BY queue_samples.at
-- ;

-- part: sweep autoscale
SELECT pg_try_advisory_xact_lock(1214603620::INTEGER, hashtext('autoscale'::VARCHAR)) AS pg_try_advisory_xact_lock_1
-- ;
SELECT workers.pool, (SELECT avg(worker_samples.kv_use) AS avg_1 
FROM worker_samples 
WHERE worker_samples.taken_at > now() - '0:00:15'::interval AND worker_samples.pool = workers.pool) AS kv_use, count(*) AS workers, count(DISTINCT workers.host_id) AS hosts, coalesce(sum(workers.max_running) FILTER (WHERE workers.ready), 0::INTEGER) AS slots, CAST(sum((SELECT count(*) AS count_1 
FROM jobs 
WHERE jobs.worker_id = workers.id AND jobs.state = 'running'::VARCHAR)) AS BIGINT) AS running, min(workers.max_model_tokens) AS max_model_tokens, min(workers.kv_tokens) AS kv_tokens 
FROM workers 
WHERE workers.lease_until > now() GROUP BY workers.pool
-- ;
SELECT DISTINCT ON (queue_samples.queue) queue_samples.queue, queue_samples.at, queue_samples.depth, queue_samples.oldest_wait_s, queue_samples.arrivals, queue_samples.refused, queue_samples.started, queue_samples.running, queue_samples.slots, queue_samples.hosts, queue_samples.depth_tokens, queue_samples.started_tokens 
FROM queue_samples 
WHERE queue_samples.queue IN ('chat.high'::VARCHAR, 'chat.normal'::VARCHAR, 'chat.low'::VARCHAR, 'chat.batch'::VARCHAR) ORDER BY queue_samples.queue, queue_samples.at DESC
-- ;
SELECT max(decisions.at) AS max_1 
FROM decisions 
WHERE decisions.pool = 'chat'::VARCHAR AND decisions.target != decisions.hosts
-- ;
SELECT now() AS now_1
-- ;
INSERT INTO decisions (pool, mode, hosts, target, reason, inputs) VALUES ('chat'::VARCHAR, 'advisory'::VARCHAR, 1::INTEGER, 1::INTEGER, 'hold: load 0.00 is below 0.30, at the limit of 1 to 20 hosts'::VARCHAR, '{"sampled_at": "2026-11-27T01:32:22.097931+00:00", "depth": 0, "load": 0.0, "running": 0, "slots": 4, "last_change_at": null, "policy": {"mode": "advisory", "min_hosts": 1, "max_hosts": 20, "up_depth": 100, "up_load": 0.8, "down_load": 0.3, "up_step": 2, "down_step": 1, "cooldown_s": 300.0, "stale_after_s": 60.0}}'::jsonb::JSONB) RETURNING decisions.id
-- ;

-- part: sweep watch_budgets
SELECT pg_try_advisory_xact_lock(1214603620::INTEGER, hashtext('watch_budgets'::VARCHAR)) AS pg_try_advisory_xact_lock_1
-- ;
SELECT budgets.id, budgets.app_id, budgets.period, budgets.starts_at, budgets.reserved_usd, budgets.spent_usd, budgets.told_percent, budgets.short_at, apps.name, apps.day_usd, apps.month_usd 
FROM budgets LEFT OUTER JOIN apps ON apps.id = budgets.app_id 
WHERE budgets.period = 'day'::VARCHAR AND budgets.starts_at = date_trunc('day'::VARCHAR, now(), 'UTC'::VARCHAR) OR budgets.period = 'month'::VARCHAR AND budgets.starts_at = date_trunc('month'::VARCHAR, now(), 'UTC'::VARCHAR) ORDER BY apps.name NULLS FIRST, budgets.period
-- ;
