CREATE VIEW cost_per_user_day AS
SELECT d.day, a.name AS app, d.users, d.requests, d.full_usd, d.full_usd / nullif(d.users, 0) AS usd_per_user
FROM (
    SELECT * FROM user_days
    UNION ALL
    SELECT * FROM users_by_day(
        (SELECT coalesce(max(day) + interval '24 hours', '-infinity') FROM closed_days), 'infinity'
    )
) d
LEFT JOIN apps a ON a.id = d.app_id;

COMMENT ON VIEW cost_per_user_day IS 'The requests of each app that name their end user, by day of UTC.';
COMMENT ON COLUMN cost_per_user_day.day IS 'Its start, in UTC.';
COMMENT ON COLUMN cost_per_user_day.app IS 'The app''s name; NULL: the platform.';
COMMENT ON COLUMN cost_per_user_day.users IS 'End users with a charge.';
COMMENT ON COLUMN cost_per_user_day.requests IS 'Charged ones: a failed or lost attempt is waste, and no request.';
COMMENT ON COLUMN cost_per_user_day.full_usd IS
    'usd, with the share of hosts that were paid for and not used; equals usd until the hour closes.';
COMMENT ON COLUMN cost_per_user_day.usd_per_user IS 'full_usd over users.';
