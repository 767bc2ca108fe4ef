-- Renews a worker's lease, by the database's clock. The same round trip returns what the worker must stop.
--
-- Run by: workers, each second (headrace/store/fleet/workers.py).
-- Parameters: worker_id; lease_s, how long the lease holds, in seconds; running, ready, draining, its report.
-- Returns: a row for each job that it holds, one without a job if it holds none: `drains`, whether its host drains;
--     `confined`, the pool's confined apps as JSON, each with the job that only another live worker may run; and the
--     job's `id`, `enqueue_no`, `cancel_requested_at` and `is_overdue`.
WITH renewed AS (
    UPDATE workers
    SET lease_until = now() + :'lease_s'::float8 * interval '1 s',
        running = :'running'::int, ready = :'ready'::boolean, draining = :'draining'::boolean
    WHERE id = :'worker_id'::uuid
    RETURNING id, pool, host_id
), host AS (
    SELECT
        EXISTS (
            SELECT FROM renewed JOIN hosts ON hosts.pool = renewed.pool AND hosts.ended_at IS NULL
                AND (hosts.id = renewed.host_id OR hosts.provider_id = renewed.host_id)
            WHERE hosts.drain_at IS NOT NULL
        ) AS drains,
        (
            SELECT json_agg(json_build_array(confinements.app_id, (
                SELECT confinements.job_id FROM workers other
                WHERE other.id = confinements.worker_id AND other.id <> renewed.id AND other.lease_until > now()
            )))
            FROM renewed JOIN confinements ON confinements.pool = renewed.pool AND confinements.until > now()
        ) AS confined
)
SELECT host.drains, host.confined, jobs.id, jobs.enqueue_no, jobs.cancel_requested_at,
    coalesce(jobs.finish_by <= now(), false) AS is_overdue
FROM host
LEFT JOIN jobs ON jobs.worker_id = :'worker_id'::uuid AND jobs.state = 'running';
