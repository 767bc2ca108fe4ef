"""Which processes run, by their own signs of life: one row for each life of a process, by the database's clock."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert

from headrace.domain.fleet import Life, ProcessInfo, ProcessKind
from headrace.tables import processes

#: Seconds between two signs of a process.
BEAT_EVERY_S = 2.0
#: Seconds without a sign after which a process is missed: it was killed, hangs, or does not reach Postgres.
GONE_S = 8.0
#: How far back the lives of processes are looked at.
LATELY = timedelta(hours=1)

#: A life as its supervisor knows it: its host, its pid, and when its row says that it began.
LifeKey = tuple[str, int, datetime]

_GONE = timedelta(seconds=GONE_S)
_ROW = processes.c
_IS_ALIVE = sa.and_(_ROW.stopped_at.is_(None), _ROW.seen_at > sa.func.now() - _GONE)


def beat(db: Connection, info: ProcessInfo, problems: Mapping[str, str]) -> None:
    """Note that a process lives. Its first sign adds its row."""
    added = insert(processes).values(**asdict(info), problems=dict(problems))
    seen = {"seen_at": sa.func.now(), "problems": added.excluded.problems}
    db.execute(added.on_conflict_do_update(index_elements=["id"], set_=seen))


def stop(db: Connection, process_id: UUID) -> None:
    """Note that a process has stopped by itself."""
    db.execute(
        sa.update(processes).where(_ROW.id == process_id).values(seen_at=sa.func.now(), stopped_at=sa.func.now())
    )


def note_ends(db: Connection, ends: Mapping[LifeKey, str]) -> None:
    """Note why these lives ended, unless they said themselves that they stop."""
    for (host_id, pid, started_at), reason in ends.items():
        this = (_ROW.host_id == host_id, _ROW.pid == pid, _ROW.started_at == started_at, _ROW.stopped_at.is_(None))
        db.execute(sa.update(processes).where(*this).values(end_reason=reason))


def lives(db: Connection) -> list[Life]:
    """The lives of which there was a sign lately, the oldest first."""
    # A sign may come after the start of this transaction.
    silent_s = sa.func.greatest(sa.extract("epoch", sa.func.now() - _ROW.seen_at), 0)
    columns = (_ROW.kind, _ROW.name, _ROW.host_id, _ROW.pid, _ROW.pool, _ROW.version, _ROW.scaling_mode)
    times = (_ROW.started_at, _ROW.seen_at, _ROW.stopped_at, _ROW.problems, _ROW.end_reason)
    found = sa.select(*columns, *times, _IS_ALIVE.label("is_alive"), sa.cast(silent_s, sa.Float).label("silent_s"))
    rows = db.execute(found.where(_ROW.seen_at > sa.func.now() - LATELY).order_by(_ROW.started_at, _ROW.id))
    return [Life(**{**row._mapping, "kind": ProcessKind(row.kind)}) for row in rows]


def silent_s(db: Connection, kind: ProcessKind, pool: str | None = None) -> float | None:
    """Seconds since the last sign of any process of this kind; None if there never was one.

    Args: pool: only workers of this pool.
    """
    newest = sa.select(sa.cast(sa.extract("epoch", sa.func.now() - sa.func.max(_ROW.seen_at)), sa.Float))
    found: float | None = db.scalar(newest.where(_ROW.kind == kind, *([] if pool is None else [_ROW.pool == pool])))
    return found


def scaling_mode(db: Connection) -> str | None:
    """How the control process that runs scales, whatever the settings of another process say; None without one."""
    newest = sa.select(_ROW.scaling_mode).where(_ROW.kind == ProcessKind.CONTROL, _IS_ALIVE)
    mode: str | None = db.scalar(newest.order_by(_ROW.started_at.desc()).limit(1))
    return mode


def forget_old(db: Connection, keep_days: int) -> int:
    """Delete the lives that ended long ago; returns how many they were."""
    old = _ROW.seen_at < sa.func.now() - timedelta(days=keep_days)
    return len(db.execute(sa.delete(processes).where(old).returning(_ROW.id)).all())
