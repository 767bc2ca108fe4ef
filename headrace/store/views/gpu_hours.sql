CREATE VIEW gpu_hours AS
SELECT c.pool,
       c.hour,
       host_s / 3600 AS host_hours,
       boot_s / 3600 AS boot_hours,
       unpriced_hosts,
       requests,
       bill_usd,
       trunc(compute_usd * factor, 9) AS used_usd,
       trunc(waste_usd * factor, 9) AS waste_usd,
       boot_usd,
       bill_usd - trunc(compute_usd * factor, 9) - trunc(waste_usd * factor, 9) - dead_usd AS idle_usd,
       platform_usd,
       compute_usd / nullif(bill_usd, 0) AS use,
       closed_at,
       dead_s / 3600 AS dead_hours,
       dead_usd
FROM cost_hours c
CROSS JOIN LATERAL (
    SELECT coalesce(sum(h.dead_s), 0) AS dead_s, coalesce(sum(h.dead_usd), 0) AS dead_usd
    FROM host_hours h
    WHERE h.pool = c.pool AND h.hour = c.hour
) d;

COMMENT ON VIEW gpu_hours IS
    'Each pool and closed hour of UTC: what its hosts cost, and how much was used. The boot is part of idle_usd.';
COMMENT ON COLUMN gpu_hours.pool IS 'The pool whose hosts serve it, or would have.';
COMMENT ON COLUMN gpu_hours.hour IS 'Its start, in UTC.';
COMMENT ON COLUMN gpu_hours.host_hours IS 'Hours of hosts that the bill covers.';
COMMENT ON COLUMN gpu_hours.boot_hours IS 'The part of these hours before the host was ready.';
COMMENT ON COLUMN gpu_hours.unpriced_hosts IS 'Hosts without a price, which the bill does not cover.';
COMMENT ON COLUMN gpu_hours.requests IS 'Charged ones: a failed or lost attempt is waste, and no request.';
COMMENT ON COLUMN gpu_hours.bill_usd IS 'The pool''s part of the bills of its machines.';
COMMENT ON COLUMN gpu_hours.used_usd IS 'The part of the bill that the prices of requests cover.';
COMMENT ON COLUMN gpu_hours.waste_usd IS 'The part for failed and lost attempts.';
COMMENT ON COLUMN gpu_hours.boot_usd IS 'The part for boot_hours.';
COMMENT ON COLUMN gpu_hours.idle_usd IS 'The part for time in which the hosts could have done more.';
COMMENT ON COLUMN gpu_hours.platform_usd IS
    'The part of the hosts'' bill that no request pays: waste, dead machines, hours without requests, digits below the last.';
COMMENT ON COLUMN gpu_hours.use IS
    'The prices of requests over the bill. Above 1: the prices add up to more than the bill.';
COMMENT ON COLUMN gpu_hours.closed_at IS 'When the hour was last closed.';
COMMENT ON COLUMN gpu_hours.dead_hours IS 'The part of host_hours in which owned machines had no worker.';
COMMENT ON COLUMN gpu_hours.dead_usd IS 'The part of the bill for dead_hours.';
