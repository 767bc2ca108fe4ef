CREATE VIEW cost_elasticity AS
SELECT app,
       count(*) AS days,
       min(users) AS least_users,
       max(users) AS most_users,
       regr_slope(ln(full_usd::float8), ln(users::float8)) AS elasticity,
       regr_r2(ln(full_usd::float8), ln(users::float8)) AS r2
FROM cost_per_user_day
WHERE users > 0 AND full_usd > 0
GROUP BY app
HAVING count(*) >= 3 AND max(users) > min(users);

COMMENT ON VIEW cost_elasticity IS
    'How the cost of each app grows with active users: a line through the logarithms of its days.';
COMMENT ON COLUMN cost_elasticity.app IS 'The app''s name; NULL: the platform.';
COMMENT ON COLUMN cost_elasticity.days IS 'Days with a charge that names its end user.';
COMMENT ON COLUMN cost_elasticity.least_users IS 'Active users on the quietest of them.';
COMMENT ON COLUMN cost_elasticity.most_users IS 'Active users on the busiest of them.';
COMMENT ON COLUMN cost_elasticity.elasticity IS
    'By how many percent the cost of a day grows for each percent of users. Below 1: users get cheaper.';
COMMENT ON COLUMN cost_elasticity.r2 IS 'The share of the variance that the line explains, from 0 to 1.';
