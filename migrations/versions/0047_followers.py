"""Index the jobs that wait for the answer of an identical job under way, and say what else the columns hold.

Revision: 0047, after 0046
"""

from alembic import context, op

from headrace.tables import concurrently

revision = "0047"
down_revision = "0046"
branch_labels = None
depends_on = None

INDEX = "ix_jobs_following"
IS_FOLLOWER = "state = 'waiting' AND served_by_job IS NOT NULL"
COMMENTS = {
    "cache": "hit: it was given a stored answer; shared: that of a job under way; miss: none; NULL: not searched.",
    "served_by_job": "The job whose answer this one was given, or waits for.",
}
BEFORE = {
    "cache": "hit: it was given a stored answer; miss: none was found; NULL: not searched.",
    "served_by_job": "The job whose answer this one was given, for a cache hit.",
}
SHARED = "count(*) FILTER (WHERE j.cache = 'shared') AS shared\n    FROM jobs j\n"
ABOUT_SHARED = "Jobs that were given the answer of a job under way, or wait for it."


def _view() -> str:
    query: str = context.script.get_revision("0045").module.CACHE_PER_DAY
    return query


def upgrade() -> None:
    _comment(COMMENTS)
    query = _view().replace("AS api_usd\n    FROM jobs j\n", f"AS api_usd,\n           {SHARED}")
    op.execute(f"CREATE OR REPLACE VIEW cache_per_day AS {query}")
    op.execute(f"COMMENT ON COLUMN cache_per_day.shared IS '{ABOUT_SHARED}'")
    concurrently.create_index(INDEX, "jobs", ["served_by_job"], where=IS_FOLLOWER)


def downgrade() -> None:
    concurrently.drop_index(INDEX, "jobs")
    _comment(BEFORE)
    revision = context.script.get_revision("0045").module
    op.execute("DROP VIEW cache_per_day")
    revision.make_view()


def _comment(comments: dict[str, str]) -> None:
    for column, text in comments.items():
        op.execute(f"COMMENT ON COLUMN jobs.{column} IS '{text}'")
