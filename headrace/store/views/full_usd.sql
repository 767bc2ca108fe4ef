CREATE FUNCTION full_usd(usd numeric, work numeric, factor numeric, idle_usd_per_work numeric)
RETURNS numeric LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN trunc(usd * factor, 9) + trunc(work * idle_usd_per_work, 9);
