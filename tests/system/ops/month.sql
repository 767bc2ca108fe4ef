-- A month of a shop's work, so that every page and chart at /ops has something to show. `now()` is the moment that the
-- pages show. Into a migrated, empty database.

INSERT INTO apps (id, name, webhook_secret, queued_jobs, day_usd) VALUES
    (gen_random_uuid(), 'shop', 'whsec_x', 500, 5), (gen_random_uuid(), 'search', 'whsec_y', NULL, NULL),
    (gen_random_uuid(), 'support', 'whsec_z', 200, 2);

INSERT INTO api_keys (id, app_id, hint, digest, revoked_at, expires_at)
SELECT gen_random_uuid(), a.id, 'hr-' || left(md5(a.name || n), 5), sha256(convert_to(a.name || n, 'UTF8')),
       CASE n WHEN 1 THEN now() - interval '2 days' END, CASE n WHEN 2 THEN now() + interval '60 days' END
FROM apps a, generate_series(1, 3) n;

-- The first 48 bits of an id are its time in milliseconds.
INSERT INTO jobs (id, app_id, state, lane, pool, queue, route, route_reason, overflow, model_requested, model_served,
                  background, prompt_tokens, max_tokens, output_tokens, finish_reason, usd, error_code, attempt,
                  created_at, queued_at, started_at, ended_at, start_by, end_user, webhook_url)
SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7' || left(md5(n::text), 3) || '8'
        || right(md5(n::text), 15))::uuid,
       a.id, state, lane, 'chat', CASE route WHEN 'pool' THEN 'chat.' ELSE 'overflow.' END || lane, route,
       CASE route WHEN 'pool' THEN 'room' ELSE 'deep' END, 'allow', 'SmolLM2',
       CASE route WHEN 'pool' THEN 'SmolLM2' ELSE 'gpt-4o-mini' END, true, 40 + n % 300, 256,
       CASE WHEN state = 'succeeded' THEN 20 + n % 180 END, CASE WHEN state = 'succeeded' THEN 'stop' END,
       CASE WHEN state = 'succeeded' THEN 0.0008 * (1 + n % 7) ELSE 0 END,
       CASE state WHEN 'failed' THEN 'engine_timeout' WHEN 'expired' THEN 'expired' END,
       CASE WHEN state IN ('succeeded', 'failed') THEN 1 + (state = 'failed')::int * 2 ELSE 0 END, at, at,
       CASE WHEN state IN ('succeeded', 'failed') THEN at + wait END,
       CASE WHEN state IN ('succeeded', 'failed') THEN at + wait + interval '1 s' * (1 + n % 5)
            WHEN state = 'expired' THEN at + interval '10 minutes' END,
       at + CASE WHEN state = 'queued' THEN interval '2 hours' ELSE interval '10 minutes' END,
       'user-' || n % 97, CASE WHEN n % 5 = 0 THEN 'https://hooks.example.com/jobs/' || n END
FROM (
    SELECT n, now() - interval '20 s' - interval '25 s' * n AS at, (ARRAY['high', 'normal', 'low', 'batch'])[1 + n % 4] AS lane,
           CASE WHEN n < 14 THEN 'queued' WHEN n % 61 = 0 THEN 'failed' WHEN n % 47 = 0 THEN 'expired'
                ELSE 'succeeded' END AS state,
           CASE WHEN n % 9 = 0 THEN 'overflow' ELSE 'pool' END AS route,
           interval '1 s' * (0.4 + (n % 4) ^ 2 * (1.5 + sin(n / 260.0)) * (1 + n % 11 / 8.0)) AS wait
    FROM generate_series(1, 3400) n
) made
JOIN LATERAL (SELECT id FROM apps WHERE name = (ARRAY['shop', 'search', 'support'])[1 + n % 3]) a ON true;

INSERT INTO job_texts (job_id, messages, sampling, answer)
SELECT id, '[{"role": "user", "content": "Why is the sky blue?"}]', '{"max_tokens": 256}',
       CASE WHEN state = 'succeeded' THEN 'Because of Rayleigh scattering.' END
FROM jobs;

INSERT INTO attempts (job_id, number, worker_id, engine, model_served, started_at, ended_at, outcome, error_code,
                      prompt_tokens, cached_tokens, output_tokens, engine_s, first_token_s)
SELECT id, number, gen_random_uuid(), 'vllm', model_served, started_at + interval '2 s' * (number - 1), ended_at,
       CASE state WHEN 'succeeded' THEN 'succeeded' ELSE 'failed' END, error_code, prompt_tokens, 0, output_tokens,
       0.8 + output_tokens / 100.0, 0.12
FROM jobs, generate_series(1, jobs.attempt) number WHERE started_at IS NOT NULL;

INSERT INTO ledger (at, kind, job_id, attempt, app_id, pool, model, prompt_tokens, cached_tokens, output_tokens, engine_s,
                    usd, api_usd, price_version)
SELECT ended_at, CASE WHEN state = 'failed' THEN 'waste' WHEN route = 'pool' THEN 'compute' ELSE 'api' END, id, 1,
       app_id, pool, model_served, prompt_tokens, 0, coalesce(output_tokens, 0), 1, usd, usd * 1.6, 'list-1'
FROM jobs WHERE state IN ('succeeded', 'failed');

-- One large job an hour and route on the month's earlier days.
INSERT INTO jobs (id, app_id, state, lane, pool, queue, route, route_reason, overflow, model_requested, model_served,
                  background, prompt_tokens, max_tokens, output_tokens, finish_reason, usd, attempt,
                  created_at, queued_at, started_at, ended_at, start_by, end_user)
SELECT (lpad(to_hex((extract(epoch FROM hour) * 1000)::bigint), 12, '0') || '7' || left(md5(route), 3) || '8'
        || right(md5(route || hour), 15))::uuid,
       a.id, 'succeeded', 'normal', 'chat', 'chat.normal', route, 'room', 'allow', 'SmolLM2', 'SmolLM2', true, 90000, 50000,
       40000, 'stop',
       round((CASE route WHEN 'pool' THEN 0.55 ELSE 0.21 END * (1.2 + sin(extract(epoch FROM hour) / 13751)))::numeric, 6),
       1, hour, hour, hour + interval '2 s', hour + interval '7 minutes', hour + interval '10 minutes', 'user-1'
FROM generate_series(date_trunc('month', now(), 'UTC'), now() - interval '1 day', interval '1 hour') hour,
     (VALUES ('pool'), ('overflow')) routes (route), (SELECT id FROM apps WHERE name = 'shop') a;

INSERT INTO ledger (at, kind, job_id, attempt, app_id, pool, model, prompt_tokens, cached_tokens, output_tokens, engine_s,
                    usd, api_usd, price_version)
SELECT ended_at, CASE route WHEN 'pool' THEN 'compute' ELSE 'api' END, id, 1, app_id, pool, model_served, prompt_tokens, 0,
       output_tokens, 400, usd, CASE route WHEN 'pool' THEN 3.2 ELSE usd END, 'list-1'
FROM jobs WHERE prompt_tokens = 90000;

-- What the caches gave two of the apps. The ids are those of the jobs whose answers were given, with other last digits.
UPDATE jobs SET cache = 'miss' FROM apps a WHERE a.id = app_id AND a.name <> 'search' AND prompt_tokens <> 90000;

INSERT INTO jobs (id, app_id, state, lane, pool, queue, route, route_reason, overflow, model_requested, model_served,
                  background, prompt_tokens, max_tokens, output_tokens, finish_reason, usd, attempt, created_at, queued_at,
                  ended_at, start_by, cache, served_by_job)
SELECT (left(id::text, 28) || 'ffffffff')::uuid, app_id, state, lane, pool, queue, route, 'cache', overflow,
       model_requested, model_served, true, prompt_tokens, max_tokens, output_tokens, 'stop', 0, 0, created_at, queued_at,
       created_at, start_by, (ARRAY['hit', 'hit', 'semantic', 'shared', 'semantic'])[1 + abs(hashtext(id::text)) % 5], id
FROM jobs WHERE cache = 'miss' AND state = 'succeeded' AND hashtext(id::text) % 3 = 0;

INSERT INTO ledger (at, kind, job_id, app_id, pool, model, prompt_tokens, cached_tokens, output_tokens, usd, api_usd,
                    saved_usd)
SELECT hit.ended_at, 'cache', hit.id, hit.app_id, hit.pool, hit.model_served, hit.prompt_tokens, 0, hit.output_tokens, 0,
       source.usd * 1.6, source.usd
FROM jobs hit JOIN jobs source ON source.id = hit.served_by_job WHERE hit.cache <> 'miss';

INSERT INTO cache_matches (job_id, app_id, pool, entry_id, similarity, kind, at, is_right)
SELECT id, app_id, pool, coalesce(served_by_job, id), 0.9,
       CASE WHEN cache = 'semantic' THEN 'served' WHEN hashtext(id::text) % 7 = 0 THEN 'recheck' ELSE 'try' END, created_at,
       CASE WHEN cache = 'miss' THEN hashtext(id::text) % 79 <> 0 END
FROM jobs WHERE cache = 'semantic' OR cache = 'miss' AND hashtext(id::text) % 2 = 0;

INSERT INTO cache_entries (job_id, app_id, pool, scope, digest, embedding)
SELECT id, app_id, pool, 'scope', sha256(uuid_send(id)), '{1}' FROM jobs
WHERE cache = 'miss' AND state = 'succeeded' AND prompt_tokens % 5 = 0;

INSERT INTO cost_hours (pool, hour, host_s, boot_s, unpriced_hosts, bill_usd, boot_usd, requests, work, compute_usd,
                        waste_usd, factor, idle_usd_per_work, platform_usd, weigh_by, cached_weight, output_weight,
                        closed_at)
SELECT 'chat', hour, 3600 * hosts, 90, 0, 0.8 * hosts, 0.02, requests, work, usd, 0, 1,
       round(greatest(0.8 * hosts - usd, 0) / work, 18),
       0, 'tokens', 0.1, 4, now()
FROM (SELECT date_trunc('hour', at, 'UTC') AS hour, count(*) AS requests, sum(usd) AS usd,
             2 + (extract(hour FROM max(at)) BETWEEN 8 AND 19)::int + (extract(isodow FROM max(at)) < 6)::int AS hosts,
             sum(prompt_tokens + 4.0 * output_tokens) AS work
      FROM ledger WHERE kind = 'compute' AND at < date_trunc('hour', now(), 'UTC') GROUP BY 1) hours;

UPDATE cost_hours h
SET platform_usd = h.bill_usd - (SELECT coalesce(sum(requests_usd), 0) FROM cost_reconciliation r WHERE r.hour = h.hour);

INSERT INTO own_prices (pool, instance_type, usd_per_hour, tokens_per_s, work_per_token, input_usd_per_mtok,
                        cached_input_usd_per_mtok, output_usd_per_mtok) VALUES ('chat', 'big', 0.8, 350, 2, 0.5, 0.05, 2);

INSERT INTO queue_samples (queue, at, depth, oldest_wait_s, arrivals, refused, started, running, slots, hosts,
                           offered_tokens, kv_use)
SELECT 'chat.' || lane, now() - interval '1 minute' * m, greatest(0, load + 4 * sin(m / 7.0))::int / rank, 4, 10, 0, 9, 6, 16,
       CASE WHEN m > 1290 THEN 2 WHEN m > 1180 THEN 3 WHEN m > 880 THEN 4 WHEN m > 700 THEN 3 WHEN m > 95 THEN 2 ELSE 3 END,
       9000, least(0.97, 0.18 + load / 60.0 + 0.04 * sin(m / 9.0))
FROM generate_series(0, 1440) m, (VALUES ('high', 4), ('normal', 2), ('low', 1), ('batch', 1)) lanes (lane, rank),
     LATERAL (SELECT 38 * exp(-1 * ((m - 1060) / 170.0) ^ 2) + 20 * exp(-1 * ((m - 20) / 70.0) ^ 2) + 3 AS load) loads;

INSERT INTO decisions (at, pool, mode, hosts, target, reason, inputs, action, policy, applied_at)
SELECT now() - interval '1 minute' * m, 'chat', 'active', hosts, target, reason, '{}',
       CASE WHEN target > hosts THEN 'up' WHEN target < hosts THEN 'down' ELSE 'hold' END, 'predictive',
       now() - interval '1 minute' * (m - 1)
FROM (VALUES (1290, 2, 3, '31 jobs/s are expected in 4 minutes; 2 hosts serve 22.'),
             (1180, 3, 4, '43 jobs/s are expected in 4 minutes; 3 hosts serve 33.'),
             (880, 4, 3, 'One host is spare for 10 minutes.'), (700, 3, 2, 'One host is spare for 10 minutes.'),
             (95, 2, 3, '29 jobs/s are expected in 4 minutes; 2 hosts serve 22.'),
             (30, 3, 3, '3 hosts serve what is expected.')) made (m, hosts, target, reason);

INSERT INTO hosts (id, pool, instance_type, usd_per_hour, provider_id, requested_at, ordered_at, ready_at, drain_at,
                   ended_at, end_reason, decision_id)
SELECT 'host-' || left(md5(n::text), 8), 'chat', 'big', 0.8, 'i-0' || left(md5('i' || n), 9), at, at, at + interval '3 minutes',
       CASE WHEN n IN (2, 4, 5) THEN at + interval '5 hours' END, CASE WHEN n IN (4, 5) THEN at + interval '5.1 hours' END,
       CASE WHEN n IN (2, 4, 5) THEN 'scaled_down' END, (SELECT min(id) FROM decisions) + n - 1
FROM (SELECT n, now() - interval '4 hours' * n - interval '7 minutes' AS at FROM generate_series(1, 5) n) made;

-- Each host that is there has a worker.
INSERT INTO workers (id, name, host_id, pool, engine, model, max_running, kv_tokens, running, ready, lease_until)
SELECT gen_random_uuid(), 'gpu@' || id, id, pool, 'vllm', 'SmolLM2', 16, 131072, 16, true, now() + interval '1 day'
FROM hosts WHERE ended_at IS NULL;

INSERT INTO deliveries (id, app_id, job_id, event, url, state, tries, last_status, last_error, delivered_at)
SELECT gen_random_uuid(), app_id, id, 'job.' || state, webhook_url,
       CASE WHEN place % 7 = 0 THEN 'failed' WHEN place % 11 = 0 THEN 'pending' ELSE 'delivered' END, 1 + (place % 7 = 0)::int * 8,
       CASE WHEN place % 7 = 0 THEN 503 WHEN place % 11 = 0 THEN NULL ELSE 200 END,
       CASE WHEN place % 7 = 0 THEN 'The receiver answered 503.' END, CASE WHEN place % 7 <> 0 AND place % 11 <> 0 THEN ended_at END
FROM (SELECT *, row_number() OVER (ORDER BY id DESC) AS place FROM jobs WHERE webhook_url IS NOT NULL AND ended_at IS NOT NULL) j
WHERE place <= 40;

INSERT INTO budgets (id, app_id, period, starts_at, reserved_usd, spent_usd)
SELECT gen_random_uuid(), app_id, period, date_trunc(period, now(), 'UTC'), 0.02,
       usd * CASE period WHEN 'day' THEN 1 ELSE 11 END
FROM (SELECT id AS app_id, 1.7 AS usd FROM apps WHERE name <> 'search' UNION ALL SELECT NULL, 3.4) owners,
     (VALUES ('day'), ('month')) periods (period);

INSERT INTO budget_limits (day_usd, month_usd) VALUES (4, 60);

INSERT INTO audit_log (at, actor, source, action, subject, app_id, details)
SELECT now() - ago, actor, source, action, subject, (SELECT id FROM apps WHERE name = app), details::jsonb
FROM (VALUES
    (interval '3 days', 'root@batch-host-1', 'cli', 'app.create', 'support', 'support', '{"limits": {"queued_jobs": 200}}'),
    (interval '3 days', 'root@batch-host-1', 'cli', 'key.create', '019b2f64-a3c1-7d20-b6f1-c2d3e4f50617', 'support',
     '{"hint": "hr-Ab3dE", "scopes": ["read", "submit"], "expires_at": null}'),
    (interval '30 hours', 'ada', 'pages', 'budgets.set', 'all', NULL,
     '{"before": {"day_usd": "2", "month_usd": "60", "is_stored": true}, "after": {"day_usd": "4", "month_usd": "60", "is_stored": true}}'),
    (interval '5 hours', 'operator', 'celery', 'job.cancel', 'job_019b2f64a3c17d20b6f1c2d3e4f50617', 'shop', '{"state": "cancelled"}'),
    (interval '4 hours', 'grace', 'pages', 'app.limit', 'shop', 'shop', '{"before": {"queued_jobs": null}, "after": {"queued_jobs": 500}}'),
    (interval '2 hours', 'grace', 'pages', 'host.drain', 'host-eccbc87e', NULL, '{"pool": "chat", "state_before": "ready"}'),
    (interval '20 minutes', 'ada', 'pages', 'job.read_texts', 'job_019b2f64a3c17d20b6f1c2d3e4f50618', 'shop', '{"is_erased": false}')
) AS deeds (ago, actor, source, action, subject, app, details);

INSERT INTO batches (id, app_id, state, endpoint, model, input_file_id, output_file_id, error_file_id, completion_window,
                     overflow, webhook_url, retry_of, errors, total, completed, failed, prompt_tokens, output_tokens, usd,
                     created_at, expires_at, in_progress_at, finalizing_at, completed_at, failed_at, expired_at)
SELECT id::uuid, (SELECT apps.id FROM apps WHERE name = app), state, endpoint, CASE WHEN total > 0 THEN model END,
       gen_random_uuid(), CASE WHEN completed > 0 AND state IN ('completed', 'expired') THEN gen_random_uuid() END,
       CASE WHEN failed > 0 AND state IN ('completed', 'expired') THEN gen_random_uuid() END, '24h', 'never',
       CASE WHEN state = 'in_progress' THEN 'https://hooks.example.com/batches' END,
       CASE WHEN id LIKE '%0002' THEN '019b2f64a3c17d20b6f1c2d3e4f50003'::uuid END,
       CASE WHEN state = 'failed' THEN '[{"code": "duplicate_custom_id", "line": 17, "param": "custom_id",
            "message": "The custom_id ''row-16'' is that of an earlier line."}]'::jsonb END,
       total, completed, failed, completed * 220, completed * 140, completed * 0.00012, now() - ago,
       now() - ago + interval '24 hours', CASE WHEN total > 0 THEN now() - ago + interval '9 s' END,
       CASE WHEN state IN ('completed', 'expired') THEN now() - ago + interval '5 hours' END,
       CASE WHEN state = 'completed' THEN now() - ago + interval '302 minutes' END,
       CASE WHEN state = 'failed' THEN now() - ago + interval '4 s' END,
       CASE WHEN state = 'expired' THEN now() - ago + interval '24 hours' END
FROM (VALUES
    ('019b2f64a3c17d20b6f1c2d3e4f50006', 'shop', 'validating', '/v1/responses', 'SmolLM2', 0, 0, 0, interval '3 s'),
    ('019b2f64a3c17d20b6f1c2d3e4f50005', 'search', 'failed', '/v1/embeddings', 'words', 0, 0, 0, interval '40 minutes'),
    ('019b2f64a3c17d20b6f1c2d3e4f50004', 'search', 'in_progress', '/v1/embeddings', 'words', 50000, 45200, 0, interval '50 minutes'),
    ('019b2f64a3c17d20b6f1c2d3e4f50003', 'shop', 'expired', '/v1/chat/completions', 'SmolLM2', 20000, 17500, 2500, interval '3 days'),
    ('019b2f64a3c17d20b6f1c2d3e4f50002', 'shop', 'completed', '/v1/chat/completions', 'SmolLM2', 2500, 2500, 0, interval '2 days'),
    ('019b2f64a3c17d20b6f1c2d3e4f50001', 'shop', 'in_progress', '/v1/chat/completions', 'SmolLM2', 12000, 4310, 12, interval '2 hours')
) AS made (id, app, state, endpoint, model, total, completed, failed, ago);

-- Of the batch that runs, as many lines as its counts say.
INSERT INTO batch_lines (batch_id, number, custom_id, state, prefix, body, job_id, submitted_at)
SELECT '019b2f64a3c17d20b6f1c2d3e4f50001', n, 'row-' || n,
       CASE WHEN n <= 4310 THEN 'succeeded' WHEN n <= 4322 THEN 'failed' WHEN n <= 4450 THEN 'submitted' ELSE 'waiting' END,
       'Summarise:', '{"messages": []}', CASE WHEN n <= 4450 THEN gen_random_uuid() END,
       CASE WHEN n <= 4450 THEN now() END
FROM generate_series(1, 12000) n;
