-- Takes the next waiting lines of a batch that is in progress, in the order in which they run: each has a job's id from
-- now on, and is submitted.
--
-- Run by: `batches`, for each turn of a batch while its lane has room (headrace/store/batches.py).
-- Parameters: batch_id; ids, new ids of jobs: as many as lines are taken at most. A line that was given back keeps its
--     own.
-- Returns: the lines in their order. `is_again` is that of a line that had an id before.
WITH chosen AS MATERIALIZED (
    SELECT number, prefix, length(body) AS length
    FROM batch_lines
    -- A literal, as in the predicate of the partial index.
    WHERE batch_id = :'batch_id'::uuid AND state = 'waiting'
        AND EXISTS (SELECT FROM batches WHERE batches.id = :'batch_id'::uuid AND batches.state = 'in_progress')
    ORDER BY prefix, length(body), number
    LIMIT cardinality(:'ids'::uuid[])
    FOR UPDATE OF batch_lines SKIP LOCKED
), given AS (
    SELECT number, (:'ids'::uuid[])[row_number() OVER (ORDER BY prefix, length, number)] AS new_id FROM chosen
), taken AS (
    UPDATE batch_lines
    SET state = 'submitted', job_id = coalesce(batch_lines.job_id, given.new_id), submitted_at = now()
    FROM given
    WHERE batch_lines.batch_id = :'batch_id'::uuid AND batch_lines.number = given.number
    RETURNING
        batch_lines.batch_id, batch_lines.number, batch_lines.custom_id, batch_lines.state, batch_lines.body,
        batch_lines.job_id, batch_lines.status_code, batch_lines.refusal, batch_lines.prefix,
        batch_lines.job_id <> given.new_id AS is_again
)
SELECT * FROM taken ORDER BY prefix, length(body), number;
