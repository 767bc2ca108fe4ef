-- A job has one bill at most, and seldom any other entry.
CREATE VIEW cost_per_request AS
SELECT j.id AS job_id,
       a.name AS app,
       j.end_user,
       j.created_at,
       j.state,
       j.lane,
       j.queue,
       j.route,
       j.model_requested,
       j.model_served,
       j.attempt AS attempts,
       coalesce(b.prompt_tokens, 0) AS prompt_tokens,
       coalesce(b.cached_tokens, 0) AS cached_tokens,
       coalesce(b.output_tokens, 0) AS output_tokens,
       coalesce(b.engine_s, 0) + coalesce(o.engine_s, 0) AS engine_s,
       coalesce(b.usd, 0) + coalesce(o.usd, 0) AS usd,
       coalesce(o.waste_usd, 0) AS waste_usd,
       coalesce(b.api_usd + coalesce(o.api_usd, 0), o.api_usd) AS api_usd,
       extract(epoch FROM j.started_at - j.created_at) AS wait_s,
       extract(epoch FROM j.ended_at - j.started_at) AS run_s,
       j.ended_at,
       j.error_code,
       j.pool,
       CASE WHEN h.pool IS NULL THEN coalesce(b.usd, 0)
            ELSE full_usd(b.usd,
                          request_work(b.prompt_tokens, b.cached_tokens, b.output_tokens, b.kv_token_s,
                                       h.weigh_by, h.cached_weight, h.output_weight),
                          h.factor, h.idle_usd_per_work)
       END + coalesce(o.usd, 0) AS full_usd,
       CASE WHEN b.kind IS NULL THEN NULL
            WHEN b.kind <> 'compute' THEN b.kind
            WHEN h.pool IS NULL THEN 'price'
            ELSE 'hosts'
       END AS cost_basis,
       'job_' || replace(j.id::text, '-', '') AS public_id,
       (SELECT jsonb_object_agg(k.key, left(j.metadata->>k.key, 64)) FROM label_keys k WHERE j.metadata ? k.key)
           AS labels
FROM jobs j
JOIN apps a ON a.id = j.app_id
LEFT JOIN ledger b ON b.job_id = j.id AND b.kind IN ('compute', 'api', 'cache')
LEFT JOIN (
    SELECT job_id,
           sum(engine_s) AS engine_s,
           sum(usd) FILTER (WHERE kind <> 'waste') AS usd,
           sum(usd) FILTER (WHERE kind = 'waste') AS waste_usd,
           sum(api_usd) FILTER (WHERE kind <> 'waste') AS api_usd
    FROM ledger
    WHERE kind NOT IN ('compute', 'api', 'cache')
    GROUP BY job_id
) o ON o.job_id = j.id
LEFT JOIN cost_hours h ON b.kind = 'compute' AND h.pool = b.pool AND h.hour = date_trunc('hour', b.at, 'UTC');

COMMENT ON VIEW cost_per_request IS
    'One row for each job: what it cost, how long it waited and ran, and where it was served.';
COMMENT ON COLUMN cost_per_request.job_id IS 'The job''s UUID; jobs.id.';
COMMENT ON COLUMN cost_per_request.app IS 'The app''s name; NULL: the platform.';
COMMENT ON COLUMN cost_per_request.end_user IS 'The app''s own name for its user, from the request; NULL: not named.';
COMMENT ON COLUMN cost_per_request.created_at IS 'When it was accepted.';
COMMENT ON COLUMN cost_per_request.state IS 'waiting, queued, running, succeeded, failed, cancelled or expired.';
COMMENT ON COLUMN cost_per_request.lane IS 'high, normal, low or batch.';
COMMENT ON COLUMN cost_per_request.queue IS 'The queue in which it was last.';
COMMENT ON COLUMN cost_per_request.route IS 'pool: own hosts; overflow: the paid API.';
COMMENT ON COLUMN cost_per_request.model_requested IS 'The model that the request named.';
COMMENT ON COLUMN cost_per_request.model_served IS 'The model that answered; NULL: none did.';
COMMENT ON COLUMN cost_per_request.attempts IS 'Starts of the job.';
COMMENT ON COLUMN cost_per_request.prompt_tokens IS 'Tokens of the prompts, cached ones included.';
COMMENT ON COLUMN cost_per_request.cached_tokens IS 'The prompt''s tokens that a cache of prefixes had.';
COMMENT ON COLUMN cost_per_request.output_tokens IS 'Tokens of the answers, thoughts included.';
COMMENT ON COLUMN cost_per_request.engine_s IS 'Seconds on an engine.';
COMMENT ON COLUMN cost_per_request.usd IS 'What the app is charged.';
COMMENT ON COLUMN cost_per_request.waste_usd IS 'Failed and lost attempts; not charged to the app.';
COMMENT ON COLUMN cost_per_request.api_usd IS 'The same tokens at the paid API''s list price; NULL: it has none.';
COMMENT ON COLUMN cost_per_request.wait_s IS 'From acceptance to the first start.';
COMMENT ON COLUMN cost_per_request.run_s IS 'From the first start to the end.';
COMMENT ON COLUMN cost_per_request.ended_at IS 'When it ended; NULL: it has not.';
COMMENT ON COLUMN cost_per_request.error_code IS 'Why it failed.';
COMMENT ON COLUMN cost_per_request.pool IS 'The pool whose hosts serve it, or would have.';
COMMENT ON COLUMN cost_per_request.full_usd IS
    'usd, with the share of hosts that were paid for and not used; equals usd until the hour closes.';
COMMENT ON COLUMN cost_per_request.cost_basis IS
    'hosts: full_usd shares the bill of the hosts; price: only a price is known so far; api: the provider''s list '
    'price; cache: served without computing. NULL: nothing was charged.';
COMMENT ON COLUMN cost_per_request.public_id IS 'The job''s id as apps see it.';
COMMENT ON COLUMN cost_per_request.labels IS
    'The metadata that [costs].label_keys names, 64 characters of each value; NULL: none, or the job was erased.';
