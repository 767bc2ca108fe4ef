-- The tables of 0.1, with their indexes and triggers. Each release makes the comments anew from headrace/tables, and
-- views and functions from headrace/store/views. headrace/store/months.py makes the months of partitioned tables.

-- The semantic cache searches with pgvector. Where this role may not make the extension, the tables are the same.
DO $do$ BEGIN
    IF EXISTS (SELECT FROM pg_available_extensions WHERE name = 'vector') THEN
        CREATE EXTENSION IF NOT EXISTS vector;
    END IF;
EXCEPTION WHEN OTHERS THEN
    RAISE WARNING 'The extension vector was not made: %. The semantic cache stays off without it.', SQLERRM;
END $do$;

-- The apps that call the API, their keys, limits and budgets.

CREATE TABLE apps (
    id uuid NOT NULL,
    name text NOT NULL,
    webhook_secret text NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    queued_jobs integer,
    requests_per_minute integer,
    tokens_per_minute integer,
    lanes text[],
    day_usd numeric(18, 9),
    month_usd numeric(18, 9),
    webhook_secret_old text,
    webhook_secret_old_until timestamptz,
    cache_s integer,
    max_error float8,
    calls_per_minute integer,
    CONSTRAINT pk_apps PRIMARY KEY (id),
    CONSTRAINT uq_apps_name UNIQUE (name)
);

CREATE TABLE api_keys (
    id uuid NOT NULL,
    app_id uuid NOT NULL,
    hint text NOT NULL,
    digest bytea NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    expires_at timestamptz,
    revoked_at timestamptz,
    scopes text[] DEFAULT '{submit,read}' NOT NULL,
    CONSTRAINT pk_api_keys PRIMARY KEY (id),
    CONSTRAINT fk_api_keys_app_id FOREIGN KEY (app_id) REFERENCES apps (id) ON DELETE CASCADE,
    CONSTRAINT uq_api_keys_digest UNIQUE (digest)
);
CREATE INDEX ix_api_keys_app_id ON api_keys (app_id);

CREATE TABLE idempotency_keys (
    app_id uuid NOT NULL,
    key text NOT NULL,
    request_hash bytea NOT NULL,
    job_id uuid NOT NULL,
    expires_at timestamptz NOT NULL,
    CONSTRAINT pk_idempotency_keys PRIMARY KEY (app_id, key),
    CONSTRAINT fk_idempotency_keys_app_id FOREIGN KEY (app_id) REFERENCES apps (id) ON DELETE CASCADE
);
CREATE INDEX ix_idempotency_keys_expires_at ON idempotency_keys (expires_at);

CREATE TABLE budgets (
    id uuid NOT NULL,
    app_id uuid,
    period text NOT NULL,
    starts_at timestamptz NOT NULL,
    reserved_usd numeric(18, 9) DEFAULT 0 NOT NULL,
    spent_usd numeric(18, 9) DEFAULT 0 NOT NULL,
    told_percent smallint DEFAULT 0 NOT NULL,
    short_at timestamptz,
    told_reserved_percent smallint DEFAULT 0 NOT NULL,
    reserved_short_at timestamptz,
    limit_usd numeric(18, 9),
    CONSTRAINT pk_budgets PRIMARY KEY (id),
    CONSTRAINT ck_budgets_period CHECK (period IN ('day', 'month')),
    CONSTRAINT uq_budgets_app_id_period_starts_at UNIQUE NULLS NOT DISTINCT (app_id, period, starts_at),
    CONSTRAINT fk_budgets_app_id FOREIGN KEY (app_id) REFERENCES apps (id) ON DELETE CASCADE
);

CREATE TABLE unsettled_calls (
    id bigint GENERATED ALWAYS AS IDENTITY,
    job_id uuid NOT NULL,
    app_id uuid NOT NULL,
    started_at timestamptz NOT NULL,
    reserved_usd numeric(18, 9) NOT NULL,
    usd numeric(18, 9) NOT NULL,
    CONSTRAINT pk_unsettled_calls PRIMARY KEY (id)
);

CREATE TABLE budget_limits (
    id smallint DEFAULT 1 NOT NULL,
    day_usd numeric(18, 9),
    month_usd numeric(18, 9),
    set_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT pk_budget_limits PRIMARY KEY (id),
    CONSTRAINT ck_budget_limits_one_row CHECK (id = 1)
);

-- Jobs, their attempts, and what these cost.

CREATE TABLE jobs (
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
    notes jsonb,
    end_user text,
    served_by_job uuid,
    metadata jsonb DEFAULT '{}' NOT NULL,
    webhook_url text,
    background boolean NOT NULL,
    max_cost_usd numeric(18, 9),
    prompt_tokens integer NOT NULL,
    max_tokens integer NOT NULL,
    output_tokens integer,
    cached_tokens integer,
    reasoning_tokens integer,
    finish_reason text,
    usd numeric(18, 9) DEFAULT 0 NOT NULL,
    error_code text,
    error_message text,
    enqueue_no integer DEFAULT 1 NOT NULL,
    attempt integer DEFAULT 0 NOT NULL,
    worker_id uuid,
    created_at timestamptz DEFAULT now() NOT NULL,
    start_by timestamptz NOT NULL,
    finish_by timestamptz,
    not_before timestamptz,
    queued_at timestamptz,
    started_at timestamptz,
    ended_at timestamptz,
    cancel_requested_at timestamptz,
    stream boolean DEFAULT false NOT NULL,
    erased_at timestamptz,
    suspicion smallint DEFAULT 0 NOT NULL,
    retry_of uuid,
    overflow_at timestamptz,
    original_tokens integer,
    cache text,
    rule text,
    stand_by timestamptz,
    shadow text,
    shadow_of uuid,
    n smallint,
    needs_version smallint,
    start_after timestamptz,
    CONSTRAINT pk_jobs PRIMARY KEY (id),
    CONSTRAINT ck_jobs_state
        CHECK (state IN ('waiting', 'queued', 'running', 'succeeded', 'failed', 'cancelled', 'expired')),
    CONSTRAINT ck_jobs_lane CHECK (lane IN ('high', 'normal', 'low', 'batch')),
    CONSTRAINT ck_jobs_route CHECK (route IN ('pool', 'overflow')),
    CONSTRAINT ck_jobs_overflow CHECK (overflow IN ('allow', 'never', 'only')),
    CONSTRAINT ck_jobs_running_has_worker CHECK ((state = 'running') = (worker_id IS NOT NULL)),
    CONSTRAINT fk_jobs_app_id FOREIGN KEY (app_id) REFERENCES apps (id)
) PARTITION BY RANGE (id);
CREATE INDEX ix_jobs_app_id_id ON jobs (app_id, id);
CREATE INDEX ix_jobs_due ON jobs (not_before) WHERE state = 'waiting';
CREATE INDEX ix_jobs_ended_between
    ON jobs (ended_at) WHERE started_at IS NOT NULL AND (state = 'cancelled' OR error_code = 'deadline_exceeded');
CREATE INDEX ix_jobs_ended_unstarted ON jobs (ended_at) WHERE started_at IS NULL AND ended_at IS NOT NULL;
CREATE INDEX ix_jobs_failed ON jobs (id) WHERE state = 'failed';
CREATE INDEX ix_jobs_following ON jobs (served_by_job) WHERE state = 'waiting' AND served_by_job IS NOT NULL;
CREATE INDEX ix_jobs_overflow_at ON jobs (overflow_at) WHERE overflow_at IS NOT NULL;
CREATE INDEX ix_jobs_queued ON jobs (queue, queued_at, id) WHERE state = 'queued';
CREATE INDEX ix_jobs_running ON jobs (worker_id) WHERE state = 'running';
CREATE INDEX ix_jobs_shadow ON jobs (ended_at) WHERE shadow IN ('wanted', 'open');
CREATE INDEX ix_jobs_shadow_of ON jobs (shadow_of) WHERE shadow_of IS NOT NULL;
CREATE INDEX ix_jobs_standing ON jobs (stand_by) WHERE state IN ('waiting', 'queued') AND stand_by IS NOT NULL;
CREATE INDEX ix_jobs_started ON jobs (started_at) WHERE started_at IS NOT NULL;
CREATE INDEX ix_jobs_unfinished ON jobs (finish_by) WHERE state IN ('waiting', 'queued') AND finish_by IS NOT NULL;
CREATE INDEX ix_jobs_unstarted ON jobs (start_by) WHERE state IN ('waiting', 'queued') AND started_at IS NULL;
-- Jobs of different months share no unique index.
CREATE TRIGGER job_is_retried_once AFTER INSERT ON jobs
    FOR EACH ROW WHEN (NEW.retry_of IS NOT NULL) EXECUTE FUNCTION note_job_retry();

CREATE TABLE job_retries (
    job_id uuid NOT NULL,
    retried_as uuid NOT NULL,
    CONSTRAINT pk_job_retries PRIMARY KEY (job_id)
);

CREATE TABLE job_texts (
    job_id uuid NOT NULL,
    messages jsonb NOT NULL,
    sampling jsonb NOT NULL,
    answer text,
    logprobs jsonb,
    logprobs_json json,
    reasoning text,
    tool_calls jsonb,
    cache_key bytea,
    is_unstored boolean,
    kept_answer jsonb,
    choices json,
    CONSTRAINT pk_job_texts PRIMARY KEY (job_id)
) PARTITION BY RANGE (job_id);
CREATE INDEX ix_job_texts_cache_key ON job_texts (cache_key, job_id) WHERE cache_key IS NOT NULL;
CREATE INDEX ix_job_texts_unstored ON job_texts (job_id) WHERE is_unstored;

CREATE TABLE attempts (
    job_id uuid NOT NULL,
    number integer NOT NULL,
    worker_id uuid NOT NULL,
    engine text NOT NULL,
    model_served text,
    started_at timestamptz NOT NULL,
    ended_at timestamptz,
    outcome text,
    error_code text,
    prompt_tokens integer,
    cached_tokens integer,
    output_tokens integer,
    engine_s float8,
    first_token_s float8,
    preemptions integer DEFAULT 0 NOT NULL,
    reserved_usd numeric(18, 9) DEFAULT 0 NOT NULL,
    escalated_by text,
    error_cause text,
    CONSTRAINT pk_attempts PRIMARY KEY (job_id, number),
    CONSTRAINT ck_attempts_outcome CHECK (outcome IN ('succeeded', 'failed', 'aborted', 'lost'))
) PARTITION BY RANGE (job_id);

CREATE TABLE ledger (
    id bigint GENERATED ALWAYS AS IDENTITY,
    at timestamptz DEFAULT now() NOT NULL,
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
    kv_token_s float8,
    engine_s float8,
    usd numeric(18, 9) NOT NULL,
    idle_usd numeric(18, 9) DEFAULT 0 NOT NULL,
    price_version text,
    api_usd numeric(18, 9),
    estimated boolean DEFAULT false NOT NULL,
    saved_usd numeric(18, 9),
    reason text,
    CONSTRAINT ck_ledger_kind CHECK (kind IN ('compute', 'api', 'waste', 'idle', 'cache', 'adjustment')),
    CONSTRAINT ck_ledger_tokens CHECK (cached_tokens BETWEEN 0 AND prompt_tokens AND output_tokens >= 0)
) PARTITION BY RANGE (job_id);
CREATE INDEX ix_ledger_app_id_at ON ledger (app_id, at);
CREATE INDEX ix_ledger_at ON ledger USING brin (at);
CREATE INDEX ix_ledger_job_id ON ledger (job_id);
CREATE INDEX ix_ledger_unbilled ON ledger (job_id) WHERE kind NOT IN ('compute', 'api', 'cache');
CREATE UNIQUE INDEX uq_ledger_bill ON ledger (job_id) WHERE kind IN ('compute', 'api', 'cache');
-- The rows about no job. Thanks to the check, a month is attached without a look at them.
CREATE TABLE ledger_without_job PARTITION OF ledger (
    CONSTRAINT pk_ledger_without_job PRIMARY KEY (id),
    CONSTRAINT ck_ledger_without_job CHECK (job_id IS NULL)
) DEFAULT;
CREATE TRIGGER ledger_is_append_only BEFORE UPDATE OR DELETE ON ledger
    FOR EACH ROW EXECUTE FUNCTION refuse_ledger_change();

CREATE TABLE poison_prompts (
    digest bytea NOT NULL,
    job_id uuid NOT NULL,
    refused_until timestamptz NOT NULL,
    CONSTRAINT pk_poison_prompts PRIMARY KEY (digest)
);
CREATE INDEX ix_poison_prompts_refused_until ON poison_prompts (refused_until);

CREATE TABLE poison_strikes (
    job_id uuid NOT NULL,
    app_id uuid NOT NULL,
    pool text NOT NULL,
    at timestamptz NOT NULL,
    CONSTRAINT pk_poison_strikes PRIMARY KEY (job_id),
    CONSTRAINT fk_poison_strikes_app_id FOREIGN KEY (app_id) REFERENCES apps (id)
);
CREATE INDEX ix_poison_strikes_app_id_pool_at ON poison_strikes (app_id, pool, at);

CREATE TABLE confinements (
    app_id uuid NOT NULL,
    pool text NOT NULL,
    since timestamptz NOT NULL,
    until timestamptz NOT NULL,
    next_at timestamptz NOT NULL,
    reason text NOT NULL,
    job_id uuid,
    worker_id uuid,
    CONSTRAINT pk_confinements PRIMARY KEY (app_id, pool),
    CONSTRAINT fk_confinements_app_id FOREIGN KEY (app_id) REFERENCES apps (id)
);

-- The webhooks that announce the ends of jobs, and receivers that are gone.

CREATE TABLE deliveries (
    id uuid NOT NULL,
    job_id uuid,
    app_id uuid,
    event text NOT NULL,
    data jsonb,
    url text NOT NULL,
    state text DEFAULT 'pending' NOT NULL,
    tries integer DEFAULT 0 NOT NULL,
    last_status integer,
    last_error text,
    created_at timestamptz DEFAULT now() NOT NULL,
    next_at timestamptz DEFAULT now() NOT NULL,
    delivered_at timestamptz,
    tries_before integer DEFAULT 0 NOT NULL,
    CONSTRAINT ck_deliveries_state CHECK (state IN ('pending', 'delivered', 'failed')),
    CONSTRAINT ck_deliveries_about CHECK (num_nonnulls(job_id, data) = 1),
    CONSTRAINT uq_deliveries_job_id_event UNIQUE (job_id, event),
    CONSTRAINT fk_deliveries_app_id FOREIGN KEY (app_id) REFERENCES apps (id) ON DELETE CASCADE
) PARTITION BY RANGE (job_id);
CREATE INDEX ix_deliveries_failed ON deliveries (id) WHERE state = 'failed';
CREATE INDEX ix_deliveries_pending ON deliveries (next_at) WHERE state = 'pending';
CREATE INDEX ix_deliveries_receiver
    ON deliveries (coalesce(app_id, '00000000-0000-0000-0000-000000000000'::uuid),
        (lower("substring"(url COLLATE "C", '://([^/?#]*)'::text))),
        next_at) WHERE state = 'pending';
-- The rows about no job. Thanks to the check, a month is attached without a look at them.
CREATE TABLE deliveries_without_job PARTITION OF deliveries (
    CONSTRAINT pk_deliveries_without_job PRIMARY KEY (id),
    CONSTRAINT ck_deliveries_without_job CHECK (job_id IS NULL)
) DEFAULT;

CREATE TABLE gone_receivers (
    digest bytea NOT NULL,
    app_id uuid,
    url text NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT pk_gone_receivers PRIMARY KEY (digest),
    CONSTRAINT fk_gone_receivers_app_id FOREIGN KEY (app_id) REFERENCES apps (id) ON DELETE CASCADE
);
CREATE INDEX ix_gone_receivers_created_at ON gone_receivers (created_at);

CREATE TABLE paused_receivers (
    app_id uuid NOT NULL,
    receiver text NOT NULL,
    since timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT pk_paused_receivers PRIMARY KEY (app_id, receiver),
    CONSTRAINT fk_paused_receivers_app_id FOREIGN KEY (app_id) REFERENCES apps (id) ON DELETE CASCADE
);

-- The semantic cache: the questions that have answers, and what became of jobs that asked the same in other words.

CREATE TABLE cache_entries (
    job_id uuid NOT NULL,
    app_id uuid NOT NULL,
    pool text NOT NULL,
    scope bytea NOT NULL,
    digest bytea NOT NULL,
    fingerprints bytea[],
    embedding real[] NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    used_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT pk_cache_entries PRIMARY KEY (job_id),
    CONSTRAINT fk_cache_entries_app_id FOREIGN KEY (app_id) REFERENCES apps (id) ON DELETE CASCADE
);
CREATE INDEX ix_cache_entries_fingerprints ON cache_entries USING gin (fingerprints) WITH (fastupdate = off);
CREATE UNIQUE INDEX uq_cache_entries_question ON cache_entries (app_id, scope, digest);

CREATE TABLE cache_matches (
    job_id uuid NOT NULL,
    app_id uuid NOT NULL,
    pool text NOT NULL,
    entry_id uuid NOT NULL,
    similarity float8 NOT NULL,
    kind text NOT NULL,
    at timestamptz DEFAULT now() NOT NULL,
    is_right boolean,
    judge_at timestamptz,
    CONSTRAINT pk_cache_matches PRIMARY KEY (job_id),
    CONSTRAINT ck_cache_matches_kind CHECK (kind IN ('served', 'try', 'recheck', 'shadow')),
    CONSTRAINT fk_cache_matches_app_id FOREIGN KEY (app_id) REFERENCES apps (id) ON DELETE CASCADE
);
CREATE INDEX ix_cache_matches_at ON cache_matches (at);
CREATE INDEX ix_cache_matches_judge_at ON cache_matches (judge_at) WHERE judge_at IS NOT NULL;
CREATE INDEX ix_cache_matches_record ON cache_matches (app_id, pool, at) WHERE is_right IS NOT NULL;
CREATE INDEX ix_cache_matches_tries ON cache_matches (entry_id, at) WHERE is_right IS NOT NULL;

-- What own hosts cost, hour by hour, how the requests of each hour share it, and the prices of tokens.

CREATE TABLE cost_hours (
    pool text NOT NULL,
    hour timestamptz NOT NULL,
    host_s numeric(18, 6) NOT NULL,
    boot_s numeric(18, 6) NOT NULL,
    unpriced_hosts integer NOT NULL,
    bill_usd numeric(18, 9) NOT NULL,
    boot_usd numeric(18, 9) NOT NULL,
    requests bigint NOT NULL,
    work numeric(36, 9) NOT NULL,
    compute_usd numeric(18, 9) NOT NULL,
    waste_usd numeric(18, 9) NOT NULL,
    factor numeric(36, 18) NOT NULL,
    idle_usd_per_work numeric(36, 18) NOT NULL,
    platform_usd numeric(18, 9) NOT NULL,
    weigh_by text NOT NULL,
    cached_weight numeric(9, 4) NOT NULL,
    output_weight numeric(9, 4) NOT NULL,
    closed_at timestamptz NOT NULL,
    CONSTRAINT pk_cost_hours PRIMARY KEY (pool, hour),
    CONSTRAINT ck_cost_hours_weigh_by CHECK (weigh_by IN ('tokens', 'kv'))
);

CREATE TABLE host_hours (
    hour timestamptz NOT NULL,
    machine text NOT NULL,
    pool text NOT NULL,
    instance_type text,
    is_owned boolean NOT NULL,
    is_priced boolean NOT NULL,
    leased_s numeric(18, 6) NOT NULL,
    share numeric(36, 18) NOT NULL,
    host_s numeric(18, 6) NOT NULL,
    boot_s numeric(18, 6) NOT NULL,
    dead_s numeric(18, 6) NOT NULL,
    bill_usd numeric(18, 9) NOT NULL,
    boot_usd numeric(18, 9) NOT NULL,
    dead_usd numeric(18, 9) NOT NULL,
    billed_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT pk_host_hours PRIMARY KEY (hour, machine, pool)
);
CREATE INDEX ix_host_hours_billed_at ON host_hours (billed_at);
CREATE INDEX ix_host_hours_pool_hour ON host_hours (pool, hour);

CREATE TABLE own_prices (
    id bigint GENERATED ALWAYS AS IDENTITY,
    pool text NOT NULL,
    at timestamptz DEFAULT now() NOT NULL,
    instance_type text NOT NULL,
    usd_per_hour numeric(18, 9) NOT NULL,
    tokens_per_s float8 NOT NULL,
    work_per_token float8 NOT NULL,
    input_usd_per_mtok numeric(18, 9) NOT NULL,
    cached_input_usd_per_mtok numeric(18, 9) NOT NULL,
    output_usd_per_mtok numeric(18, 9) NOT NULL,
    CONSTRAINT pk_own_prices PRIMARY KEY (id)
);
CREATE INDEX ix_own_prices_pool_id ON own_prices (pool, id);

CREATE TABLE list_prices (
    id bigint GENERATED ALWAYS AS IDENTITY,
    model text NOT NULL,
    valid_from timestamptz NOT NULL,
    valid_to timestamptz,
    input_usd_per_mtok numeric(18, 9) NOT NULL,
    cached_input_usd_per_mtok numeric(18, 9) NOT NULL,
    output_usd_per_mtok numeric(18, 9) NOT NULL,
    tiers jsonb NOT NULL,
    source text NOT NULL,
    CONSTRAINT pk_list_prices PRIMARY KEY (id),
    CONSTRAINT ck_list_prices_valid CHECK (valid_to > valid_from)
);
CREATE UNIQUE INDEX uq_list_prices_in_force ON list_prices (model) WHERE valid_to IS NULL;

CREATE TABLE closed_days (
    day timestamptz NOT NULL,
    hours integer NOT NULL,
    hours_closed_at timestamptz,
    closed_at timestamptz NOT NULL,
    CONSTRAINT pk_closed_days PRIMARY KEY (day)
);

CREATE TABLE cost_days (
    day timestamptz NOT NULL,
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
    usd numeric(36, 9) NOT NULL,
    full_usd numeric(36, 9) NOT NULL,
    waste_usd numeric(36, 9) NOT NULL,
    api_usd numeric(36, 9)
);
CREATE INDEX ix_cost_days_day ON cost_days (day);

CREATE TABLE user_days (
    day timestamptz NOT NULL,
    app_id uuid,
    users bigint NOT NULL,
    requests bigint NOT NULL,
    full_usd numeric(36, 9) NOT NULL
);
CREATE INDEX ix_user_days_day ON user_days (day);

CREATE TABLE label_keys (
    key text NOT NULL,
    CONSTRAINT pk_label_keys PRIMARY KEY (key)
);

CREATE TABLE label_days (
    day timestamptz NOT NULL,
    app_id uuid,
    key text NOT NULL,
    value text,
    requests bigint NOT NULL,
    prompt_tokens bigint NOT NULL,
    output_tokens bigint NOT NULL,
    usd numeric(36, 9) NOT NULL,
    full_usd numeric(36, 9) NOT NULL,
    waste_usd numeric(36, 9) NOT NULL,
    api_usd numeric(36, 9)
);
CREATE INDEX ix_label_days_day ON label_days (day);

CREATE TABLE charge_days (
    day timestamptz NOT NULL,
    app_id uuid,
    pool text,
    kind text NOT NULL,
    is_closed boolean NOT NULL,
    requests bigint NOT NULL,
    prompt_tokens bigint NOT NULL,
    output_tokens bigint NOT NULL,
    usd numeric(36, 9) NOT NULL,
    full_usd numeric(36, 9) NOT NULL,
    api_usd numeric(36, 9)
);
CREATE INDEX ix_charge_days_day ON charge_days (day);

-- Workers and hosts, and what was observed and decided about them.

CREATE TABLE processes (
    id uuid NOT NULL,
    kind text NOT NULL,
    name text NOT NULL,
    host_id text NOT NULL,
    pid integer NOT NULL,
    version text NOT NULL,
    pool text,
    scaling_mode text,
    started_at timestamptz DEFAULT now() NOT NULL,
    seen_at timestamptz DEFAULT now() NOT NULL,
    stopped_at timestamptz,
    problems jsonb DEFAULT '{}' NOT NULL,
    end_reason text,
    CONSTRAINT pk_processes PRIMARY KEY (id),
    CONSTRAINT ck_processes_kind CHECK (kind IN ('web', 'ops', 'gpu', 'overflow', 'webhooks', 'plugins', 'control', 'beat'))
);

CREATE TABLE workers (
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
    draining boolean DEFAULT false NOT NULL,
    started_at timestamptz DEFAULT now() NOT NULL,
    lease_until timestamptz NOT NULL,
    stopped_at timestamptz,
    stop_reason text,
    expected_outputs jsonb,
    payload_version smallint DEFAULT 1 NOT NULL,
    CONSTRAINT pk_workers PRIMARY KEY (id)
);

CREATE TABLE hosts (
    id text NOT NULL,
    pool text NOT NULL,
    instance_type text,
    usd_per_hour numeric(18, 9),
    provider_id text,
    requested_at timestamptz NOT NULL,
    ordered_at timestamptz,
    ready_at timestamptz,
    drain_at timestamptz,
    released_at timestamptz,
    ended_at timestamptz,
    end_reason text,
    is_adopted boolean DEFAULT false NOT NULL,
    decision_id bigint,
    drain_decision_id bigint,
    CONSTRAINT pk_hosts PRIMARY KEY (id),
    CONSTRAINT ck_hosts_end_reason CHECK (end_reason IN ('scaled_down', 'by_hand', 'gone', 'written_off', 'unattended'))
);
CREATE INDEX ix_hosts_live ON hosts (pool) WHERE ended_at IS NULL;

CREATE TABLE host_actors (
    pool text NOT NULL,
    holder uuid NOT NULL,
    until timestamptz NOT NULL,
    CONSTRAINT pk_host_actors PRIMARY KEY (pool)
);

CREATE TABLE locks (
    name text NOT NULL,
    CONSTRAINT pk_locks PRIMARY KEY (name)
);

CREATE TABLE queue_samples (
    queue text NOT NULL,
    at timestamptz NOT NULL,
    depth integer NOT NULL,
    oldest_wait_s float8 NOT NULL,
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
    discounted bigint DEFAULT 0 NOT NULL,
    discounted_tokens bigint DEFAULT 0 NOT NULL,
    ended bigint DEFAULT 0 NOT NULL,
    failed bigint DEFAULT 0 NOT NULL,
    expired bigint DEFAULT 0 NOT NULL,
    hosts_requested float8 DEFAULT 0 NOT NULL,
    hosts_draining float8 DEFAULT 0 NOT NULL,
    kv_use float8,
    CONSTRAINT pk_queue_samples PRIMARY KEY (queue, at)
);
CREATE INDEX ix_queue_samples_at ON queue_samples (at);

CREATE TABLE queue_rollups (
    queue text NOT NULL,
    span_s integer NOT NULL,
    at timestamptz NOT NULL,
    samples integer NOT NULL,
    depth float8 NOT NULL,
    most_depth integer NOT NULL,
    oldest_wait_s float8 NOT NULL,
    arrivals bigint NOT NULL,
    refused bigint NOT NULL,
    started bigint NOT NULL,
    started_tokens bigint NOT NULL,
    running float8 NOT NULL,
    slots float8 NOT NULL,
    hosts float8 NOT NULL,
    offered bigint DEFAULT 0 NOT NULL,
    offered_tokens bigint DEFAULT 0 NOT NULL,
    spilled bigint DEFAULT 0 NOT NULL,
    finished bigint DEFAULT 0 NOT NULL,
    discounted bigint DEFAULT 0 NOT NULL,
    discounted_tokens bigint DEFAULT 0 NOT NULL,
    ended bigint DEFAULT 0 NOT NULL,
    failed bigint DEFAULT 0 NOT NULL,
    expired bigint DEFAULT 0 NOT NULL,
    hosts_requested float8 DEFAULT 0 NOT NULL,
    hosts_draining float8 DEFAULT 0 NOT NULL,
    kv_use float8,
    CONSTRAINT pk_queue_rollups PRIMARY KEY (queue, span_s, at)
);
CREATE INDEX ix_queue_rollups_span_s_at ON queue_rollups (span_s, at);

CREATE TABLE worker_samples (
    id bigint GENERATED ALWAYS AS IDENTITY,
    worker_id uuid NOT NULL,
    pool text NOT NULL,
    taken_at timestamptz DEFAULT now() NOT NULL,
    interval_s float8 NOT NULL,
    running float8 NOT NULL,
    waiting integer NOT NULL,
    steps integer NOT NULL,
    kv_use float8,
    kv_reserved float8,
    prompt_tokens integer NOT NULL,
    output_tokens integer NOT NULL,
    preemptions integer NOT NULL,
    first_token_s float8,
    gpu_use float8,
    gpu_memory float8,
    gpu_watts float8,
    CONSTRAINT pk_worker_samples PRIMARY KEY (id)
);
CREATE INDEX ix_worker_samples_taken_at_pool ON worker_samples (taken_at, pool);

CREATE TABLE decisions (
    id bigint GENERATED ALWAYS AS IDENTITY,
    at timestamptz DEFAULT now() NOT NULL,
    pool text NOT NULL,
    mode text NOT NULL,
    hosts integer NOT NULL,
    target integer NOT NULL,
    reason text NOT NULL,
    inputs jsonb NOT NULL,
    action text DEFAULT 'hold' NOT NULL,
    policy text DEFAULT 'reactive' NOT NULL,
    version integer DEFAULT 0 NOT NULL,
    need integer,
    spare_need integer,
    forecast_tokens_per_s float8,
    forecast_at timestamptz,
    actual_tokens_per_s float8,
    burst_until timestamptz,
    applied_at timestamptz,
    tries integer DEFAULT 0 NOT NULL,
    error text,
    CONSTRAINT pk_decisions PRIMARY KEY (id)
);
CREATE INDEX ix_decisions_at ON decisions (at);
CREATE INDEX ix_decisions_open ON decisions (pool) WHERE mode = 'active' AND action <> 'hold' AND applied_at IS NULL;
CREATE INDEX ix_decisions_pool_at ON decisions (pool, at);

CREATE TABLE scaling_alerts (
    kind text NOT NULL,
    pool text NOT NULL,
    subject text NOT NULL,
    began_at timestamptz NOT NULL,
    seen_at timestamptz NOT NULL,
    alerted_at timestamptz,
    CONSTRAINT pk_scaling_alerts PRIMARY KEY (kind, pool, subject)
);

CREATE TABLE refusals (
    minute timestamptz NOT NULL,
    app_id uuid NOT NULL,
    queue text NOT NULL,
    reason text NOT NULL,
    is_repeat boolean DEFAULT false NOT NULL,
    jobs integer NOT NULL,
    tokens bigint NOT NULL,
    sampled_jobs integer DEFAULT 0 NOT NULL,
    expected_tokens bigint DEFAULT 0 NOT NULL,
    sampled_tokens bigint DEFAULT 0 NOT NULL,
    CONSTRAINT pk_refusals PRIMARY KEY (minute, app_id, queue, reason, is_repeat)
);

-- The accounts of operators, who log in to the pages at /ops, and what operators did.

CREATE TABLE operators (
    id uuid NOT NULL,
    name text NOT NULL,
    role text NOT NULL,
    password_hash text NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT pk_operators PRIMARY KEY (id),
    CONSTRAINT ck_operators_role CHECK (role IN ('viewer', 'operator', 'admin')),
    CONSTRAINT uq_operators_name UNIQUE (name)
);

CREATE TABLE failed_logins (
    digest bytea NOT NULL,
    tries integer NOT NULL,
    until timestamptz NOT NULL,
    CONSTRAINT pk_failed_logins PRIMARY KEY (digest)
);
CREATE INDEX ix_failed_logins_until ON failed_logins (until);

CREATE TABLE audit_log (
    id bigint GENERATED ALWAYS AS IDENTITY,
    at timestamptz DEFAULT now() NOT NULL,
    actor text NOT NULL,
    source text NOT NULL,
    action text NOT NULL,
    subject text NOT NULL,
    app_id uuid,
    details jsonb DEFAULT '{}' NOT NULL,
    CONSTRAINT pk_audit_log PRIMARY KEY (id),
    CONSTRAINT ck_audit_log_source CHECK (source IN ('pages', 'cli', 'celery'))
);
CREATE INDEX ix_audit_log_at ON audit_log (at);
-- For each statement: one that finds no row is refused too, and TRUNCATE fires no trigger for rows.
CREATE TRIGGER audit_log_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change();

-- Which plugins have tables here: `plugins/NAME/sql` makes them.

CREATE TABLE plugin_versions (
    name text NOT NULL,
    version integer NOT NULL,
    views text[] NOT NULL,
    CONSTRAINT pk_plugin_versions PRIMARY KEY (name)
);
