-- Ends the rows of attempts whose jobs go on, and writes what they cost to the ledger. The caller has moved the jobs.
--
-- Run by: workers that put a job back (headrace/store/attempts.py).
-- Parameters: given, a JSON list of attempts' ends, all of one month; first_id, last_id, the month's bounds.
-- Returns: no row.
WITH given AS (
    SELECT * FROM json_to_recordset(:'given'::json) AS sent (
        job_id uuid, attempt int, enqueue_no int, app_id uuid, end_user text, pool text, model text, model_served text,
        host_id text, kind text, outcome text, error_code text, prompt_tokens int, cached_tokens int,
        output_tokens int, engine_s float8, first_token_s float8, preemptions int, kv_token_s float8, usd numeric,
        price_version text, api_usd numeric, estimated boolean, saved_usd numeric, reason text, escalated_by text,
        error_cause text
    )
    -- Always true: see ../states/claim.sql.
    WHERE enqueue_no BETWEEN 0 AND 2147483647
), ended AS (
    UPDATE attempts
    SET ended_at = now(), outcome = given.outcome, error_code = given.error_code, model_served = given.model_served,
        first_token_s = given.first_token_s, preemptions = given.preemptions, escalated_by = given.escalated_by,
        error_cause = given.error_cause,
        prompt_tokens = given.prompt_tokens, cached_tokens = given.cached_tokens, output_tokens = given.output_tokens,
        engine_s = given.engine_s
    FROM given
    WHERE attempts.job_id = given.job_id AND attempts.job_id BETWEEN :'first_id' AND :'last_id'
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
