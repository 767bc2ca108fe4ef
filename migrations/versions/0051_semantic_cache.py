"""Keep what the semantic cache needs: an app's setting, the questions that have answers, and what matched them.

Searches use the extension pgvector, which is made here if the server has it and lets this role make it. Without it the
tables are the same, and the semantic cache says that it is off.

Revision: 0051, after 0050
"""

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0051"
down_revision = "0050"
branch_labels = None
depends_on = None

MAX_ERROR = "Share of the semantic cache's answers that may be wrong; 0: no such answers; NULL: as the pool says."
#: Making an extension may fail for many reasons, such as the role's rights or a policy of the provider's.
VECTOR = """
    DO $do$ BEGIN
        IF EXISTS (SELECT FROM pg_available_extensions WHERE name = 'vector') THEN
            CREATE EXTENSION IF NOT EXISTS vector;
        END IF;
    EXCEPTION WHEN OTHERS THEN
        RAISE WARNING 'The extension vector was not made: %. The semantic cache stays off without it.', SQLERRM;
    END $do$
"""
CACHE = (
    "hit: it was given a stored answer; semantic: that to the same question in other words; shared: that of a job "
    "under way; miss: none; NULL: not searched."
)
CACHE_BEFORE = "hit: it was given a stored answer; shared: that of a job under way; miss: none; NULL: not searched."
#: What 0047 has added to the view, with what is added here.
SEMANTIC = """count(*) FILTER (WHERE j.cache = 'shared') AS shared,
           count(*) FILTER (WHERE j.cache = 'semantic') AS semantic
    FROM jobs j
"""
ABOUT_SEMANTIC = "Jobs that were given the answer to the same question in other words."
MATCHES_PER_DAY = """
    SELECT date_trunc('day', m.at, 'UTC') AS day,
           a.name AS app,
           m.pool,
           count(*) FILTER (WHERE m.kind = 'served') AS served,
           count(m.is_right) AS compared,
           count(*) FILTER (WHERE NOT m.is_right) AS compared_wrong,
           count(*) FILTER (WHERE m.kind IN ('recheck', 'shadow')) AS would_serve,
           count(*) FILTER (WHERE m.kind IN ('recheck', 'shadow') AND NOT m.is_right) AS would_serve_wrong,
           count(*) FILTER (WHERE m.kind IN ('recheck', 'shadow') AND NOT m.is_right)
               / nullif(count(m.is_right) FILTER (WHERE m.kind IN ('recheck', 'shadow')), 0)::float8 AS error_share
    FROM cache_matches m
    JOIN apps a ON a.id = m.app_id
    GROUP BY 1, 2, 3
"""
ABOUT = "The jobs that asked the same as an answered one in other words, by day of UTC."
ABOUT_COLUMNS = {
    "day": "Its start, in UTC, by when the jobs were looked up.",
    "app": "The app's name.",
    "pool": "The pool that answers, or would have.",
    "served": "Jobs that were given the answer.",
    "compared": "Jobs that ran all the same, and whose answers were compared.",
    "compared_wrong": "Those of them whose answers differ.",
    "would_serve": "Jobs that ran although the entry may serve: all such jobs of a pool in shadow, else a few.",
    "would_serve_wrong": "Those of them whose answers differ.",
    "error_share": "How often a served answer is wrong, by these; NULL: none was compared.",
}


def upgrade() -> None:
    # In a transaction of its own: one that locks several tables would deadlock with readers of them.
    with op.get_context().autocommit_block():
        op.add_column("apps", sa.Column("max_error", sa.Float, comment=MAX_ERROR), if_not_exists=True)
    op.execute(VECTOR)
    _make_entries()
    _make_matches()
    _comment(CACHE)
    _make_view(SEMANTIC)
    op.execute(f"COMMENT ON COLUMN cache_per_day.semantic IS {_quoted(ABOUT_SEMANTIC)}")
    op.execute(f"CREATE VIEW semantic_cache_per_day AS {MATCHES_PER_DAY}")
    op.execute(f"COMMENT ON VIEW semantic_cache_per_day IS {_quoted(ABOUT)}")
    for column, text in ABOUT_COLUMNS.items():
        op.execute(f"COMMENT ON COLUMN semantic_cache_per_day.{column} IS {_quoted(text)}")


def downgrade() -> None:
    # The extension stays: it may serve others.
    op.execute("DROP VIEW semantic_cache_per_day")
    op.execute("DROP VIEW cache_per_day")
    context.script.get_revision("0045").module.make_view()
    shared = context.script.get_revision("0047").module
    _make_view(shared.SHARED)
    op.execute(f"COMMENT ON COLUMN cache_per_day.shared IS {_quoted(shared.ABOUT_SHARED)}")
    _comment(CACHE_BEFORE)
    op.drop_table("cache_matches")
    op.drop_table("cache_entries")
    op.drop_column("apps", "max_error")


def _make_view(more: str) -> None:
    """Make the view of 0045 with more columns at its end. Args: more: SQL of these, up to the first table."""
    query = context.script.get_revision("0045").module.CACHE_PER_DAY
    query = query.replace("AS api_usd\n    FROM jobs j\n", f"AS api_usd,\n           {more}")
    op.execute(f"CREATE OR REPLACE VIEW cache_per_day AS {query}")


def _comment(text: str) -> None:
    op.execute(f"COMMENT ON COLUMN jobs.cache IS {_quoted(text)}")


def _make_entries() -> None:
    job = "The job whose answer may serve. Its texts have the question."
    used = "When it last matched a job. Of an app with too many entries, those unused for longest are deleted."
    op.create_table(
        "cache_entries",
        sa.Column("job_id", sa.Uuid, nullable=False, comment=job),
        sa.Column("app_id", sa.Uuid, nullable=False),
        sa.Column("pool", sa.Text, nullable=False),
        sa.Column("scope", sa.LargeBinary, nullable=False, comment="SHA-256 of all but the question's words."),
        sa.Column("digest", sa.LargeBinary, nullable=False, comment="SHA-256 of the question: one entry for each."),
        sa.Column("embedding", ARRAY(sa.REAL), nullable=False, comment="Of the question."),
        _moment("created_at"),
        _moment("used_at", comment=used),
        *_keys("cache_entries"),
        comment="Questions of the semantic cache. One whose job has no answer serves nothing.",
    )
    op.create_index("uq_cache_entries_question", "cache_entries", ["app_id", "scope", "digest"], unique=True)


def _make_matches() -> None:
    kinds = (
        "served: with the entry's answer; try: it ran, to test the entry; recheck: likewise, although the entry may "
        "serve; shadow: likewise, since the pool serves nothing."
    )
    compared = "Whether its own answer agrees with the entry's; NULL: not compared."
    judge_at = "When to look for its answer next; NULL: no more."
    op.create_table(
        "cache_matches",
        sa.Column("job_id", sa.Uuid, nullable=False, comment="The job that asked."),
        sa.Column("app_id", sa.Uuid, nullable=False),
        sa.Column("pool", sa.Text, nullable=False),
        sa.Column("entry_id", sa.Uuid, nullable=False, comment="The entry's job."),
        sa.Column("similarity", sa.Float, nullable=False, comment="Of both questions' embeddings, a cosine."),
        sa.Column("kind", sa.Text, nullable=False, comment=kinds),
        _moment("at"),
        sa.Column("is_right", sa.Boolean, comment=compared),
        sa.Column("judge_at", sa.TIMESTAMP(timezone=True), comment=judge_at),
        *_keys("cache_matches"),
        sa.CheckConstraint("kind IN ('served', 'try', 'recheck', 'shadow')", name=op.f("ck_cache_matches_kind")),
        comment="Jobs for which the semantic cache had an entry that the guard let pass. They have no text.",
    )
    for name, columns, where in (
        ("tries", ["entry_id", "at"], "is_right IS NOT NULL"),
        ("judge_at", ["judge_at"], "judge_at IS NOT NULL"),
        ("at", ["at"], None),
    ):
        condition = {} if where is None else {"postgresql_where": sa.text(where)}
        op.create_index(f"ix_cache_matches_{name}", "cache_matches", columns, **condition)


def _keys(table: str) -> tuple[sa.Constraint, ...]:
    of_app = op.f(f"fk_{table}_app_id")
    return (
        sa.PrimaryKeyConstraint("job_id", name=op.f(f"pk_{table}")),
        sa.ForeignKeyConstraint(["app_id"], ["apps.id"], name=of_app, ondelete="CASCADE"),
    )


def _moment(name: str, comment: str | None = None) -> sa.Column[object]:
    now = sa.func.now()
    return sa.Column(name, sa.TIMESTAMP(timezone=True), nullable=False, server_default=now, comment=comment)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
