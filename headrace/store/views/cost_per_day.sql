CREATE VIEW cost_per_day AS
SELECT d.day, a.name AS app, d.pool, d.model, d.lane, d.route, d.requests, d.users, d.prompt_tokens,
       d.cached_tokens, d.output_tokens, d.usd, d.full_usd, d.waste_usd, d.api_usd
FROM (
    SELECT * FROM cost_days
    UNION ALL
    SELECT * FROM costs_by_day(
        (SELECT coalesce(max(day) + interval '24 hours', '-infinity') FROM closed_days), 'infinity'
    )
) d
LEFT JOIN apps a ON a.id = d.app_id;

COMMENT ON VIEW cost_per_day IS 'The charges of each day of UTC by app, pool, model, lane and route.';
COMMENT ON COLUMN cost_per_day.day IS 'Its start, in UTC.';
COMMENT ON COLUMN cost_per_day.app IS 'The app''s name; NULL: the platform.';
COMMENT ON COLUMN cost_per_day.pool IS 'The pool whose hosts serve it, or would have.';
COMMENT ON COLUMN cost_per_day.model IS 'The model that answered.';
COMMENT ON COLUMN cost_per_day.lane IS 'high, normal, low or batch.';
COMMENT ON COLUMN cost_per_day.route IS 'pool: own hosts; overflow: the paid API.';
COMMENT ON COLUMN cost_per_day.requests IS 'Charged ones: a failed or lost attempt is waste, and no request.';
COMMENT ON COLUMN cost_per_day.users IS 'End users with a charge.';
COMMENT ON COLUMN cost_per_day.prompt_tokens IS 'Tokens of the prompts, cached ones included.';
COMMENT ON COLUMN cost_per_day.cached_tokens IS 'The prompt''s tokens that a cache of prefixes had.';
COMMENT ON COLUMN cost_per_day.output_tokens IS 'Tokens of the answers, thoughts included.';
COMMENT ON COLUMN cost_per_day.usd IS 'What the app is charged.';
COMMENT ON COLUMN cost_per_day.full_usd IS
    'usd, with the share of hosts that were paid for and not used; equals usd until the hour closes.';
COMMENT ON COLUMN cost_per_day.waste_usd IS 'Failed and lost attempts; not charged to the app.';
COMMENT ON COLUMN cost_per_day.api_usd IS 'The same tokens at the paid API''s list price; NULL: it has none.';
