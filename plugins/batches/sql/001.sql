CREATE TABLE files (
    id uuid NOT NULL,
    app_id uuid NOT NULL,
    state text DEFAULT 'uploading' NOT NULL,
    purpose text NOT NULL,
    filename text NOT NULL,
    bytes bigint NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    expires_at timestamptz,
    CONSTRAINT pk_files PRIMARY KEY (id),
    CONSTRAINT fk_files_app_id FOREIGN KEY (app_id) REFERENCES apps (id) ON DELETE RESTRICT,
    CONSTRAINT ck_files_state CHECK (state IN ('uploading', 'ready', 'deleted')),
    CONSTRAINT ck_files_purpose CHECK (purpose IN ('batch', 'batch_output'))
);
CREATE INDEX ix_files_app_id ON files (app_id, id);
CREATE INDEX ix_files_held ON files (app_id) INCLUDE (bytes, purpose) WHERE state <> 'deleted';
CREATE INDEX ix_files_unready ON files (id) WHERE state <> 'ready';
CREATE INDEX ix_files_expires_at ON files (expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE batches (
    id uuid NOT NULL,
    app_id uuid NOT NULL,
    state text DEFAULT 'validating' NOT NULL,
    endpoint text NOT NULL,
    model text,
    input_file_id uuid NOT NULL,
    output_file_id uuid,
    error_file_id uuid,
    completion_window text NOT NULL,
    overflow text NOT NULL,
    metadata jsonb DEFAULT '{}' NOT NULL,
    webhook_url text,
    output_keep_s integer,
    retry_of uuid,
    errors jsonb,
    total integer DEFAULT 0 NOT NULL,
    completed integer DEFAULT 0 NOT NULL,
    failed integer DEFAULT 0 NOT NULL,
    prompt_tokens bigint DEFAULT 0 NOT NULL,
    cached_tokens bigint DEFAULT 0 NOT NULL,
    output_tokens bigint DEFAULT 0 NOT NULL,
    reasoning_tokens bigint DEFAULT 0 NOT NULL,
    usd numeric(18, 9) DEFAULT 0 NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    expires_at timestamptz NOT NULL,
    not_before timestamptz,
    in_progress_at timestamptz,
    finalizing_at timestamptz,
    completed_at timestamptz,
    failed_at timestamptz,
    expired_at timestamptz,
    cancelling_at timestamptz,
    cancelled_at timestamptz,
    runner_id uuid,
    lease_until timestamptz,
    has_lines boolean DEFAULT true NOT NULL,
    held_bytes bigint DEFAULT 0 NOT NULL,
    CONSTRAINT pk_batches PRIMARY KEY (id),
    CONSTRAINT fk_batches_app_id FOREIGN KEY (app_id) REFERENCES apps (id) ON DELETE RESTRICT,
    CONSTRAINT ck_batches_state CHECK (
        state IN (
            'validating', 'failed', 'in_progress', 'finalizing', 'completed', 'expired', 'cancelling', 'cancelled'
        )
    ),
    CONSTRAINT ck_batches_overflow CHECK (overflow IN ('allow', 'never', 'only')),
    CONSTRAINT ck_batches_counts CHECK (completed + failed <= total)
);
CREATE INDEX ix_batches_app_id ON batches (app_id, id);
CREATE INDEX ix_batches_open ON batches (id) WHERE state IN ('validating', 'in_progress', 'finalizing', 'cancelling');
CREATE INDEX ix_batches_with_lines ON batches (id) WHERE has_lines;
CREATE INDEX ix_batches_held ON batches (app_id) INCLUDE (held_bytes) WHERE has_lines;

CREATE TABLE batch_lines (
    batch_id uuid NOT NULL,
    number integer NOT NULL,
    custom_id text NOT NULL,
    state text DEFAULT 'waiting' NOT NULL,
    prefix text NOT NULL,
    body text NOT NULL,
    job_id uuid,
    status_code smallint,
    refusal text,
    submitted_at timestamptz,
    provider_batch_id uuid,
    CONSTRAINT pk_batch_lines PRIMARY KEY (batch_id, number),
    CONSTRAINT fk_batch_lines_batch_id FOREIGN KEY (batch_id) REFERENCES batches (id) ON DELETE CASCADE,
    CONSTRAINT ck_batch_lines_state
        CHECK (state IN ('waiting', 'submitted', 'succeeded', 'failed', 'expired', 'cancelled')),
    CONSTRAINT ck_batch_lines_submitted_has_job CHECK (state <> 'submitted' OR job_id IS NOT NULL),
    CONSTRAINT ck_batch_lines_refusal CHECK ((status_code IS NULL) = (refusal IS NULL))
);
CREATE INDEX ix_batch_lines_waiting ON batch_lines (batch_id, prefix, length(body), number) WHERE state = 'waiting';
CREATE INDEX ix_batch_lines_submitted ON batch_lines (batch_id, job_id) WHERE state = 'submitted';
CREATE INDEX ix_batch_lines_provider ON batch_lines (provider_batch_id, job_id) WHERE provider_batch_id IS NOT NULL;

CREATE TABLE provider_batches (
    id uuid NOT NULL,
    batch_id uuid NOT NULL,
    model text NOT NULL,
    state text DEFAULT 'gathering' NOT NULL,
    file_id text,
    provider_id text,
    status text,
    lines integer DEFAULT 0 NOT NULL,
    answered integer DEFAULT 0 NOT NULL,
    unreturned_usd numeric(18, 9) DEFAULT 0 NOT NULL,
    error text,
    created_at timestamptz DEFAULT now() NOT NULL,
    asks integer DEFAULT 0 NOT NULL,
    asked_at timestamptz,
    sent_at timestamptz,
    checked_at timestamptz,
    cancel_asked_at timestamptz,
    ended_at timestamptz,
    runner_id uuid,
    lease_until timestamptz,
    CONSTRAINT pk_provider_batches PRIMARY KEY (id),
    CONSTRAINT fk_provider_batches_batch_id FOREIGN KEY (batch_id) REFERENCES batches (id) ON DELETE CASCADE,
    CONSTRAINT ck_provider_batches_state
        CHECK (state IN ('gathering', 'ready', 'reserved', 'uploaded', 'sent', 'settled', 'ended'))
);
CREATE INDEX ix_provider_batches_batch_id ON provider_batches (batch_id);
CREATE INDEX ix_provider_batches_open ON provider_batches (id) WHERE state <> 'ended';

CREATE INDEX ix_jobs_of_batches ON jobs ((notes ->> 'batches')) WHERE notes ->> 'batches' IS NOT NULL;
