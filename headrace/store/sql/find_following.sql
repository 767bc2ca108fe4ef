-- As find.sql, for jobs that wait for the answer of another one, their leader: it looks at that job, too.
--
-- The leader may be of any month, so this plans, locks and opens the jobs of all months.
--
-- Run by: web processes, for the jobs that find.sql has found to follow (headrace/store/jobs/__init__.py).
-- Parameters: those of find.sql.
-- Returns: as find.sql. `is_over`: a job that shares an answer has started when its leader has. `is_leader_ended`: its
--     leader has ended, and the job can be settled.
WITH given AS (
    SELECT * FROM json_to_recordset(:'given'::json) AS sent (app_id uuid, job_id uuid)
    -- Always true: see ../states/claim.sql.
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
    -- A list leaves vectors of embeddings out, too.
    CASE WHEN NOT :'is_listed'::boolean OR jobs.max_tokens > 0 THEN job_texts.answer END AS answer,
    CASE WHEN NOT :'is_listed'::boolean THEN job_texts.reasoning END AS reasoning,
    CASE WHEN NOT :'is_listed'::boolean AND :'has_tools'::boolean THEN job_texts.sampling -> 'tools' END AS tools,
    CASE WHEN NOT :'is_listed'::boolean THEN job_texts.choices END AS others,
    -- As text: the API passes them on as they are stored.
    CASE WHEN NOT :'is_listed'::boolean THEN coalesce(job_texts.logprobs_json::text, job_texts.logprobs::text) END
        AS logprobs,
    jobs.state IN ('waiting', 'queued') AND (
        jobs.started_at IS NULL AND jobs.start_by <= now() AND leader.started_at IS NULL
        OR coalesce(jobs.finish_by <= now(), false)
    ) AS is_over,
    jobs.state = 'waiting' AND coalesce(leader.state IN ('succeeded', 'failed', 'cancelled', 'expired'), false)
        AS is_leader_ended
FROM given
JOIN jobs ON jobs.id = given.job_id AND jobs.app_id = given.app_id AND jobs.id BETWEEN :'first_id' AND :'last_id'
    AND jobs.id = ANY (ARRAY(SELECT job_id FROM given))
JOIN job_texts ON job_texts.job_id = jobs.id AND job_texts.job_id BETWEEN :'first_id' AND :'last_id'
    AND job_texts.job_id = ANY (ARRAY(SELECT job_id FROM given))
LEFT JOIN attempts ON attempts.job_id = jobs.id AND attempts.job_id BETWEEN :'first_id' AND :'last_id'
    AND attempts.job_id = ANY (ARRAY(SELECT job_id FROM given))
    AND attempts.number = jobs.attempt
LEFT JOIN ledger ON ledger.job_id = jobs.id AND ledger.job_id BETWEEN :'first_id' AND :'last_id'
    AND ledger.job_id = ANY (ARRAY(SELECT job_id FROM given))
    -- Literals, as in the predicate of the partial index. At most one entry.
    AND ledger.kind IN ('compute', 'api', 'cache')
LEFT JOIN jobs leader ON leader.id = jobs.served_by_job;
