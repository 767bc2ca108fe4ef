CREATE VIEW bill_differences AS
SELECT c.day, c.source, nullif(c.pool, '') AS pool, c.name, c.kind, c.cause, c.ledger_usd, c.billed_usd,
       c.billed_usd - c.ledger_usd AS difference_usd, c.ledger_quantity, c.billed_quantity, c.bill_id, b.checked_at
FROM bill_checks c
JOIN bills b ON b.id = c.bill_id;

COMMENT ON VIEW bill_differences IS
    'The bills from outside beside the ledger: each day, machine or model of the paid API, pool and cause. The amounts '
    'of each side add up to it.';
COMMENT ON COLUMN bill_differences.day IS 'Its start, in UTC.';
COMMENT ON COLUMN bill_differences.source IS 'hosts, or api: the paid API.';
COMMENT ON COLUMN bill_differences.pool IS 'The pool that pays it; NULL: only the bill has it.';
COMMENT ON COLUMN bill_differences.name IS 'The machine, or the model of the paid API.';
COMMENT ON COLUMN bill_differences.kind IS 'The machine''s type; NULL: the paid API.';
COMMENT ON COLUMN bill_differences.cause IS
    'none: what both have. missing_host: the bill lacks it. unknown_host: the ledger lacks it. price, hours: another '
    'one. double: billed twice. unbooked: the ledger lacks tokens. overbooked: the bill does. midnight: on another day. '
    'rounding: too little to matter.';
COMMENT ON COLUMN bill_differences.ledger_usd IS 'What the ledger has.';
COMMENT ON COLUMN bill_differences.billed_usd IS 'What the bill has.';
COMMENT ON COLUMN bill_differences.difference_usd IS 'billed_usd minus ledger_usd.';
COMMENT ON COLUMN bill_differences.ledger_quantity IS 'Hours of the machine, or tokens in those of a prompt by price.';
COMMENT ON COLUMN bill_differences.billed_quantity IS 'The same of the bill.';
COMMENT ON COLUMN bill_differences.bill_id IS 'The bill; bills.id.';
COMMENT ON COLUMN bill_differences.checked_at IS 'When an operator compared it.';
