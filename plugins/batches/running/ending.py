"""Ends batches: notes the ends of their lines, and writes the files of their results."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress
from uuid import UUID

from sqlalchemy import Connection

from api.deps import WebDeps
from headrace.broker.ending import cancel
from headrace.domain.ids import show_id
from headrace.errors import NotFound, StoreUnavailable
from plugins.batches import store as batches
from plugins.batches.domain import BATCH_PREFIX, Batch, BatchState, LineState, storage_key
from plugins.batches.part import BatchesPart, storage_of
from plugins.batches.routes.batch_results import results
from plugins.batches.storage import Writer
from plugins.batches.store import files

log = logging.getLogger(__name__)


def settle(web: WebDeps, batch: Batch) -> Iterator[int]:
    """Note what became of the batch's lines. Yields: after some, how many ended.

    Raises: StoreUnavailable. BrokerUnavailable.
    """
    is_cancelling, is_full = batch.state is BatchState.CANCELLING, True
    while is_full:
        with web.store.begin() as db:
            dropped = batches.drop_unread(db, batch.id) if is_cancelling else 0
            ended = batches.settle(db, batch.id, batch.endpoint, is_cancelling=is_cancelling)
            state = LineState.CANCELLED if is_cancelling else LineState.EXPIRED
            unstarted = batches.end_waiting(db, batch.id, state) if batch.is_ending else 0
        is_full = max(dropped, ended, unstarted) >= batches.SETTLE_ROWS
        yield ended + unstarted
    if is_cancelling:
        yield from _cancel_running(web, batch)


def _cancel_running(web: WebDeps, batch: Batch) -> Iterator[int]:
    with web.store.begin() as db:
        running = batches.submitted_jobs(db, batch.id)
    for job_id in running:
        # One that has ended and was erased since is none to cancel.
        with suppress(NotFound):
            cancel(web.store, web.admission, batch.app_id, job_id)
        yield 0


def give_back_lost(web: WebDeps, batch: Batch, under_way: Sequence[UUID]) -> int:
    """Let lines whose submit was cut off be submitted again. Args: under_way: as of the store's. Returns: how many."""
    with web.store.begin() as db:
        lost = batches.give_back_lost(db, batch.id, under_way)
    if lost:
        log.warning("lines_given_back", extra={"batch_id": show_id(batch.id, BATCH_PREFIX), "lines": lost})
    return lost


def end(web: WebDeps, batch: Batch) -> Iterator[int]:
    """Write the files of a batch whose lines have all ended, and end it. Yields: after each page, whether it has ended.

    Safe to repeat, and in two processes at once: the files become visible in the transaction that ends the batch, and
    those of a process that died before are swept. Raises: StoreUnavailable. StorageUnavailable.
    """
    with web.store.begin() as db:
        is_dropped = batches.drop_unread(db, batch.id) < batches.SETTLE_ROWS
        batches.begin_end(db, batch.id)
        batch = batches.find(db, batch.app_id, batch.id)
    if batch.state not in _ENDING or batch.completed + batch.failed < batch.total or not is_dropped:
        return
    output, errors = _ResultFile(web, batch, "output"), _ResultFile(web, batch, "error")
    has_ended = False
    try:
        for page in results(web, batch):
            for result in page:
                (output if result.has_answer else errors).write(result.text)
            yield False
        has_ended = _end(web, batch, output, errors)
    finally:
        if not has_ended:
            output.abandon()
            errors.abandon()
    if has_ended:
        facts = {"batch_id": show_id(batch.id, BATCH_PREFIX), "completed": output.lines, "failed": errors.lines}
        log.info("batch_ended", extra=facts)
    yield has_ended


def _end(web: WebDeps, batch: Batch, output: "_ResultFile", errors: "_ResultFile") -> bool:
    """End the batch with these files. Returns: False if another process has ended it meanwhile."""
    output.close()
    errors.close()
    with web.store.begin() as db:
        state = _last_state(batch, has_expired=batches.has_expired_lines(db, batch.id))
        made = {"output_file_id": output.file_id, "error_file_id": errors.file_id}
        has_ended = batches.end(db, batch, state, completed=output.lines, failed=errors.lines, **made)
        if has_ended:
            output.show(db)
            errors.show(db)
    return has_ended


#: All lines of such a batch may have ended.
_ENDING = (BatchState.FINALIZING, BatchState.CANCELLING)


def _last_state(batch: Batch, *, has_expired: bool) -> BatchState:
    if batch.state is BatchState.CANCELLING:
        return BatchState.CANCELLED
    return BatchState.EXPIRED if has_expired else BatchState.COMPLETED


class _ResultFile:
    """A file of results, which begins with its first line. Attributes: file_id: None without a line. lines: it has."""

    def __init__(self, web: WebDeps, batch: Batch, name: str) -> None:
        self._web, self._batch, self._name = web, batch, name
        self.lines, self._size = 0, 0
        self.file_id: UUID | None = None
        self._writer: Writer | None = None

    def write(self, text: bytes) -> None:
        """Append a line. Raises: StoreUnavailable. StorageUnavailable."""
        if self._writer is None:
            self._writer = self._begin()
        self._writer.write(text)
        self.lines += 1
        self._size += len(text)

    def close(self) -> None:
        """Bring the content to the storage. Raises: StorageUnavailable."""
        if self._writer is not None:
            self._writer.finish()

    def show(self, db: Connection) -> None:
        """Make the file visible. Raises: NotFound: a sweep has taken it for a dead upload."""
        if self.file_id is not None:
            keep_s = self._batch.output_keep_s or self._web.of(BatchesPart).settings.files.keep_s
            files.finish(db, self.file_id, "batch_output", self._size, keep_s)

    def abandon(self) -> None:
        """Drop the file. The sweep finds what cannot be dropped now."""
        if self._writer is not None:
            self._writer.abandon()
        if self.file_id is not None:
            with suppress(StoreUnavailable), self._web.store.begin() as db:
                # The reply of the transaction that shows it may be lost: then it is the batch's.
                files.give_up(db, self.file_id)

    def _begin(self) -> Writer:
        name = f"{show_id(self._batch.id, BATCH_PREFIX)}_{self._name}.jsonl"
        with self._web.store.begin() as db:
            self.file_id = files.begin(db, self._batch.app_id, "batch_output", name)
        return storage_of(self._web).writer(storage_key(self._batch.app_id, self.file_id))
