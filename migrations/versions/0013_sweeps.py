"""Give each sweep an index of the rows it looks for, so that an idle sweep costs nothing.

Revision: 0013, after 0012
"""

from headrace.tables import concurrently

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

UNSTARTED = "state IN ('waiting', 'queued')"
NEW = {
    "ix_jobs_queued": (["queue", "queued_at", "id"], "state = 'queued'"),
    "ix_jobs_due": (["not_before"], "state = 'waiting'"),
    "ix_jobs_unstarted": (["start_by"], f"{UNSTARTED} AND started_at IS NULL"),
    "ix_jobs_unfinished": (["finish_by"], f"{UNSTARTED} AND finish_by IS NOT NULL"),
    "ix_jobs_started": (["started_at"], "started_at IS NOT NULL"),
}
OLD = {
    "ix_jobs_open": (["state", "queued_at"], UNSTARTED),
    "ix_jobs_started_at": (["started_at"], ""),
}


def upgrade() -> None:
    _replace(OLD, NEW)


def downgrade() -> None:
    _replace(NEW, OLD)


def _replace(old: dict[str, tuple[list[str], str]], new: dict[str, tuple[list[str], str]]) -> None:
    """Create the new indexes before the old ones are dropped, without blocking writers."""
    for name, (columns, predicate) in new.items():
        concurrently.create_index(name, "jobs", columns, where=predicate)
    for name in old:
        concurrently.drop_index(name, "jobs")
