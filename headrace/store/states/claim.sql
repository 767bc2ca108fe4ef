-- Claims queued jobs for a worker: each becomes `running`, and its attempt's row begins.
--
-- Run by: workers, for all messages that they take together (headrace/store/attempts.py).
-- Parameters: given, a JSON list of {job_id, enqueue_no, worker_id, engine}, all of one month;
--     first_id, last_id, the month's bounds; is_before_disk, whether it returns before its commit is on disk, or on a standby:
--     headrace/store/sql/over.sql waits for both.
-- Returns: each claimed job with its prompt. A job is left out if another worker has it, if it has ended, if its time
--     has passed, or if this worker's lease has.
WITH given AS (
    SELECT * FROM json_to_recordset(:'given'::json) AS sent (job_id uuid, enqueue_no int, worker_id uuid, engine text)
    -- Always true. With it the planner expects one row, and looks up each job by its key. With its estimate for
    -- functions it would scan whole tables while they are new and have no statistics.
    WHERE enqueue_no BETWEEN 0 AND 2147483647
), claimed AS (
    UPDATE jobs
    SET state = 'running', worker_id = given.worker_id, attempt = jobs.attempt + 1,
        started_at = coalesce(jobs.started_at, now())
    FROM given
    -- Between the month's bounds Postgres plans, locks and opens one partition. The array names the ids again: while
    -- the month has no statistics, the planner would read all of it between the bounds.
    WHERE jobs.id = given.job_id AND jobs.id BETWEEN :'first_id' AND :'last_id'
        AND jobs.id = ANY (ARRAY(SELECT job_id FROM given))
        -- An expression, so that the planner takes the key and no index on the state.
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
    -- Without a row, the commit waits for the disk.
    CASE WHEN :'is_before_disk'::boolean THEN set_config('synchronous_commit', 'off', true) END
FROM claimed
JOIN job_texts ON job_texts.job_id = claimed.id AND job_texts.job_id BETWEEN :'first_id' AND :'last_id'
    AND job_texts.job_id = ANY (ARRAY(SELECT job_id FROM given));
