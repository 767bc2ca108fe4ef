CREATE VIEW charges AS
SELECT l.id,
       l.at,
       l.kind,
       l.job_id,
       a.name AS app,
       l.end_user,
       l.pool,
       l.model,
       j.lane,
       j.route,
       l.prompt_tokens,
       l.cached_tokens,
       l.output_tokens,
       l.engine_s,
       l.usd,
       CASE WHEN h.pool IS NULL THEN l.usd
            ELSE full_usd(l.usd,
                          request_work(l.prompt_tokens, l.cached_tokens, l.output_tokens, l.kv_token_s,
                                       h.weigh_by, h.cached_weight, h.output_weight),
                          h.factor, h.idle_usd_per_work)
       END AS full_usd,
       l.api_usd,
       l.price_version,
       l.estimated,
       h.pool IS NOT NULL AS is_closed,
       l.app_id,
       (SELECT jsonb_object_agg(k.key, left(j.metadata->>k.key, 64)) FROM label_keys k WHERE j.metadata ? k.key)
           AS labels
FROM ledger l
LEFT JOIN jobs j ON j.id = l.job_id
LEFT JOIN apps a ON a.id = l.app_id
LEFT JOIN cost_hours h ON l.kind = 'compute' AND h.pool = l.pool AND h.hour = date_trunc('hour', l.at, 'UTC');

COMMENT ON VIEW charges IS
    'One row for each entry of the ledger, with its app, lane and route, and its share of idle hosts.';
COMMENT ON COLUMN charges.id IS 'The entry''s number in the ledger.';
COMMENT ON COLUMN charges.at IS 'When the entry was written: when the attempt ended.';
COMMENT ON COLUMN charges.kind IS
    'compute: own hosts; api: the paid API; cache: served without computing; waste: a failed or lost attempt; '
    'adjustment: a correction.';
COMMENT ON COLUMN charges.job_id IS 'The job''s UUID; jobs.id.';
COMMENT ON COLUMN charges.app IS 'The app''s name; NULL: the platform.';
COMMENT ON COLUMN charges.end_user IS 'The app''s own name for its user, from the request; NULL: not named.';
COMMENT ON COLUMN charges.pool IS 'The pool whose hosts serve it, or would have.';
COMMENT ON COLUMN charges.model IS 'The model that answered.';
COMMENT ON COLUMN charges.lane IS 'high, normal, low or batch.';
COMMENT ON COLUMN charges.route IS 'pool: own hosts; overflow: the paid API.';
COMMENT ON COLUMN charges.prompt_tokens IS 'Tokens of the prompts, cached ones included.';
COMMENT ON COLUMN charges.cached_tokens IS 'The prompt''s tokens that a cache of prefixes had.';
COMMENT ON COLUMN charges.output_tokens IS 'Tokens of the answers, thoughts included.';
COMMENT ON COLUMN charges.engine_s IS 'Seconds on an engine.';
COMMENT ON COLUMN charges.usd IS 'What the app is charged; of waste, what it cost.';
COMMENT ON COLUMN charges.full_usd IS
    'usd, with the share of hosts that were paid for and not used; equals usd until the hour closes.';
COMMENT ON COLUMN charges.api_usd IS 'The same tokens at the paid API''s list price; NULL: it has none.';
COMMENT ON COLUMN charges.price_version IS 'The price behind usd, such as hosts-7: row 7 of own_prices.';
COMMENT ON COLUMN charges.estimated IS
    'The provider did not say what it counted; usd is what it may have charged at most.';
COMMENT ON COLUMN charges.is_closed IS 'full_usd shares the bill of hosts.';
COMMENT ON COLUMN charges.app_id IS 'The app''s id.';
COMMENT ON COLUMN charges.labels IS
    'The metadata that [costs].label_keys names, 64 characters of each value; NULL: none, or its job was erased.';
