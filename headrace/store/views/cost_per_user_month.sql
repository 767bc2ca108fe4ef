-- Users of a month are no sum of those of its days, so they are counted in the ledger; nothing else is read there.
CREATE VIEW cost_per_user_month AS
SELECT *,
       full_usd / nullif(users, 0) AS usd_per_user,
       CASE WHEN least(full_usd, lag(full_usd) OVER of_app) > 0 THEN ln(full_usd / lag(full_usd) OVER of_app) END
           / nullif(ln(users::numeric / nullif(lag(users) OVER of_app, 0)), 0) AS elasticity
FROM (
    SELECT month, a.name AS app, u.users, s.requests, s.full_usd
    FROM (
        SELECT date_trunc('month', day, 'UTC') AS month, app_id, sum(requests)::bigint AS requests,
               sum(full_usd) AS full_usd
        FROM (
            SELECT * FROM user_days
            UNION ALL
            SELECT * FROM users_by_day(
                (SELECT coalesce(max(day) + interval '24 hours', '-infinity') FROM closed_days), 'infinity'
            )
        ) days
        GROUP BY 1, 2
    ) s
    JOIN (
        SELECT month, app_id, count(*) AS users
        FROM (
            SELECT DISTINCT date_trunc('month', at, 'UTC') AS month, app_id, end_user
            FROM ledger
            WHERE kind <> 'waste' AND end_user IS NOT NULL
        ) each
        GROUP BY 1, 2
    ) u USING (month, app_id)
    JOIN apps a ON a.id = app_id
) months
WINDOW of_app AS (PARTITION BY app ORDER BY month);

COMMENT ON VIEW cost_per_user_month IS 'The requests of each app that name their end user, by month of UTC.';
COMMENT ON COLUMN cost_per_user_month.month IS 'Its start, in UTC.';
COMMENT ON COLUMN cost_per_user_month.app IS 'The app''s name; NULL: the platform.';
COMMENT ON COLUMN cost_per_user_month.users IS 'End users with a charge.';
COMMENT ON COLUMN cost_per_user_month.requests IS 'Charged ones: a failed or lost attempt is waste, and no request.';
COMMENT ON COLUMN cost_per_user_month.full_usd IS
    'usd, with the share of hosts that were paid for and not used; equals usd until the hour closes.';
COMMENT ON COLUMN cost_per_user_month.usd_per_user IS 'full_usd over users.';
COMMENT ON COLUMN cost_per_user_month.elasticity IS
    'By how many percent the cost grew for each percent of users, against the app''s month before. Below 1: users '
    'got cheaper.';
