"""Poison prompts: they killed an engine in which nothing else ran, and are refused for a day."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert

from headrace.tables import poison_prompts

#: How long such a prompt is refused. Not for ever, since a new release may fix the engine.
REFUSED_FOR = timedelta(days=1)
#: The most poison prompts that a web process knows, the newest first. Each has cost two engine starts.
MOST_KNOWN = 10_000


def remember(db: Connection, digest: bytes, job_id: UUID) -> None:
    """Refuse this prompt from now on. Safe to repeat."""
    added = insert(poison_prompts).values(digest=digest, job_id=job_id, refused_until=sa.func.now() + REFUSED_FOR)
    renewed = {name: added.excluded[name] for name in ("job_id", "refused_until")}
    db.execute(added.on_conflict_do_update(index_elements=["digest"], set_=renewed))


def refused(db: Connection) -> Mapping[bytes, datetime]:
    """The refused prompts' digests, each with the end of its refusal."""
    table = poison_prompts.c
    live = sa.select(table.digest, table.refused_until).where(table.refused_until > sa.func.now())
    rows = db.execute(live.order_by(table.refused_until.desc()).limit(MOST_KNOWN))
    return {bytes(row.digest): row.refused_until for row in rows}


def forget_old(db: Connection) -> int:
    """Delete prompts that are no longer refused; returns how many."""
    over = sa.delete(poison_prompts).where(poison_prompts.c.refused_until <= sa.func.now())
    return len(db.execute(over.returning(poison_prompts.c.digest)).all())
