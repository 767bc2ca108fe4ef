CREATE VIEW batch_costs AS
SELECT b.id AS batch_id,
       a.name AS app,
       b.state,
       b.endpoint,
       b.model,
       b.completion_window,
       b.overflow,
       b.created_at,
       b.expires_at,
       coalesce(b.completed_at, b.failed_at, b.expired_at, b.cancelled_at) AS ended_at,
       b.total AS lines,
       b.completed,
       b.failed,
       s.jobs,
       s.first_started_at,
       s.last_ended_at,
       s.prompt_tokens,
       s.cached_tokens,
       s.output_tokens,
       s.usd,
       s.waste_usd,
       s.saved_usd,
       s.api_usd,
       s.full_usd,
       'batch_' || replace(b.id::text, '-', '') AS public_id,
       (SELECT jsonb_object_agg(k.key, left(b.metadata->>k.key, 64)) FROM label_keys k WHERE b.metadata ? k.key)
           AS labels
FROM batches b
JOIN apps a ON a.id = b.app_id
-- For each batch by itself, so that one batch reads its own jobs alone.
CROSS JOIN LATERAL (
    SELECT count(DISTINCT j.id) AS jobs,
           min(j.started_at) AS first_started_at,
           max(j.ended_at) AS last_ended_at,
           coalesce(sum(l.prompt_tokens) FILTER (WHERE l.kind IN ('compute', 'api', 'cache')), 0) AS prompt_tokens,
           coalesce(sum(l.cached_tokens) FILTER (WHERE l.kind IN ('compute', 'api', 'cache')), 0) AS cached_tokens,
           coalesce(sum(l.output_tokens) FILTER (WHERE l.kind IN ('compute', 'api', 'cache')), 0) AS output_tokens,
           coalesce(sum(l.usd) FILTER (WHERE l.kind <> 'waste'), 0) AS usd,
           coalesce(sum(l.usd) FILTER (WHERE l.kind = 'waste'), 0) AS waste_usd,
           coalesce(sum(l.saved_usd), 0) AS saved_usd,
           sum(l.api_usd) FILTER (WHERE l.kind <> 'waste') AS api_usd,
           coalesce(sum(CASE WHEN h.pool IS NULL THEN l.usd
                             ELSE full_usd(l.usd,
                                           request_work(l.prompt_tokens, l.cached_tokens, l.output_tokens,
                                                        l.kv_token_s, h.weigh_by, h.cached_weight, h.output_weight),
                                           h.factor, h.idle_usd_per_work)
                        END) FILTER (WHERE l.kind <> 'waste'), 0) AS full_usd
    FROM jobs j
    LEFT JOIN ledger l ON l.job_id = j.id
    LEFT JOIN cost_hours h ON l.kind = 'compute' AND h.pool = l.pool AND h.hour = date_trunc('hour', l.at, 'UTC')
    WHERE j.notes ->> 'batches' = 'batch_' || replace(b.id::text, '-', '')
) s;

COMMENT ON VIEW batch_costs IS 'One row for each batch: what became of its lines, and what they cost.';
COMMENT ON COLUMN batch_costs.batch_id IS 'The batch''s UUID; batches.id.';
COMMENT ON COLUMN batch_costs.app IS 'The app''s name.';
COMMENT ON COLUMN batch_costs.state IS
    'validating, failed, in_progress, finalizing, completed, expired, cancelling or cancelled.';
COMMENT ON COLUMN batch_costs.endpoint IS 'The path of all its lines.';
COMMENT ON COLUMN batch_costs.model IS 'The model that its lines name; NULL: its file is not read, or a rule chooses.';
COMMENT ON COLUMN batch_costs.completion_window IS 'How long its lines have, as the app wrote it.';
COMMENT ON COLUMN batch_costs.overflow IS 'Whether the paid API may answer its lines: allow, never or only.';
COMMENT ON COLUMN batch_costs.created_at IS 'When it was made.';
COMMENT ON COLUMN batch_costs.expires_at IS 'The end of its window.';
COMMENT ON COLUMN batch_costs.ended_at IS 'When it ended; NULL: it has not.';
COMMENT ON COLUMN batch_costs.lines IS 'Lines of its file; 0 before it is read.';
COMMENT ON COLUMN batch_costs.completed IS 'Lines with an answer.';
COMMENT ON COLUMN batch_costs.failed IS 'Lines that ended without an answer.';
COMMENT ON COLUMN batch_costs.jobs IS 'Jobs of its lines so far. A line that was refused, or expired before, has none.';
COMMENT ON COLUMN batch_costs.first_started_at IS 'When its first job started; NULL: none has.';
COMMENT ON COLUMN batch_costs.last_ended_at IS 'When its last job ended, as of now; NULL: none has.';
COMMENT ON COLUMN batch_costs.prompt_tokens IS 'Tokens of the prompts, cached ones included.';
COMMENT ON COLUMN batch_costs.cached_tokens IS 'The prompts'' tokens that a cache of prefixes had.';
COMMENT ON COLUMN batch_costs.output_tokens IS 'Tokens of the answers, thoughts included.';
COMMENT ON COLUMN batch_costs.usd IS 'What the app is charged.';
COMMENT ON COLUMN batch_costs.waste_usd IS 'Failed and lost attempts; not charged to the app.';
COMMENT ON COLUMN batch_costs.saved_usd IS 'What caches, shared attempts and compression saved.';
COMMENT ON COLUMN batch_costs.api_usd IS 'The same tokens at the paid API''s list price; NULL: it has none.';
COMMENT ON COLUMN batch_costs.public_id IS 'The batch''s id as apps see it.';
COMMENT ON COLUMN batch_costs.full_usd IS
    'usd, with the share of hosts that were paid for and not used; equals usd until the hour closes.';
COMMENT ON COLUMN batch_costs.labels IS
    'The metadata that [costs].label_keys names, 64 characters of each value; NULL: none.';
