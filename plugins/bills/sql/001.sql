CREATE TABLE bills (
    id bigint GENERATED ALWAYS AS IDENTITY,
    source text NOT NULL,
    file text NOT NULL,
    lines integer NOT NULL,
    first_day date NOT NULL,
    last_day date NOT NULL,
    ledger_usd numeric(36, 9) NOT NULL,
    billed_usd numeric(36, 9) NOT NULL,
    checked_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT pk_bills PRIMARY KEY (id),
    CONSTRAINT ck_bills_source CHECK (source IN ('hosts', 'api'))
);

CREATE TABLE bill_checks (
    source text NOT NULL,
    day timestamptz NOT NULL,
    name text NOT NULL,
    pool text NOT NULL,
    cause text NOT NULL,
    kind text,
    ledger_usd numeric(36, 9) NOT NULL,
    billed_usd numeric(36, 9) NOT NULL,
    ledger_quantity numeric(36, 6) NOT NULL,
    billed_quantity numeric(36, 6) NOT NULL,
    bill_id bigint NOT NULL,
    CONSTRAINT pk_bill_checks PRIMARY KEY (source, day, name, pool, cause),
    CONSTRAINT fk_bill_checks_bill_id FOREIGN KEY (bill_id) REFERENCES bills (id)
);
