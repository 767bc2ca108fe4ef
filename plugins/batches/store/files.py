"""Files: the row of each, from before its content is written until after it is deleted."""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection, Row

from headrace.domain.ids import new_id, oldest_id, show_id
from headrace.errors import InvalidRequest, NotFound
from headrace.store import clock
from headrace.store.sql import is_one_of
from headrace.tables import apps
from plugins.batches.domain import FILE_PREFIX, Purpose, StoredFile
from plugins.batches.tables import batches, files

#: Rows of one `forgotten`: each costs a call to the storage.
SWEEP_ROWS = 100
#: An upload that has not ended after this has lost its process: the largest file that settings allow takes 4.6 hours at
#: the slowest rate that `web` allows.
LONGEST_UPLOAD = timedelta(hours=6)
#: Files that one app has uploaded.
MOST_FILES = 10_000
#: Bytes that a batch counts with beside its lines: its row, with the metadata or the errors, and its index entries.
BATCH_BYTES = 16 * 1024
_COLUMNS = (
    *(files.c.id, files.c.app_id, files.c.purpose, files.c.filename, files.c.bytes),
    *(files.c.created_at, files.c.expires_at),
)
#: A literal, so that the partial index of what is stored serves.
_DELETED = sa.literal("deleted", literal_execute=True)
#: What an app sees. Expired files are gone for it before the sweep has deleted them.
_VISIBLE = sa.and_(files.c.state == "ready", sa.or_(files.c.expires_at.is_(None), files.c.expires_at > sa.func.now()))


def begin(
    db: Connection, app_id: UUID, purpose: Purpose, filename: str, most_bytes: int = 0, quota_bytes: int | None = None
) -> UUID:
    """Note a file that is about to be written, as if it had all the bytes that it may have. Returns: its id.

    Args: quota_bytes: of all files of the app; None for no bound, as for what a batch has made.
    Raises: InvalidRequest, code `storage_quota_exceeded`: the app holds too much.
    """
    if quota_bytes is not None:
        check_quota(db, app_id, most_bytes, quota_bytes, "file")
    file_id = new_id()
    row = {"id": file_id, "app_id": app_id, "purpose": purpose, "filename": filename, "bytes": most_bytes}
    db.execute(sa.insert(files).values(row))
    return file_id


def check_quota(db: Connection, app_id: UUID, more_bytes: int, quota_bytes: int, param: str) -> None:
    """Check that an app may store more: a file, or the lines of a batch. Those that begin at once see each other.

    Reads two indexes alone. `MOST_FILES` bounds the uploads, `BATCH_BYTES` the batches, which have two files each.
    Raises: InvalidRequest, code `storage_quota_exceeded`.
    """
    db.execute(sa.select(apps.c.id).where(apps.c.id == app_id).with_for_update(key_share=True))
    uploads = sa.func.count().filter(files.c.purpose == "batch")
    sums = sa.select(uploads, sa.func.coalesce(sa.func.sum(files.c.bytes), 0))
    count, in_files = db.execute(sums.where(files.c.app_id == app_id, files.c.state != _DELETED)).one()
    held = sa.select(sa.func.coalesce(sa.func.sum(batches.c.held_bytes + BATCH_BYTES), 0))
    in_batches = db.scalar(held.where(batches.c.app_id == app_id, batches.c.has_lines)) or 0
    if in_files + in_batches + more_bytes > quota_bytes:
        message = (
            f"The files of this app hold {in_files} bytes and its batches {in_batches}, and {quota_bytes} "
            f"is the bound of both: {more_bytes} more do not fit. Delete files that are not needed."
        )
    elif count >= MOST_FILES:
        message = (
            f"This app has uploaded {count} files, and {MOST_FILES} is their bound. Delete files that are not needed."
        )
    else:
        return
    raise InvalidRequest(message, code="storage_quota_exceeded", param=param)


def finish(db: Connection, file_id: UUID, purpose: Purpose, size: int, expires_s: float | None) -> StoredFile:
    """Make the file visible: its content is whole. Raises: NotFound: a sweep has taken it for a dead upload."""
    expires_at = None if expires_s is None else files.c.created_at + timedelta(seconds=expires_s)
    row = db.execute(
        sa.update(files)
        .where(files.c.id == file_id, files.c.state == "uploading")
        .values(state="ready", purpose=purpose, bytes=size, expires_at=expires_at)
        .returning(*_COLUMNS)
    ).one_or_none()
    if row is None:
        raise _not_found(file_id)
    return _read(row)


def find(db: Connection, app_id: UUID, file_id: UUID) -> StoredFile:
    """The app's file. Raises: NotFound."""
    asked = sa.select(*_COLUMNS).where(files.c.id == file_id, files.c.app_id == app_id, _VISIBLE)
    if (row := db.execute(asked).one_or_none()) is None:
        raise _not_found(file_id)
    return _read(row)


def newest(
    db: Connection,
    app_id: UUID,
    *,
    limit: int,
    purpose: Purpose | None = None,
    after: UUID | None = None,
    is_ascending: bool = False,
) -> list[StoredFile]:
    """The app's files, the newest first, or the oldest. Args: after: the last file of the page before."""
    asked = sa.select(*_COLUMNS).where(files.c.app_id == app_id, _VISIBLE).limit(limit)
    if purpose is not None:
        asked = asked.where(files.c.purpose == purpose)
    if after is not None:
        asked = asked.where(files.c.id > after if is_ascending else files.c.id < after)
    order = files.c.id if is_ascending else files.c.id.desc()
    return [_read(row) for row in db.execute(asked.order_by(order))]


def delete(db: Connection, app_id: UUID, file_id: UUID) -> None:
    """Make the app's file invisible; `forgotten` finds its content. Raises: NotFound."""
    deleted = sa.update(files).where(files.c.id == file_id, files.c.app_id == app_id, _VISIBLE).values(state="deleted")
    if not db.execute(deleted).rowcount:
        raise _not_found(file_id)


def drop(db: Connection, file_id: UUID) -> None:
    """Give an upload up; `forgotten` finds what there is of its content."""
    db.execute(sa.update(files).where(files.c.id == file_id).values(state="deleted"))


def give_up(db: Connection, file_id: UUID) -> None:
    """As `drop`, for a file that was not made visible; one that was stays."""
    db.execute(sa.update(files).where(files.c.id == file_id, files.c.state == "uploading").values(state="deleted"))


def forgotten(db: Connection, keep_days: int | None, but: Collection[UUID]) -> Sequence[tuple[UUID, UUID]]:
    """The apps and ids of files whose content is to be deleted, which no call finds any more.

    They were deleted, have expired, are older than texts may be, or are uploads whose process died. Apps take turns.
    Args: keep_days: days for which texts are kept; None for ever. but: files that are left out.
    """
    now = clock.now(db)
    old = [sa.and_(files.c.state == "uploading", files.c.created_at < now - LONGEST_UPLOAD)]
    if keep_days is not None:
        old.append(files.c.id < oldest_id(now - timedelta(days=keep_days)))
    due = sa.or_(files.c.state == "deleted", files.c.expires_at <= now, *old)
    turn = sa.func.row_number().over(partition_by=files.c.app_id, order_by=files.c.id).label("turn")
    found = sa.select(files.c.id, turn).where(due, ~is_one_of(files.c.id, but)).order_by(turn, files.c.id)
    first = found.limit(SWEEP_ROWS).subquery()
    free = sa.select(files.c.id, first.c.turn).join(first, first.c.id == files.c.id).where(due)
    chosen = free.with_for_update(of=files, skip_locked=True).cte("chosen")
    rows = db.execute(
        sa.update(files)
        .where(files.c.id == chosen.c.id)
        .values(state="deleted")
        .returning(files.c.app_id, files.c.id, chosen.c.turn)
    )
    return [(row.app_id, row.id) for row in sorted(rows, key=lambda row: (row.turn, row.id))]


def remove(db: Connection, file_ids: Sequence[UUID]) -> None:
    """Remove the rows of files whose content is deleted."""
    db.execute(sa.delete(files).where(is_one_of(files.c.id, file_ids)))


def _read(row: Row[*tuple[Any, ...]]) -> StoredFile:
    created_at: datetime = row.created_at
    return StoredFile(row.id, row.app_id, row.purpose, row.filename, row.bytes, created_at, row.expires_at)


def _not_found(file_id: UUID) -> NotFound:
    return NotFound(f"No file with id '{show_id(file_id, FILE_PREFIX)}'.")
