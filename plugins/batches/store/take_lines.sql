-- Takes the next waiting lines of a batch that is in progress, in the order in which they run: each has a job's id from
-- now on, and is submitted.
--
-- Run by: `batches`, for each turn of a batch while its lane has room (headrace/store/batches/__init__.py).
-- Parameters: batch_id; ids, new ids of jobs: as many as lines are taken at most; a line that was given back keeps its
--     own. most_bytes: no line is taken after those before it have as many.
-- Returns: the lines in their order. `is_again` is that of a line that had an id before.
WITH chosen AS MATERIALIZED (
    SELECT number, prefix, length(body) AS length, octet_length(body) AS size
    FROM batch_lines
    -- A literal, as in the predicate of the partial index.
    WHERE batch_id = :'batch_id'::uuid AND state = 'waiting'
        AND EXISTS (SELECT FROM batches WHERE batches.id = :'batch_id'::uuid AND batches.state = 'in_progress')
    ORDER BY prefix, length(body), number
    LIMIT cardinality(:'ids'::uuid[])
    FOR UPDATE OF batch_lines SKIP LOCKED
), given AS (
    SELECT number, (:'ids'::uuid[])[row_number() OVER in_order] AS new_id, sum(size) OVER in_order - size AS bytes_before
    FROM chosen
    WINDOW in_order AS (ORDER BY prefix, length, number)
), taken AS (
    UPDATE batch_lines
    SET state = 'submitted', job_id = coalesce(batch_lines.job_id, given.new_id), submitted_at = now()
    FROM given
    WHERE batch_lines.batch_id = :'batch_id'::uuid AND batch_lines.number = given.number
        AND given.bytes_before < :'most_bytes'::bigint
    RETURNING
        batch_lines.batch_id, batch_lines.number, batch_lines.custom_id, batch_lines.state, batch_lines.body,
        batch_lines.job_id, batch_lines.status_code, batch_lines.refusal, batch_lines.prefix,
        batch_lines.job_id <> given.new_id AS is_again
)
SELECT * FROM taken ORDER BY prefix, length(body), number;
