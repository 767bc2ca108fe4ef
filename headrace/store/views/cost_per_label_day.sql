CREATE VIEW cost_per_label_day AS
SELECT d.day, a.name AS app, d.key, d.value, d.requests, d.prompt_tokens, d.output_tokens, d.usd, d.full_usd,
       d.waste_usd, d.api_usd
FROM (
    SELECT * FROM label_days
    UNION ALL
    SELECT * FROM labels_by_day(
        (SELECT coalesce(max(day) + interval '24 hours', '-infinity') FROM closed_days), 'infinity'
    )
) d
LEFT JOIN apps a ON a.id = d.app_id;

COMMENT ON VIEW cost_per_label_day IS
    'The charges of each day of UTC by app and by the metadata that [costs].label_keys names. Each key splits all '
    'charges: choose one.';
COMMENT ON COLUMN cost_per_label_day.day IS 'Its start, in UTC.';
COMMENT ON COLUMN cost_per_label_day.app IS 'The app''s name; NULL: the platform.';
COMMENT ON COLUMN cost_per_label_day.key IS 'The key of the metadata, such as feature.';
COMMENT ON COLUMN cost_per_label_day.value IS
    'Its value, 64 characters at most; (other): beyond the 100 that cost most; NULL: the requests have none, or were '
    'erased before the day was closed.';
COMMENT ON COLUMN cost_per_label_day.requests IS 'Charged ones: a failed or lost attempt is waste, and no request.';
COMMENT ON COLUMN cost_per_label_day.prompt_tokens IS 'Tokens of the prompts, cached ones included.';
COMMENT ON COLUMN cost_per_label_day.output_tokens IS 'Tokens of the answers, thoughts included.';
COMMENT ON COLUMN cost_per_label_day.usd IS 'What the app is charged.';
COMMENT ON COLUMN cost_per_label_day.full_usd IS
    'usd, with the share of hosts that were paid for and not used; equals usd until the hour closes.';
COMMENT ON COLUMN cost_per_label_day.waste_usd IS 'Failed and lost attempts; not charged to the app.';
COMMENT ON COLUMN cost_per_label_day.api_usd IS 'The same tokens at the paid API''s list price; NULL: it has none.';
