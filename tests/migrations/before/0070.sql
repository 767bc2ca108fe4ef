-- A database at migration 0070, the last one before 0.1.0: pg_dump --no-owner --no-privileges --no-comments
-- --rows-per-insert=100. The code of then made and filled it.
SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET transaction_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;
CREATE EXTENSION IF NOT EXISTS vector WITH SCHEMA public;
CREATE FUNCTION public.costs_by_day(since timestamp with time zone, until timestamp with time zone) RETURNS TABLE(day timestamp with time zone, app_id uuid, pool text, model text, lane text, route text, requests bigint, users bigint, prompt_tokens bigint, cached_tokens bigint, output_tokens bigint, usd numeric, full_usd numeric, waste_usd numeric, api_usd numeric)
    LANGUAGE sql STABLE ROWS 100 PARALLEL SAFE
    AS $$
        SELECT date_trunc('day', at, 'UTC'),
               app_id,
               pool,
               model,
               lane,
               route,
               count(*) FILTER (WHERE kind IN ('compute', 'api', 'cache')),
               count(DISTINCT end_user) FILTER (WHERE kind <> 'waste'),
               sum(prompt_tokens),
               sum(cached_tokens),
               sum(output_tokens),
               coalesce(sum(usd) FILTER (WHERE kind <> 'waste'), 0),
               coalesce(sum(full_usd) FILTER (WHERE kind <> 'waste'), 0),
               coalesce(sum(usd) FILTER (WHERE kind = 'waste'), 0),
               sum(api_usd) FILTER (WHERE kind <> 'waste')
        FROM charges
        WHERE at >= since AND at < until
        GROUP BY 1, 2, 3, 4, 5, 6
        $$;
CREATE FUNCTION public.full_usd(usd numeric, work numeric, factor numeric, idle_usd_per_work numeric) RETURNS numeric
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (trunc((usd * factor), 9) + trunc((work * idle_usd_per_work), 9));
CREATE FUNCTION public.note_job_retry() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
        BEGIN
            INSERT INTO job_retries (job_id, retried_as) VALUES (NEW.retry_of, NEW.id);
            RETURN NULL;
        END $$;
CREATE FUNCTION public.refuse_audit_change() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
        BEGIN
            RAISE EXCEPTION 'the audit log is append-only';
        END $$;
CREATE FUNCTION public.refuse_ledger_change() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
        BEGIN
            RAISE EXCEPTION 'ledger entries are immutable: add an adjustment instead';
        END $$;
CREATE FUNCTION public.request_work(prompt_tokens integer, cached_tokens integer, output_tokens integer, kv_token_s double precision, weigh_by text, cached_weight numeric, output_weight numeric) RETURNS numeric
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE weigh_by WHEN 'kv'::text THEN round((COALESCE(kv_token_s, (0)::double precision))::numeric, 6) ELSE ((((prompt_tokens - cached_tokens))::numeric + (cached_weight * (cached_tokens)::numeric)) + (output_weight * (output_tokens)::numeric)) END;
CREATE FUNCTION public.users_by_day(since timestamp with time zone, until timestamp with time zone) RETURNS TABLE(day timestamp with time zone, app_id uuid, users bigint, requests bigint, full_usd numeric)
    LANGUAGE sql STABLE ROWS 100 PARALLEL SAFE
    AS $$
        SELECT date_trunc('day', at, 'UTC'), app_id, count(DISTINCT end_user), count(*) FILTER (WHERE kind IN ('compute', 'api', 'cache')), sum(full_usd)
        FROM charges
        WHERE kind <> 'waste' AND end_user IS NOT NULL AND at >= since AND at < until
        GROUP BY 1, 2
        $$;
SET default_tablespace = '';
SET default_table_access_method = heap;
CREATE TABLE public.alembic_version (
    version_num character varying(32) NOT NULL
);
CREATE TABLE public.api_keys (
    id uuid NOT NULL,
    app_id uuid NOT NULL,
    hint text NOT NULL,
    digest bytea NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    expires_at timestamp with time zone,
    revoked_at timestamp with time zone,
    scopes text[] DEFAULT '{submit,read}'::text[] NOT NULL
);
CREATE TABLE public.apps (
    id uuid NOT NULL,
    name text NOT NULL,
    webhook_secret text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    queued_jobs integer,
    requests_per_minute integer,
    tokens_per_minute integer,
    lanes text[],
    day_usd numeric(18,9),
    month_usd numeric(18,9),
    webhook_secret_old text,
    webhook_secret_old_until timestamp with time zone,
    cache_s integer,
    max_error double precision,
    calls_per_minute integer
);
CREATE TABLE public.attempts (
    job_id uuid NOT NULL,
    number integer NOT NULL,
    worker_id uuid NOT NULL,
    engine text NOT NULL,
    model_served text,
    started_at timestamp with time zone NOT NULL,
    ended_at timestamp with time zone,
    outcome text,
    error_code text,
    prompt_tokens integer,
    cached_tokens integer,
    output_tokens integer,
    engine_s double precision,
    first_token_s double precision,
    preemptions integer DEFAULT 0 NOT NULL,
    reserved_usd numeric(18,9) DEFAULT 0 NOT NULL,
    escalated_by text,
    CONSTRAINT ck_attempts_outcome CHECK ((outcome = ANY (ARRAY['succeeded'::text, 'failed'::text, 'aborted'::text, 'lost'::text])))
)
PARTITION BY RANGE (job_id);
CREATE TABLE public.attempts_2026_10 (
    job_id uuid CONSTRAINT attempts_job_id_not_null NOT NULL,
    number integer CONSTRAINT attempts_number_not_null NOT NULL,
    worker_id uuid CONSTRAINT attempts_worker_id_not_null NOT NULL,
    engine text CONSTRAINT attempts_engine_not_null NOT NULL,
    model_served text,
    started_at timestamp with time zone CONSTRAINT attempts_started_at_not_null NOT NULL,
    ended_at timestamp with time zone,
    outcome text,
    error_code text,
    prompt_tokens integer,
    cached_tokens integer,
    output_tokens integer,
    engine_s double precision,
    first_token_s double precision,
    preemptions integer DEFAULT 0 CONSTRAINT attempts_preemptions_not_null NOT NULL,
    reserved_usd numeric(18,9) DEFAULT 0 CONSTRAINT attempts_reserved_usd_not_null NOT NULL,
    escalated_by text,
    CONSTRAINT ck_attempts_outcome CHECK ((outcome = ANY (ARRAY['succeeded'::text, 'failed'::text, 'aborted'::text, 'lost'::text])))
);
CREATE TABLE public.attempts_2026_11 (
    job_id uuid CONSTRAINT attempts_job_id_not_null NOT NULL,
    number integer CONSTRAINT attempts_number_not_null NOT NULL,
    worker_id uuid CONSTRAINT attempts_worker_id_not_null NOT NULL,
    engine text CONSTRAINT attempts_engine_not_null NOT NULL,
    model_served text,
    started_at timestamp with time zone CONSTRAINT attempts_started_at_not_null NOT NULL,
    ended_at timestamp with time zone,
    outcome text,
    error_code text,
    prompt_tokens integer,
    cached_tokens integer,
    output_tokens integer,
    engine_s double precision,
    first_token_s double precision,
    preemptions integer DEFAULT 0 CONSTRAINT attempts_preemptions_not_null NOT NULL,
    reserved_usd numeric(18,9) DEFAULT 0 CONSTRAINT attempts_reserved_usd_not_null NOT NULL,
    escalated_by text,
    CONSTRAINT ck_attempts_outcome CHECK ((outcome = ANY (ARRAY['succeeded'::text, 'failed'::text, 'aborted'::text, 'lost'::text])))
);
CREATE TABLE public.attempts_2026_12 (
    job_id uuid CONSTRAINT attempts_job_id_not_null NOT NULL,
    number integer CONSTRAINT attempts_number_not_null NOT NULL,
    worker_id uuid CONSTRAINT attempts_worker_id_not_null NOT NULL,
    engine text CONSTRAINT attempts_engine_not_null NOT NULL,
    model_served text,
    started_at timestamp with time zone CONSTRAINT attempts_started_at_not_null NOT NULL,
    ended_at timestamp with time zone,
    outcome text,
    error_code text,
    prompt_tokens integer,
    cached_tokens integer,
    output_tokens integer,
    engine_s double precision,
    first_token_s double precision,
    preemptions integer DEFAULT 0 CONSTRAINT attempts_preemptions_not_null NOT NULL,
    reserved_usd numeric(18,9) DEFAULT 0 CONSTRAINT attempts_reserved_usd_not_null NOT NULL,
    escalated_by text,
    CONSTRAINT ck_attempts_outcome CHECK ((outcome = ANY (ARRAY['succeeded'::text, 'failed'::text, 'aborted'::text, 'lost'::text])))
);
CREATE TABLE public.attempts_2027_01 (
    job_id uuid CONSTRAINT attempts_job_id_not_null NOT NULL,
    number integer CONSTRAINT attempts_number_not_null NOT NULL,
    worker_id uuid CONSTRAINT attempts_worker_id_not_null NOT NULL,
    engine text CONSTRAINT attempts_engine_not_null NOT NULL,
    model_served text,
    started_at timestamp with time zone CONSTRAINT attempts_started_at_not_null NOT NULL,
    ended_at timestamp with time zone,
    outcome text,
    error_code text,
    prompt_tokens integer,
    cached_tokens integer,
    output_tokens integer,
    engine_s double precision,
    first_token_s double precision,
    preemptions integer DEFAULT 0 CONSTRAINT attempts_preemptions_not_null NOT NULL,
    reserved_usd numeric(18,9) DEFAULT 0 CONSTRAINT attempts_reserved_usd_not_null NOT NULL,
    escalated_by text,
    CONSTRAINT ck_attempts_outcome CHECK ((outcome = ANY (ARRAY['succeeded'::text, 'failed'::text, 'aborted'::text, 'lost'::text])))
);
CREATE TABLE public.attempts_first (
    job_id uuid CONSTRAINT attempts_job_id_not_null NOT NULL,
    number integer CONSTRAINT attempts_number_not_null NOT NULL,
    worker_id uuid CONSTRAINT attempts_worker_id_not_null NOT NULL,
    engine text CONSTRAINT attempts_engine_not_null NOT NULL,
    model_served text,
    started_at timestamp with time zone CONSTRAINT attempts_started_at_not_null NOT NULL,
    ended_at timestamp with time zone,
    outcome text,
    error_code text,
    prompt_tokens integer,
    cached_tokens integer,
    output_tokens integer,
    engine_s double precision,
    first_token_s double precision,
    preemptions integer DEFAULT 0 CONSTRAINT attempts_preemptions_not_null NOT NULL,
    reserved_usd numeric(18,9) DEFAULT 0 CONSTRAINT attempts_reserved_usd_not_null NOT NULL,
    escalated_by text,
    CONSTRAINT ck_attempts_outcome CHECK ((outcome = ANY (ARRAY['succeeded'::text, 'failed'::text, 'aborted'::text, 'lost'::text])))
);
CREATE TABLE public.audit_log (
    id bigint NOT NULL,
    at timestamp with time zone DEFAULT now() NOT NULL,
    actor text NOT NULL,
    source text NOT NULL,
    action text NOT NULL,
    subject text NOT NULL,
    app_id uuid,
    details jsonb DEFAULT '{}'::jsonb NOT NULL,
    CONSTRAINT ck_audit_log_source CHECK ((source = ANY (ARRAY['pages'::text, 'cli'::text, 'celery'::text])))
);
ALTER TABLE public.audit_log ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.audit_log_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE public.budget_limits (
    id smallint DEFAULT 1 NOT NULL,
    day_usd numeric(18,9),
    month_usd numeric(18,9),
    set_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT ck_budget_limits_one_row CHECK ((id = 1))
);
CREATE TABLE public.budgets (
    id uuid NOT NULL,
    app_id uuid,
    period text NOT NULL,
    starts_at timestamp with time zone NOT NULL,
    reserved_usd numeric(18,9) DEFAULT 0 NOT NULL,
    spent_usd numeric(18,9) DEFAULT 0 NOT NULL,
    told_percent smallint DEFAULT 0 NOT NULL,
    short_at timestamp with time zone,
    told_reserved_percent smallint DEFAULT 0 NOT NULL,
    reserved_short_at timestamp with time zone,
    limit_usd numeric(18,9),
    CONSTRAINT ck_budgets_period CHECK ((period = ANY (ARRAY['day'::text, 'month'::text])))
);
CREATE VIEW public.budget_run_rate AS
 SELECT app,
    period,
    starts_at,
    ends_at,
    limit_usd,
    spent_usd,
    reserved_usd,
    (spent_usd / limit_or_null) AS used,
    usd_per_day,
    ((usd_per_day * EXTRACT(epoch FROM (ends_at - starts_at))) / (86400)::numeric) AS projected_usd,
        CASE
            WHEN (spent_usd >= limit_usd) THEN now()
            WHEN (((usd_per_day * EXTRACT(epoch FROM (ends_at - now()))) / (86400)::numeric) >= (limit_usd - spent_usd)) THEN (now() + ('1 day'::interval * (((limit_usd - spent_usd) / NULLIF(usd_per_day, (0)::numeric)))::double precision))
            ELSE NULL::timestamp with time zone
        END AS used_up_at
   FROM ( SELECT a.name AS app,
            b.period,
            b.starts_at,
            e.ends_at,
            l.limit_usd,
            NULLIF(l.limit_usd, (0)::numeric) AS limit_or_null,
            b.spent_usd,
            b.reserved_usd,
            ((b.spent_usd * (86400)::numeric) / GREATEST(EXTRACT(epoch FROM (now() - b.starts_at)), (1)::numeric)) AS usd_per_day
           FROM (((public.budgets b
             LEFT JOIN public.apps a ON ((a.id = b.app_id)))
             CROSS JOIN LATERAL ( SELECT (((b.starts_at AT TIME ZONE 'UTC'::text) + (('1 '::text || b.period))::interval) AT TIME ZONE 'UTC'::text) AS ends_at) e)
             CROSS JOIN LATERAL ( SELECT
                        CASE
                            WHEN (b.app_id IS NULL) THEN b.limit_usd
                            WHEN (b.period = 'day'::text) THEN a.day_usd
                            ELSE a.month_usd
                        END AS limit_usd) l)
          WHERE ((b.starts_at <= now()) AND (e.ends_at > now()))) accounts;
CREATE TABLE public.cache_entries (
    job_id uuid NOT NULL,
    app_id uuid NOT NULL,
    pool text NOT NULL,
    scope bytea NOT NULL,
    digest bytea NOT NULL,
    embedding real[] NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    used_at timestamp with time zone DEFAULT now() NOT NULL,
    fingerprints bytea[]
);
CREATE TABLE public.cache_matches (
    job_id uuid NOT NULL,
    app_id uuid NOT NULL,
    pool text NOT NULL,
    entry_id uuid NOT NULL,
    similarity double precision NOT NULL,
    kind text NOT NULL,
    at timestamp with time zone DEFAULT now() NOT NULL,
    is_right boolean,
    judge_at timestamp with time zone,
    CONSTRAINT ck_cache_matches_kind CHECK ((kind = ANY (ARRAY['served'::text, 'try'::text, 'recheck'::text, 'shadow'::text])))
);
CREATE TABLE public.jobs (
    id uuid NOT NULL,
    app_id uuid NOT NULL,
    state text NOT NULL,
    lane text NOT NULL,
    pool text NOT NULL,
    queue text NOT NULL,
    route text NOT NULL,
    route_reason text NOT NULL,
    overflow text NOT NULL,
    model_requested text NOT NULL,
    model_served text,
    adapter text,
    batch_id uuid,
    custom_id text,
    end_user text,
    served_by_job uuid,
    metadata jsonb DEFAULT '{}'::jsonb NOT NULL,
    webhook_url text,
    background boolean NOT NULL,
    max_cost_usd numeric(18,9),
    prompt_tokens integer NOT NULL,
    max_tokens integer NOT NULL,
    output_tokens integer,
    cached_tokens integer,
    finish_reason text,
    usd numeric(18,9) DEFAULT 0 NOT NULL,
    error_code text,
    error_message text,
    enqueue_no integer DEFAULT 1 NOT NULL,
    attempt integer DEFAULT 0 NOT NULL,
    worker_id uuid,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    start_by timestamp with time zone NOT NULL,
    finish_by timestamp with time zone,
    not_before timestamp with time zone,
    queued_at timestamp with time zone,
    started_at timestamp with time zone,
    ended_at timestamp with time zone,
    cancel_requested_at timestamp with time zone,
    stream boolean DEFAULT false NOT NULL,
    erased_at timestamp with time zone,
    suspicion smallint DEFAULT 0 NOT NULL,
    retry_of uuid,
    reasoning_tokens integer,
    overflow_at timestamp with time zone,
    cache text,
    original_tokens integer,
    rule text,
    stand_by timestamp with time zone,
    shadow text,
    shadow_of uuid,
    n smallint,
    needs_version smallint,
    CONSTRAINT ck_jobs_lane CHECK ((lane = ANY (ARRAY['high'::text, 'normal'::text, 'low'::text, 'batch'::text]))),
    CONSTRAINT ck_jobs_overflow CHECK ((overflow = ANY (ARRAY['allow'::text, 'never'::text, 'only'::text]))),
    CONSTRAINT ck_jobs_route CHECK ((route = ANY (ARRAY['pool'::text, 'overflow'::text]))),
    CONSTRAINT ck_jobs_running_has_worker CHECK (((state = 'running'::text) = (worker_id IS NOT NULL))),
    CONSTRAINT ck_jobs_state CHECK ((state = ANY (ARRAY['waiting'::text, 'queued'::text, 'running'::text, 'succeeded'::text, 'failed'::text, 'cancelled'::text, 'expired'::text])))
)
PARTITION BY RANGE (id);
CREATE TABLE public.ledger (
    id bigint NOT NULL,
    at timestamp with time zone DEFAULT now() NOT NULL,
    kind text NOT NULL,
    job_id uuid,
    attempt integer,
    app_id uuid,
    end_user text,
    pool text,
    model text,
    host_id text,
    prompt_tokens integer DEFAULT 0 NOT NULL,
    cached_tokens integer DEFAULT 0 NOT NULL,
    output_tokens integer DEFAULT 0 NOT NULL,
    kv_token_s double precision,
    engine_s double precision,
    usd numeric(18,9) NOT NULL,
    idle_usd numeric(18,9) DEFAULT 0 NOT NULL,
    price_version text,
    api_usd numeric(18,9),
    estimated boolean DEFAULT false NOT NULL,
    saved_usd numeric(18,9),
    reason text,
    CONSTRAINT ck_ledger_kind CHECK ((kind = ANY (ARRAY['compute'::text, 'api'::text, 'waste'::text, 'idle'::text, 'cache'::text, 'adjustment'::text]))),
    CONSTRAINT ck_ledger_tokens CHECK ((((cached_tokens >= 0) AND (cached_tokens <= prompt_tokens)) AND (output_tokens >= 0)))
)
PARTITION BY RANGE (job_id);
CREATE VIEW public.cache_per_day AS
 SELECT date_trunc('day'::text, j.created_at, 'UTC'::text) AS day,
    a.name AS app,
    j.pool,
    j.model_requested,
    count(*) FILTER (WHERE (j.cache = 'hit'::text)) AS hits,
    count(*) FILTER (WHERE (j.cache = 'miss'::text)) AS misses,
    ((count(*) FILTER (WHERE (j.cache = 'hit'::text)))::double precision / (count(*))::double precision) AS hit_share,
    COALESCE(sum(l.prompt_tokens), (0)::bigint) AS prompt_tokens,
    COALESCE(sum(l.output_tokens), (0)::bigint) AS output_tokens,
    COALESCE(sum(l.saved_usd), (0)::numeric) AS saved_usd,
    sum(l.api_usd) AS api_usd,
    count(*) FILTER (WHERE (j.cache = 'shared'::text)) AS shared,
    count(*) FILTER (WHERE (j.cache = 'semantic'::text)) AS semantic
   FROM ((public.jobs j
     JOIN public.apps a ON ((a.id = j.app_id)))
     LEFT JOIN public.ledger l ON (((l.job_id = j.id) AND (l.kind = 'cache'::text))))
  WHERE (j.cache IS NOT NULL)
  GROUP BY (date_trunc('day'::text, j.created_at, 'UTC'::text)), a.name, j.pool, j.model_requested;
CREATE TABLE public.cost_hours (
    pool text NOT NULL,
    hour timestamp with time zone NOT NULL,
    host_s numeric(18,6) NOT NULL,
    boot_s numeric(18,6) NOT NULL,
    unpriced_hosts integer NOT NULL,
    bill_usd numeric(18,9) NOT NULL,
    boot_usd numeric(18,9) NOT NULL,
    requests bigint NOT NULL,
    work numeric(36,9) NOT NULL,
    compute_usd numeric(18,9) NOT NULL,
    waste_usd numeric(18,9) NOT NULL,
    factor numeric(36,18) NOT NULL,
    idle_usd_per_work numeric(36,18) NOT NULL,
    platform_usd numeric(18,9) NOT NULL,
    weigh_by text NOT NULL,
    cached_weight numeric(9,4) NOT NULL,
    output_weight numeric(9,4) NOT NULL,
    closed_at timestamp with time zone NOT NULL,
    CONSTRAINT ck_cost_hours_weigh_by CHECK ((weigh_by = ANY (ARRAY['tokens'::text, 'kv'::text])))
);
CREATE VIEW public.charges AS
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
        CASE
            WHEN (h.pool IS NULL) THEN l.usd
            ELSE public.full_usd(l.usd, public.request_work(l.prompt_tokens, l.cached_tokens, l.output_tokens, l.kv_token_s, h.weigh_by, h.cached_weight, h.output_weight), h.factor, h.idle_usd_per_work)
        END AS full_usd,
    l.api_usd,
    l.price_version,
    l.estimated,
    (h.pool IS NOT NULL) AS is_closed,
    l.app_id
   FROM (((public.ledger l
     LEFT JOIN public.jobs j ON ((j.id = l.job_id)))
     LEFT JOIN public.apps a ON ((a.id = l.app_id)))
     LEFT JOIN public.cost_hours h ON (((l.kind = 'compute'::text) AND (h.pool = l.pool) AND (h.hour = date_trunc('hour'::text, l.at, 'UTC'::text)))));
CREATE TABLE public.closed_days (
    day timestamp with time zone NOT NULL,
    hours integer NOT NULL,
    hours_closed_at timestamp with time zone,
    closed_at timestamp with time zone NOT NULL
);
CREATE VIEW public.compression_per_day AS
 SELECT date_trunc('day'::text, j.created_at, 'UTC'::text) AS day,
    a.name AS app,
    j.pool,
    j.route,
    j.model_requested,
    count(*) AS jobs,
    sum(j.original_tokens) AS original_tokens,
    sum(j.prompt_tokens) AS prompt_tokens,
    ((1)::double precision - ((sum(j.prompt_tokens))::double precision / (NULLIF(sum(j.original_tokens), 0))::double precision)) AS saved_share,
    COALESCE(sum(l.saved_usd), (0)::numeric) AS saved_usd
   FROM ((public.jobs j
     JOIN public.apps a ON ((a.id = j.app_id)))
     LEFT JOIN public.ledger l ON (((l.job_id = j.id) AND (l.kind = ANY (ARRAY['compute'::text, 'api'::text])))))
  WHERE (j.original_tokens IS NOT NULL)
  GROUP BY (date_trunc('day'::text, j.created_at, 'UTC'::text)), a.name, j.pool, j.route, j.model_requested;
CREATE TABLE public.confinements (
    app_id uuid NOT NULL,
    pool text NOT NULL,
    since timestamp with time zone NOT NULL,
    until timestamp with time zone NOT NULL,
    next_at timestamp with time zone NOT NULL,
    reason text NOT NULL,
    job_id uuid,
    worker_id uuid
);
CREATE TABLE public.cost_days (
    day timestamp with time zone NOT NULL,
    app_id uuid,
    pool text,
    model text,
    lane text,
    route text,
    requests bigint NOT NULL,
    users bigint NOT NULL,
    prompt_tokens bigint NOT NULL,
    cached_tokens bigint NOT NULL,
    output_tokens bigint NOT NULL,
    usd numeric(36,9) NOT NULL,
    full_usd numeric(36,9) NOT NULL,
    waste_usd numeric(36,9) NOT NULL,
    api_usd numeric(36,9)
);
CREATE TABLE public.user_days (
    day timestamp with time zone NOT NULL,
    app_id uuid,
    users bigint NOT NULL,
    requests bigint NOT NULL,
    full_usd numeric(36,9) NOT NULL
);
CREATE VIEW public.cost_per_user_day AS
 SELECT d.day,
    a.name AS app,
    d.users,
    d.requests,
    d.full_usd,
    (d.full_usd / (NULLIF(d.users, 0))::numeric) AS usd_per_user
   FROM (( SELECT user_days.day,
            user_days.app_id,
            user_days.users,
            user_days.requests,
            user_days.full_usd
           FROM public.user_days
        UNION ALL
         SELECT users_by_day.day,
            users_by_day.app_id,
            users_by_day.users,
            users_by_day.requests,
            users_by_day.full_usd
           FROM public.users_by_day(( SELECT COALESCE((max(closed_days.day) + '24:00:00'::interval), '-infinity'::timestamp with time zone) AS "coalesce"
                   FROM public.closed_days), 'infinity'::timestamp with time zone) users_by_day(day, app_id, users, requests, full_usd)) d
     LEFT JOIN public.apps a ON ((a.id = d.app_id)));
CREATE VIEW public.cost_elasticity AS
 SELECT app,
    count(*) AS days,
    min(users) AS least_users,
    max(users) AS most_users,
    regr_slope(ln((full_usd)::double precision), ln((users)::double precision)) AS elasticity,
    regr_r2(ln((full_usd)::double precision), ln((users)::double precision)) AS r2
   FROM public.cost_per_user_day
  WHERE ((users > 0) AND (full_usd > (0)::numeric))
  GROUP BY app
 HAVING ((count(*) >= 3) AND (max(users) > min(users)));
CREATE VIEW public.cost_per_day AS
 SELECT d.day,
    a.name AS app,
    d.pool,
    d.model,
    d.lane,
    d.route,
    d.requests,
    d.users,
    d.prompt_tokens,
    d.cached_tokens,
    d.output_tokens,
    d.usd,
    d.full_usd,
    d.waste_usd,
    d.api_usd
   FROM (( SELECT cost_days.day,
            cost_days.app_id,
            cost_days.pool,
            cost_days.model,
            cost_days.lane,
            cost_days.route,
            cost_days.requests,
            cost_days.users,
            cost_days.prompt_tokens,
            cost_days.cached_tokens,
            cost_days.output_tokens,
            cost_days.usd,
            cost_days.full_usd,
            cost_days.waste_usd,
            cost_days.api_usd
           FROM public.cost_days
        UNION ALL
         SELECT costs_by_day.day,
            costs_by_day.app_id,
            costs_by_day.pool,
            costs_by_day.model,
            costs_by_day.lane,
            costs_by_day.route,
            costs_by_day.requests,
            costs_by_day.users,
            costs_by_day.prompt_tokens,
            costs_by_day.cached_tokens,
            costs_by_day.output_tokens,
            costs_by_day.usd,
            costs_by_day.full_usd,
            costs_by_day.waste_usd,
            costs_by_day.api_usd
           FROM public.costs_by_day(( SELECT COALESCE((max(closed_days.day) + '24:00:00'::interval), '-infinity'::timestamp with time zone) AS "coalesce"
                   FROM public.closed_days), 'infinity'::timestamp with time zone) costs_by_day(day, app_id, pool, model, lane, route, requests, users, prompt_tokens, cached_tokens, output_tokens, usd, full_usd, waste_usd, api_usd)) d
     LEFT JOIN public.apps a ON ((a.id = d.app_id)));
CREATE VIEW public.cost_per_request AS
 SELECT j.id AS job_id,
    a.name AS app,
    j.end_user,
    j.created_at,
    j.state,
    j.lane,
    j.queue,
    j.route,
    j.model_requested,
    j.model_served,
    j.attempt AS attempts,
    COALESCE(b.prompt_tokens, 0) AS prompt_tokens,
    COALESCE(b.cached_tokens, 0) AS cached_tokens,
    COALESCE(b.output_tokens, 0) AS output_tokens,
    (COALESCE(b.engine_s, (0)::double precision) + COALESCE(o.engine_s, (0)::double precision)) AS engine_s,
    (COALESCE(b.usd, (0)::numeric) + COALESCE(o.usd, (0)::numeric)) AS usd,
    COALESCE(o.waste_usd, (0)::numeric) AS waste_usd,
    COALESCE((b.api_usd + COALESCE(o.api_usd, (0)::numeric)), o.api_usd) AS api_usd,
    EXTRACT(epoch FROM (j.started_at - j.created_at)) AS wait_s,
    EXTRACT(epoch FROM (j.ended_at - j.started_at)) AS run_s,
    j.ended_at,
    j.error_code,
    j.pool,
    (
        CASE
            WHEN (h.pool IS NULL) THEN COALESCE(b.usd, (0)::numeric)
            ELSE public.full_usd(b.usd, public.request_work(b.prompt_tokens, b.cached_tokens, b.output_tokens, b.kv_token_s, h.weigh_by, h.cached_weight, h.output_weight), h.factor, h.idle_usd_per_work)
        END + COALESCE(o.usd, (0)::numeric)) AS full_usd,
        CASE
            WHEN (b.kind IS NULL) THEN NULL::text
            WHEN (b.kind <> 'compute'::text) THEN b.kind
            WHEN (h.pool IS NULL) THEN 'price'::text
            ELSE 'hosts'::text
        END AS cost_basis,
    ('job_'::text || replace((j.id)::text, '-'::text, ''::text)) AS public_id
   FROM ((((public.jobs j
     JOIN public.apps a ON ((a.id = j.app_id)))
     LEFT JOIN public.ledger b ON (((b.job_id = j.id) AND (b.kind = ANY (ARRAY['compute'::text, 'api'::text, 'cache'::text])))))
     LEFT JOIN ( SELECT ledger.job_id,
            sum(ledger.engine_s) AS engine_s,
            sum(ledger.usd) FILTER (WHERE (ledger.kind <> 'waste'::text)) AS usd,
            sum(ledger.usd) FILTER (WHERE (ledger.kind = 'waste'::text)) AS waste_usd,
            sum(ledger.api_usd) FILTER (WHERE (ledger.kind <> 'waste'::text)) AS api_usd
           FROM public.ledger
          WHERE (ledger.kind <> ALL (ARRAY['compute'::text, 'api'::text, 'cache'::text]))
          GROUP BY ledger.job_id) o ON ((o.job_id = j.id)))
     LEFT JOIN public.cost_hours h ON (((b.kind = 'compute'::text) AND (h.pool = b.pool) AND (h.hour = date_trunc('hour'::text, b.at, 'UTC'::text)))));
CREATE VIEW public.cost_per_user_month AS
 SELECT month,
    app,
    users,
    requests,
    full_usd,
    (full_usd / (NULLIF(users, 0))::numeric) AS usd_per_user,
    (ln((full_usd / NULLIF(lag(full_usd) OVER of_app, (0)::numeric))) / NULLIF(ln(((users)::numeric / (NULLIF(lag(users) OVER of_app, 0))::numeric)), (0)::numeric)) AS elasticity
   FROM ( SELECT s.month,
            a.name AS app,
            u.users,
            s.requests,
            s.full_usd
           FROM ((( SELECT date_trunc('month'::text, days.day, 'UTC'::text) AS month,
                    days.app_id,
                    (sum(days.requests))::bigint AS requests,
                    sum(days.full_usd) AS full_usd
                   FROM ( SELECT user_days.day,
                            user_days.app_id,
                            user_days.users,
                            user_days.requests,
                            user_days.full_usd
                           FROM public.user_days
                        UNION ALL
                         SELECT users_by_day.day,
                            users_by_day.app_id,
                            users_by_day.users,
                            users_by_day.requests,
                            users_by_day.full_usd
                           FROM public.users_by_day(( SELECT COALESCE((max(closed_days.day) + '24:00:00'::interval), '-infinity'::timestamp with time zone) AS "coalesce"
                                   FROM public.closed_days), 'infinity'::timestamp with time zone) users_by_day(day, app_id, users, requests, full_usd)) days
                  GROUP BY (date_trunc('month'::text, days.day, 'UTC'::text)), days.app_id
                 HAVING (sum(days.full_usd) > (0)::numeric)) s
             JOIN ( SELECT each.month,
                    each.app_id,
                    count(*) AS users
                   FROM ( SELECT DISTINCT date_trunc('month'::text, ledger.at, 'UTC'::text) AS month,
                            ledger.app_id,
                            ledger.end_user
                           FROM public.ledger
                          WHERE ((ledger.kind <> 'waste'::text) AND (ledger.end_user IS NOT NULL))) each
                  GROUP BY each.month, each.app_id) u USING (month, app_id))
             JOIN public.apps a ON ((a.id = s.app_id)))) months
  WINDOW of_app AS (PARTITION BY app ORDER BY month);
CREATE VIEW public.cost_reconciliation AS
 SELECT h.pool,
    h.hour,
    h.bill_usd,
    COALESCE(r.usd, (0)::numeric) AS requests_usd,
    h.platform_usd,
    ((COALESCE(r.usd, (0)::numeric) + h.platform_usd) - h.bill_usd) AS difference_usd
   FROM (public.cost_hours h
     LEFT JOIN LATERAL ( SELECT sum(public.full_usd(l.usd, public.request_work(l.prompt_tokens, l.cached_tokens, l.output_tokens, l.kv_token_s, h.weigh_by, h.cached_weight, h.output_weight), h.factor, h.idle_usd_per_work)) AS usd
           FROM public.ledger l
          WHERE ((l.kind = 'compute'::text) AND (l.pool = h.pool) AND (l.at >= h.hour) AND (l.at < (h.hour + '01:00:00'::interval)))) r ON (true));
CREATE TABLE public.decisions (
    id bigint NOT NULL,
    at timestamp with time zone DEFAULT now() NOT NULL,
    pool text NOT NULL,
    mode text NOT NULL,
    hosts integer NOT NULL,
    target integer NOT NULL,
    reason text NOT NULL,
    inputs jsonb NOT NULL,
    action text DEFAULT 'hold'::text NOT NULL,
    policy text DEFAULT 'reactive'::text NOT NULL,
    version integer DEFAULT 0 NOT NULL,
    need integer,
    spare_need integer,
    forecast_tokens_per_s double precision,
    forecast_at timestamp with time zone,
    burst_until timestamp with time zone,
    applied_at timestamp with time zone,
    tries integer DEFAULT 0 NOT NULL,
    error text,
    actual_tokens_per_s double precision
);
ALTER TABLE public.decisions ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.decisions_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE public.deliveries (
    id uuid NOT NULL,
    job_id uuid,
    app_id uuid,
    event text NOT NULL,
    url text NOT NULL,
    state text DEFAULT 'pending'::text NOT NULL,
    tries integer DEFAULT 0 NOT NULL,
    last_status integer,
    last_error text,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    next_at timestamp with time zone DEFAULT now() NOT NULL,
    published_at timestamp with time zone,
    delivered_at timestamp with time zone,
    data jsonb,
    tries_before integer DEFAULT 0 NOT NULL,
    CONSTRAINT ck_deliveries_about CHECK ((num_nonnulls(job_id, data) = 1)),
    CONSTRAINT ck_deliveries_state CHECK ((state = ANY (ARRAY['pending'::text, 'delivered'::text, 'failed'::text])))
)
PARTITION BY RANGE (job_id);
CREATE TABLE public.deliveries_2026_10 (
    id uuid CONSTRAINT deliveries_id_not_null NOT NULL,
    job_id uuid,
    app_id uuid,
    event text CONSTRAINT deliveries_event_not_null NOT NULL,
    url text CONSTRAINT deliveries_url_not_null NOT NULL,
    state text DEFAULT 'pending'::text CONSTRAINT deliveries_state_not_null NOT NULL,
    tries integer DEFAULT 0 CONSTRAINT deliveries_tries_not_null NOT NULL,
    last_status integer,
    last_error text,
    created_at timestamp with time zone DEFAULT now() CONSTRAINT deliveries_created_at_not_null NOT NULL,
    next_at timestamp with time zone DEFAULT now() CONSTRAINT deliveries_next_at_not_null NOT NULL,
    published_at timestamp with time zone,
    delivered_at timestamp with time zone,
    data jsonb,
    tries_before integer DEFAULT 0 CONSTRAINT deliveries_tries_before_not_null NOT NULL,
    CONSTRAINT ck_deliveries_about CHECK ((num_nonnulls(job_id, data) = 1)),
    CONSTRAINT ck_deliveries_state CHECK ((state = ANY (ARRAY['pending'::text, 'delivered'::text, 'failed'::text])))
);
CREATE TABLE public.deliveries_2026_11 (
    id uuid CONSTRAINT deliveries_id_not_null NOT NULL,
    job_id uuid,
    app_id uuid,
    event text CONSTRAINT deliveries_event_not_null NOT NULL,
    url text CONSTRAINT deliveries_url_not_null NOT NULL,
    state text DEFAULT 'pending'::text CONSTRAINT deliveries_state_not_null NOT NULL,
    tries integer DEFAULT 0 CONSTRAINT deliveries_tries_not_null NOT NULL,
    last_status integer,
    last_error text,
    created_at timestamp with time zone DEFAULT now() CONSTRAINT deliveries_created_at_not_null NOT NULL,
    next_at timestamp with time zone DEFAULT now() CONSTRAINT deliveries_next_at_not_null NOT NULL,
    published_at timestamp with time zone,
    delivered_at timestamp with time zone,
    data jsonb,
    tries_before integer DEFAULT 0 CONSTRAINT deliveries_tries_before_not_null NOT NULL,
    CONSTRAINT ck_deliveries_about CHECK ((num_nonnulls(job_id, data) = 1)),
    CONSTRAINT ck_deliveries_state CHECK ((state = ANY (ARRAY['pending'::text, 'delivered'::text, 'failed'::text])))
);
CREATE TABLE public.deliveries_2026_12 (
    id uuid CONSTRAINT deliveries_id_not_null NOT NULL,
    job_id uuid,
    app_id uuid,
    event text CONSTRAINT deliveries_event_not_null NOT NULL,
    url text CONSTRAINT deliveries_url_not_null NOT NULL,
    state text DEFAULT 'pending'::text CONSTRAINT deliveries_state_not_null NOT NULL,
    tries integer DEFAULT 0 CONSTRAINT deliveries_tries_not_null NOT NULL,
    last_status integer,
    last_error text,
    created_at timestamp with time zone DEFAULT now() CONSTRAINT deliveries_created_at_not_null NOT NULL,
    next_at timestamp with time zone DEFAULT now() CONSTRAINT deliveries_next_at_not_null NOT NULL,
    published_at timestamp with time zone,
    delivered_at timestamp with time zone,
    data jsonb,
    tries_before integer DEFAULT 0 CONSTRAINT deliveries_tries_before_not_null NOT NULL,
    CONSTRAINT ck_deliveries_about CHECK ((num_nonnulls(job_id, data) = 1)),
    CONSTRAINT ck_deliveries_state CHECK ((state = ANY (ARRAY['pending'::text, 'delivered'::text, 'failed'::text])))
);
CREATE TABLE public.deliveries_2027_01 (
    id uuid CONSTRAINT deliveries_id_not_null NOT NULL,
    job_id uuid,
    app_id uuid,
    event text CONSTRAINT deliveries_event_not_null NOT NULL,
    url text CONSTRAINT deliveries_url_not_null NOT NULL,
    state text DEFAULT 'pending'::text CONSTRAINT deliveries_state_not_null NOT NULL,
    tries integer DEFAULT 0 CONSTRAINT deliveries_tries_not_null NOT NULL,
    last_status integer,
    last_error text,
    created_at timestamp with time zone DEFAULT now() CONSTRAINT deliveries_created_at_not_null NOT NULL,
    next_at timestamp with time zone DEFAULT now() CONSTRAINT deliveries_next_at_not_null NOT NULL,
    published_at timestamp with time zone,
    delivered_at timestamp with time zone,
    data jsonb,
    tries_before integer DEFAULT 0 CONSTRAINT deliveries_tries_before_not_null NOT NULL,
    CONSTRAINT ck_deliveries_about CHECK ((num_nonnulls(job_id, data) = 1)),
    CONSTRAINT ck_deliveries_state CHECK ((state = ANY (ARRAY['pending'::text, 'delivered'::text, 'failed'::text])))
);
CREATE TABLE public.deliveries_first (
    id uuid CONSTRAINT deliveries_id_not_null NOT NULL,
    job_id uuid,
    app_id uuid,
    event text CONSTRAINT deliveries_event_not_null NOT NULL,
    url text CONSTRAINT deliveries_url_not_null NOT NULL,
    state text DEFAULT 'pending'::text CONSTRAINT deliveries_state_not_null NOT NULL,
    tries integer DEFAULT 0 CONSTRAINT deliveries_tries_not_null NOT NULL,
    last_status integer,
    last_error text,
    created_at timestamp with time zone DEFAULT now() CONSTRAINT deliveries_created_at_not_null NOT NULL,
    next_at timestamp with time zone DEFAULT now() CONSTRAINT deliveries_next_at_not_null NOT NULL,
    published_at timestamp with time zone,
    delivered_at timestamp with time zone,
    data jsonb,
    tries_before integer DEFAULT 0 CONSTRAINT deliveries_tries_before_not_null NOT NULL,
    CONSTRAINT ck_deliveries_about CHECK ((num_nonnulls(job_id, data) = 1)),
    CONSTRAINT ck_deliveries_first CHECK ((job_id < '01a2ce8b-d400-0000-0000-000000000000'::uuid)),
    CONSTRAINT ck_deliveries_state CHECK ((state = ANY (ARRAY['pending'::text, 'delivered'::text, 'failed'::text])))
);
CREATE TABLE public.failed_logins (
    digest bytea NOT NULL,
    tries integer NOT NULL,
    until timestamp with time zone NOT NULL
);
CREATE TABLE public.gone_receivers (
    digest bytea NOT NULL,
    app_id uuid,
    url text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL
);
CREATE VIEW public.gpu_hours AS
 SELECT pool,
    hour,
    (host_s / (3600)::numeric) AS host_hours,
    (boot_s / (3600)::numeric) AS boot_hours,
    unpriced_hosts,
    requests,
    bill_usd,
    trunc((compute_usd * factor), 9) AS used_usd,
    trunc((waste_usd * factor), 9) AS waste_usd,
    boot_usd,
    ((bill_usd - trunc((compute_usd * factor), 9)) - trunc((waste_usd * factor), 9)) AS idle_usd,
    platform_usd,
    (compute_usd / NULLIF(bill_usd, (0)::numeric)) AS use,
    closed_at
   FROM public.cost_hours;
CREATE TABLE public.host_actors (
    pool text NOT NULL,
    holder uuid NOT NULL,
    until timestamp with time zone NOT NULL
);
CREATE TABLE public.hosts (
    id text NOT NULL,
    pool text NOT NULL,
    instance_type text,
    usd_per_hour numeric(18,9),
    requested_at timestamp with time zone NOT NULL,
    ready_at timestamp with time zone,
    drain_at timestamp with time zone,
    ended_at timestamp with time zone,
    provider_id text,
    ordered_at timestamp with time zone,
    end_reason text,
    is_adopted boolean DEFAULT false NOT NULL,
    decision_id bigint,
    drain_decision_id bigint,
    released_at timestamp with time zone,
    CONSTRAINT ck_hosts_end_reason CHECK ((end_reason = ANY (ARRAY['scaled_down'::text, 'by_hand'::text, 'gone'::text, 'written_off'::text])))
);
CREATE TABLE public.idempotency_keys (
    app_id uuid NOT NULL,
    key text NOT NULL,
    request_hash bytea NOT NULL,
    job_id uuid NOT NULL,
    expires_at timestamp with time zone NOT NULL
);
CREATE TABLE public.job_retries (
    job_id uuid NOT NULL,
    retried_as uuid NOT NULL
);
CREATE TABLE public.job_texts (
    job_id uuid NOT NULL,
    messages jsonb NOT NULL,
    sampling jsonb NOT NULL,
    answer text,
    logprobs jsonb,
    reasoning text,
    logprobs_json json,
    cache_key bytea,
    is_unstored boolean,
    kept_answer jsonb,
    tool_calls jsonb,
    choices json
)
PARTITION BY RANGE (job_id);
CREATE TABLE public.job_texts_2026_10 (
    job_id uuid CONSTRAINT job_texts_job_id_not_null NOT NULL,
    messages jsonb CONSTRAINT job_texts_messages_not_null NOT NULL,
    sampling jsonb CONSTRAINT job_texts_sampling_not_null NOT NULL,
    answer text,
    logprobs jsonb,
    reasoning text,
    logprobs_json json,
    cache_key bytea,
    is_unstored boolean,
    kept_answer jsonb,
    tool_calls jsonb,
    choices json
);
CREATE TABLE public.job_texts_2026_11 (
    job_id uuid CONSTRAINT job_texts_job_id_not_null NOT NULL,
    messages jsonb CONSTRAINT job_texts_messages_not_null NOT NULL,
    sampling jsonb CONSTRAINT job_texts_sampling_not_null NOT NULL,
    answer text,
    logprobs jsonb,
    reasoning text,
    logprobs_json json,
    cache_key bytea,
    is_unstored boolean,
    kept_answer jsonb,
    tool_calls jsonb,
    choices json
);
CREATE TABLE public.job_texts_2026_12 (
    job_id uuid CONSTRAINT job_texts_job_id_not_null NOT NULL,
    messages jsonb CONSTRAINT job_texts_messages_not_null NOT NULL,
    sampling jsonb CONSTRAINT job_texts_sampling_not_null NOT NULL,
    answer text,
    logprobs jsonb,
    reasoning text,
    logprobs_json json,
    cache_key bytea,
    is_unstored boolean,
    kept_answer jsonb,
    tool_calls jsonb,
    choices json
);
CREATE TABLE public.job_texts_2027_01 (
    job_id uuid CONSTRAINT job_texts_job_id_not_null NOT NULL,
    messages jsonb CONSTRAINT job_texts_messages_not_null NOT NULL,
    sampling jsonb CONSTRAINT job_texts_sampling_not_null NOT NULL,
    answer text,
    logprobs jsonb,
    reasoning text,
    logprobs_json json,
    cache_key bytea,
    is_unstored boolean,
    kept_answer jsonb,
    tool_calls jsonb,
    choices json
);
CREATE TABLE public.job_texts_first (
    job_id uuid CONSTRAINT job_texts_job_id_not_null NOT NULL,
    messages jsonb CONSTRAINT job_texts_messages_not_null NOT NULL,
    sampling jsonb CONSTRAINT job_texts_sampling_not_null NOT NULL,
    answer text,
    logprobs jsonb,
    reasoning text,
    logprobs_json json,
    cache_key bytea,
    is_unstored boolean,
    kept_answer jsonb,
    tool_calls jsonb,
    choices json
);
CREATE TABLE public.jobs_2026_10 (
    id uuid CONSTRAINT jobs_id_not_null NOT NULL,
    app_id uuid CONSTRAINT jobs_app_id_not_null NOT NULL,
    state text CONSTRAINT jobs_state_not_null NOT NULL,
    lane text CONSTRAINT jobs_lane_not_null NOT NULL,
    pool text CONSTRAINT jobs_pool_not_null NOT NULL,
    queue text CONSTRAINT jobs_queue_not_null NOT NULL,
    route text CONSTRAINT jobs_route_not_null NOT NULL,
    route_reason text CONSTRAINT jobs_route_reason_not_null NOT NULL,
    overflow text CONSTRAINT jobs_overflow_not_null NOT NULL,
    model_requested text CONSTRAINT jobs_model_requested_not_null NOT NULL,
    model_served text,
    adapter text,
    batch_id uuid,
    custom_id text,
    end_user text,
    served_by_job uuid,
    metadata jsonb DEFAULT '{}'::jsonb CONSTRAINT jobs_metadata_not_null NOT NULL,
    webhook_url text,
    background boolean CONSTRAINT jobs_background_not_null NOT NULL,
    max_cost_usd numeric(18,9),
    prompt_tokens integer CONSTRAINT jobs_prompt_tokens_not_null NOT NULL,
    max_tokens integer CONSTRAINT jobs_max_tokens_not_null NOT NULL,
    output_tokens integer,
    cached_tokens integer,
    finish_reason text,
    usd numeric(18,9) DEFAULT 0 CONSTRAINT jobs_usd_not_null NOT NULL,
    error_code text,
    error_message text,
    enqueue_no integer DEFAULT 1 CONSTRAINT jobs_enqueue_no_not_null NOT NULL,
    attempt integer DEFAULT 0 CONSTRAINT jobs_attempt_not_null NOT NULL,
    worker_id uuid,
    created_at timestamp with time zone DEFAULT now() CONSTRAINT jobs_created_at_not_null NOT NULL,
    start_by timestamp with time zone CONSTRAINT jobs_start_by_not_null NOT NULL,
    finish_by timestamp with time zone,
    not_before timestamp with time zone,
    queued_at timestamp with time zone,
    started_at timestamp with time zone,
    ended_at timestamp with time zone,
    cancel_requested_at timestamp with time zone,
    stream boolean DEFAULT false CONSTRAINT jobs_stream_not_null NOT NULL,
    erased_at timestamp with time zone,
    suspicion smallint DEFAULT 0 CONSTRAINT jobs_suspicion_not_null NOT NULL,
    retry_of uuid,
    reasoning_tokens integer,
    overflow_at timestamp with time zone,
    cache text,
    original_tokens integer,
    rule text,
    stand_by timestamp with time zone,
    shadow text,
    shadow_of uuid,
    n smallint,
    needs_version smallint,
    CONSTRAINT ck_jobs_lane CHECK ((lane = ANY (ARRAY['high'::text, 'normal'::text, 'low'::text, 'batch'::text]))),
    CONSTRAINT ck_jobs_overflow CHECK ((overflow = ANY (ARRAY['allow'::text, 'never'::text, 'only'::text]))),
    CONSTRAINT ck_jobs_route CHECK ((route = ANY (ARRAY['pool'::text, 'overflow'::text]))),
    CONSTRAINT ck_jobs_running_has_worker CHECK (((state = 'running'::text) = (worker_id IS NOT NULL))),
    CONSTRAINT ck_jobs_state CHECK ((state = ANY (ARRAY['waiting'::text, 'queued'::text, 'running'::text, 'succeeded'::text, 'failed'::text, 'cancelled'::text, 'expired'::text])))
);
CREATE TABLE public.jobs_2026_11 (
    id uuid CONSTRAINT jobs_id_not_null NOT NULL,
    app_id uuid CONSTRAINT jobs_app_id_not_null NOT NULL,
    state text CONSTRAINT jobs_state_not_null NOT NULL,
    lane text CONSTRAINT jobs_lane_not_null NOT NULL,
    pool text CONSTRAINT jobs_pool_not_null NOT NULL,
    queue text CONSTRAINT jobs_queue_not_null NOT NULL,
    route text CONSTRAINT jobs_route_not_null NOT NULL,
    route_reason text CONSTRAINT jobs_route_reason_not_null NOT NULL,
    overflow text CONSTRAINT jobs_overflow_not_null NOT NULL,
    model_requested text CONSTRAINT jobs_model_requested_not_null NOT NULL,
    model_served text,
    adapter text,
    batch_id uuid,
    custom_id text,
    end_user text,
    served_by_job uuid,
    metadata jsonb DEFAULT '{}'::jsonb CONSTRAINT jobs_metadata_not_null NOT NULL,
    webhook_url text,
    background boolean CONSTRAINT jobs_background_not_null NOT NULL,
    max_cost_usd numeric(18,9),
    prompt_tokens integer CONSTRAINT jobs_prompt_tokens_not_null NOT NULL,
    max_tokens integer CONSTRAINT jobs_max_tokens_not_null NOT NULL,
    output_tokens integer,
    cached_tokens integer,
    finish_reason text,
    usd numeric(18,9) DEFAULT 0 CONSTRAINT jobs_usd_not_null NOT NULL,
    error_code text,
    error_message text,
    enqueue_no integer DEFAULT 1 CONSTRAINT jobs_enqueue_no_not_null NOT NULL,
    attempt integer DEFAULT 0 CONSTRAINT jobs_attempt_not_null NOT NULL,
    worker_id uuid,
    created_at timestamp with time zone DEFAULT now() CONSTRAINT jobs_created_at_not_null NOT NULL,
    start_by timestamp with time zone CONSTRAINT jobs_start_by_not_null NOT NULL,
    finish_by timestamp with time zone,
    not_before timestamp with time zone,
    queued_at timestamp with time zone,
    started_at timestamp with time zone,
    ended_at timestamp with time zone,
    cancel_requested_at timestamp with time zone,
    stream boolean DEFAULT false CONSTRAINT jobs_stream_not_null NOT NULL,
    erased_at timestamp with time zone,
    suspicion smallint DEFAULT 0 CONSTRAINT jobs_suspicion_not_null NOT NULL,
    retry_of uuid,
    reasoning_tokens integer,
    overflow_at timestamp with time zone,
    cache text,
    original_tokens integer,
    rule text,
    stand_by timestamp with time zone,
    shadow text,
    shadow_of uuid,
    n smallint,
    needs_version smallint,
    CONSTRAINT ck_jobs_lane CHECK ((lane = ANY (ARRAY['high'::text, 'normal'::text, 'low'::text, 'batch'::text]))),
    CONSTRAINT ck_jobs_overflow CHECK ((overflow = ANY (ARRAY['allow'::text, 'never'::text, 'only'::text]))),
    CONSTRAINT ck_jobs_route CHECK ((route = ANY (ARRAY['pool'::text, 'overflow'::text]))),
    CONSTRAINT ck_jobs_running_has_worker CHECK (((state = 'running'::text) = (worker_id IS NOT NULL))),
    CONSTRAINT ck_jobs_state CHECK ((state = ANY (ARRAY['waiting'::text, 'queued'::text, 'running'::text, 'succeeded'::text, 'failed'::text, 'cancelled'::text, 'expired'::text])))
);
CREATE TABLE public.jobs_2026_12 (
    id uuid CONSTRAINT jobs_id_not_null NOT NULL,
    app_id uuid CONSTRAINT jobs_app_id_not_null NOT NULL,
    state text CONSTRAINT jobs_state_not_null NOT NULL,
    lane text CONSTRAINT jobs_lane_not_null NOT NULL,
    pool text CONSTRAINT jobs_pool_not_null NOT NULL,
    queue text CONSTRAINT jobs_queue_not_null NOT NULL,
    route text CONSTRAINT jobs_route_not_null NOT NULL,
    route_reason text CONSTRAINT jobs_route_reason_not_null NOT NULL,
    overflow text CONSTRAINT jobs_overflow_not_null NOT NULL,
    model_requested text CONSTRAINT jobs_model_requested_not_null NOT NULL,
    model_served text,
    adapter text,
    batch_id uuid,
    custom_id text,
    end_user text,
    served_by_job uuid,
    metadata jsonb DEFAULT '{}'::jsonb CONSTRAINT jobs_metadata_not_null NOT NULL,
    webhook_url text,
    background boolean CONSTRAINT jobs_background_not_null NOT NULL,
    max_cost_usd numeric(18,9),
    prompt_tokens integer CONSTRAINT jobs_prompt_tokens_not_null NOT NULL,
    max_tokens integer CONSTRAINT jobs_max_tokens_not_null NOT NULL,
    output_tokens integer,
    cached_tokens integer,
    finish_reason text,
    usd numeric(18,9) DEFAULT 0 CONSTRAINT jobs_usd_not_null NOT NULL,
    error_code text,
    error_message text,
    enqueue_no integer DEFAULT 1 CONSTRAINT jobs_enqueue_no_not_null NOT NULL,
    attempt integer DEFAULT 0 CONSTRAINT jobs_attempt_not_null NOT NULL,
    worker_id uuid,
    created_at timestamp with time zone DEFAULT now() CONSTRAINT jobs_created_at_not_null NOT NULL,
    start_by timestamp with time zone CONSTRAINT jobs_start_by_not_null NOT NULL,
    finish_by timestamp with time zone,
    not_before timestamp with time zone,
    queued_at timestamp with time zone,
    started_at timestamp with time zone,
    ended_at timestamp with time zone,
    cancel_requested_at timestamp with time zone,
    stream boolean DEFAULT false CONSTRAINT jobs_stream_not_null NOT NULL,
    erased_at timestamp with time zone,
    suspicion smallint DEFAULT 0 CONSTRAINT jobs_suspicion_not_null NOT NULL,
    retry_of uuid,
    reasoning_tokens integer,
    overflow_at timestamp with time zone,
    cache text,
    original_tokens integer,
    rule text,
    stand_by timestamp with time zone,
    shadow text,
    shadow_of uuid,
    n smallint,
    needs_version smallint,
    CONSTRAINT ck_jobs_lane CHECK ((lane = ANY (ARRAY['high'::text, 'normal'::text, 'low'::text, 'batch'::text]))),
    CONSTRAINT ck_jobs_overflow CHECK ((overflow = ANY (ARRAY['allow'::text, 'never'::text, 'only'::text]))),
    CONSTRAINT ck_jobs_route CHECK ((route = ANY (ARRAY['pool'::text, 'overflow'::text]))),
    CONSTRAINT ck_jobs_running_has_worker CHECK (((state = 'running'::text) = (worker_id IS NOT NULL))),
    CONSTRAINT ck_jobs_state CHECK ((state = ANY (ARRAY['waiting'::text, 'queued'::text, 'running'::text, 'succeeded'::text, 'failed'::text, 'cancelled'::text, 'expired'::text])))
);
CREATE TABLE public.jobs_2027_01 (
    id uuid CONSTRAINT jobs_id_not_null NOT NULL,
    app_id uuid CONSTRAINT jobs_app_id_not_null NOT NULL,
    state text CONSTRAINT jobs_state_not_null NOT NULL,
    lane text CONSTRAINT jobs_lane_not_null NOT NULL,
    pool text CONSTRAINT jobs_pool_not_null NOT NULL,
    queue text CONSTRAINT jobs_queue_not_null NOT NULL,
    route text CONSTRAINT jobs_route_not_null NOT NULL,
    route_reason text CONSTRAINT jobs_route_reason_not_null NOT NULL,
    overflow text CONSTRAINT jobs_overflow_not_null NOT NULL,
    model_requested text CONSTRAINT jobs_model_requested_not_null NOT NULL,
    model_served text,
    adapter text,
    batch_id uuid,
    custom_id text,
    end_user text,
    served_by_job uuid,
    metadata jsonb DEFAULT '{}'::jsonb CONSTRAINT jobs_metadata_not_null NOT NULL,
    webhook_url text,
    background boolean CONSTRAINT jobs_background_not_null NOT NULL,
    max_cost_usd numeric(18,9),
    prompt_tokens integer CONSTRAINT jobs_prompt_tokens_not_null NOT NULL,
    max_tokens integer CONSTRAINT jobs_max_tokens_not_null NOT NULL,
    output_tokens integer,
    cached_tokens integer,
    finish_reason text,
    usd numeric(18,9) DEFAULT 0 CONSTRAINT jobs_usd_not_null NOT NULL,
    error_code text,
    error_message text,
    enqueue_no integer DEFAULT 1 CONSTRAINT jobs_enqueue_no_not_null NOT NULL,
    attempt integer DEFAULT 0 CONSTRAINT jobs_attempt_not_null NOT NULL,
    worker_id uuid,
    created_at timestamp with time zone DEFAULT now() CONSTRAINT jobs_created_at_not_null NOT NULL,
    start_by timestamp with time zone CONSTRAINT jobs_start_by_not_null NOT NULL,
    finish_by timestamp with time zone,
    not_before timestamp with time zone,
    queued_at timestamp with time zone,
    started_at timestamp with time zone,
    ended_at timestamp with time zone,
    cancel_requested_at timestamp with time zone,
    stream boolean DEFAULT false CONSTRAINT jobs_stream_not_null NOT NULL,
    erased_at timestamp with time zone,
    suspicion smallint DEFAULT 0 CONSTRAINT jobs_suspicion_not_null NOT NULL,
    retry_of uuid,
    reasoning_tokens integer,
    overflow_at timestamp with time zone,
    cache text,
    original_tokens integer,
    rule text,
    stand_by timestamp with time zone,
    shadow text,
    shadow_of uuid,
    n smallint,
    needs_version smallint,
    CONSTRAINT ck_jobs_lane CHECK ((lane = ANY (ARRAY['high'::text, 'normal'::text, 'low'::text, 'batch'::text]))),
    CONSTRAINT ck_jobs_overflow CHECK ((overflow = ANY (ARRAY['allow'::text, 'never'::text, 'only'::text]))),
    CONSTRAINT ck_jobs_route CHECK ((route = ANY (ARRAY['pool'::text, 'overflow'::text]))),
    CONSTRAINT ck_jobs_running_has_worker CHECK (((state = 'running'::text) = (worker_id IS NOT NULL))),
    CONSTRAINT ck_jobs_state CHECK ((state = ANY (ARRAY['waiting'::text, 'queued'::text, 'running'::text, 'succeeded'::text, 'failed'::text, 'cancelled'::text, 'expired'::text])))
);
CREATE TABLE public.jobs_first (
    id uuid CONSTRAINT jobs_id_not_null NOT NULL,
    app_id uuid CONSTRAINT jobs_app_id_not_null NOT NULL,
    state text CONSTRAINT jobs_state_not_null NOT NULL,
    lane text CONSTRAINT jobs_lane_not_null NOT NULL,
    pool text CONSTRAINT jobs_pool_not_null NOT NULL,
    queue text CONSTRAINT jobs_queue_not_null NOT NULL,
    route text CONSTRAINT jobs_route_not_null NOT NULL,
    route_reason text CONSTRAINT jobs_route_reason_not_null NOT NULL,
    overflow text CONSTRAINT jobs_overflow_not_null NOT NULL,
    model_requested text CONSTRAINT jobs_model_requested_not_null NOT NULL,
    model_served text,
    adapter text,
    batch_id uuid,
    custom_id text,
    end_user text,
    served_by_job uuid,
    metadata jsonb DEFAULT '{}'::jsonb CONSTRAINT jobs_metadata_not_null NOT NULL,
    webhook_url text,
    background boolean CONSTRAINT jobs_background_not_null NOT NULL,
    max_cost_usd numeric(18,9),
    prompt_tokens integer CONSTRAINT jobs_prompt_tokens_not_null NOT NULL,
    max_tokens integer CONSTRAINT jobs_max_tokens_not_null NOT NULL,
    output_tokens integer,
    cached_tokens integer,
    finish_reason text,
    usd numeric(18,9) DEFAULT 0 CONSTRAINT jobs_usd_not_null NOT NULL,
    error_code text,
    error_message text,
    enqueue_no integer DEFAULT 1 CONSTRAINT jobs_enqueue_no_not_null NOT NULL,
    attempt integer DEFAULT 0 CONSTRAINT jobs_attempt_not_null NOT NULL,
    worker_id uuid,
    created_at timestamp with time zone DEFAULT now() CONSTRAINT jobs_created_at_not_null NOT NULL,
    start_by timestamp with time zone CONSTRAINT jobs_start_by_not_null NOT NULL,
    finish_by timestamp with time zone,
    not_before timestamp with time zone,
    queued_at timestamp with time zone,
    started_at timestamp with time zone,
    ended_at timestamp with time zone,
    cancel_requested_at timestamp with time zone,
    stream boolean DEFAULT false CONSTRAINT jobs_stream_not_null NOT NULL,
    erased_at timestamp with time zone,
    suspicion smallint DEFAULT 0 CONSTRAINT jobs_suspicion_not_null NOT NULL,
    retry_of uuid,
    reasoning_tokens integer,
    overflow_at timestamp with time zone,
    cache text,
    original_tokens integer,
    rule text,
    stand_by timestamp with time zone,
    shadow text,
    shadow_of uuid,
    n smallint,
    needs_version smallint,
    CONSTRAINT ck_jobs_lane CHECK ((lane = ANY (ARRAY['high'::text, 'normal'::text, 'low'::text, 'batch'::text]))),
    CONSTRAINT ck_jobs_overflow CHECK ((overflow = ANY (ARRAY['allow'::text, 'never'::text, 'only'::text]))),
    CONSTRAINT ck_jobs_route CHECK ((route = ANY (ARRAY['pool'::text, 'overflow'::text]))),
    CONSTRAINT ck_jobs_running_has_worker CHECK (((state = 'running'::text) = (worker_id IS NOT NULL))),
    CONSTRAINT ck_jobs_state CHECK ((state = ANY (ARRAY['waiting'::text, 'queued'::text, 'running'::text, 'succeeded'::text, 'failed'::text, 'cancelled'::text, 'expired'::text])))
);
CREATE TABLE public.ledger_2026_10 (
    id bigint CONSTRAINT ledger_id_not_null NOT NULL,
    at timestamp with time zone DEFAULT now() CONSTRAINT ledger_at_not_null NOT NULL,
    kind text CONSTRAINT ledger_kind_not_null NOT NULL,
    job_id uuid,
    attempt integer,
    app_id uuid,
    end_user text,
    pool text,
    model text,
    host_id text,
    prompt_tokens integer DEFAULT 0 CONSTRAINT ledger_prompt_tokens_not_null NOT NULL,
    cached_tokens integer DEFAULT 0 CONSTRAINT ledger_cached_tokens_not_null NOT NULL,
    output_tokens integer DEFAULT 0 CONSTRAINT ledger_output_tokens_not_null NOT NULL,
    kv_token_s double precision,
    engine_s double precision,
    usd numeric(18,9) CONSTRAINT ledger_usd_not_null NOT NULL,
    idle_usd numeric(18,9) DEFAULT 0 CONSTRAINT ledger_idle_usd_not_null NOT NULL,
    price_version text,
    api_usd numeric(18,9),
    estimated boolean DEFAULT false CONSTRAINT ledger_estimated_not_null NOT NULL,
    saved_usd numeric(18,9),
    reason text,
    CONSTRAINT ck_ledger_kind CHECK ((kind = ANY (ARRAY['compute'::text, 'api'::text, 'waste'::text, 'idle'::text, 'cache'::text, 'adjustment'::text]))),
    CONSTRAINT ck_ledger_tokens CHECK ((((cached_tokens >= 0) AND (cached_tokens <= prompt_tokens)) AND (output_tokens >= 0)))
);
CREATE TABLE public.ledger_2026_11 (
    id bigint CONSTRAINT ledger_id_not_null NOT NULL,
    at timestamp with time zone DEFAULT now() CONSTRAINT ledger_at_not_null NOT NULL,
    kind text CONSTRAINT ledger_kind_not_null NOT NULL,
    job_id uuid,
    attempt integer,
    app_id uuid,
    end_user text,
    pool text,
    model text,
    host_id text,
    prompt_tokens integer DEFAULT 0 CONSTRAINT ledger_prompt_tokens_not_null NOT NULL,
    cached_tokens integer DEFAULT 0 CONSTRAINT ledger_cached_tokens_not_null NOT NULL,
    output_tokens integer DEFAULT 0 CONSTRAINT ledger_output_tokens_not_null NOT NULL,
    kv_token_s double precision,
    engine_s double precision,
    usd numeric(18,9) CONSTRAINT ledger_usd_not_null NOT NULL,
    idle_usd numeric(18,9) DEFAULT 0 CONSTRAINT ledger_idle_usd_not_null NOT NULL,
    price_version text,
    api_usd numeric(18,9),
    estimated boolean DEFAULT false CONSTRAINT ledger_estimated_not_null NOT NULL,
    saved_usd numeric(18,9),
    reason text,
    CONSTRAINT ck_ledger_kind CHECK ((kind = ANY (ARRAY['compute'::text, 'api'::text, 'waste'::text, 'idle'::text, 'cache'::text, 'adjustment'::text]))),
    CONSTRAINT ck_ledger_tokens CHECK ((((cached_tokens >= 0) AND (cached_tokens <= prompt_tokens)) AND (output_tokens >= 0)))
);
CREATE TABLE public.ledger_2026_12 (
    id bigint CONSTRAINT ledger_id_not_null NOT NULL,
    at timestamp with time zone DEFAULT now() CONSTRAINT ledger_at_not_null NOT NULL,
    kind text CONSTRAINT ledger_kind_not_null NOT NULL,
    job_id uuid,
    attempt integer,
    app_id uuid,
    end_user text,
    pool text,
    model text,
    host_id text,
    prompt_tokens integer DEFAULT 0 CONSTRAINT ledger_prompt_tokens_not_null NOT NULL,
    cached_tokens integer DEFAULT 0 CONSTRAINT ledger_cached_tokens_not_null NOT NULL,
    output_tokens integer DEFAULT 0 CONSTRAINT ledger_output_tokens_not_null NOT NULL,
    kv_token_s double precision,
    engine_s double precision,
    usd numeric(18,9) CONSTRAINT ledger_usd_not_null NOT NULL,
    idle_usd numeric(18,9) DEFAULT 0 CONSTRAINT ledger_idle_usd_not_null NOT NULL,
    price_version text,
    api_usd numeric(18,9),
    estimated boolean DEFAULT false CONSTRAINT ledger_estimated_not_null NOT NULL,
    saved_usd numeric(18,9),
    reason text,
    CONSTRAINT ck_ledger_kind CHECK ((kind = ANY (ARRAY['compute'::text, 'api'::text, 'waste'::text, 'idle'::text, 'cache'::text, 'adjustment'::text]))),
    CONSTRAINT ck_ledger_tokens CHECK ((((cached_tokens >= 0) AND (cached_tokens <= prompt_tokens)) AND (output_tokens >= 0)))
);
CREATE TABLE public.ledger_2027_01 (
    id bigint CONSTRAINT ledger_id_not_null NOT NULL,
    at timestamp with time zone DEFAULT now() CONSTRAINT ledger_at_not_null NOT NULL,
    kind text CONSTRAINT ledger_kind_not_null NOT NULL,
    job_id uuid,
    attempt integer,
    app_id uuid,
    end_user text,
    pool text,
    model text,
    host_id text,
    prompt_tokens integer DEFAULT 0 CONSTRAINT ledger_prompt_tokens_not_null NOT NULL,
    cached_tokens integer DEFAULT 0 CONSTRAINT ledger_cached_tokens_not_null NOT NULL,
    output_tokens integer DEFAULT 0 CONSTRAINT ledger_output_tokens_not_null NOT NULL,
    kv_token_s double precision,
    engine_s double precision,
    usd numeric(18,9) CONSTRAINT ledger_usd_not_null NOT NULL,
    idle_usd numeric(18,9) DEFAULT 0 CONSTRAINT ledger_idle_usd_not_null NOT NULL,
    price_version text,
    api_usd numeric(18,9),
    estimated boolean DEFAULT false CONSTRAINT ledger_estimated_not_null NOT NULL,
    saved_usd numeric(18,9),
    reason text,
    CONSTRAINT ck_ledger_kind CHECK ((kind = ANY (ARRAY['compute'::text, 'api'::text, 'waste'::text, 'idle'::text, 'cache'::text, 'adjustment'::text]))),
    CONSTRAINT ck_ledger_tokens CHECK ((((cached_tokens >= 0) AND (cached_tokens <= prompt_tokens)) AND (output_tokens >= 0)))
);
CREATE TABLE public.ledger_first (
    id bigint CONSTRAINT ledger_id_not_null NOT NULL,
    at timestamp with time zone DEFAULT now() CONSTRAINT ledger_at_not_null NOT NULL,
    kind text CONSTRAINT ledger_kind_not_null NOT NULL,
    job_id uuid,
    attempt integer,
    app_id uuid,
    end_user text,
    pool text,
    model text,
    host_id text,
    prompt_tokens integer DEFAULT 0 CONSTRAINT ledger_prompt_tokens_not_null NOT NULL,
    cached_tokens integer DEFAULT 0 CONSTRAINT ledger_cached_tokens_not_null NOT NULL,
    output_tokens integer DEFAULT 0 CONSTRAINT ledger_output_tokens_not_null NOT NULL,
    kv_token_s double precision,
    engine_s double precision,
    usd numeric(18,9) CONSTRAINT ledger_usd_not_null NOT NULL,
    idle_usd numeric(18,9) DEFAULT 0 CONSTRAINT ledger_idle_usd_not_null NOT NULL,
    price_version text,
    api_usd numeric(18,9),
    estimated boolean DEFAULT false CONSTRAINT ledger_estimated_not_null NOT NULL,
    saved_usd numeric(18,9),
    reason text,
    CONSTRAINT ck_ledger_first CHECK ((job_id < '01a2ce8b-d400-0000-0000-000000000000'::uuid)),
    CONSTRAINT ck_ledger_kind CHECK ((kind = ANY (ARRAY['compute'::text, 'api'::text, 'waste'::text, 'idle'::text, 'cache'::text, 'adjustment'::text]))),
    CONSTRAINT ck_ledger_tokens CHECK ((((cached_tokens >= 0) AND (cached_tokens <= prompt_tokens)) AND (output_tokens >= 0)))
);
ALTER TABLE public.ledger ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.ledger_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE public.list_prices (
    id bigint NOT NULL,
    model text NOT NULL,
    valid_from timestamp with time zone NOT NULL,
    valid_to timestamp with time zone,
    input_usd_per_mtok numeric(18,9) NOT NULL,
    cached_input_usd_per_mtok numeric(18,9) NOT NULL,
    output_usd_per_mtok numeric(18,9) NOT NULL,
    tiers jsonb NOT NULL,
    source text NOT NULL,
    CONSTRAINT ck_list_prices_valid CHECK ((valid_to > valid_from))
);
ALTER TABLE public.list_prices ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.list_prices_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE public.locks (
    name text NOT NULL
);
CREATE VIEW public.operator_actions AS
 SELECT l.id,
    l.at,
    l.actor,
    l.source,
    l.action,
    l.subject,
    a.name AS app,
    l.details
   FROM (public.audit_log l
     LEFT JOIN public.apps a ON ((a.id = l.app_id)));
CREATE TABLE public.operators (
    id uuid NOT NULL,
    name text NOT NULL,
    role text NOT NULL,
    password_hash text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT ck_operators_role CHECK ((role = ANY (ARRAY['viewer'::text, 'operator'::text, 'admin'::text])))
);
CREATE TABLE public.own_prices (
    id bigint NOT NULL,
    pool text NOT NULL,
    at timestamp with time zone DEFAULT now() NOT NULL,
    instance_type text NOT NULL,
    usd_per_hour numeric(18,9) NOT NULL,
    tokens_per_s double precision NOT NULL,
    work_per_token double precision NOT NULL,
    input_usd_per_mtok numeric(18,9) NOT NULL,
    cached_input_usd_per_mtok numeric(18,9) NOT NULL,
    output_usd_per_mtok numeric(18,9) NOT NULL
);
ALTER TABLE public.own_prices ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.own_prices_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE public.poison_prompts (
    digest bytea NOT NULL,
    job_id uuid NOT NULL,
    refused_until timestamp with time zone NOT NULL
);
CREATE TABLE public.poison_strikes (
    job_id uuid NOT NULL,
    app_id uuid NOT NULL,
    pool text NOT NULL,
    at timestamp with time zone NOT NULL
);
CREATE TABLE public.queue_rollups (
    queue text NOT NULL,
    span_s integer NOT NULL,
    at timestamp with time zone NOT NULL,
    samples integer NOT NULL,
    depth double precision NOT NULL,
    most_depth integer NOT NULL,
    oldest_wait_s double precision NOT NULL,
    arrivals bigint NOT NULL,
    refused bigint NOT NULL,
    started bigint NOT NULL,
    started_tokens bigint NOT NULL,
    running double precision NOT NULL,
    slots double precision NOT NULL,
    hosts double precision NOT NULL,
    offered bigint DEFAULT 0 NOT NULL,
    offered_tokens bigint DEFAULT 0 NOT NULL,
    spilled bigint DEFAULT 0 NOT NULL,
    finished bigint DEFAULT 0 NOT NULL,
    hosts_requested double precision DEFAULT 0 NOT NULL,
    hosts_draining double precision DEFAULT 0 NOT NULL,
    kv_use double precision
);
CREATE TABLE public.queue_samples (
    queue text NOT NULL,
    at timestamp with time zone NOT NULL,
    depth integer NOT NULL,
    oldest_wait_s double precision NOT NULL,
    arrivals integer NOT NULL,
    refused integer NOT NULL,
    started integer NOT NULL,
    running integer NOT NULL,
    slots integer NOT NULL,
    hosts integer NOT NULL,
    depth_tokens bigint DEFAULT 0 NOT NULL,
    started_tokens bigint DEFAULT 0 NOT NULL,
    offered bigint DEFAULT 0 NOT NULL,
    offered_tokens bigint DEFAULT 0 NOT NULL,
    spilled bigint DEFAULT 0 NOT NULL,
    finished bigint DEFAULT 0 NOT NULL,
    hosts_requested double precision DEFAULT 0 NOT NULL,
    hosts_draining double precision DEFAULT 0 NOT NULL,
    kv_use double precision
);
CREATE TABLE public.refusals (
    minute timestamp with time zone NOT NULL,
    app_id uuid NOT NULL,
    queue text NOT NULL,
    reason text NOT NULL,
    jobs integer NOT NULL,
    tokens bigint NOT NULL,
    sampled_jobs integer DEFAULT 0 NOT NULL,
    expected_tokens bigint DEFAULT 0 NOT NULL,
    sampled_tokens bigint DEFAULT 0 NOT NULL
);
CREATE VIEW public.routing_per_day AS
 SELECT date_trunc('day'::text, j.created_at, 'UTC'::text) AS day,
    a.name AS app,
    j.rule,
    (j.metadata ->> 'task'::text) AS task,
    count(*) AS jobs,
    count(*) FILTER (WHERE (j.state = 'succeeded'::text)) AS succeeded,
    count(*) FILTER (WHERE (j.cache = ANY (ARRAY['hit'::text, 'shared'::text]))) AS cached,
    COALESCE(sum(c.usd), (0)::numeric) AS usd,
    COALESCE(sum(c.waste_usd), (0)::numeric) AS waste_usd,
    count(*) FILTER (WHERE (e.escalations > 0)) AS escalated,
    (COALESCE(sum(e.by_length), (0)::numeric))::bigint AS by_length,
    (COALESCE(sum(e.by_refusal), (0)::numeric))::bigint AS by_refusal,
    (COALESCE(sum(e.by_format), (0)::numeric))::bigint AS by_format,
    (COALESCE(sum(e.by_logprob), (0)::numeric))::bigint AS by_logprob,
    count(*) FILTER (WHERE c.is_kept) AS kept,
    count(*) FILTER (WHERE s.is_compared) AS compared,
    count(*) FILTER (WHERE s.agrees) AS agreed,
    ((count(*) FILTER (WHERE s.agrees))::double precision / (NULLIF(count(*) FILTER (WHERE s.is_compared), 0))::double precision) AS agreement,
    COALESCE(sum(s.usd), (0)::numeric) AS shadow_usd
   FROM ((((public.jobs j
     JOIN public.apps a ON ((a.id = j.app_id)))
     LEFT JOIN LATERAL ( SELECT sum(ledger.usd) FILTER (WHERE (ledger.kind <> 'waste'::text)) AS usd,
            sum(ledger.usd) FILTER (WHERE (ledger.kind = 'waste'::text)) AS waste_usd,
            bool_or((ledger.reason = 'kept'::text)) AS is_kept
           FROM public.ledger
          WHERE (ledger.job_id = j.id)) c ON (true))
     LEFT JOIN LATERAL ( SELECT count(*) AS escalations,
            count(*) FILTER (WHERE (attempts.escalated_by = 'length'::text)) AS by_length,
            count(*) FILTER (WHERE (attempts.escalated_by = 'refusal'::text)) AS by_refusal,
            count(*) FILTER (WHERE (attempts.escalated_by = 'format'::text)) AS by_format,
            count(*) FILTER (WHERE (attempts.escalated_by = 'logprob'::text)) AS by_logprob
           FROM public.attempts
          WHERE ((attempts.job_id = j.id) AND (attempts.escalated_by IS NOT NULL))) e ON (true))
     LEFT JOIN LATERAL ( SELECT bool_or((x.shadow = ANY (ARRAY['agrees'::text, 'differs'::text]))) AS is_compared,
            bool_or((x.shadow = 'agrees'::text)) AS agrees,
            sum(l.usd) AS usd
           FROM (public.jobs x
             LEFT JOIN public.ledger l ON ((l.job_id = x.id)))
          WHERE (x.shadow_of = j.id)) s ON (true))
  WHERE (j.rule IS NOT NULL)
  GROUP BY (date_trunc('day'::text, j.created_at, 'UTC'::text)), a.name, j.rule, (j.metadata ->> 'task'::text);
CREATE VIEW public.savings_per_day AS
 SELECT day,
    pool,
    COALESCE(own.requests, (0)::bigint) AS requests,
    COALESCE(own.full_usd, (0)::numeric) AS full_usd,
    COALESCE(rest.platform_usd, (0)::numeric) AS platform_usd,
    COALESCE(own.api_usd, (0)::numeric) AS api_usd,
    ((COALESCE(own.api_usd, (0)::numeric) - COALESCE(own.full_usd, (0)::numeric)) - COALESCE(rest.platform_usd, (0)::numeric)) AS saved_usd
   FROM (( SELECT date_trunc('day'::text, charges.at, 'UTC'::text) AS day,
            charges.pool,
            count(*) AS requests,
            sum(charges.full_usd) AS full_usd,
            sum(charges.api_usd) AS api_usd
           FROM public.charges
          WHERE (charges.kind = 'compute'::text)
          GROUP BY (date_trunc('day'::text, charges.at, 'UTC'::text)), charges.pool) own
     FULL JOIN ( SELECT date_trunc('day'::text, cost_hours.hour, 'UTC'::text) AS day,
            cost_hours.pool,
            sum(cost_hours.platform_usd) AS platform_usd
           FROM public.cost_hours
          GROUP BY (date_trunc('day'::text, cost_hours.hour, 'UTC'::text)), cost_hours.pool) rest USING (day, pool));
CREATE TABLE public.scaling_alerts (
    kind text NOT NULL,
    pool text NOT NULL,
    subject text NOT NULL,
    began_at timestamp with time zone NOT NULL,
    seen_at timestamp with time zone NOT NULL,
    alerted_at timestamp with time zone
);
CREATE VIEW public.semantic_cache_per_day AS
 SELECT date_trunc('day'::text, m.at, 'UTC'::text) AS day,
    a.name AS app,
    m.pool,
    count(*) FILTER (WHERE (m.kind = 'served'::text)) AS served,
    count(m.is_right) AS compared,
    count(*) FILTER (WHERE (NOT m.is_right)) AS compared_wrong,
    count(*) FILTER (WHERE (m.kind = ANY (ARRAY['recheck'::text, 'shadow'::text]))) AS would_serve,
    count(*) FILTER (WHERE ((m.kind = ANY (ARRAY['recheck'::text, 'shadow'::text])) AND (NOT m.is_right))) AS would_serve_wrong,
    ((count(*) FILTER (WHERE ((m.kind = ANY (ARRAY['recheck'::text, 'shadow'::text])) AND (NOT m.is_right))))::double precision / (NULLIF(count(m.is_right) FILTER (WHERE (m.kind = ANY (ARRAY['recheck'::text, 'shadow'::text]))), 0))::double precision) AS error_share
   FROM (public.cache_matches m
     JOIN public.apps a ON ((a.id = m.app_id)))
  GROUP BY (date_trunc('day'::text, m.at, 'UTC'::text)), a.name, m.pool;
CREATE VIEW public.split_options AS
 WITH demand AS (
         SELECT date_trunc('hour'::text, ledger.at, 'UTC'::text) AS hour,
            ledger.pool,
            count(*) AS requests,
            sum(ledger.api_usd) AS api_usd,
            count(ledger.api_usd) AS priced,
            sum(((ledger.prompt_tokens)::bigint + ledger.output_tokens)) AS tokens
           FROM public.ledger
          WHERE (ledger.kind = ANY (ARRAY['compute'::text, 'api'::text]))
          GROUP BY (date_trunc('hour'::text, ledger.at, 'UTC'::text)), ledger.pool
        ), months AS (
         SELECT date_trunc('month'::text, demand.hour, 'UTC'::text) AS month,
            demand.pool,
            sum(demand.requests) AS requests,
            max(demand.requests) AS most_requests,
            (sum(demand.api_usd) / NULLIF(sum(demand.priced), (0)::numeric)) AS api_usd_per_request,
            (sum(demand.tokens) / sum(demand.requests)) AS tokens_per_request,
            ((EXTRACT(epoch FROM (max(demand.hour) - min(demand.hour))) / (3600)::numeric) + (1)::numeric) AS hours
           FROM demand
          GROUP BY (date_trunc('month'::text, demand.hour, 'UTC'::text)), demand.pool
        ), terms AS (
         SELECT m.month,
            m.pool,
            m.requests,
            m.most_requests,
            m.api_usd_per_request,
            m.tokens_per_request,
            m.hours,
            p.usd_per_hour,
            f.load_factor,
            f.api_price_factor,
            (((3600)::numeric * (p.tokens_per_s)::numeric) / NULLIF(m.tokens_per_request, (0)::numeric)) AS requests_per_host_hour
           FROM ((months m
             JOIN LATERAL ( SELECT p_1.usd_per_hour,
                    p_1.tokens_per_s
                   FROM public.own_prices p_1
                  WHERE (p_1.pool = m.pool)
                  ORDER BY p_1.id DESC
                 LIMIT 1) p ON (true))
             CROSS JOIN ( VALUES (1.0,1.0), (0.5,1.0), (2.0,1.0), (1.0,0.5), (1.0,2.0)) f(load_factor, api_price_factor))
          WHERE (m.api_usd_per_request IS NOT NULL)
        ), options AS (
         SELECT t.month,
            t.pool,
            t.requests,
            t.most_requests,
            t.api_usd_per_request,
            t.tokens_per_request,
            t.hours,
            t.usd_per_hour,
            t.load_factor,
            t.api_price_factor,
            t.requests_per_host_hour,
            hosts.hosts
           FROM terms t,
            LATERAL generate_series(0, (LEAST(ceil((((t.most_requests)::numeric * t.load_factor) / t.requests_per_host_hour)), (200)::numeric))::integer) hosts(hosts)
        ), bills AS (
         SELECT o.month,
            o.pool,
            o.load_factor,
            o.api_price_factor,
            o.hosts,
            (sum(LEAST(((d.requests)::numeric * o.load_factor), ((o.hosts)::numeric * o.requests_per_host_hour))) / sum(((d.requests)::numeric * o.load_factor))) AS own_share,
            (((o.hosts)::numeric * o.usd_per_hour) * o.hours) AS hosts_usd,
            ((sum(GREATEST((((d.requests)::numeric * o.load_factor) - ((o.hosts)::numeric * o.requests_per_host_hour)), (0)::numeric)) * o.api_usd_per_request) * o.api_price_factor) AS api_usd
           FROM (options o
             JOIN demand d ON (((d.pool = o.pool) AND (date_trunc('month'::text, d.hour, 'UTC'::text) = o.month))))
          GROUP BY o.month, o.pool, o.load_factor, o.api_price_factor, o.hosts, o.usd_per_hour, o.hours, o.api_usd_per_request
        )
 SELECT month,
    pool,
    load_factor,
    api_price_factor,
    hosts,
    own_share,
    hosts_usd,
    api_usd,
    (hosts_usd + api_usd) AS usd,
    (row_number() OVER (PARTITION BY month, pool, load_factor, api_price_factor ORDER BY (hosts_usd + api_usd), hosts) = 1) AS is_cheapest
   FROM bills;
CREATE VIEW public.split_point AS
 SELECT hosts.month,
    hosts.pool,
    (hosts.bill_usd / hosts.host_hours) AS usd_per_host_hour,
    (own.api_usd / (own.requests)::numeric) AS api_usd_per_request,
    ((own.requests)::numeric / hosts.host_hours) AS requests_per_host_hour,
    ((hosts.bill_usd / hosts.host_hours) / NULLIF((own.api_usd / (own.requests)::numeric), (0)::numeric)) AS break_even_requests_per_host_hour,
    (((3600)::numeric * rate.tokens_per_s) / NULLIF((own.tokens / (own.requests)::numeric), (0)::numeric)) AS most_requests_per_host_hour,
    (hosts.bill_usd / NULLIF(own.api_usd, (0)::numeric)) AS break_even_share
   FROM ((( SELECT date_trunc('month'::text, cost_hours.hour, 'UTC'::text) AS month,
            cost_hours.pool,
            sum(cost_hours.bill_usd) AS bill_usd,
            (sum(cost_hours.host_s) / (3600)::numeric) AS host_hours
           FROM public.cost_hours
          GROUP BY (date_trunc('month'::text, cost_hours.hour, 'UTC'::text)), cost_hours.pool) hosts
     JOIN ( SELECT date_trunc('month'::text, ledger.at, 'UTC'::text) AS month,
            ledger.pool,
            count(*) AS requests,
            sum(ledger.api_usd) AS api_usd,
            sum(((ledger.prompt_tokens)::bigint + ledger.output_tokens)) AS tokens
           FROM public.ledger
          WHERE (ledger.kind = 'compute'::text)
          GROUP BY (date_trunc('month'::text, ledger.at, 'UTC'::text)), ledger.pool) own USING (month, pool))
     LEFT JOIN LATERAL ( SELECT (p.tokens_per_s)::numeric AS tokens_per_s
           FROM public.own_prices p
          WHERE (p.pool = hosts.pool)
          ORDER BY p.id DESC
         LIMIT 1) rate ON (true))
  WHERE (hosts.host_hours > (0)::numeric);
CREATE TABLE public.unsettled_calls (
    id bigint NOT NULL,
    job_id uuid NOT NULL,
    app_id uuid NOT NULL,
    started_at timestamp with time zone NOT NULL,
    reserved_usd numeric(18,9) NOT NULL,
    usd numeric(18,9) NOT NULL
);
ALTER TABLE public.unsettled_calls ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.unsettled_calls_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE VIEW public.waits_per_hour AS
 SELECT hour,
    pool,
    lane,
    count(*) AS requests,
    percentile_cont((0.5)::double precision) WITHIN GROUP (ORDER BY wait_s) AS p50_wait_s,
    percentile_cont((0.95)::double precision) WITHIN GROUP (ORDER BY wait_s) AS p95_wait_s,
    percentile_cont((0.99)::double precision) WITHIN GROUP (ORDER BY wait_s) AS p99_wait_s,
    percentile_cont((0.5)::double precision) WITHIN GROUP (ORDER BY first_token_s) AS p50_first_token_s,
    percentile_cont((0.95)::double precision) WITHIN GROUP (ORDER BY first_token_s) AS p95_first_token_s,
    percentile_cont((0.99)::double precision) WITHIN GROUP (ORDER BY first_token_s) AS p99_first_token_s
   FROM ( SELECT date_trunc('hour'::text, j.started_at, 'UTC'::text) AS hour,
            j.pool,
            j.lane,
            (EXTRACT(epoch FROM (j.started_at - j.created_at)))::double precision AS wait_s,
            t.first_token_s
           FROM (public.jobs j
             LEFT JOIN public.attempts t ON (((t.job_id = j.id) AND (t.number = j.attempt))))
          WHERE (j.started_at IS NOT NULL)) starts
  GROUP BY hour, pool, lane;
CREATE TABLE public.worker_samples (
    id bigint NOT NULL,
    worker_id uuid NOT NULL,
    pool text NOT NULL,
    taken_at timestamp with time zone DEFAULT now() NOT NULL,
    interval_s double precision NOT NULL,
    running double precision NOT NULL,
    waiting integer NOT NULL,
    steps integer NOT NULL,
    kv_use double precision,
    kv_reserved double precision,
    prompt_tokens integer NOT NULL,
    output_tokens integer NOT NULL,
    preemptions integer NOT NULL,
    first_token_s double precision
);
ALTER TABLE public.worker_samples ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.worker_samples_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE public.workers (
    id uuid NOT NULL,
    name text NOT NULL,
    host_id text NOT NULL,
    pool text NOT NULL,
    engine text NOT NULL,
    model text NOT NULL,
    max_model_tokens integer,
    max_running integer NOT NULL,
    kv_tokens integer,
    kv_block_tokens integer,
    running integer DEFAULT 0 NOT NULL,
    ready boolean DEFAULT false NOT NULL,
    started_at timestamp with time zone DEFAULT now() NOT NULL,
    lease_until timestamp with time zone NOT NULL,
    stopped_at timestamp with time zone,
    stop_reason text,
    expected_outputs jsonb,
    draining boolean DEFAULT false NOT NULL,
    payload_version smallint DEFAULT 1 NOT NULL
);
ALTER TABLE ONLY public.attempts ATTACH PARTITION public.attempts_2026_10 FOR VALUES FROM ('01a0f4c2-c400-0000-0000-000000000000') TO ('01a19467-e800-0000-0000-000000000000');
ALTER TABLE ONLY public.attempts ATTACH PARTITION public.attempts_2026_11 FOR VALUES FROM ('01a19467-e800-0000-0000-000000000000') TO ('01a22ee6-b000-0000-0000-000000000000');
ALTER TABLE ONLY public.attempts ATTACH PARTITION public.attempts_2026_12 FOR VALUES FROM ('01a22ee6-b000-0000-0000-000000000000') TO ('01a2ce8b-d400-0000-0000-000000000000');
ALTER TABLE ONLY public.attempts ATTACH PARTITION public.attempts_2027_01 FOR VALUES FROM ('01a2ce8b-d400-0000-0000-000000000000') TO ('01a36e30-f800-0000-0000-000000000000');
ALTER TABLE ONLY public.deliveries ATTACH PARTITION public.deliveries_2026_10 FOR VALUES FROM ('01a0f4c2-c400-0000-0000-000000000000') TO ('01a19467-e800-0000-0000-000000000000');
ALTER TABLE ONLY public.deliveries ATTACH PARTITION public.deliveries_2026_11 FOR VALUES FROM ('01a19467-e800-0000-0000-000000000000') TO ('01a22ee6-b000-0000-0000-000000000000');
ALTER TABLE ONLY public.deliveries ATTACH PARTITION public.deliveries_2026_12 FOR VALUES FROM ('01a22ee6-b000-0000-0000-000000000000') TO ('01a2ce8b-d400-0000-0000-000000000000');
ALTER TABLE ONLY public.deliveries ATTACH PARTITION public.deliveries_2027_01 FOR VALUES FROM ('01a2ce8b-d400-0000-0000-000000000000') TO ('01a36e30-f800-0000-0000-000000000000');
ALTER TABLE ONLY public.deliveries ATTACH PARTITION public.deliveries_first DEFAULT;
ALTER TABLE ONLY public.job_texts ATTACH PARTITION public.job_texts_2026_10 FOR VALUES FROM ('01a0f4c2-c400-0000-0000-000000000000') TO ('01a19467-e800-0000-0000-000000000000');
ALTER TABLE ONLY public.job_texts ATTACH PARTITION public.job_texts_2026_11 FOR VALUES FROM ('01a19467-e800-0000-0000-000000000000') TO ('01a22ee6-b000-0000-0000-000000000000');
ALTER TABLE ONLY public.job_texts ATTACH PARTITION public.job_texts_2026_12 FOR VALUES FROM ('01a22ee6-b000-0000-0000-000000000000') TO ('01a2ce8b-d400-0000-0000-000000000000');
ALTER TABLE ONLY public.job_texts ATTACH PARTITION public.job_texts_2027_01 FOR VALUES FROM ('01a2ce8b-d400-0000-0000-000000000000') TO ('01a36e30-f800-0000-0000-000000000000');
ALTER TABLE ONLY public.jobs ATTACH PARTITION public.jobs_2026_10 FOR VALUES FROM ('01a0f4c2-c400-0000-0000-000000000000') TO ('01a19467-e800-0000-0000-000000000000');
ALTER TABLE ONLY public.jobs ATTACH PARTITION public.jobs_2026_11 FOR VALUES FROM ('01a19467-e800-0000-0000-000000000000') TO ('01a22ee6-b000-0000-0000-000000000000');
ALTER TABLE ONLY public.jobs ATTACH PARTITION public.jobs_2026_12 FOR VALUES FROM ('01a22ee6-b000-0000-0000-000000000000') TO ('01a2ce8b-d400-0000-0000-000000000000');
ALTER TABLE ONLY public.jobs ATTACH PARTITION public.jobs_2027_01 FOR VALUES FROM ('01a2ce8b-d400-0000-0000-000000000000') TO ('01a36e30-f800-0000-0000-000000000000');
ALTER TABLE ONLY public.ledger ATTACH PARTITION public.ledger_2026_10 FOR VALUES FROM ('01a0f4c2-c400-0000-0000-000000000000') TO ('01a19467-e800-0000-0000-000000000000');
ALTER TABLE ONLY public.ledger ATTACH PARTITION public.ledger_2026_11 FOR VALUES FROM ('01a19467-e800-0000-0000-000000000000') TO ('01a22ee6-b000-0000-0000-000000000000');
ALTER TABLE ONLY public.ledger ATTACH PARTITION public.ledger_2026_12 FOR VALUES FROM ('01a22ee6-b000-0000-0000-000000000000') TO ('01a2ce8b-d400-0000-0000-000000000000');
ALTER TABLE ONLY public.ledger ATTACH PARTITION public.ledger_2027_01 FOR VALUES FROM ('01a2ce8b-d400-0000-0000-000000000000') TO ('01a36e30-f800-0000-0000-000000000000');
ALTER TABLE ONLY public.ledger ATTACH PARTITION public.ledger_first DEFAULT;
INSERT INTO public.alembic_version VALUES
	('0070');
INSERT INTO public.api_keys VALUES
	('01a22ba7-adf4-7131-ab5e-4ea55f578b0e', '01a22ba7-adef-765b-933f-03597915d4f2', 'hr-zvA6n', '\x12d7d80d46b744c427a66d29e08de2c9e692717a6f3842ce9fef2b4e8f656322', '2026-11-30 08:52:19.056614+00', NULL, NULL, '{read,submit}'),
	('01a22ba7-b1be-72bb-ab1d-7f089a27a027', '01a22ba7-adef-765b-933f-03597915d4f2', 'hint ''ä\n%', '\xc324aac7', '2026-11-24 01:02:03.456789+00', '2026-11-24 01:02:03.456789+00', '2026-11-24 01:02:03.456789+00', '{high,normal}');
INSERT INTO public.apps VALUES
	('01a22ba7-adef-765b-933f-03597915d4f2', 'old', 'whsec_35gI3rkE9cVM7V1OD1Nq+kDxMTIE3D7h5pu9fdyOwYs=', '2026-11-30 08:52:19.056614+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('01a22ba7-b12b-7568-8381-e3b1a7531a83', 'name ''ä\n%', 'webhook_secret ''ä\n%', '2026-11-24 01:02:03.456789+00', 1, 1, 1, '{high,normal}', 1.250000001, 1.250000001, 'webhook_secret_old ''ä\n%', '2026-11-24 01:02:03.456789+00', 1, 0.1, 1);
INSERT INTO public.attempts_2026_10 VALUES
	('01a1095c-3400-77d2-b3db-90c4ff4c6a1d', 1, '01a22ba7-b145-775c-afb1-99519f7d78be', 'engine ''ä\n%', 'model_served ''ä\n%', '2026-11-24 01:02:03.456789+00', '2026-11-24 01:02:03.456789+00', 'succeeded', 'error_code ''ä\n%', 1, 1, 1, 0.1, 0.1, 1, 1.250000001, 'escalated_by ''ä\n%');
INSERT INTO public.attempts_2026_11 VALUES
	('01a21000-0000-7000-8000-000000000001', 1, '00000000-0000-0000-0000-0000000000a1', 'simulator', 'm', '2026-11-30 08:52:19.189467+00', '2026-11-30 08:52:19.206099+00', 'succeeded', NULL, 8, 0, 3, 0.5, NULL, 0, 0.000000000, NULL),
	('01a21000-0000-7000-8000-000000000002', 1, '00000000-0000-0000-0000-0000000000a1', 'simulator', 'm', '2026-11-30 08:52:19.225148+00', '2026-11-30 08:52:19.228626+00', 'succeeded', NULL, 8, 0, 3, 0.5, NULL, 0, 0.000000000, NULL),
	('01a21000-0000-7000-8000-000000000003', 1, '00000000-0000-0000-0000-0000000000a2', 'simulator', NULL, '2026-11-30 08:52:19.296524+00', '2026-11-30 08:52:19.315034+00', 'lost', NULL, NULL, NULL, NULL, NULL, NULL, 0, 0.000000000, NULL),
	('01a21000-0000-7000-8000-000000000003', 2, '00000000-0000-0000-0000-0000000000a1', 'simulator', 'm', '2026-11-30 08:52:19.370119+00', '2026-11-30 08:52:19.374457+00', 'succeeded', NULL, 8, 0, 3, 0.5, NULL, 0, 0.000000000, NULL);
INSERT INTO public.attempts_first VALUES
	('019fe8f8-1400-7554-b9dc-3b97d36137fc', 1, '019fe8f8-1400-7554-b9dc-3b97d36137fc', 'e', NULL, '2026-11-30 08:52:19.857817+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0, 0.000000000, NULL),
	('019fee1e-7000-7337-a506-060e6c588132', 1, '019fee1e-7000-7337-a506-060e6c588132', 'e', NULL, '2026-11-30 08:52:19.857817+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0, 0.000000000, NULL),
	('019ff344-cc00-73f2-abb5-c3d9e3b9c533', 1, '019ff344-cc00-73f2-abb5-c3d9e3b9c533', 'e', NULL, '2026-11-30 08:52:19.857817+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0, 0.000000000, NULL);
INSERT INTO public.audit_log OVERRIDING SYSTEM VALUE VALUES
	(1, '2026-11-24 01:02:03.456789+00', 'actor ''ä\n%', 'pages', 'action ''ä\n%', 'subject ''ä\n%', '01a22ba7-adef-765b-933f-03597915d4f2', '{"a": [1, 2.5, "ä''"]}');
INSERT INTO public.budget_limits VALUES
	(1, 1.250000001, 1.250000001, '2026-11-24 01:02:03.456789+00');
INSERT INTO public.budgets VALUES
	('01a22ba7-b1c0-715c-963a-89f9638697d2', '01a22ba7-adef-765b-933f-03597915d4f2', 'day', '2026-11-24 01:02:03.456789+00', 1.250000001, 1.250000001, 1, '2026-11-24 01:02:03.456789+00', 1, '2026-11-24 01:02:03.456789+00', 1.250000001);
INSERT INTO public.cache_entries VALUES
	('01a22ba7-b1c2-732c-8d65-7584a850ea6f', '01a22ba7-adef-765b-933f-03597915d4f2', 'pool ''ä\n%', '\x09912823', '\x24ba2ec4', '{0.25,-1.5}', '2026-11-24 01:02:03.456789+00', '2026-11-24 01:02:03.456789+00', '{"\\x0102"}');
INSERT INTO public.cache_matches VALUES
	('01a22ba7-b1c4-7146-a6fd-9bbdd32347db', '01a22ba7-adef-765b-933f-03597915d4f2', 'pool ''ä\n%', '01a22ba7-b1c4-7146-a6fd-9bbebb8d46fe', 0.1, 'served', '2026-11-24 01:02:03.456789+00', true, '2026-11-24 01:02:03.456789+00');
INSERT INTO public.closed_days VALUES
	('2026-11-24 01:02:03.456789+00', 1, '2026-11-24 01:02:03.456789+00', '2026-11-24 01:02:03.456789+00');
INSERT INTO public.confinements VALUES
	('01a22ba7-adef-765b-933f-03597915d4f2', 'pool ''ä\n%', '2026-11-24 01:02:03.456789+00', '2026-11-24 01:02:03.456789+00', '2026-11-24 01:02:03.456789+00', 'reason ''ä\n%', '01a22ba7-b1c7-7776-b978-f2ad46fc651d', '01a22ba7-b1c7-7776-b978-f2ae526ce03a');
INSERT INTO public.cost_days VALUES
	('2026-11-24 01:02:03.456789+00', '01a22ba7-adef-765b-933f-03597915d4f2', 'pool ''ä\n%', 'model ''ä\n%', 'lane ''ä\n%', 'route ''ä\n%', 1, 1, 1, 1, 1, 1.250000001, 1.250000001, 1.250000001, 1.250000001);
INSERT INTO public.cost_hours VALUES
	('pool ''ä\n%', '2026-11-24 01:02:03.456789+00', 1.250000, 1.250000, 1, 1.250000001, 1.250000001, 1, 1.250000001, 1.250000001, 1.250000001, 1.250000001000000000, 1.250000001000000000, 1.250000001, 'tokens', 1.2500, 1.2500, '2026-11-24 01:02:03.456789+00');
INSERT INTO public.decisions OVERRIDING SYSTEM VALUE VALUES
	(1, '2026-11-30 08:52:19.574882+00', 'chat', 'advisory', 1, 1, 'hold: load 0.00 is below 0.30, at the limit of 1 to 20 hosts (thresholds decide: the rate of a host is unknown)', '{"now": "2026-11-30T08:52:19.574882Z", "hosts": {"ready": 1, "up_at": null, "down_at": null, "draining": 0, "requested": 0, "spill_usd": null, "provision_s": 300.0, "tokens_per_s": null, "usd_per_hour": null, "slots_per_host": 4.0, "spill_tokens_per_s": null}, "policy": {"aws": {"groups": {}, "region": null, "timeout_s": 10.0, "endpoint_url": null}, "mode": "advisory", "local": {"socket": null, "provision_s": 0.0}, "pools": {}, "events": [], "policy": "predictive", "command": {"argv": [], "timeout_s": 60.0}, "up_load": 0.8, "up_step": 2, "actuator": null, "up_depth": 100, "window_s": 600.0, "down_load": 0.3, "down_step": 1, "host_type": null, "max_hosts": 20, "min_hosts": 1, "cooldown_s": 300.0, "kubernetes": {"namespace": "default", "timeout_s": 10.0, "kubeconfig": null, "deployments": {}}, "fixed_hosts": null, "drain_host_s": 900.0, "staffing_beta": 0.5, "stale_after_s": 60.0, "overflow_share": 0.5, "refused_job_usd": "0.015"}, "history": {"needs": [], "errors": [], "season": null, "moments": [{"at": "2026-11-30T08:52:19.462301Z", "depth": 0, "slots": 4, "running": 0, "seconds": 5.0, "depth_tokens": 0, "offered_jobs": 3, "refused_jobs": 0, "spilled_jobs": 0, "offered_tokens": 72}], "burst_until": null, "tokens_per_job": null}}', 'hold', 'predictive', 1, NULL, NULL, NULL, NULL, NULL, NULL, 0, NULL, NULL),
	(2, '2026-11-24 01:02:03.456789+00', 'pool ''ä\n%', 'mode ''ä\n%', 1, 1, 'reason ''ä\n%', '{"a": [1, 2.5, "ä''"]}', 'action ''ä\n%', 'policy ''ä\n%', 1, 1, 1, 0.1, '2026-11-24 01:02:03.456789+00', '2026-11-24 01:02:03.456789+00', '2026-11-24 01:02:03.456789+00', 1, 'error ''ä\n%', 0.1);
INSERT INTO public.deliveries_2026_10 VALUES
	('01a22ba7-b156-7567-ade1-3351beb7ce75', '01a1095c-3400-77d2-b3db-90c4ff4c6a1d', '01a22ba7-adef-765b-933f-03597915d4f2', 'event ''ä\n%', 'url ''ä\n%', 'pending', 1, 1, 'last_error ''ä\n%', '2026-11-24 01:02:03.456789+00', '2026-11-24 01:02:03.456789+00', '2026-11-24 01:02:03.456789+00', '2026-11-24 01:02:03.456789+00', NULL, 1);
INSERT INTO public.deliveries_2026_11 VALUES
	('01a22ba7-aea1-7388-931f-f285cdb3e3ba', '01a21000-0000-7000-8000-000000000002', '01a22ba7-adef-765b-933f-03597915d4f2', 'response.completed', 'https://r.example', 'delivered', 1, 204, NULL, '2026-11-30 08:52:19.228626+00', '2026-11-30 08:53:19.24493+00', NULL, '2026-11-30 08:52:19.24493+00', NULL, 0);
INSERT INTO public.deliveries_first VALUES
	('5fb818b7-8135-444a-9873-611d104c0747', '019fe8f8-1400-7554-b9dc-3b97d36137fc', '01a22ba7-adef-765b-933f-03597915d4f2', 'job.succeeded', 'https://r.example/hook', 'delivered', 0, NULL, NULL, '2026-11-30 08:52:19.857817+00', '2026-11-30 08:52:19.857817+00', '2026-11-30 08:52:19.857817+00', NULL, NULL, 0),
	('aaea2a61-e7f6-43d9-bd44-7fa3e4cf7080', '019fee1e-7000-7337-a506-060e6c588132', '01a22ba7-adef-765b-933f-03597915d4f2', 'job.succeeded', 'https://r.example/hook', 'delivered', 0, NULL, NULL, '2026-11-30 08:52:19.857817+00', '2026-11-30 08:52:19.857817+00', '2026-11-30 08:52:19.857817+00', NULL, NULL, 0),
	('257fae2d-0eb1-419c-8319-4fdf9f72a5fa', '019ff344-cc00-73f2-abb5-c3d9e3b9c533', '01a22ba7-adef-765b-933f-03597915d4f2', 'job.succeeded', 'https://r.example/hook', 'delivered', 0, NULL, NULL, '2026-11-30 08:52:19.857817+00', '2026-11-30 08:52:19.857817+00', '2026-11-30 08:52:19.857817+00', NULL, NULL, 0),
	('97294e39-c59b-4f6e-a373-775ac2c1de55', NULL, NULL, 'budget', 'https://o.example', 'pending', 0, NULL, NULL, '2026-11-30 08:52:19.857817+00', '2026-11-30 08:52:19.857817+00', NULL, NULL, '{}', 0);
INSERT INTO public.failed_logins VALUES
	('\x6ef58d42', 1, '2026-11-24 01:02:03.456789+00');
INSERT INTO public.gone_receivers VALUES
	('\x77746546', '01a22ba7-adef-765b-933f-03597915d4f2', 'url ''ä\n%', '2026-11-24 01:02:03.456789+00');
INSERT INTO public.host_actors VALUES
	('pool ''ä\n%', '01a22ba7-b189-745d-81d6-85e16b343017', '2026-11-24 01:02:03.456789+00');
INSERT INTO public.hosts VALUES
	('id ''ä\n%', 'pool ''ä\n%', 'instance_type ''ä\n%', 1.250000001, '2026-11-24 01:02:03.456789+00', '2026-11-24 01:02:03.456789+00', '2026-11-24 01:02:03.456789+00', '2026-11-24 01:02:03.456789+00', 'provider_id ''ä\n%', '2026-11-24 01:02:03.456789+00', 'scaled_down', true, 1, 1, '2026-11-24 01:02:03.456789+00');
INSERT INTO public.idempotency_keys VALUES
	('01a22ba7-adef-765b-933f-03597915d4f2', 'k', '\x68617368', '01a21000-0000-7000-8000-000000000002', '2026-12-01 08:52:19.082638+00'),
	('01a22ba7-adef-765b-933f-03597915d4f2', 'key ''ä\n%', '\x0710ed1e', '01a22ba7-b1c9-7451-b597-48c2869dca05', '2026-11-24 01:02:03.456789+00');
INSERT INTO public.job_retries VALUES
	('01a1569b-9800-73ba-9c63-58f724c2fdad', '01a20ada-2c00-771b-bd03-c03b6b187852');
INSERT INTO public.job_texts_2026_10 VALUES
	('01a15bc1-f400-70f7-8e62-d05635fab033', '[{"role": "user", "content": "Why?"}]', '{"max_tokens": 16}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('01a1095c-3400-77d2-b3db-90c4ff4c6a1d', '{"a": [1, 2.5, "ä''"]}', '{"a": [1, 2.5, "ä''"]}', 'answer ''ä\n%', '{"a": [1, 2.5, "ä''"]}', 'reasoning ''ä\n%', '{"a": [1, 2.5, "\u00e4''"]}', '\xef3e8da9', true, '{"a": [1, 2.5, "ä''"]}', '{"a": [1, 2.5, "ä''"]}', '{"a": [1, 2.5, "\u00e4''"]}');
INSERT INTO public.job_texts_2026_11 VALUES
	('01a21000-0000-7000-8000-000000000001', '[{"role": "user", "content": "What is a headrace?"}]', '{"max_tokens": 16}', 'A channel.', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('01a21000-0000-7000-8000-000000000002', '[{"role": "user", "content": "What is a headrace?"}]', '{"max_tokens": 16}', 'A channel.', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('01a21000-0000-7000-8000-000000000003', '[{"role": "user", "content": "What is a headrace?"}]', '{"max_tokens": 16}', 'A channel.', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('01a2008d-7400-70a7-97fa-d3024ae86192', '[{"role": "user", "content": "Why?"}]', '{"max_tokens": 16}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('01a205b3-d000-771b-bd03-c03a50cb8e23', '[{"role": "user", "content": "Why?"}]', '{"max_tokens": 16}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.jobs_2026_10 VALUES
	('01a1569b-9800-73ba-9c63-58f724c2fdad', '01a22ba7-adef-765b-933f-03597915d4f2', 'failed', 'normal', 'chat', 'chat.normal', 'pool', 'old', 'never', 'm', NULL, NULL, NULL, NULL, NULL, NULL, '{}', NULL, true, NULL, 8, 16, NULL, NULL, NULL, 0.000000000, NULL, NULL, 1, 1, NULL, '2026-11-30 08:52:19.857817+00', '2026-11-30 08:52:19.857817+00', NULL, NULL, NULL, NULL, NULL, NULL, false, NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('01a15bc1-f400-70f7-8e62-d05635fab033', '01a22ba7-adef-765b-933f-03597915d4f2', 'waiting', 'normal', 'chat', 'chat.normal', 'pool', 'old', 'never', 'm', NULL, NULL, NULL, NULL, NULL, NULL, '{}', NULL, true, NULL, 8, 16, NULL, NULL, NULL, 0.000000000, NULL, NULL, 1, 1, NULL, '2026-11-30 08:52:19.857817+00', '2026-11-30 08:52:19.857817+00', NULL, NULL, NULL, NULL, NULL, NULL, false, NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('01a1095c-3400-77d2-b3db-90c4ff4c6a1d', '01a22ba7-adef-765b-933f-03597915d4f2', 'running', 'high', 'pool ''ä\n%', 'queue ''ä\n%', 'pool', 'route_reason ''ä\n%', 'allow', 'model_requested ''ä\n%', 'model_served ''ä\n%', 'adapter ''ä\n%', '01a22ba7-b132-735f-94b1-5a093ccc3ad5', 'custom_id ''ä\n%', 'end_user ''ä\n%', '01a0f9e9-2000-7455-a04b-daf13998a48d', '{"a": [1, 2.5, "ä''"]}', 'webhook_url ''ä\n%', true, 1.250000001, 1, 1, 1, 1, 'finish_reason ''ä\n%', 1.250000001, 'error_code ''ä\n%', 'error_message ''ä\n%', 1, 1, '01a22ba7-b134-73af-8863-0b8c81c4edda', '2026-11-24 01:02:03.456789+00', '2026-11-24 01:02:03.456789+00', '2026-11-24 01:02:03.456789+00', '2026-11-24 01:02:03.456789+00', '2026-11-24 01:02:03.456789+00', '2026-11-24 01:02:03.456789+00', '2026-11-24 01:02:03.456789+00', '2026-11-24 01:02:03.456789+00', true, '2026-11-24 01:02:03.456789+00', 1, NULL, 1, '2026-11-24 01:02:03.456789+00', 'cache ''ä\n%', 1, 'rule ''ä\n%', '2026-11-24 01:02:03.456789+00', 'shadow ''ä\n%', '01a0f9e9-2000-7143-a4ec-b172d262637f', 1, 1);
INSERT INTO public.jobs_2026_11 VALUES
	('01a21000-0000-7000-8000-000000000001', '01a22ba7-adef-765b-933f-03597915d4f2', 'succeeded', 'normal', 'chat', 'chat.normal', 'pool', 'own pool', 'allow', 'smollm2-135m', 'm', NULL, NULL, NULL, NULL, NULL, '{}', NULL, true, NULL, 8, 16, 3, 0, 'stop', 0.000001000, NULL, NULL, 1, 1, NULL, '2026-11-30 08:52:19.077546+00', '2026-11-30 08:52:49.077546+00', NULL, NULL, '2026-11-30 08:52:19.077546+00', '2026-11-30 08:52:19.189467+00', '2026-11-30 08:52:19.206099+00', NULL, false, NULL, 0, NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('01a21000-0000-7000-8000-000000000002', '01a22ba7-adef-765b-933f-03597915d4f2', 'succeeded', 'normal', 'chat', 'chat.normal', 'pool', 'own pool', 'allow', 'smollm2-135m', 'm', NULL, NULL, NULL, NULL, NULL, '{}', 'https://r.example', true, NULL, 8, 16, 3, 0, 'stop', 0.000001000, NULL, NULL, 1, 1, NULL, '2026-11-30 08:52:19.082638+00', '2026-11-30 08:52:49.082638+00', NULL, NULL, '2026-11-30 08:52:19.082638+00', '2026-11-30 08:52:19.225148+00', '2026-11-30 08:52:19.228626+00', NULL, false, NULL, 0, NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('01a21000-0000-7000-8000-000000000003', '01a22ba7-adef-765b-933f-03597915d4f2', 'succeeded', 'normal', 'chat', 'chat.normal', 'pool', 'own pool', 'allow', 'smollm2-135m', 'm', NULL, NULL, NULL, 'u', NULL, '{"a": "b"}', NULL, true, 1.000000000, 8, 16, 3, 0, 'stop', 0.000001000, NULL, NULL, 2, 2, NULL, '2026-11-30 08:52:19.089969+00', '2026-11-30 08:52:49.089969+00', NULL, NULL, '2026-11-30 08:52:19.362552+00', '2026-11-30 08:52:19.296524+00', '2026-11-30 08:52:19.374457+00', NULL, true, NULL, 0, NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('01a2008d-7400-70a7-97fa-d3024ae86192', '01a22ba7-adef-765b-933f-03597915d4f2', 'queued', 'normal', 'chat', 'chat.normal', 'pool', 'old', 'never', 'm', NULL, NULL, NULL, NULL, NULL, NULL, '{}', NULL, true, NULL, 8, 16, NULL, NULL, NULL, 0.000000000, NULL, NULL, 1, 1, NULL, '2026-11-30 08:52:19.857817+00', '2026-11-30 08:52:19.857817+00', NULL, NULL, NULL, NULL, NULL, NULL, false, NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('01a205b3-d000-771b-bd03-c03a50cb8e23', '01a22ba7-adef-765b-933f-03597915d4f2', 'expired', 'normal', 'chat', 'chat.normal', 'pool', 'old', 'never', 'm', NULL, NULL, NULL, NULL, NULL, NULL, '{}', NULL, true, NULL, 8, 16, NULL, NULL, NULL, 0.000000000, NULL, NULL, 1, 1, NULL, '2026-11-30 08:52:19.857817+00', '2026-11-30 08:52:19.857817+00', NULL, NULL, NULL, NULL, NULL, NULL, false, NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('01a20ada-2c00-771b-bd03-c03b6b187852', '01a22ba7-adef-765b-933f-03597915d4f2', 'queued', 'normal', 'chat', 'chat.normal', 'pool', 'old', 'never', 'm', NULL, NULL, NULL, NULL, NULL, NULL, '{}', NULL, true, NULL, 8, 16, NULL, NULL, NULL, 0.000000000, NULL, NULL, 1, 1, NULL, '2026-11-30 08:52:19.857817+00', '2026-11-30 08:52:19.857817+00', NULL, NULL, NULL, NULL, NULL, NULL, false, NULL, 0, '01a1569b-9800-73ba-9c63-58f724c2fdad', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.jobs_first VALUES
	('019fe8f8-1400-7554-b9dc-3b97d36137fc', '01a22ba7-adef-765b-933f-03597915d4f2', 'succeeded', 'normal', 'chat', 'chat.normal', 'pool', 'old', 'never', 'm', NULL, NULL, NULL, NULL, NULL, NULL, '{}', NULL, true, NULL, 8, 16, NULL, NULL, NULL, 0.000000000, NULL, NULL, 1, 1, NULL, '2026-11-30 08:52:19.857817+00', '2026-11-30 08:52:19.857817+00', NULL, NULL, NULL, NULL, NULL, NULL, false, NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('019fee1e-7000-7337-a506-060e6c588132', '01a22ba7-adef-765b-933f-03597915d4f2', 'succeeded', 'normal', 'chat', 'chat.normal', 'pool', 'old', 'never', 'm', NULL, NULL, NULL, NULL, NULL, NULL, '{}', NULL, true, NULL, 8, 16, NULL, NULL, NULL, 0.000000000, NULL, NULL, 1, 1, NULL, '2026-11-30 08:52:19.857817+00', '2026-11-30 08:52:19.857817+00', NULL, NULL, NULL, NULL, NULL, NULL, false, NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('019ff344-cc00-73f2-abb5-c3d9e3b9c533', '01a22ba7-adef-765b-933f-03597915d4f2', 'succeeded', 'normal', 'chat', 'chat.normal', 'pool', 'old', 'never', 'm', NULL, NULL, NULL, NULL, NULL, NULL, '{}', NULL, true, NULL, 8, 16, NULL, NULL, NULL, 0.000000000, NULL, NULL, 1, 1, NULL, '2026-11-30 08:52:19.857817+00', '2026-11-30 08:52:19.857817+00', NULL, NULL, NULL, NULL, NULL, NULL, false, NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.ledger_2026_10 OVERRIDING SYSTEM VALUE VALUES
	(8, '2026-11-30 08:52:19.857817+00', 'waste', '01a1569b-9800-73ba-9c63-58f724c2fdad', NULL, '01a22ba7-adef-765b-933f-03597915d4f2', NULL, 'chat', NULL, NULL, 0, 0, 0, NULL, NULL, 0.500000000, 0.000000000, NULL, 0.500000000, false, NULL, NULL),
	(11, '2026-11-24 01:02:03.456789+00', 'compute', '01a1095c-3400-77d2-b3db-90c4ff4c6a1d', 1, '01a22ba7-adef-765b-933f-03597915d4f2', 'end_user ''ä\n%', 'pool ''ä\n%', 'model ''ä\n%', 'host_id ''ä\n%', 1, 1, 1, 0.1, 0.1, 1.250000001, 1.250000001, 'price_version ''ä\n%', 1.250000001, true, 1.250000001, 'reason ''ä\n%');
INSERT INTO public.ledger_2026_11 OVERRIDING SYSTEM VALUE VALUES
	(1, '2026-11-30 08:52:19.206099+00', 'compute', '01a21000-0000-7000-8000-000000000001', 1, '01a22ba7-adef-765b-933f-03597915d4f2', NULL, 'chat', 'm', 'host', 8, 0, 3, 5.5, 0.5, 0.000001000, 0.000000000, 'old-1', NULL, false, NULL, NULL),
	(2, '2026-11-30 08:52:19.228626+00', 'compute', '01a21000-0000-7000-8000-000000000002', 1, '01a22ba7-adef-765b-933f-03597915d4f2', NULL, 'chat', 'm', 'host', 8, 0, 3, 5.5, 0.5, 0.000001000, 0.000000000, 'old-1', NULL, false, NULL, NULL),
	(3, '2026-11-30 08:52:19.315034+00', 'waste', '01a21000-0000-7000-8000-000000000003', 1, '01a22ba7-adef-765b-933f-03597915d4f2', 'u', 'chat', 'smollm2-135m', NULL, 8, 0, 0, NULL, NULL, 0.000000400, 0.000000000, 'own-2026-11', NULL, true, NULL, NULL),
	(4, '2026-11-30 08:52:19.374457+00', 'compute', '01a21000-0000-7000-8000-000000000003', 2, '01a22ba7-adef-765b-933f-03597915d4f2', 'u', 'chat', 'm', 'host', 8, 0, 3, 5.5, 0.5, 0.000001000, 0.000000000, 'old-1', NULL, false, NULL, NULL);
INSERT INTO public.ledger_first OVERRIDING SYSTEM VALUE VALUES
	(5, '2026-11-30 08:52:19.857817+00', 'compute', '019fe8f8-1400-7554-b9dc-3b97d36137fc', NULL, '01a22ba7-adef-765b-933f-03597915d4f2', NULL, 'chat', NULL, NULL, 0, 0, 0, NULL, NULL, 0.001000001, 0.000000000, NULL, 0.001000001, false, NULL, NULL),
	(6, '2026-11-30 08:52:19.857817+00', 'compute', '019fee1e-7000-7337-a506-060e6c588132', NULL, '01a22ba7-adef-765b-933f-03597915d4f2', NULL, 'chat', NULL, NULL, 0, 0, 0, NULL, NULL, 0.001000001, 0.000000000, NULL, 0.001000001, false, NULL, NULL),
	(7, '2026-11-30 08:52:19.857817+00', 'compute', '019ff344-cc00-73f2-abb5-c3d9e3b9c533', NULL, '01a22ba7-adef-765b-933f-03597915d4f2', NULL, 'chat', NULL, NULL, 0, 0, 0, NULL, NULL, 0.001000001, 0.000000000, NULL, 0.001000001, false, NULL, NULL),
	(9, '2026-11-30 08:52:19.857817+00', 'adjustment', NULL, NULL, '01a22ba7-adef-765b-933f-03597915d4f2', NULL, 'chat', NULL, NULL, 0, 0, 0, NULL, NULL, -0.250000000, 0.000000000, NULL, -0.250000000, false, NULL, NULL),
	(10, '2026-11-30 08:52:19.857817+00', 'idle', NULL, NULL, '01a22ba7-adef-765b-933f-03597915d4f2', NULL, 'chat', NULL, NULL, 0, 0, 0, NULL, NULL, 0.125000000, 0.000000000, NULL, 0.125000000, false, NULL, NULL);
INSERT INTO public.list_prices OVERRIDING SYSTEM VALUE VALUES
	(1, 'model ''ä\n%', '2026-01-01 00:00:00+00', '2026-11-24 01:02:03.456789+00', 1.250000001, 1.250000001, 1.250000001, '{"a": [1, 2.5, "ä''"]}', 'source ''ä\n%');
INSERT INTO public.locks VALUES
	('rescue'),
	('publish_due'),
	('expire'),
	('forget_keys'),
	('observe'),
	('autoscale'),
	('watch_budgets'),
	('name ''ä\n%');
INSERT INTO public.operators VALUES
	('01a22ba7-b196-730f-87fc-2e6e8da8d2c7', 'name ''ä\n%', 'viewer', 'password_hash ''ä\n%', '2026-11-24 01:02:03.456789+00');
INSERT INTO public.own_prices OVERRIDING SYSTEM VALUE VALUES
	(1, 'pool ''ä\n%', '2026-11-24 01:02:03.456789+00', 'instance_type ''ä\n%', 1.250000001, 0.1, 0.1, 1.250000001, 1.250000001, 1.250000001);
INSERT INTO public.poison_prompts VALUES
	('\x019c7b48', '01a22ba7-b19d-777c-a8fe-6be3c601e0c4', '2026-11-24 01:02:03.456789+00');
INSERT INTO public.poison_strikes VALUES
	('01a22ba7-b1cb-7091-a9ff-49112c80a044', '01a22ba7-adef-765b-933f-03597915d4f2', 'pool ''ä\n%', '2026-11-24 01:02:03.456789+00');
INSERT INTO public.queue_rollups VALUES
	('queue ''ä\n%', 1, '2026-11-24 01:02:03.456789+00', 1, 0.1, 1, 0.1, 1, 1, 1, 1, 0.1, 0.1, 0.1, 1, 1, 1, 1, 0.1, 0.1, 0.1);
INSERT INTO public.queue_samples VALUES
	('chat.high', '2026-11-30 08:52:19.462301+00', 0, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0, 0, 0, 0, 0, NULL),
	('chat.normal', '2026-11-30 08:52:19.462301+00', 0, 0, 3, 0, 3, 0, 4, 1, 0, 72, 3, 72, 0, 3, 0, 0, NULL),
	('chat.low', '2026-11-30 08:52:19.462301+00', 0, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0, 0, 0, 0, 0, NULL),
	('chat.batch', '2026-11-30 08:52:19.462301+00', 0, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0, 0, 0, 0, 0, NULL),
	('overflow.high', '2026-11-30 08:52:19.462301+00', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, NULL),
	('overflow.normal', '2026-11-30 08:52:19.462301+00', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, NULL),
	('overflow.low', '2026-11-30 08:52:19.462301+00', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, NULL),
	('overflow.batch', '2026-11-30 08:52:19.462301+00', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, NULL),
	('queue ''ä\n%', '2026-11-24 01:02:03.456789+00', 1, 0.1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0.1, 0.1, 0.1);
INSERT INTO public.refusals VALUES
	('2026-11-24 01:02:03.456789+00', '01a22ba7-adef-765b-933f-03597915d4f2', 'queue ''ä\n%', 'reason ''ä\n%', 1, 1, 1, 1, 1);
INSERT INTO public.scaling_alerts VALUES
	('kind ''ä\n%', 'pool ''ä\n%', 'subject ''ä\n%', '2026-11-24 01:02:03.456789+00', '2026-11-24 01:02:03.456789+00', '2026-11-24 01:02:03.456789+00');
INSERT INTO public.unsettled_calls OVERRIDING SYSTEM VALUE VALUES
	(1, '01a22ba7-b1b4-73c7-9f72-cd2de5dfcb45', '01a22ba7-adef-765b-933f-03597915d4f2', '2026-11-24 01:02:03.456789+00', 1.250000001, 1.250000001);
INSERT INTO public.user_days VALUES
	('2026-11-24 01:02:03.456789+00', '01a22ba7-adef-765b-933f-03597915d4f2', 1, 1, 1.250000001);
INSERT INTO public.worker_samples OVERRIDING SYSTEM VALUE VALUES
	(1, '01a22ba7-b1b9-77e1-a468-edab4989a19c', 'pool ''ä\n%', '2026-11-24 01:02:03.456789+00', 0.1, 0.1, 1, 1, 0.1, 0.1, 1, 1, 1, 0.1);
INSERT INTO public.workers VALUES
	('00000000-0000-0000-0000-0000000000a1', 'gpu@old', 'host', 'chat', 'simulator', 'm', 2048, 4, 65536, 16, 0, true, '2026-11-30 08:52:19.119406+00', '2026-11-30 09:52:19.119406+00', NULL, NULL, NULL, false, 1),
	('00000000-0000-0000-0000-0000000000a2', 'gpu@old', 'host', 'chat', 'simulator', 'm', 2048, 4, 65536, 16, 0, false, '2026-11-30 08:52:19.119406+00', '2026-11-30 08:52:19.307413+00', '2026-11-30 08:52:19.307413+00', NULL, NULL, false, 1),
	('01a22ba7-b1bc-7618-81ce-0b7edaec791d', 'name ''ä\n%', 'host_id ''ä\n%', 'pool ''ä\n%', 'engine ''ä\n%', 'model ''ä\n%', 1, 1, 1, 1, 1, true, '2026-11-24 01:02:03.456789+00', '2026-11-24 01:02:03.456789+00', '2026-11-24 01:02:03.456789+00', 'stop_reason ''ä\n%', '{"a": [1, 2.5, "ä''"]}', true, 1);
SELECT pg_catalog.setval('public.audit_log_id_seq', 1, true);
SELECT pg_catalog.setval('public.decisions_id_seq', 2, true);
SELECT pg_catalog.setval('public.ledger_id_seq', 11, true);
SELECT pg_catalog.setval('public.list_prices_id_seq', 1, true);
SELECT pg_catalog.setval('public.own_prices_id_seq', 1, true);
SELECT pg_catalog.setval('public.unsettled_calls_id_seq', 1, true);
SELECT pg_catalog.setval('public.worker_samples_id_seq', 1, true);
ALTER TABLE ONLY public.alembic_version
    ADD CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num);
ALTER TABLE ONLY public.attempts
    ADD CONSTRAINT pk_attempts PRIMARY KEY (job_id, number);
ALTER TABLE ONLY public.attempts_2026_10
    ADD CONSTRAINT attempts_2026_10_pkey PRIMARY KEY (job_id, number);
ALTER TABLE ONLY public.attempts_2026_11
    ADD CONSTRAINT attempts_2026_11_pkey PRIMARY KEY (job_id, number);
ALTER TABLE ONLY public.attempts_2026_12
    ADD CONSTRAINT attempts_2026_12_pkey PRIMARY KEY (job_id, number);
ALTER TABLE ONLY public.attempts_2027_01
    ADD CONSTRAINT attempts_2027_01_pkey PRIMARY KEY (job_id, number);
ALTER TABLE ONLY public.deliveries
    ADD CONSTRAINT uq_deliveries_job_id_event UNIQUE (job_id, event);
ALTER TABLE ONLY public.deliveries_2026_10
    ADD CONSTRAINT deliveries_2026_10_job_id_event_key UNIQUE (job_id, event);
ALTER TABLE ONLY public.deliveries_2026_10
    ADD CONSTRAINT deliveries_2026_10_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.deliveries_2026_11
    ADD CONSTRAINT deliveries_2026_11_job_id_event_key UNIQUE (job_id, event);
ALTER TABLE ONLY public.deliveries_2026_11
    ADD CONSTRAINT deliveries_2026_11_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.deliveries_2026_12
    ADD CONSTRAINT deliveries_2026_12_job_id_event_key UNIQUE (job_id, event);
ALTER TABLE ONLY public.deliveries_2026_12
    ADD CONSTRAINT deliveries_2026_12_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.deliveries_2027_01
    ADD CONSTRAINT deliveries_2027_01_job_id_event_key UNIQUE (job_id, event);
ALTER TABLE ONLY public.deliveries_2027_01
    ADD CONSTRAINT deliveries_2027_01_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.job_texts
    ADD CONSTRAINT pk_job_texts PRIMARY KEY (job_id);
ALTER TABLE ONLY public.job_texts_2026_10
    ADD CONSTRAINT job_texts_2026_10_pkey PRIMARY KEY (job_id);
ALTER TABLE ONLY public.job_texts_2026_11
    ADD CONSTRAINT job_texts_2026_11_pkey PRIMARY KEY (job_id);
ALTER TABLE ONLY public.job_texts_2026_12
    ADD CONSTRAINT job_texts_2026_12_pkey PRIMARY KEY (job_id);
ALTER TABLE ONLY public.job_texts_2027_01
    ADD CONSTRAINT job_texts_2027_01_pkey PRIMARY KEY (job_id);
ALTER TABLE ONLY public.jobs
    ADD CONSTRAINT pk_jobs PRIMARY KEY (id);
ALTER TABLE ONLY public.jobs_2026_10
    ADD CONSTRAINT jobs_2026_10_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.jobs_2026_11
    ADD CONSTRAINT jobs_2026_11_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.jobs_2026_12
    ADD CONSTRAINT jobs_2026_12_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.jobs_2027_01
    ADD CONSTRAINT jobs_2027_01_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.ledger_2026_10
    ADD CONSTRAINT ledger_2026_10_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.ledger_2026_11
    ADD CONSTRAINT ledger_2026_11_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.ledger_2026_12
    ADD CONSTRAINT ledger_2026_12_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.ledger_2027_01
    ADD CONSTRAINT ledger_2027_01_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.api_keys
    ADD CONSTRAINT pk_api_keys PRIMARY KEY (id);
ALTER TABLE ONLY public.apps
    ADD CONSTRAINT pk_apps PRIMARY KEY (id);
ALTER TABLE ONLY public.attempts_first
    ADD CONSTRAINT pk_attempts_first PRIMARY KEY (job_id, number);
ALTER TABLE ONLY public.audit_log
    ADD CONSTRAINT pk_audit_log PRIMARY KEY (id);
ALTER TABLE ONLY public.budget_limits
    ADD CONSTRAINT pk_budget_limits PRIMARY KEY (id);
ALTER TABLE ONLY public.budgets
    ADD CONSTRAINT pk_budgets PRIMARY KEY (id);
ALTER TABLE ONLY public.cache_entries
    ADD CONSTRAINT pk_cache_entries PRIMARY KEY (job_id);
ALTER TABLE ONLY public.cache_matches
    ADD CONSTRAINT pk_cache_matches PRIMARY KEY (job_id);
ALTER TABLE ONLY public.closed_days
    ADD CONSTRAINT pk_closed_days PRIMARY KEY (day);
ALTER TABLE ONLY public.confinements
    ADD CONSTRAINT pk_confinements PRIMARY KEY (app_id, pool);
ALTER TABLE ONLY public.cost_hours
    ADD CONSTRAINT pk_cost_hours PRIMARY KEY (pool, hour);
ALTER TABLE ONLY public.decisions
    ADD CONSTRAINT pk_decisions PRIMARY KEY (id);
ALTER TABLE ONLY public.deliveries_first
    ADD CONSTRAINT pk_deliveries_first PRIMARY KEY (id);
ALTER TABLE ONLY public.failed_logins
    ADD CONSTRAINT pk_failed_logins PRIMARY KEY (digest);
ALTER TABLE ONLY public.gone_receivers
    ADD CONSTRAINT pk_gone_receivers PRIMARY KEY (digest);
ALTER TABLE ONLY public.host_actors
    ADD CONSTRAINT pk_host_actors PRIMARY KEY (pool);
ALTER TABLE ONLY public.hosts
    ADD CONSTRAINT pk_hosts PRIMARY KEY (id);
ALTER TABLE ONLY public.idempotency_keys
    ADD CONSTRAINT pk_idempotency_keys PRIMARY KEY (app_id, key);
ALTER TABLE ONLY public.job_retries
    ADD CONSTRAINT pk_job_retries PRIMARY KEY (job_id);
ALTER TABLE ONLY public.job_texts_first
    ADD CONSTRAINT pk_job_texts_first PRIMARY KEY (job_id);
ALTER TABLE ONLY public.jobs_first
    ADD CONSTRAINT pk_jobs_first PRIMARY KEY (id);
ALTER TABLE ONLY public.ledger_first
    ADD CONSTRAINT pk_ledger_first PRIMARY KEY (id);
ALTER TABLE ONLY public.list_prices
    ADD CONSTRAINT pk_list_prices PRIMARY KEY (id);
ALTER TABLE ONLY public.locks
    ADD CONSTRAINT pk_locks PRIMARY KEY (name);
ALTER TABLE ONLY public.operators
    ADD CONSTRAINT pk_operators PRIMARY KEY (id);
ALTER TABLE ONLY public.own_prices
    ADD CONSTRAINT pk_own_prices PRIMARY KEY (id);
ALTER TABLE ONLY public.poison_prompts
    ADD CONSTRAINT pk_poison_prompts PRIMARY KEY (digest);
ALTER TABLE ONLY public.poison_strikes
    ADD CONSTRAINT pk_poison_strikes PRIMARY KEY (job_id);
ALTER TABLE ONLY public.queue_rollups
    ADD CONSTRAINT pk_queue_rollups PRIMARY KEY (queue, span_s, at);
ALTER TABLE ONLY public.queue_samples
    ADD CONSTRAINT pk_queue_samples PRIMARY KEY (queue, at);
ALTER TABLE ONLY public.refusals
    ADD CONSTRAINT pk_refusals PRIMARY KEY (minute, app_id, queue, reason);
ALTER TABLE ONLY public.scaling_alerts
    ADD CONSTRAINT pk_scaling_alerts PRIMARY KEY (kind, pool, subject);
ALTER TABLE ONLY public.unsettled_calls
    ADD CONSTRAINT pk_unsettled_calls PRIMARY KEY (id);
ALTER TABLE ONLY public.worker_samples
    ADD CONSTRAINT pk_worker_samples PRIMARY KEY (id);
ALTER TABLE ONLY public.workers
    ADD CONSTRAINT pk_workers PRIMARY KEY (id);
ALTER TABLE ONLY public.api_keys
    ADD CONSTRAINT uq_api_keys_digest UNIQUE (digest);
ALTER TABLE ONLY public.apps
    ADD CONSTRAINT uq_apps_name UNIQUE (name);
ALTER TABLE ONLY public.budgets
    ADD CONSTRAINT uq_budgets_app_id_period_starts_at UNIQUE NULLS NOT DISTINCT (app_id, period, starts_at);
ALTER TABLE ONLY public.deliveries_first
    ADD CONSTRAINT uq_deliveries_job_id_event_first UNIQUE (job_id, event);
ALTER TABLE ONLY public.operators
    ADD CONSTRAINT uq_operators_name UNIQUE (name);
CREATE INDEX ix_deliveries_receiver ON ONLY public.deliveries USING btree (COALESCE(app_id, '00000000-0000-0000-0000-000000000000'::uuid), lower("substring"((url COLLATE "C"), '://([^/?#]*)'::text)), next_at) WHERE (state = 'pending'::text);
CREATE INDEX deliveries_2026_10_coalesce_lower_next_at_idx ON public.deliveries_2026_10 USING btree (COALESCE(app_id, '00000000-0000-0000-0000-000000000000'::uuid), lower("substring"((url COLLATE "C"), '://([^/?#]*)'::text)), next_at) WHERE (state = 'pending'::text);
CREATE INDEX ix_deliveries_failed ON ONLY public.deliveries USING btree (id) WHERE (state = 'failed'::text);
CREATE INDEX deliveries_2026_10_id_idx ON public.deliveries_2026_10 USING btree (id) WHERE (state = 'failed'::text);
CREATE INDEX ix_deliveries_pending ON ONLY public.deliveries USING btree (next_at) WHERE (state = 'pending'::text);
CREATE INDEX deliveries_2026_10_next_at_idx ON public.deliveries_2026_10 USING btree (next_at) WHERE (state = 'pending'::text);
CREATE INDEX deliveries_2026_11_coalesce_lower_next_at_idx ON public.deliveries_2026_11 USING btree (COALESCE(app_id, '00000000-0000-0000-0000-000000000000'::uuid), lower("substring"((url COLLATE "C"), '://([^/?#]*)'::text)), next_at) WHERE (state = 'pending'::text);
CREATE INDEX deliveries_2026_11_id_idx ON public.deliveries_2026_11 USING btree (id) WHERE (state = 'failed'::text);
CREATE INDEX deliveries_2026_11_next_at_idx ON public.deliveries_2026_11 USING btree (next_at) WHERE (state = 'pending'::text);
CREATE INDEX deliveries_2026_12_coalesce_lower_next_at_idx ON public.deliveries_2026_12 USING btree (COALESCE(app_id, '00000000-0000-0000-0000-000000000000'::uuid), lower("substring"((url COLLATE "C"), '://([^/?#]*)'::text)), next_at) WHERE (state = 'pending'::text);
CREATE INDEX deliveries_2026_12_id_idx ON public.deliveries_2026_12 USING btree (id) WHERE (state = 'failed'::text);
CREATE INDEX deliveries_2026_12_next_at_idx ON public.deliveries_2026_12 USING btree (next_at) WHERE (state = 'pending'::text);
CREATE INDEX deliveries_2027_01_coalesce_lower_next_at_idx ON public.deliveries_2027_01 USING btree (COALESCE(app_id, '00000000-0000-0000-0000-000000000000'::uuid), lower("substring"((url COLLATE "C"), '://([^/?#]*)'::text)), next_at) WHERE (state = 'pending'::text);
CREATE INDEX deliveries_2027_01_id_idx ON public.deliveries_2027_01 USING btree (id) WHERE (state = 'failed'::text);
CREATE INDEX deliveries_2027_01_next_at_idx ON public.deliveries_2027_01 USING btree (next_at) WHERE (state = 'pending'::text);
CREATE INDEX ix_api_keys_app_id ON public.api_keys USING btree (app_id);
CREATE INDEX ix_audit_log_at ON public.audit_log USING btree (at);
CREATE INDEX ix_cache_entries_fingerprints ON public.cache_entries USING gin (fingerprints) WITH (fastupdate=off);
CREATE INDEX ix_cache_matches_at ON public.cache_matches USING btree (at);
CREATE INDEX ix_cache_matches_judge_at ON public.cache_matches USING btree (judge_at) WHERE (judge_at IS NOT NULL);
CREATE INDEX ix_cache_matches_record ON public.cache_matches USING btree (app_id, pool, at) WHERE (is_right IS NOT NULL);
CREATE INDEX ix_cache_matches_tries ON public.cache_matches USING btree (entry_id, at) WHERE (is_right IS NOT NULL);
CREATE INDEX ix_cost_days_day ON public.cost_days USING btree (day);
CREATE INDEX ix_decisions_at ON public.decisions USING btree (at);
CREATE INDEX ix_decisions_open ON public.decisions USING btree (pool) WHERE ((mode = 'active'::text) AND (action <> 'hold'::text) AND (applied_at IS NULL));
CREATE INDEX ix_decisions_pool_at ON public.decisions USING btree (pool, at);
CREATE INDEX ix_deliveries_failed_first ON public.deliveries_first USING btree (id) WHERE (state = 'failed'::text);
CREATE INDEX ix_deliveries_pending_first ON public.deliveries_first USING btree (next_at) WHERE (state = 'pending'::text);
CREATE INDEX ix_deliveries_receiver_first ON public.deliveries_first USING btree (COALESCE(app_id, '00000000-0000-0000-0000-000000000000'::uuid), lower("substring"((url COLLATE "C"), '://([^/?#]*)'::text)), next_at) WHERE (state = 'pending'::text);
CREATE INDEX ix_failed_logins_until ON public.failed_logins USING btree (until);
CREATE INDEX ix_gone_receivers_created_at ON public.gone_receivers USING btree (created_at);
CREATE INDEX ix_hosts_live ON public.hosts USING btree (pool) WHERE (ended_at IS NULL);
CREATE INDEX ix_idempotency_keys_expires_at ON public.idempotency_keys USING btree (expires_at);
CREATE INDEX ix_job_texts_cache_key ON ONLY public.job_texts USING btree (cache_key, job_id) WHERE (cache_key IS NOT NULL);
CREATE INDEX ix_job_texts_cache_key_first ON public.job_texts_first USING btree (cache_key, job_id) WHERE (cache_key IS NOT NULL);
CREATE INDEX ix_job_texts_unstored ON ONLY public.job_texts USING btree (job_id) WHERE is_unstored;
CREATE INDEX ix_job_texts_unstored_first ON public.job_texts_first USING btree (job_id) WHERE is_unstored;
CREATE INDEX ix_jobs_app_id_id ON ONLY public.jobs USING btree (app_id, id);
CREATE INDEX ix_jobs_app_id_id_first ON public.jobs_first USING btree (app_id, id);
CREATE INDEX ix_jobs_due ON ONLY public.jobs USING btree (not_before) WHERE (state = 'waiting'::text);
CREATE INDEX ix_jobs_due_first ON public.jobs_first USING btree (not_before) WHERE (state = 'waiting'::text);
CREATE INDEX ix_jobs_ended_between ON ONLY public.jobs USING btree (ended_at) WHERE ((started_at IS NOT NULL) AND ((state = 'cancelled'::text) OR (error_code = 'deadline_exceeded'::text)));
CREATE INDEX ix_jobs_ended_between_first ON public.jobs_first USING btree (ended_at) WHERE ((started_at IS NOT NULL) AND ((state = 'cancelled'::text) OR (error_code = 'deadline_exceeded'::text)));
CREATE INDEX ix_jobs_ended_unstarted ON ONLY public.jobs USING btree (ended_at) WHERE ((started_at IS NULL) AND (ended_at IS NOT NULL));
CREATE INDEX ix_jobs_ended_unstarted_first ON public.jobs_first USING btree (ended_at) WHERE ((started_at IS NULL) AND (ended_at IS NOT NULL));
CREATE INDEX ix_jobs_failed ON ONLY public.jobs USING btree (id) WHERE (state = 'failed'::text);
CREATE INDEX ix_jobs_failed_first ON public.jobs_first USING btree (id) WHERE (state = 'failed'::text);
CREATE INDEX ix_jobs_following ON ONLY public.jobs USING btree (served_by_job) WHERE ((state = 'waiting'::text) AND (served_by_job IS NOT NULL));
CREATE INDEX ix_jobs_following_first ON public.jobs_first USING btree (served_by_job) WHERE ((state = 'waiting'::text) AND (served_by_job IS NOT NULL));
CREATE INDEX ix_jobs_overflow_at ON ONLY public.jobs USING btree (overflow_at) WHERE (overflow_at IS NOT NULL);
CREATE INDEX ix_jobs_overflow_at_first ON public.jobs_first USING btree (overflow_at) WHERE (overflow_at IS NOT NULL);
CREATE INDEX ix_jobs_queued ON ONLY public.jobs USING btree (queue, queued_at, id) WHERE (state = 'queued'::text);
CREATE INDEX ix_jobs_queued_first ON public.jobs_first USING btree (queue, queued_at, id) WHERE (state = 'queued'::text);
CREATE INDEX ix_jobs_running ON ONLY public.jobs USING btree (worker_id) WHERE (state = 'running'::text);
CREATE INDEX ix_jobs_running_first ON public.jobs_first USING btree (worker_id) WHERE (state = 'running'::text);
CREATE INDEX ix_jobs_shadow ON ONLY public.jobs USING btree (ended_at) WHERE (shadow = ANY (ARRAY['wanted'::text, 'open'::text]));
CREATE INDEX ix_jobs_shadow_first ON public.jobs_first USING btree (ended_at) WHERE (shadow = ANY (ARRAY['wanted'::text, 'open'::text]));
CREATE INDEX ix_jobs_shadow_of ON ONLY public.jobs USING btree (shadow_of) WHERE (shadow_of IS NOT NULL);
CREATE INDEX ix_jobs_shadow_of_first ON public.jobs_first USING btree (shadow_of) WHERE (shadow_of IS NOT NULL);
CREATE INDEX ix_jobs_standing ON ONLY public.jobs USING btree (stand_by) WHERE ((state = ANY (ARRAY['waiting'::text, 'queued'::text])) AND (stand_by IS NOT NULL));
CREATE INDEX ix_jobs_standing_first ON public.jobs_first USING btree (stand_by) WHERE ((state = ANY (ARRAY['waiting'::text, 'queued'::text])) AND (stand_by IS NOT NULL));
CREATE INDEX ix_jobs_started ON ONLY public.jobs USING btree (started_at) WHERE (started_at IS NOT NULL);
CREATE INDEX ix_jobs_started_first ON public.jobs_first USING btree (started_at) WHERE (started_at IS NOT NULL);
CREATE INDEX ix_jobs_unfinished ON ONLY public.jobs USING btree (finish_by) WHERE ((state = ANY (ARRAY['waiting'::text, 'queued'::text])) AND (finish_by IS NOT NULL));
CREATE INDEX ix_jobs_unfinished_first ON public.jobs_first USING btree (finish_by) WHERE ((state = ANY (ARRAY['waiting'::text, 'queued'::text])) AND (finish_by IS NOT NULL));
CREATE INDEX ix_jobs_unstarted ON ONLY public.jobs USING btree (start_by) WHERE ((state = ANY (ARRAY['waiting'::text, 'queued'::text])) AND (started_at IS NULL));
CREATE INDEX ix_jobs_unstarted_first ON public.jobs_first USING btree (start_by) WHERE ((state = ANY (ARRAY['waiting'::text, 'queued'::text])) AND (started_at IS NULL));
CREATE INDEX ix_ledger_app_id_at ON ONLY public.ledger USING btree (app_id, at);
CREATE INDEX ix_ledger_app_id_at_first ON public.ledger_first USING btree (app_id, at);
CREATE INDEX ix_ledger_at ON ONLY public.ledger USING brin (at);
CREATE INDEX ix_ledger_at_first ON public.ledger_first USING brin (at);
CREATE INDEX ix_ledger_job_id ON ONLY public.ledger USING btree (job_id);
CREATE INDEX ix_ledger_job_id_first ON public.ledger_first USING btree (job_id);
CREATE INDEX ix_ledger_unbilled ON ONLY public.ledger USING btree (job_id) WHERE (kind <> ALL (ARRAY['compute'::text, 'api'::text, 'cache'::text]));
CREATE INDEX ix_ledger_unbilled_first ON public.ledger_first USING btree (job_id) WHERE (kind <> ALL (ARRAY['compute'::text, 'api'::text, 'cache'::text]));
CREATE INDEX ix_own_prices_pool_id ON public.own_prices USING btree (pool, id);
CREATE INDEX ix_poison_prompts_refused_until ON public.poison_prompts USING btree (refused_until);
CREATE INDEX ix_poison_strikes_app_id_pool_at ON public.poison_strikes USING btree (app_id, pool, at);
CREATE INDEX ix_queue_rollups_span_s_at ON public.queue_rollups USING btree (span_s, at);
CREATE INDEX ix_queue_samples_at ON public.queue_samples USING btree (at);
CREATE INDEX ix_user_days_day ON public.user_days USING btree (day);
CREATE INDEX ix_worker_samples_taken_at_pool ON public.worker_samples USING btree (taken_at, pool);
CREATE INDEX job_texts_2026_10_cache_key_job_id_idx ON public.job_texts_2026_10 USING btree (cache_key, job_id) WHERE (cache_key IS NOT NULL);
CREATE INDEX job_texts_2026_10_job_id_idx ON public.job_texts_2026_10 USING btree (job_id) WHERE is_unstored;
CREATE INDEX job_texts_2026_11_cache_key_job_id_idx ON public.job_texts_2026_11 USING btree (cache_key, job_id) WHERE (cache_key IS NOT NULL);
CREATE INDEX job_texts_2026_11_job_id_idx ON public.job_texts_2026_11 USING btree (job_id) WHERE is_unstored;
CREATE INDEX job_texts_2026_12_cache_key_job_id_idx ON public.job_texts_2026_12 USING btree (cache_key, job_id) WHERE (cache_key IS NOT NULL);
CREATE INDEX job_texts_2026_12_job_id_idx ON public.job_texts_2026_12 USING btree (job_id) WHERE is_unstored;
CREATE INDEX job_texts_2027_01_cache_key_job_id_idx ON public.job_texts_2027_01 USING btree (cache_key, job_id) WHERE (cache_key IS NOT NULL);
CREATE INDEX job_texts_2027_01_job_id_idx ON public.job_texts_2027_01 USING btree (job_id) WHERE is_unstored;
CREATE INDEX jobs_2026_10_app_id_id_idx ON public.jobs_2026_10 USING btree (app_id, id);
CREATE INDEX jobs_2026_10_ended_at_idx ON public.jobs_2026_10 USING btree (ended_at) WHERE ((started_at IS NULL) AND (ended_at IS NOT NULL));
CREATE INDEX jobs_2026_10_ended_at_idx1 ON public.jobs_2026_10 USING btree (ended_at) WHERE ((started_at IS NOT NULL) AND ((state = 'cancelled'::text) OR (error_code = 'deadline_exceeded'::text)));
CREATE INDEX jobs_2026_10_ended_at_idx2 ON public.jobs_2026_10 USING btree (ended_at) WHERE (shadow = ANY (ARRAY['wanted'::text, 'open'::text]));
CREATE INDEX jobs_2026_10_finish_by_idx ON public.jobs_2026_10 USING btree (finish_by) WHERE ((state = ANY (ARRAY['waiting'::text, 'queued'::text])) AND (finish_by IS NOT NULL));
CREATE INDEX jobs_2026_10_id_idx ON public.jobs_2026_10 USING btree (id) WHERE (state = 'failed'::text);
CREATE INDEX jobs_2026_10_not_before_idx ON public.jobs_2026_10 USING btree (not_before) WHERE (state = 'waiting'::text);
CREATE INDEX jobs_2026_10_overflow_at_idx ON public.jobs_2026_10 USING btree (overflow_at) WHERE (overflow_at IS NOT NULL);
CREATE INDEX jobs_2026_10_queue_queued_at_id_idx ON public.jobs_2026_10 USING btree (queue, queued_at, id) WHERE (state = 'queued'::text);
CREATE INDEX jobs_2026_10_served_by_job_idx ON public.jobs_2026_10 USING btree (served_by_job) WHERE ((state = 'waiting'::text) AND (served_by_job IS NOT NULL));
CREATE INDEX jobs_2026_10_shadow_of_idx ON public.jobs_2026_10 USING btree (shadow_of) WHERE (shadow_of IS NOT NULL);
CREATE INDEX jobs_2026_10_stand_by_idx ON public.jobs_2026_10 USING btree (stand_by) WHERE ((state = ANY (ARRAY['waiting'::text, 'queued'::text])) AND (stand_by IS NOT NULL));
CREATE INDEX jobs_2026_10_start_by_idx ON public.jobs_2026_10 USING btree (start_by) WHERE ((state = ANY (ARRAY['waiting'::text, 'queued'::text])) AND (started_at IS NULL));
CREATE INDEX jobs_2026_10_started_at_idx ON public.jobs_2026_10 USING btree (started_at) WHERE (started_at IS NOT NULL);
CREATE INDEX jobs_2026_10_worker_id_idx ON public.jobs_2026_10 USING btree (worker_id) WHERE (state = 'running'::text);
CREATE INDEX jobs_2026_11_app_id_id_idx ON public.jobs_2026_11 USING btree (app_id, id);
CREATE INDEX jobs_2026_11_ended_at_idx ON public.jobs_2026_11 USING btree (ended_at) WHERE ((started_at IS NULL) AND (ended_at IS NOT NULL));
CREATE INDEX jobs_2026_11_ended_at_idx1 ON public.jobs_2026_11 USING btree (ended_at) WHERE ((started_at IS NOT NULL) AND ((state = 'cancelled'::text) OR (error_code = 'deadline_exceeded'::text)));
CREATE INDEX jobs_2026_11_ended_at_idx2 ON public.jobs_2026_11 USING btree (ended_at) WHERE (shadow = ANY (ARRAY['wanted'::text, 'open'::text]));
CREATE INDEX jobs_2026_11_finish_by_idx ON public.jobs_2026_11 USING btree (finish_by) WHERE ((state = ANY (ARRAY['waiting'::text, 'queued'::text])) AND (finish_by IS NOT NULL));
CREATE INDEX jobs_2026_11_id_idx ON public.jobs_2026_11 USING btree (id) WHERE (state = 'failed'::text);
CREATE INDEX jobs_2026_11_not_before_idx ON public.jobs_2026_11 USING btree (not_before) WHERE (state = 'waiting'::text);
CREATE INDEX jobs_2026_11_overflow_at_idx ON public.jobs_2026_11 USING btree (overflow_at) WHERE (overflow_at IS NOT NULL);
CREATE INDEX jobs_2026_11_queue_queued_at_id_idx ON public.jobs_2026_11 USING btree (queue, queued_at, id) WHERE (state = 'queued'::text);
CREATE INDEX jobs_2026_11_served_by_job_idx ON public.jobs_2026_11 USING btree (served_by_job) WHERE ((state = 'waiting'::text) AND (served_by_job IS NOT NULL));
CREATE INDEX jobs_2026_11_shadow_of_idx ON public.jobs_2026_11 USING btree (shadow_of) WHERE (shadow_of IS NOT NULL);
CREATE INDEX jobs_2026_11_stand_by_idx ON public.jobs_2026_11 USING btree (stand_by) WHERE ((state = ANY (ARRAY['waiting'::text, 'queued'::text])) AND (stand_by IS NOT NULL));
CREATE INDEX jobs_2026_11_start_by_idx ON public.jobs_2026_11 USING btree (start_by) WHERE ((state = ANY (ARRAY['waiting'::text, 'queued'::text])) AND (started_at IS NULL));
CREATE INDEX jobs_2026_11_started_at_idx ON public.jobs_2026_11 USING btree (started_at) WHERE (started_at IS NOT NULL);
CREATE INDEX jobs_2026_11_worker_id_idx ON public.jobs_2026_11 USING btree (worker_id) WHERE (state = 'running'::text);
CREATE INDEX jobs_2026_12_app_id_id_idx ON public.jobs_2026_12 USING btree (app_id, id);
CREATE INDEX jobs_2026_12_ended_at_idx ON public.jobs_2026_12 USING btree (ended_at) WHERE ((started_at IS NULL) AND (ended_at IS NOT NULL));
CREATE INDEX jobs_2026_12_ended_at_idx1 ON public.jobs_2026_12 USING btree (ended_at) WHERE ((started_at IS NOT NULL) AND ((state = 'cancelled'::text) OR (error_code = 'deadline_exceeded'::text)));
CREATE INDEX jobs_2026_12_ended_at_idx2 ON public.jobs_2026_12 USING btree (ended_at) WHERE (shadow = ANY (ARRAY['wanted'::text, 'open'::text]));
CREATE INDEX jobs_2026_12_finish_by_idx ON public.jobs_2026_12 USING btree (finish_by) WHERE ((state = ANY (ARRAY['waiting'::text, 'queued'::text])) AND (finish_by IS NOT NULL));
CREATE INDEX jobs_2026_12_id_idx ON public.jobs_2026_12 USING btree (id) WHERE (state = 'failed'::text);
CREATE INDEX jobs_2026_12_not_before_idx ON public.jobs_2026_12 USING btree (not_before) WHERE (state = 'waiting'::text);
CREATE INDEX jobs_2026_12_overflow_at_idx ON public.jobs_2026_12 USING btree (overflow_at) WHERE (overflow_at IS NOT NULL);
CREATE INDEX jobs_2026_12_queue_queued_at_id_idx ON public.jobs_2026_12 USING btree (queue, queued_at, id) WHERE (state = 'queued'::text);
CREATE INDEX jobs_2026_12_served_by_job_idx ON public.jobs_2026_12 USING btree (served_by_job) WHERE ((state = 'waiting'::text) AND (served_by_job IS NOT NULL));
CREATE INDEX jobs_2026_12_shadow_of_idx ON public.jobs_2026_12 USING btree (shadow_of) WHERE (shadow_of IS NOT NULL);
CREATE INDEX jobs_2026_12_stand_by_idx ON public.jobs_2026_12 USING btree (stand_by) WHERE ((state = ANY (ARRAY['waiting'::text, 'queued'::text])) AND (stand_by IS NOT NULL));
CREATE INDEX jobs_2026_12_start_by_idx ON public.jobs_2026_12 USING btree (start_by) WHERE ((state = ANY (ARRAY['waiting'::text, 'queued'::text])) AND (started_at IS NULL));
CREATE INDEX jobs_2026_12_started_at_idx ON public.jobs_2026_12 USING btree (started_at) WHERE (started_at IS NOT NULL);
CREATE INDEX jobs_2026_12_worker_id_idx ON public.jobs_2026_12 USING btree (worker_id) WHERE (state = 'running'::text);
CREATE INDEX jobs_2027_01_app_id_id_idx ON public.jobs_2027_01 USING btree (app_id, id);
CREATE INDEX jobs_2027_01_ended_at_idx ON public.jobs_2027_01 USING btree (ended_at) WHERE ((started_at IS NULL) AND (ended_at IS NOT NULL));
CREATE INDEX jobs_2027_01_ended_at_idx1 ON public.jobs_2027_01 USING btree (ended_at) WHERE ((started_at IS NOT NULL) AND ((state = 'cancelled'::text) OR (error_code = 'deadline_exceeded'::text)));
CREATE INDEX jobs_2027_01_ended_at_idx2 ON public.jobs_2027_01 USING btree (ended_at) WHERE (shadow = ANY (ARRAY['wanted'::text, 'open'::text]));
CREATE INDEX jobs_2027_01_finish_by_idx ON public.jobs_2027_01 USING btree (finish_by) WHERE ((state = ANY (ARRAY['waiting'::text, 'queued'::text])) AND (finish_by IS NOT NULL));
CREATE INDEX jobs_2027_01_id_idx ON public.jobs_2027_01 USING btree (id) WHERE (state = 'failed'::text);
CREATE INDEX jobs_2027_01_not_before_idx ON public.jobs_2027_01 USING btree (not_before) WHERE (state = 'waiting'::text);
CREATE INDEX jobs_2027_01_overflow_at_idx ON public.jobs_2027_01 USING btree (overflow_at) WHERE (overflow_at IS NOT NULL);
CREATE INDEX jobs_2027_01_queue_queued_at_id_idx ON public.jobs_2027_01 USING btree (queue, queued_at, id) WHERE (state = 'queued'::text);
CREATE INDEX jobs_2027_01_served_by_job_idx ON public.jobs_2027_01 USING btree (served_by_job) WHERE ((state = 'waiting'::text) AND (served_by_job IS NOT NULL));
CREATE INDEX jobs_2027_01_shadow_of_idx ON public.jobs_2027_01 USING btree (shadow_of) WHERE (shadow_of IS NOT NULL);
CREATE INDEX jobs_2027_01_stand_by_idx ON public.jobs_2027_01 USING btree (stand_by) WHERE ((state = ANY (ARRAY['waiting'::text, 'queued'::text])) AND (stand_by IS NOT NULL));
CREATE INDEX jobs_2027_01_start_by_idx ON public.jobs_2027_01 USING btree (start_by) WHERE ((state = ANY (ARRAY['waiting'::text, 'queued'::text])) AND (started_at IS NULL));
CREATE INDEX jobs_2027_01_started_at_idx ON public.jobs_2027_01 USING btree (started_at) WHERE (started_at IS NOT NULL);
CREATE INDEX jobs_2027_01_worker_id_idx ON public.jobs_2027_01 USING btree (worker_id) WHERE (state = 'running'::text);
CREATE INDEX ledger_2026_10_app_id_at_idx ON public.ledger_2026_10 USING btree (app_id, at);
CREATE INDEX ledger_2026_10_at_idx ON public.ledger_2026_10 USING brin (at);
CREATE INDEX ledger_2026_10_job_id_idx ON public.ledger_2026_10 USING btree (job_id);
CREATE INDEX ledger_2026_10_job_id_idx1 ON public.ledger_2026_10 USING btree (job_id) WHERE (kind <> ALL (ARRAY['compute'::text, 'api'::text, 'cache'::text]));
CREATE UNIQUE INDEX uq_ledger_bill ON ONLY public.ledger USING btree (job_id) WHERE (kind = ANY (ARRAY['compute'::text, 'api'::text, 'cache'::text]));
CREATE UNIQUE INDEX ledger_2026_10_job_id_idx2 ON public.ledger_2026_10 USING btree (job_id) WHERE (kind = ANY (ARRAY['compute'::text, 'api'::text, 'cache'::text]));
CREATE INDEX ledger_2026_11_app_id_at_idx ON public.ledger_2026_11 USING btree (app_id, at);
CREATE INDEX ledger_2026_11_at_idx ON public.ledger_2026_11 USING brin (at);
CREATE INDEX ledger_2026_11_job_id_idx ON public.ledger_2026_11 USING btree (job_id);
CREATE INDEX ledger_2026_11_job_id_idx1 ON public.ledger_2026_11 USING btree (job_id) WHERE (kind <> ALL (ARRAY['compute'::text, 'api'::text, 'cache'::text]));
CREATE UNIQUE INDEX ledger_2026_11_job_id_idx2 ON public.ledger_2026_11 USING btree (job_id) WHERE (kind = ANY (ARRAY['compute'::text, 'api'::text, 'cache'::text]));
CREATE INDEX ledger_2026_12_app_id_at_idx ON public.ledger_2026_12 USING btree (app_id, at);
CREATE INDEX ledger_2026_12_at_idx ON public.ledger_2026_12 USING brin (at);
CREATE INDEX ledger_2026_12_job_id_idx ON public.ledger_2026_12 USING btree (job_id);
CREATE INDEX ledger_2026_12_job_id_idx1 ON public.ledger_2026_12 USING btree (job_id) WHERE (kind <> ALL (ARRAY['compute'::text, 'api'::text, 'cache'::text]));
CREATE UNIQUE INDEX ledger_2026_12_job_id_idx2 ON public.ledger_2026_12 USING btree (job_id) WHERE (kind = ANY (ARRAY['compute'::text, 'api'::text, 'cache'::text]));
CREATE INDEX ledger_2027_01_app_id_at_idx ON public.ledger_2027_01 USING btree (app_id, at);
CREATE INDEX ledger_2027_01_at_idx ON public.ledger_2027_01 USING brin (at);
CREATE INDEX ledger_2027_01_job_id_idx ON public.ledger_2027_01 USING btree (job_id);
CREATE INDEX ledger_2027_01_job_id_idx1 ON public.ledger_2027_01 USING btree (job_id) WHERE (kind <> ALL (ARRAY['compute'::text, 'api'::text, 'cache'::text]));
CREATE UNIQUE INDEX ledger_2027_01_job_id_idx2 ON public.ledger_2027_01 USING btree (job_id) WHERE (kind = ANY (ARRAY['compute'::text, 'api'::text, 'cache'::text]));
CREATE UNIQUE INDEX uq_cache_entries_question ON public.cache_entries USING btree (app_id, scope, digest);
CREATE UNIQUE INDEX uq_jobs_retry_of_first ON public.jobs_first USING btree (retry_of) WHERE (retry_of IS NOT NULL);
CREATE UNIQUE INDEX uq_ledger_bill_first ON public.ledger_first USING btree (job_id) WHERE (kind = ANY (ARRAY['compute'::text, 'api'::text, 'cache'::text]));
CREATE UNIQUE INDEX uq_list_prices_in_force ON public.list_prices USING btree (model) WHERE (valid_to IS NULL);
ALTER INDEX public.pk_attempts ATTACH PARTITION public.attempts_2026_10_pkey;
ALTER INDEX public.pk_attempts ATTACH PARTITION public.attempts_2026_11_pkey;
ALTER INDEX public.pk_attempts ATTACH PARTITION public.attempts_2026_12_pkey;
ALTER INDEX public.pk_attempts ATTACH PARTITION public.attempts_2027_01_pkey;
ALTER INDEX public.ix_deliveries_receiver ATTACH PARTITION public.deliveries_2026_10_coalesce_lower_next_at_idx;
ALTER INDEX public.ix_deliveries_failed ATTACH PARTITION public.deliveries_2026_10_id_idx;
ALTER INDEX public.uq_deliveries_job_id_event ATTACH PARTITION public.deliveries_2026_10_job_id_event_key;
ALTER INDEX public.ix_deliveries_pending ATTACH PARTITION public.deliveries_2026_10_next_at_idx;
ALTER INDEX public.ix_deliveries_receiver ATTACH PARTITION public.deliveries_2026_11_coalesce_lower_next_at_idx;
ALTER INDEX public.ix_deliveries_failed ATTACH PARTITION public.deliveries_2026_11_id_idx;
ALTER INDEX public.uq_deliveries_job_id_event ATTACH PARTITION public.deliveries_2026_11_job_id_event_key;
ALTER INDEX public.ix_deliveries_pending ATTACH PARTITION public.deliveries_2026_11_next_at_idx;
ALTER INDEX public.ix_deliveries_receiver ATTACH PARTITION public.deliveries_2026_12_coalesce_lower_next_at_idx;
ALTER INDEX public.ix_deliveries_failed ATTACH PARTITION public.deliveries_2026_12_id_idx;
ALTER INDEX public.uq_deliveries_job_id_event ATTACH PARTITION public.deliveries_2026_12_job_id_event_key;
ALTER INDEX public.ix_deliveries_pending ATTACH PARTITION public.deliveries_2026_12_next_at_idx;
ALTER INDEX public.ix_deliveries_receiver ATTACH PARTITION public.deliveries_2027_01_coalesce_lower_next_at_idx;
ALTER INDEX public.ix_deliveries_failed ATTACH PARTITION public.deliveries_2027_01_id_idx;
ALTER INDEX public.uq_deliveries_job_id_event ATTACH PARTITION public.deliveries_2027_01_job_id_event_key;
ALTER INDEX public.ix_deliveries_pending ATTACH PARTITION public.deliveries_2027_01_next_at_idx;
ALTER INDEX public.ix_deliveries_failed ATTACH PARTITION public.ix_deliveries_failed_first;
ALTER INDEX public.ix_deliveries_pending ATTACH PARTITION public.ix_deliveries_pending_first;
ALTER INDEX public.ix_deliveries_receiver ATTACH PARTITION public.ix_deliveries_receiver_first;
ALTER INDEX public.ix_ledger_app_id_at ATTACH PARTITION public.ix_ledger_app_id_at_first;
ALTER INDEX public.ix_ledger_at ATTACH PARTITION public.ix_ledger_at_first;
ALTER INDEX public.ix_ledger_job_id ATTACH PARTITION public.ix_ledger_job_id_first;
ALTER INDEX public.ix_ledger_unbilled ATTACH PARTITION public.ix_ledger_unbilled_first;
ALTER INDEX public.ix_job_texts_cache_key ATTACH PARTITION public.job_texts_2026_10_cache_key_job_id_idx;
ALTER INDEX public.ix_job_texts_unstored ATTACH PARTITION public.job_texts_2026_10_job_id_idx;
ALTER INDEX public.pk_job_texts ATTACH PARTITION public.job_texts_2026_10_pkey;
ALTER INDEX public.ix_job_texts_cache_key ATTACH PARTITION public.job_texts_2026_11_cache_key_job_id_idx;
ALTER INDEX public.ix_job_texts_unstored ATTACH PARTITION public.job_texts_2026_11_job_id_idx;
ALTER INDEX public.pk_job_texts ATTACH PARTITION public.job_texts_2026_11_pkey;
ALTER INDEX public.ix_job_texts_cache_key ATTACH PARTITION public.job_texts_2026_12_cache_key_job_id_idx;
ALTER INDEX public.ix_job_texts_unstored ATTACH PARTITION public.job_texts_2026_12_job_id_idx;
ALTER INDEX public.pk_job_texts ATTACH PARTITION public.job_texts_2026_12_pkey;
ALTER INDEX public.ix_job_texts_cache_key ATTACH PARTITION public.job_texts_2027_01_cache_key_job_id_idx;
ALTER INDEX public.ix_job_texts_unstored ATTACH PARTITION public.job_texts_2027_01_job_id_idx;
ALTER INDEX public.pk_job_texts ATTACH PARTITION public.job_texts_2027_01_pkey;
ALTER INDEX public.ix_jobs_app_id_id ATTACH PARTITION public.jobs_2026_10_app_id_id_idx;
ALTER INDEX public.ix_jobs_ended_unstarted ATTACH PARTITION public.jobs_2026_10_ended_at_idx;
ALTER INDEX public.ix_jobs_ended_between ATTACH PARTITION public.jobs_2026_10_ended_at_idx1;
ALTER INDEX public.ix_jobs_shadow ATTACH PARTITION public.jobs_2026_10_ended_at_idx2;
ALTER INDEX public.ix_jobs_unfinished ATTACH PARTITION public.jobs_2026_10_finish_by_idx;
ALTER INDEX public.ix_jobs_failed ATTACH PARTITION public.jobs_2026_10_id_idx;
ALTER INDEX public.ix_jobs_due ATTACH PARTITION public.jobs_2026_10_not_before_idx;
ALTER INDEX public.ix_jobs_overflow_at ATTACH PARTITION public.jobs_2026_10_overflow_at_idx;
ALTER INDEX public.pk_jobs ATTACH PARTITION public.jobs_2026_10_pkey;
ALTER INDEX public.ix_jobs_queued ATTACH PARTITION public.jobs_2026_10_queue_queued_at_id_idx;
ALTER INDEX public.ix_jobs_following ATTACH PARTITION public.jobs_2026_10_served_by_job_idx;
ALTER INDEX public.ix_jobs_shadow_of ATTACH PARTITION public.jobs_2026_10_shadow_of_idx;
ALTER INDEX public.ix_jobs_standing ATTACH PARTITION public.jobs_2026_10_stand_by_idx;
ALTER INDEX public.ix_jobs_unstarted ATTACH PARTITION public.jobs_2026_10_start_by_idx;
ALTER INDEX public.ix_jobs_started ATTACH PARTITION public.jobs_2026_10_started_at_idx;
ALTER INDEX public.ix_jobs_running ATTACH PARTITION public.jobs_2026_10_worker_id_idx;
ALTER INDEX public.ix_jobs_app_id_id ATTACH PARTITION public.jobs_2026_11_app_id_id_idx;
ALTER INDEX public.ix_jobs_ended_unstarted ATTACH PARTITION public.jobs_2026_11_ended_at_idx;
ALTER INDEX public.ix_jobs_ended_between ATTACH PARTITION public.jobs_2026_11_ended_at_idx1;
ALTER INDEX public.ix_jobs_shadow ATTACH PARTITION public.jobs_2026_11_ended_at_idx2;
ALTER INDEX public.ix_jobs_unfinished ATTACH PARTITION public.jobs_2026_11_finish_by_idx;
ALTER INDEX public.ix_jobs_failed ATTACH PARTITION public.jobs_2026_11_id_idx;
ALTER INDEX public.ix_jobs_due ATTACH PARTITION public.jobs_2026_11_not_before_idx;
ALTER INDEX public.ix_jobs_overflow_at ATTACH PARTITION public.jobs_2026_11_overflow_at_idx;
ALTER INDEX public.pk_jobs ATTACH PARTITION public.jobs_2026_11_pkey;
ALTER INDEX public.ix_jobs_queued ATTACH PARTITION public.jobs_2026_11_queue_queued_at_id_idx;
ALTER INDEX public.ix_jobs_following ATTACH PARTITION public.jobs_2026_11_served_by_job_idx;
ALTER INDEX public.ix_jobs_shadow_of ATTACH PARTITION public.jobs_2026_11_shadow_of_idx;
ALTER INDEX public.ix_jobs_standing ATTACH PARTITION public.jobs_2026_11_stand_by_idx;
ALTER INDEX public.ix_jobs_unstarted ATTACH PARTITION public.jobs_2026_11_start_by_idx;
ALTER INDEX public.ix_jobs_started ATTACH PARTITION public.jobs_2026_11_started_at_idx;
ALTER INDEX public.ix_jobs_running ATTACH PARTITION public.jobs_2026_11_worker_id_idx;
ALTER INDEX public.ix_jobs_app_id_id ATTACH PARTITION public.jobs_2026_12_app_id_id_idx;
ALTER INDEX public.ix_jobs_ended_unstarted ATTACH PARTITION public.jobs_2026_12_ended_at_idx;
ALTER INDEX public.ix_jobs_ended_between ATTACH PARTITION public.jobs_2026_12_ended_at_idx1;
ALTER INDEX public.ix_jobs_shadow ATTACH PARTITION public.jobs_2026_12_ended_at_idx2;
ALTER INDEX public.ix_jobs_unfinished ATTACH PARTITION public.jobs_2026_12_finish_by_idx;
ALTER INDEX public.ix_jobs_failed ATTACH PARTITION public.jobs_2026_12_id_idx;
ALTER INDEX public.ix_jobs_due ATTACH PARTITION public.jobs_2026_12_not_before_idx;
ALTER INDEX public.ix_jobs_overflow_at ATTACH PARTITION public.jobs_2026_12_overflow_at_idx;
ALTER INDEX public.pk_jobs ATTACH PARTITION public.jobs_2026_12_pkey;
ALTER INDEX public.ix_jobs_queued ATTACH PARTITION public.jobs_2026_12_queue_queued_at_id_idx;
ALTER INDEX public.ix_jobs_following ATTACH PARTITION public.jobs_2026_12_served_by_job_idx;
ALTER INDEX public.ix_jobs_shadow_of ATTACH PARTITION public.jobs_2026_12_shadow_of_idx;
ALTER INDEX public.ix_jobs_standing ATTACH PARTITION public.jobs_2026_12_stand_by_idx;
ALTER INDEX public.ix_jobs_unstarted ATTACH PARTITION public.jobs_2026_12_start_by_idx;
ALTER INDEX public.ix_jobs_started ATTACH PARTITION public.jobs_2026_12_started_at_idx;
ALTER INDEX public.ix_jobs_running ATTACH PARTITION public.jobs_2026_12_worker_id_idx;
ALTER INDEX public.ix_jobs_app_id_id ATTACH PARTITION public.jobs_2027_01_app_id_id_idx;
ALTER INDEX public.ix_jobs_ended_unstarted ATTACH PARTITION public.jobs_2027_01_ended_at_idx;
ALTER INDEX public.ix_jobs_ended_between ATTACH PARTITION public.jobs_2027_01_ended_at_idx1;
ALTER INDEX public.ix_jobs_shadow ATTACH PARTITION public.jobs_2027_01_ended_at_idx2;
ALTER INDEX public.ix_jobs_unfinished ATTACH PARTITION public.jobs_2027_01_finish_by_idx;
ALTER INDEX public.ix_jobs_failed ATTACH PARTITION public.jobs_2027_01_id_idx;
ALTER INDEX public.ix_jobs_due ATTACH PARTITION public.jobs_2027_01_not_before_idx;
ALTER INDEX public.ix_jobs_overflow_at ATTACH PARTITION public.jobs_2027_01_overflow_at_idx;
ALTER INDEX public.pk_jobs ATTACH PARTITION public.jobs_2027_01_pkey;
ALTER INDEX public.ix_jobs_queued ATTACH PARTITION public.jobs_2027_01_queue_queued_at_id_idx;
ALTER INDEX public.ix_jobs_following ATTACH PARTITION public.jobs_2027_01_served_by_job_idx;
ALTER INDEX public.ix_jobs_shadow_of ATTACH PARTITION public.jobs_2027_01_shadow_of_idx;
ALTER INDEX public.ix_jobs_standing ATTACH PARTITION public.jobs_2027_01_stand_by_idx;
ALTER INDEX public.ix_jobs_unstarted ATTACH PARTITION public.jobs_2027_01_start_by_idx;
ALTER INDEX public.ix_jobs_started ATTACH PARTITION public.jobs_2027_01_started_at_idx;
ALTER INDEX public.ix_jobs_running ATTACH PARTITION public.jobs_2027_01_worker_id_idx;
ALTER INDEX public.ix_ledger_app_id_at ATTACH PARTITION public.ledger_2026_10_app_id_at_idx;
ALTER INDEX public.ix_ledger_at ATTACH PARTITION public.ledger_2026_10_at_idx;
ALTER INDEX public.ix_ledger_job_id ATTACH PARTITION public.ledger_2026_10_job_id_idx;
ALTER INDEX public.ix_ledger_unbilled ATTACH PARTITION public.ledger_2026_10_job_id_idx1;
ALTER INDEX public.uq_ledger_bill ATTACH PARTITION public.ledger_2026_10_job_id_idx2;
ALTER INDEX public.ix_ledger_app_id_at ATTACH PARTITION public.ledger_2026_11_app_id_at_idx;
ALTER INDEX public.ix_ledger_at ATTACH PARTITION public.ledger_2026_11_at_idx;
ALTER INDEX public.ix_ledger_job_id ATTACH PARTITION public.ledger_2026_11_job_id_idx;
ALTER INDEX public.ix_ledger_unbilled ATTACH PARTITION public.ledger_2026_11_job_id_idx1;
ALTER INDEX public.uq_ledger_bill ATTACH PARTITION public.ledger_2026_11_job_id_idx2;
ALTER INDEX public.ix_ledger_app_id_at ATTACH PARTITION public.ledger_2026_12_app_id_at_idx;
ALTER INDEX public.ix_ledger_at ATTACH PARTITION public.ledger_2026_12_at_idx;
ALTER INDEX public.ix_ledger_job_id ATTACH PARTITION public.ledger_2026_12_job_id_idx;
ALTER INDEX public.ix_ledger_unbilled ATTACH PARTITION public.ledger_2026_12_job_id_idx1;
ALTER INDEX public.uq_ledger_bill ATTACH PARTITION public.ledger_2026_12_job_id_idx2;
ALTER INDEX public.ix_ledger_app_id_at ATTACH PARTITION public.ledger_2027_01_app_id_at_idx;
ALTER INDEX public.ix_ledger_at ATTACH PARTITION public.ledger_2027_01_at_idx;
ALTER INDEX public.ix_ledger_job_id ATTACH PARTITION public.ledger_2027_01_job_id_idx;
ALTER INDEX public.ix_ledger_unbilled ATTACH PARTITION public.ledger_2027_01_job_id_idx1;
ALTER INDEX public.uq_ledger_bill ATTACH PARTITION public.ledger_2027_01_job_id_idx2;
ALTER INDEX public.uq_deliveries_job_id_event ATTACH PARTITION public.uq_deliveries_job_id_event_first;
ALTER INDEX public.uq_ledger_bill ATTACH PARTITION public.uq_ledger_bill_first;
CREATE TRIGGER audit_log_is_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON public.audit_log FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_audit_change();
CREATE TRIGGER job_is_retried_once AFTER INSERT ON public.jobs FOR EACH ROW WHEN ((new.retry_of IS NOT NULL)) EXECUTE FUNCTION public.note_job_retry();
CREATE TRIGGER ledger_is_append_only BEFORE DELETE OR UPDATE ON public.ledger FOR EACH ROW EXECUTE FUNCTION public.refuse_ledger_change();
ALTER TABLE ONLY public.attempts_2026_10
    ADD CONSTRAINT attempts_2026_10_job_id_fkey FOREIGN KEY (job_id) REFERENCES public.jobs_2026_10(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.attempts_2026_11
    ADD CONSTRAINT attempts_2026_11_job_id_fkey FOREIGN KEY (job_id) REFERENCES public.jobs_2026_11(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.attempts_2026_12
    ADD CONSTRAINT attempts_2026_12_job_id_fkey FOREIGN KEY (job_id) REFERENCES public.jobs_2026_12(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.attempts_2027_01
    ADD CONSTRAINT attempts_2027_01_job_id_fkey FOREIGN KEY (job_id) REFERENCES public.jobs_2027_01(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.deliveries_2026_10
    ADD CONSTRAINT deliveries_2026_10_job_id_fkey FOREIGN KEY (job_id) REFERENCES public.jobs_2026_10(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.deliveries_2026_11
    ADD CONSTRAINT deliveries_2026_11_job_id_fkey FOREIGN KEY (job_id) REFERENCES public.jobs_2026_11(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.deliveries_2026_12
    ADD CONSTRAINT deliveries_2026_12_job_id_fkey FOREIGN KEY (job_id) REFERENCES public.jobs_2026_12(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.deliveries_2027_01
    ADD CONSTRAINT deliveries_2027_01_job_id_fkey FOREIGN KEY (job_id) REFERENCES public.jobs_2027_01(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.api_keys
    ADD CONSTRAINT fk_api_keys_app_id FOREIGN KEY (app_id) REFERENCES public.apps(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.attempts_first
    ADD CONSTRAINT fk_attempts_job_id FOREIGN KEY (job_id) REFERENCES public.jobs_first(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.budgets
    ADD CONSTRAINT fk_budgets_app_id FOREIGN KEY (app_id) REFERENCES public.apps(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.cache_entries
    ADD CONSTRAINT fk_cache_entries_app_id FOREIGN KEY (app_id) REFERENCES public.apps(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.cache_matches
    ADD CONSTRAINT fk_cache_matches_app_id FOREIGN KEY (app_id) REFERENCES public.apps(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.confinements
    ADD CONSTRAINT fk_confinements_app_id_apps FOREIGN KEY (app_id) REFERENCES public.apps(id);
ALTER TABLE public.deliveries
    ADD CONSTRAINT fk_deliveries_app_id FOREIGN KEY (app_id) REFERENCES public.apps(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.gone_receivers
    ADD CONSTRAINT fk_gone_receivers_app_id FOREIGN KEY (app_id) REFERENCES public.apps(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.idempotency_keys
    ADD CONSTRAINT fk_idempotency_keys_app_id FOREIGN KEY (app_id) REFERENCES public.apps(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.job_texts_first
    ADD CONSTRAINT fk_job_texts_job_id FOREIGN KEY (job_id) REFERENCES public.jobs_first(id) ON DELETE CASCADE;
ALTER TABLE public.jobs
    ADD CONSTRAINT fk_jobs_app_id FOREIGN KEY (app_id) REFERENCES public.apps(id);
ALTER TABLE ONLY public.jobs_first
    ADD CONSTRAINT fk_jobs_app_id FOREIGN KEY (app_id) REFERENCES public.apps(id);
ALTER TABLE ONLY public.poison_strikes
    ADD CONSTRAINT fk_poison_strikes_app_id_apps FOREIGN KEY (app_id) REFERENCES public.apps(id);
ALTER TABLE ONLY public.job_texts_2026_10
    ADD CONSTRAINT job_texts_2026_10_job_id_fkey FOREIGN KEY (job_id) REFERENCES public.jobs_2026_10(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.job_texts_2026_11
    ADD CONSTRAINT job_texts_2026_11_job_id_fkey FOREIGN KEY (job_id) REFERENCES public.jobs_2026_11(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.job_texts_2026_12
    ADD CONSTRAINT job_texts_2026_12_job_id_fkey FOREIGN KEY (job_id) REFERENCES public.jobs_2026_12(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.job_texts_2027_01
    ADD CONSTRAINT job_texts_2027_01_job_id_fkey FOREIGN KEY (job_id) REFERENCES public.jobs_2027_01(id) ON DELETE CASCADE;
