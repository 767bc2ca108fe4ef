-- Locks the rows of running jobs while their claims hold.
--
-- Run by: workers, before they reserve money for a call to the paid API (headrace/store/attempts.py).
-- Parameters: given, a JSON list of claims {job_id, worker_id, attempt, enqueue_no}, all of one month;
--     first_id, last_id, the month's bounds.
-- Returns: the id of each job whose claim holds.
WITH given AS (
    SELECT * FROM json_to_recordset(:'given'::json) AS sent (job_id uuid, worker_id uuid, attempt int, enqueue_no int)
    -- Always true: see ../states/claim.sql.
    WHERE enqueue_no BETWEEN 0 AND 2147483647
)
SELECT jobs.id
FROM given
JOIN jobs ON jobs.id = given.job_id AND jobs.id BETWEEN :'first_id' AND :'last_id'
    AND jobs.id = ANY (ARRAY(SELECT job_id FROM given))
    AND jobs.worker_id = given.worker_id AND jobs.attempt = given.attempt AND jobs.enqueue_no = given.enqueue_no
-- An expression, so that the planner takes the key and no index on the state.
WHERE jobs.state || '' = 'running'
FOR UPDATE OF jobs;
