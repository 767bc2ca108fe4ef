"""Keep what the exact cache needs: an app's setting, a job's key and what became of it, and what a hit has saved.

Revision: 0045, after 0044
"""

import sqlalchemy as sa
from alembic import op

revision = "0045"
down_revision = "0044"
branch_labels = None
depends_on = None

USD = sa.Numeric(18, 9)
CACHE_S = "How long its answers serve its identical jobs, in seconds; 0: never; NULL: as long as the pool says."
CACHE = "hit: it was given a stored answer; miss: none was found; NULL: not searched."
CACHE_KEY = "SHA-256 of the app and of all that determines the answer."
SAVED_USD = "Of the kind cache: the price of the answer that it repeats; else NULL."
COLUMNS = (
    ("apps", "cache_s", sa.Integer, CACHE_S),
    ("jobs", "cache", sa.Text, CACHE),
    ("job_texts", "cache_key", sa.LargeBinary, CACHE_KEY),
    ("ledger", "saved_usd", USD, SAVED_USD),
)
CACHE_PER_DAY = """
    SELECT date_trunc('day', j.created_at, 'UTC') AS day,
           a.name AS app,
           j.pool,
           j.model_requested,
           count(*) FILTER (WHERE j.cache = 'hit') AS hits,
           count(*) FILTER (WHERE j.cache = 'miss') AS misses,
           count(*) FILTER (WHERE j.cache = 'hit') / count(*)::float8 AS hit_share,
           coalesce(sum(l.prompt_tokens), 0) AS prompt_tokens,
           coalesce(sum(l.output_tokens), 0) AS output_tokens,
           coalesce(sum(l.saved_usd), 0) AS saved_usd,
           sum(l.api_usd) AS api_usd
    FROM jobs j
    JOIN apps a ON a.id = j.app_id
    LEFT JOIN ledger l ON l.job_id = j.id AND l.kind = 'cache'
    WHERE j.cache IS NOT NULL
    GROUP BY 1, 2, 3, 4
"""
ABOUT = "The jobs for which the exact cache was searched, by day of UTC, and what it saved."
ABOUT_COLUMNS = {
    "day": "Its start, in UTC, by when the jobs were accepted.",
    "app": "The app's name.",
    "pool": "The pool that answers, or would have.",
    "model_requested": "The model that the requests named.",
    "hits": "Jobs that were given a stored answer.",
    "misses": "Jobs for which there was none.",
    "hit_share": "hits over both.",
    "prompt_tokens": "Tokens of the hits' prompts, which no engine read.",
    "output_tokens": "Tokens of the hits' answers, which no engine made.",
    "saved_usd": "What the answers that the hits were given have cost.",
    "api_usd": "What the hits would have cost at the paid API's list price; NULL: it has none.",
}


def upgrade() -> None:
    # Each in a transaction of its own: one that locks several tables would deadlock with readers of them.
    with op.get_context().autocommit_block():
        for table, column, kind, comment in COLUMNS:
            op.add_column(table, sa.Column(column, kind, comment=comment), if_not_exists=True)
    make_view()


def make_view() -> None:
    op.execute(f"CREATE OR REPLACE VIEW cache_per_day AS {CACHE_PER_DAY}")
    op.execute(f"COMMENT ON VIEW cache_per_day IS {_quoted(ABOUT)}")
    for column, text in ABOUT_COLUMNS.items():
        op.execute(f"COMMENT ON COLUMN cache_per_day.{column} IS {_quoted(text)}")


def downgrade() -> None:
    op.execute("DROP VIEW cache_per_day")
    for table, column, _, _ in COLUMNS:
        op.drop_column(table, column)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
