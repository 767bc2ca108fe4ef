CREATE VIEW cost_reconciliation AS
SELECT h.pool,
       h.hour,
       h.bill_usd,
       coalesce(r.usd, 0) AS requests_usd,
       h.platform_usd,
       coalesce(r.usd, 0) + h.platform_usd - h.bill_usd AS difference_usd
FROM cost_hours h
LEFT JOIN LATERAL (
    SELECT sum(full_usd(l.usd,
                        request_work(l.prompt_tokens, l.cached_tokens, l.output_tokens, l.kv_token_s,
                                     h.weigh_by, h.cached_weight, h.output_weight),
                        h.factor, h.idle_usd_per_work)) AS usd
    FROM ledger l
    WHERE l.kind = 'compute' AND l.pool = h.pool AND l.at >= h.hour AND l.at < h.hour + interval '1 hour'
) r ON true;

COMMENT ON VIEW cost_reconciliation IS
    'Each closed hour: the full cost of its requests and the platform''s part against the bill of its hosts. A '
    'difference other than 0 is an error.';
COMMENT ON COLUMN cost_reconciliation.pool IS 'The pool whose hosts serve it, or would have.';
COMMENT ON COLUMN cost_reconciliation.hour IS 'Its start, in UTC.';
COMMENT ON COLUMN cost_reconciliation.bill_usd IS 'The leases of the hosts times their price.';
COMMENT ON COLUMN cost_reconciliation.requests_usd IS 'The full cost of the hour''s requests.';
COMMENT ON COLUMN cost_reconciliation.platform_usd IS
    'Of the hosts'' bill, what no request pays: waste, hours without requests, digits below the last.';
COMMENT ON COLUMN cost_reconciliation.difference_usd IS 'requests_usd and platform_usd, minus bill_usd.';
