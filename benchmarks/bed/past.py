"""A past for a system: finished jobs of many apps, with texts, attempts, ledger and deliveries, made by SQL.

The first app has come and gone: its few jobs are among the oldest, which no query finds without an index. Knows the
tables and nothing of what is measured on them.
"""

from contextlib import suppress
from datetime import timedelta

import sqlalchemy as sa

from bed.testbed import Testbed, wait_until
from headrace.errors import LockHeld
from headrace.store import clock, locks, months

#: How far back the oldest job lies, by default.
PAST_DAYS = 30
#: How long another process may make months.
LOCK_LIMIT_S = 60.0
#: Characters of a prompt and of an answer.
PROMPT_CHARS, ANSWER_CHARS = 1000, 400

#: The ids are UUIDv7, as the API makes them: the time in milliseconds, then what no other job has.
_PAST = """
    CREATE TEMPORARY TABLE past ON COMMIT DROP AS
    SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0')
            || '7' || substr(unique_part, 1, 3) || '8' || substr(unique_part, 4, 15))::uuid AS id,
           app.id AS app_id, no, at
    FROM (SELECT no, md5(no::text) AS unique_part, now() - interval '{days} days' * (total - no) / total
                 - interval '1 minute' AS at,
                 CASE WHEN no <= {first} * num_apps THEN 1 + no % num_apps ELSE 2 + no % (num_apps - 1) END AS app_no
          FROM (SELECT {jobs} AS total, {apps} AS num_apps), generate_series(1, {jobs}) AS no) AS job
    JOIN apps AS app ON app.name = 'app-' || app_no
"""
_APPS = """
    INSERT INTO apps (id, name, webhook_secret)
    SELECT gen_random_uuid(), 'app-' || no, 'whsec_' || md5(no::text) FROM generate_series(1, {apps}) AS no
    ON CONFLICT (name) DO NOTHING
"""
_JOBS = """
    INSERT INTO jobs (id, app_id, state, lane, pool, queue, route, route_reason, overflow, model_requested,
                      model_served, metadata, webhook_url, background, prompt_tokens, max_tokens, output_tokens,
                      cached_tokens, finish_reason, usd, attempt, created_at, start_by, queued_at, started_at, ended_at)
    SELECT id, app_id, 'succeeded', 'normal', 'chat', 'chat.normal', 'pool', 'past', 'never', 'past',
           'past', jsonb_build_object('order', no::text), 'https://example.com/hook', true, 250, 128, 100,
           0, 'stop', 0.0001, 1, at, at + interval '30 s', at, at + interval '2 s', at + interval '5 s' FROM past
"""
_TEXTS = f"""
    INSERT INTO job_texts (job_id, messages, sampling, answer)
    SELECT id, jsonb_build_array(jsonb_build_object(
                   'role', 'user', 'content', left(repeat(md5(no::text), 40), {PROMPT_CHARS}))),
           '{{{{"max_tokens": 128}}}}', left(repeat(md5((-no)::text), 20), {ANSWER_CHARS}) FROM past
"""
_ATTEMPTS = """
    INSERT INTO attempts (job_id, number, worker_id, engine, model_served, started_at, ended_at, outcome,
                          prompt_tokens, cached_tokens, output_tokens, engine_s, first_token_s)
    SELECT id, 1, '00000000-0000-7000-8000-000000000001', 'simulator', 'past', at + interval '2 s',
           at + interval '5 s', 'succeeded', 250, 0, 100, 3, 0.1 FROM past
"""
_LEDGER = """
    INSERT INTO ledger (at, kind, job_id, attempt, app_id, end_user, pool, model, prompt_tokens, output_tokens,
                        engine_s, usd, api_usd, price_version)
    SELECT at + interval '5 s', 'compute', id, 1, app_id, 'user-' || no % 5000, 'chat', 'past', 250, 100,
           3, 0.0001, 0.0003, 'past' FROM past
"""
_DELIVERIES = """
    INSERT INTO deliveries (id, job_id, app_id, event, url, state, tries, last_status, created_at, next_at,
                            delivered_at)
    SELECT gen_random_uuid(), id, app_id, 'job.succeeded', 'https://example.com/hook', 'delivered', 1, 200,
           at + interval '5 s', at + interval '5 s', at + interval '6 s' FROM past
"""
#: Whatever only makes reading faster; the others say what must not be there twice.
_DROP_INDEXES = """
    DO $$
    DECLARE each record;
    BEGIN
        FOR each IN SELECT indexrelid::regclass AS name FROM pg_index JOIN pg_class ON pg_class.oid = indrelid
                    WHERE relnamespace = 'public'::regnamespace AND NOT indisunique AND NOT relispartition
        LOOP EXECUTE 'DROP INDEX ' || each.name;
        END LOOP;
    END $$
"""


def make_past(bed: Testbed, jobs: int, apps: int, first: int, days: int = PAST_DAYS) -> None:
    """Give the system this number of finished jobs, spread evenly over these days and over the apps `app-1` and so on.

    Args: first: all that `app-1` has, at the beginning of that time.
    """
    engine = sa.create_engine(bed.stack.report.database_url)
    wait_until(lambda: _make_months(engine, days), LOCK_LIMIT_S, "Another process makes months.")
    engine.dispose()
    steps = (_APPS, _PAST, _JOBS, _TEXTS, _ATTEMPTS, _LEDGER, _DELIVERIES)
    bed.sql_together([step.format(jobs=jobs, apps=apps, first=first, days=days) for step in steps])


def _make_months(engine: sa.Engine, days: int) -> bool:
    """Make the partitions that a system of this age has. Returns: False if another process makes some now."""
    with suppress(LockHeld), engine.begin() as db:
        locks.take(db, "months")
        now = clock.now(db)
        months.make(db, now, now - timedelta(days=days))
        return True
    return False


def drop_indexes(bed: Testbed) -> None:
    """Drop every index that is not unique."""
    bed.sql(_DROP_INDEXES)


def vacuum(bed: Testbed) -> None:
    """Put the tables in the order that autovacuum keeps them in, now."""
    bed.sql("VACUUM (ANALYZE)")
