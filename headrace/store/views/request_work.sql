CREATE FUNCTION request_work(prompt_tokens int, cached_tokens int, output_tokens int, kv_token_s float8,
                             weigh_by text, cached_weight numeric, output_weight numeric)
RETURNS numeric LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE weigh_by
    WHEN 'kv' THEN round(coalesce(kv_token_s, 0)::numeric, 6)
    ELSE prompt_tokens - cached_tokens + cached_weight * cached_tokens + output_weight * output_tokens
END;
