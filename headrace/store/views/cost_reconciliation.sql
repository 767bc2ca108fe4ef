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
    'Each closed hour: whether the full cost of its requests, from the ledger as it is now, and the platform''s part '
    'still add up to its bill. platform_usd is the rest of the bill at closing, so a difference means that entries of '
    'the hour came or went since. It says nothing of the bill itself: bill_differences does.';
COMMENT ON COLUMN cost_reconciliation.pool IS 'The pool whose hosts serve it, or would have.';
COMMENT ON COLUMN cost_reconciliation.hour IS 'Its start, in UTC.';
COMMENT ON COLUMN cost_reconciliation.bill_usd IS 'The pool''s part of the bills of its machines.';
COMMENT ON COLUMN cost_reconciliation.requests_usd IS 'The full cost of the hour''s requests.';
COMMENT ON COLUMN cost_reconciliation.platform_usd IS
    'The part of the hosts'' bill that no request pays: waste, dead machines, hours without requests, digits below the last.';
COMMENT ON COLUMN cost_reconciliation.difference_usd IS 'requests_usd and platform_usd, minus bill_usd.';
