"""Keep how many tokens a prompt had before it was compressed, and show what that saved.

Revision: 0052, after 0051
"""

import sqlalchemy as sa
from alembic import op

revision = "0052"
down_revision = "0051"
branch_labels = None
depends_on = None

ORIGINAL_TOKENS = "Of the prompt before it was compressed; NULL: it was not."
SAVED_USD = "Of the kind cache: the price of the answer that it repeats. Else: that of the tokens that compression cut."
SAVED_USD_BEFORE = "Of the kind cache: the price of the answer that it repeats; else NULL."
COMPRESSION_PER_DAY = """
    SELECT date_trunc('day', j.created_at, 'UTC') AS day,
           a.name AS app,
           j.pool,
           j.route,
           j.model_requested,
           count(*) AS jobs,
           sum(j.original_tokens) AS original_tokens,
           sum(j.prompt_tokens) AS prompt_tokens,
           1 - sum(j.prompt_tokens) / nullif(sum(j.original_tokens), 0)::float8 AS saved_share,
           coalesce(sum(l.saved_usd), 0) AS saved_usd
    FROM jobs j
    JOIN apps a ON a.id = j.app_id
    LEFT JOIN ledger l ON l.job_id = j.id AND l.kind IN ('compute', 'api')
    WHERE j.original_tokens IS NOT NULL
    GROUP BY 1, 2, 3, 4, 5
"""
ABOUT = "The jobs whose prompts were compressed, by day of UTC, and what that saved."
ABOUT_COLUMNS = {
    "day": "Its start, in UTC, by when the jobs were accepted.",
    "app": "The app's name.",
    "pool": "The pool that the jobs were for.",
    "route": "pool: that pool answered; overflow: the paid API.",
    "model_requested": "The model that the requests named.",
    "jobs": "Jobs whose prompts became shorter.",
    "original_tokens": "Tokens of their prompts as the app sent them.",
    "prompt_tokens": "Tokens of their prompts as the engine got them, which is what was charged.",
    "saved_share": "Of the original tokens, the share that was not sent.",
    "saved_usd": "What the tokens that were not sent would have cost.",
}


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.add_column("jobs", sa.Column("original_tokens", sa.Integer, comment=ORIGINAL_TOKENS), if_not_exists=True)
    op.execute(f"COMMENT ON COLUMN ledger.saved_usd IS '{SAVED_USD}'")
    op.execute(f"CREATE OR REPLACE VIEW compression_per_day AS {COMPRESSION_PER_DAY}")
    op.execute(f"COMMENT ON VIEW compression_per_day IS {_quoted(ABOUT)}")
    for column, text in ABOUT_COLUMNS.items():
        op.execute(f"COMMENT ON COLUMN compression_per_day.{column} IS {_quoted(text)}")


def downgrade() -> None:
    op.execute("DROP VIEW compression_per_day")
    op.execute(f"COMMENT ON COLUMN ledger.saved_usd IS '{SAVED_USD_BEFORE}'")
    op.drop_column("jobs", "original_tokens")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
