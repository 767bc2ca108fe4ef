-- Reads the next page of each queue: its queued jobs after a mark, in the order in which they were queued.
--
-- Run by: the control process, in `publish_due` (headrace/store/jobs/queued.py).
-- Parameters: queues, times, ids, arrays of one length: each queue, and the time and the job of its mark; until, the
--     time before which jobs were queued; most, the jobs of each page.
-- Returns: the jobs' rows, queue by queue.
SELECT page.*
FROM unnest(:'queues'::text[], :'times'::timestamptz[], :'ids'::uuid[]) AS marks (queue, queued_at, id)
CROSS JOIN LATERAL (
    SELECT id, app_id, queue, lane, prompt_tokens, max_tokens, start_by, enqueue_no, suspicion, n, queued_at
    FROM jobs
    WHERE jobs.state = 'queued' AND jobs.queue = marks.queue
        AND (jobs.queued_at, jobs.id) > (marks.queued_at, marks.id)
        AND jobs.queued_at < :'until'::timestamptz
    ORDER BY jobs.queued_at, jobs.id
    LIMIT :'most'::int
) page
ORDER BY page.queue, page.queued_at, page.id;
