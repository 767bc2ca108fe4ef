CREATE VIEW routing_per_day AS
SELECT date_trunc('day', j.created_at, 'UTC') AS day,
       a.name AS app,
       j.rule,
       j.metadata ->> 'task' AS task,
       count(*) AS jobs,
       count(*) FILTER (WHERE j.state = 'succeeded') AS succeeded,
       count(*) FILTER (WHERE j.cache IN ('hit', 'shared')) AS cached,
       coalesce(sum(c.usd), 0) AS usd,
       coalesce(sum(c.waste_usd), 0) AS waste_usd,
       count(*) FILTER (WHERE e.escalations > 0) AS escalated,
       coalesce(sum(e.by_length), 0)::bigint AS by_length,
       coalesce(sum(e.by_refusal), 0)::bigint AS by_refusal,
       coalesce(sum(e.by_format), 0)::bigint AS by_format,
       coalesce(sum(e.by_logprob), 0)::bigint AS by_logprob,
       count(*) FILTER (WHERE c.is_kept) AS kept,
       count(*) FILTER (WHERE s.is_compared) AS compared,
       count(*) FILTER (WHERE s.agrees) AS agreed,
       count(*) FILTER (WHERE s.agrees) / nullif(count(*) FILTER (WHERE s.is_compared), 0)::float8 AS agreement,
       coalesce(sum(s.usd), 0) AS shadow_usd
FROM jobs j
JOIN apps a ON a.id = j.app_id
LEFT JOIN LATERAL (
    SELECT sum(usd) FILTER (WHERE kind <> 'waste') AS usd,
           sum(usd) FILTER (WHERE kind = 'waste') AS waste_usd,
           bool_or(reason = 'kept') AS is_kept
    FROM ledger
    WHERE job_id = j.id
) c ON true
LEFT JOIN LATERAL (
    SELECT count(*) AS escalations,
           count(*) FILTER (WHERE escalated_by = 'length') AS by_length,
           count(*) FILTER (WHERE escalated_by = 'refusal') AS by_refusal,
           count(*) FILTER (WHERE escalated_by = 'format') AS by_format,
           count(*) FILTER (WHERE escalated_by = 'logprob') AS by_logprob
    FROM attempts
    WHERE job_id = j.id AND escalated_by IS NOT NULL
) e ON true
LEFT JOIN LATERAL (
    SELECT bool_or(x.shadow IN ('agrees', 'differs')) AS is_compared,
           bool_or(x.shadow = 'agrees') AS agrees,
           sum(l.usd) AS usd
    FROM jobs x
    LEFT JOIN ledger l ON l.job_id = x.id
    WHERE x.shadow_of = j.id
) s ON true
WHERE j.rule IS NOT NULL
GROUP BY 1, 2, 3, 4;

COMMENT ON VIEW routing_per_day IS
    'The jobs whose pool a rule chose, by day of UTC, app, rule and task: what they cost, and which went on.';
COMMENT ON COLUMN routing_per_day.day IS 'Its start, in UTC, by when the jobs were accepted.';
COMMENT ON COLUMN routing_per_day.app IS 'The app''s name.';
COMMENT ON COLUMN routing_per_day.rule IS 'The rule''s name in headrace.toml.';
COMMENT ON COLUMN routing_per_day.task IS
    'The task in the job''s metadata; NULL: it names none, or its texts were erased.';
COMMENT ON COLUMN routing_per_day.jobs IS 'Jobs whose pool the rule chose.';
COMMENT ON COLUMN routing_per_day.succeeded IS 'The jobs among these that got an answer.';
COMMENT ON COLUMN routing_per_day.cached IS 'The jobs among these that were given the answer of another job.';
COMMENT ON COLUMN routing_per_day.usd IS 'What the ledger charges for their answers.';
COMMENT ON COLUMN routing_per_day.waste_usd IS
    'What attempts without a given answer have cost, those before an escalation included.';
COMMENT ON COLUMN routing_per_day.escalated IS 'Jobs that went on to a better pool at least once.';
COMMENT ON COLUMN routing_per_day.by_length IS 'Answers that were cut off, and sent their job on.';
COMMENT ON COLUMN routing_per_day.by_refusal IS 'Answers that declined, and did.';
COMMENT ON COLUMN routing_per_day.by_format IS 'Answers that were not the JSON that was asked for, and did.';
COMMENT ON COLUMN routing_per_day.by_logprob IS
    'Answers whose mean log probability was below the rule''s min_logprob, and did.';
COMMENT ON COLUMN routing_per_day.kept IS 'Escalated jobs that were given their earlier answer after all.';
COMMENT ON COLUMN routing_per_day.compared IS
    'Jobs that another pool of the rule has answered too, as their shadow, so that both can be compared.';
COMMENT ON COLUMN routing_per_day.agreed IS 'The jobs among these of which both answers say the same.';
COMMENT ON COLUMN routing_per_day.agreement IS 'agreed over compared; NULL: none was compared.';
COMMENT ON COLUMN routing_per_day.shadow_usd IS
    'What the shadows have cost. No app is charged for them, and waste_usd leaves them out.';
