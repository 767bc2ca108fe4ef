CREATE VIEW gpu_hours AS
SELECT pool,
       hour,
       host_s / 3600 AS host_hours,
       boot_s / 3600 AS boot_hours,
       unpriced_hosts,
       requests,
       bill_usd,
       trunc(compute_usd * factor, 9) AS used_usd,
       trunc(waste_usd * factor, 9) AS waste_usd,
       boot_usd,
       bill_usd - trunc(compute_usd * factor, 9) - trunc(waste_usd * factor, 9) AS idle_usd,
       platform_usd,
       compute_usd / nullif(bill_usd, 0) AS use,
       closed_at
FROM cost_hours;

COMMENT ON VIEW gpu_hours IS
    'Each pool and closed hour of UTC: what its hosts cost, and how much was used. The boot is part of idle_usd.';
COMMENT ON COLUMN gpu_hours.pool IS 'The pool whose hosts serve it, or would have.';
COMMENT ON COLUMN gpu_hours.hour IS 'Its start, in UTC.';
COMMENT ON COLUMN gpu_hours.host_hours IS 'Hours of hosts that the bill covers.';
COMMENT ON COLUMN gpu_hours.boot_hours IS 'Those of them before the host was ready.';
COMMENT ON COLUMN gpu_hours.unpriced_hosts IS 'Hosts without a price, which the bill does not cover.';
COMMENT ON COLUMN gpu_hours.requests IS 'Charged ones: a failed or lost attempt is waste, and no request.';
COMMENT ON COLUMN gpu_hours.bill_usd IS 'The leases of the hosts times their price.';
COMMENT ON COLUMN gpu_hours.used_usd IS 'The part of the bill that the prices of requests cover.';
COMMENT ON COLUMN gpu_hours.waste_usd IS 'The part for failed and lost attempts.';
COMMENT ON COLUMN gpu_hours.boot_usd IS 'The part for boot_hours.';
COMMENT ON COLUMN gpu_hours.idle_usd IS 'The rest of the bill.';
COMMENT ON COLUMN gpu_hours.platform_usd IS
    'Of the hosts'' bill, what no request pays: waste, hours without requests, digits below the last.';
COMMENT ON COLUMN gpu_hours.use IS
    'The prices of requests over the bill. Above 1: the prices add up to more than the bill.';
COMMENT ON COLUMN gpu_hours.closed_at IS 'When the hour was last closed.';
