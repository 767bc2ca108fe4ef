-- Says which stays in a queue are over, once that is on disk: a claim does not wait for it (../states/claim.sql).
--
-- Run by: workers, after their claims (headrace/store/jobs/queued.py).
-- Parameters: given, a JSON list of stays {job_id, enqueue_no}, all of one month; first_id, last_id, the month's bounds.
-- Returns: each stay whose job does not wait under this number any more.
WITH given AS (
    SELECT * FROM json_to_recordset(:'given'::json) AS sent (job_id uuid, enqueue_no int)
    -- Always true: see ../states/claim.sql.
    WHERE enqueue_no BETWEEN 0 AND 2147483647
)
SELECT
    given.job_id, given.enqueue_no,
    -- A message that has no reader. The log is written in order, so the commit puts all that is seen here on disk.
    pg_logical_emit_message(true, 'headrace', '')
FROM given
LEFT JOIN jobs ON jobs.id = given.job_id AND jobs.id BETWEEN :'first_id' AND :'last_id'
    AND jobs.id = ANY (ARRAY(SELECT job_id FROM given))
    AND jobs.enqueue_no = given.enqueue_no AND jobs.state || '' = 'queued'
WHERE jobs.id IS NULL;
