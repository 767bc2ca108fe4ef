"""What the control process does about batches: forgets files and lines, and counts."""

import logging
import math
from collections.abc import Iterator
from functools import partial
from uuid import UUID

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from headrace.domain.ids import show_id
from headrace.errors import NotFound, StoreBusy
from headrace.store import locks
from headrace.store.bad_rows import message_of
from headrace.sweeper import Sweep
from plugins.batches import store as batches
from plugins.batches.domain import BATCH_PREFIX, FILE_PREFIX, LineState, storage_key
from plugins.batches.settings import BatchSettings
from plugins.batches.storage import Storage, open_storage
from plugins.batches.storage.base import StorageUnavailable
from plugins.batches.store import files, provider_batches
from scheduler.deps import ControlDeps
from scheduler.hooks import ControlPart, GaugeValue

log = logging.getLogger(__name__)

#: One batch of rows each time. After a full one the next follows at once.
FORGET_EVERY_S = 5.0
#: Files one after the other that a `forget_files` fails to delete until it takes the storage for silent.
SILENT_AFTER = 3


def _sweeps(deps: ControlDeps) -> list[Sweep]:
    storage = open_storage(deps.settings.of(BatchSettings).files)
    return [
        Sweep("forget_files", FORGET_EVERY_S, partial(forget_files, deps, storage), files.SWEEP_ROWS),
        Sweep("forget_lines", FORGET_EVERY_S, partial(forget_lines, deps), batch=1),
    ]


def forget_files(deps: ControlDeps, storage: Storage | None) -> int:
    """Delete the contents of files that no call finds any more, and then their rows.

    They were deleted, have expired, are older than `keep_texts_days`, or are uploads whose process died: those after
    `files.LONGEST_UPLOAD`. A file that the storage does not delete is set aside. Apps take turns, so that one's stuck
    files hold up no other's.
    Bound: one sweep after that, which is repeated at once where it found `files.SWEEP_ROWS`, once the storage answers.
    Returns: files that were found. Raises: StorageUnavailable: it failed `SILENT_AFTER` times running.
    """
    if storage is None:
        return 0
    name, failures = "forget_files", 0
    with deps.store.begin() as db:
        locks.take(db, name)
        found = files.forgotten(db, deps.settings.keep_texts_days, deps.sweeps.aside(name))
    gone: list[UUID] = []
    try:
        for app_id, file_id in found:
            try:
                storage.delete(storage_key(app_id, file_id))
                gone.append(file_id)
                failures = 0
            except (StorageUnavailable, NotFound) as error:
                deps.sweeps.set_aside(name, file_id, show_id(file_id, FILE_PREFIX), str(error))
                if (failures := failures + 1) == SILENT_AFTER:
                    raise
    finally:
        if gone:
            with deps.store.begin() as db:
                files.remove(db, gone)
            log.info("files_deleted", extra={"files": len(gone)})
    return len(found)


def forget_lines(deps: ControlDeps) -> int:
    """Delete lines of ended batches that are older than uploads, or texts, may be: some of the oldest batch.

    A batch whose lines Postgres does not delete is set aside.
    Bound: one sweep after that, which is repeated at once until no line is found.
    Returns: lines that were deleted, or 1 for a batch that was set aside.
    """
    name, batch_id = "forget_lines", None
    keep_days = min(deps.settings.of(BatchSettings).files.keep_days, deps.settings.keep_texts_days or math.inf)
    try:
        with deps.store.begin() as db:
            locks.take(db, name)
            batches.hide_lines(db, keep_days)
            batch_id = batches.with_old_lines(db, keep_days, deps.sweeps.aside(name))
            return batches.delete_lines(db, batch_id) if batch_id else 0
    except (StoreBusy, DBAPIError) as error:
        if batch_id is None:
            raise
        said = message_of(error) if isinstance(error, DBAPIError) else str(error)
        deps.sweeps.set_aside(name, batch_id, show_id(batch_id, BATCH_PREFIX), said)
        return 1


def _values(db: Connection) -> Iterator[GaugeValue]:
    under_way = batches.open_batches(db)
    yield from (("headrace_batches", [state], count) for state, count in under_way.batches.items())
    yield "headrace_batch_lines", [LineState.WAITING], under_way.waiting
    yield "headrace_batch_lines", [LineState.SUBMITTED], under_way.submitted
    of_provider = provider_batches.under_way(db)
    yield from (("headrace_provider_batches", [state], count) for state, count in of_provider.counts.items())
    yield "headrace_provider_batch_oldest_seconds", [], of_provider.oldest_s


PART = ControlPart(
    gauges=(
        ("headrace_batches", "Batches that have not ended.", ("state",)),
        ("headrace_batch_lines", "Lines of these that have not ended.", ("state",)),
        ("headrace_provider_batches", "Batches on their way to the provider, or there.", ("state",)),
        ("headrace_provider_batch_oldest_seconds", "The age of the oldest of these; 0 without any.", ()),
    ),
    values=_values,
    sweeps=_sweeps,
)
