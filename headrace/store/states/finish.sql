-- Ends jobs with their attempts: state and result, the attempt's row, the ledger's entry, the answer. Writes nothing
-- about a job whose claim no longer holds.
--
-- Run by: workers, for all jobs that end together in the same state (headrace/store/attempts.py).
-- Parameters: given, a JSON list, all of one month, of the claim {job_id, worker_id, attempt, enqueue_no} and the
--     attempt's end; first_id, last_id, the month's bounds; state, the jobs' final state.
-- Returns: each ended job, with what its webhook needs.
WITH given AS (
    SELECT * FROM json_to_recordset(:'given'::json) AS sent (
        job_id uuid, worker_id uuid, attempt int, enqueue_no int, app_id uuid, end_user text, pool text, model text,
        model_served text, host_id text, kind text, outcome text, error_code text, error_message text,
        finish_reason text, prompt_tokens int, cached_tokens int, output_tokens int, reasoning_tokens int,
        original_tokens int, engine_s float8, first_token_s float8, preemptions int, kv_token_s float8, usd numeric,
        charged_usd numeric, price_version text, api_usd numeric, estimated boolean, saved_usd numeric, reason text,
        escalated_by text, error_cause text, notes jsonb, answer text, logprobs_json json, reasoning text, tool_calls jsonb, choices json
    )
    -- Always true: see claim.sql.
    WHERE enqueue_no BETWEEN 0 AND 2147483647
), moved AS (
    UPDATE jobs
    SET state = :'state', worker_id = NULL, ended_at = now(), usd = given.charged_usd,
        prompt_tokens = coalesce(nullif(given.prompt_tokens, 0), jobs.prompt_tokens),
        output_tokens = given.output_tokens, cached_tokens = given.cached_tokens,
        reasoning_tokens = given.reasoning_tokens, original_tokens = given.original_tokens,
        finish_reason = given.finish_reason, model_served = given.model_served,
        error_code = given.error_code, error_message = given.error_message,
        notes = CASE WHEN given.notes IS NULL THEN jobs.notes ELSE coalesce(jobs.notes, '{}') || given.notes END
    FROM given
    WHERE jobs.id = given.job_id AND jobs.id BETWEEN :'first_id' AND :'last_id'
        AND jobs.id = ANY (ARRAY(SELECT job_id FROM given))
        AND jobs.state || '' = 'running'
        AND jobs.worker_id = given.worker_id AND jobs.attempt = given.attempt
        -- An attempt's number that was handed back is used again, perhaps by the same worker.
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
    WHERE attempts.job_id = held.job_id AND attempts.job_id BETWEEN :'first_id' AND :'last_id'
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
    WHERE job_texts.job_id = held.job_id AND job_texts.job_id BETWEEN :'first_id' AND :'last_id'
        AND job_texts.job_id = ANY (ARRAY(SELECT job_id FROM given))
        AND held.answer IS NOT NULL
)
SELECT * FROM moved;
