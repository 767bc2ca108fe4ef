"""Server-sent events: a job's stream as the bytes of a response, until the job ends or the reader disconnects.

`api.streams.events` makes the events. An open stream holds a slot, but neither a thread nor a database connection.
"""

import json
import logging
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

from api.abandoned import cancel_unless_wanted
from api.deps import WebDeps
from api.door.drafts import Accepted
from api.reading import Watch
from api.slots import Slot
from api.streams.chunks import ChatChunks
from api.streams.events import BEFORE_ENTRIES, Event, ResponseEvents, can_resume
from api.turns import ClientGone, Step, Wake
from headrace.domain.ids import show_id
from headrace.domain.jobs import Job, StreamEvent
from headrace.errors import BrokerUnavailable, InvalidRequest, NotFound, StoreUnavailable

log = logging.getLogger(__name__)

#: A comment, which every reader of events skips.
KEEP_ALIVE = b": keep-alive\n\n"
#: Keep-alives for which a reader may fail to renew its hold; then it has gone.
HELD_LOOKS = 3
HEADERS = {"Content-Type": "text/event-stream; charset=utf-8", "X-Accel-Buffering": "no"}


def response_stream(
    web: WebDeps,
    job: Job,
    slot: Slot,
    *,
    starting_after: int | None = None,
    accepted: Accepted | None = None,
) -> "JobStream":
    """A reader of the events of the Responses API, those after the given number.

    Raises: InvalidRequest, code stream_not_available: the job has no stream, or none any more. BrokerUnavailable.
    """
    _check_has_stream(job)
    after = -1 if starting_after is None else starting_after
    if after > BEFORE_ENTRIES and not can_resume(web.streams.read(job.stream_id), after):
        raise _not_available(job, "What this stream had told is gone, so that it cannot be resumed.")
    teller = ResponseEvents(job, after=after, accepted=accepted)
    is_first = accepted is not None and not accepted.is_replay
    return JobStream(web, job, teller, slot, named, is_first=is_first)


def chunk_stream(web: WebDeps, job: Job, slot: Slot, accepted: Accepted, chunks: ChatChunks) -> "JobStream":
    """A reader of the chunks of a completion. Raises: InvalidRequest, code stream_not_available."""
    _check_has_stream(job)
    return JobStream(web, job, chunks, slot, unnamed, is_first=not accepted.is_replay)


def named(event: Event) -> str:
    """An event in the format of the Responses API."""
    return f"event: {event['type']}\n{unnamed(event)}"


def unnamed(event: Event | str) -> str:
    """An event in the format of chat completions."""
    data = event if isinstance(event, str) else json.dumps(event, ensure_ascii=False, separators=(",", ":"))
    return f"data: {data}\n\n"


def _check_has_stream(job: Job) -> None:
    if not job.stream:
        raise _not_available(job, "It was not created with stream=true, so that there is no stream of it.")


def _not_available(job: Job, why: str) -> InvalidRequest:
    remedy = f"Read the whole of it with GET /v1/responses/{show_id(job.id, 'resp_')}."
    return InvalidRequest(f"{why} {remedy}", code="stream_not_available", param="stream")


class JobStream:
    """One reader's stream of one job.

    The first reader is the request that made the job. Any other reader, even a replay of that request, holds the job.
    """

    def __init__(
        self,
        deps: WebDeps,
        job: Job,
        teller: ResponseEvents | ChatChunks,
        slot: Slot,
        write: Callable[[Event], str],
        *,
        is_first: bool,
    ) -> None:
        """Read nothing yet. Args: slot: `close` releases it. write: an event as text."""
        self.slot, self._write = slot, write
        self._is_first = is_first
        self._deps, self._job, self._teller = deps, job, teller
        self._entry_number = 0
        #: The job was read before the watch began: once its stream has begun, it is read again.
        self._has_looked = job.state.is_terminal
        self._owes_look = False
        self._is_told = False
        self._hold_again_at = 0.0

    def steps(self, wake: Wake) -> Generator[Step, None, None]:
        """The bytes, as events come: all new events in one step, or a comment after a while without events.

        Throw ClientGone where it waits to end it.
        """
        try:
            with self._deps.waits.watch(self._job.id, wake) as watch:
                for events, until in self._follow(watch):
                    if events is None:
                        yield Step(b"", until)
                        continue
                    yield Step(
                        self._teller.fragments.filled("".join(map(self._write, events))).encode() or KEEP_ALIVE, until
                    )
        except ClientGone:
            return
        except NotFound:
            log.info("stream_of_deleted_job", extra={"job_id": show_id(self._job.id)})
            with suppress(ClientGone):
                yield Step("".join(map(self._write, self._teller.gone())).encode(), 0.0)
        self._is_told = True

    def close(self) -> None:
        """Release the slot. If the first reader left before the end and no other is attached, cancel the job.

        A job with `background=true` goes on. The server calls this after the last bytes, or when it can write no more.
        """
        try:
            if self._is_first and not (self._is_told or self._job.background):
                cancel_unless_wanted(self._deps, self._job.app_id, self._job.id)
        finally:
            self.slot.release()

    def _hold(self) -> None:
        """Keep the first reader's disconnect from cancelling the job, for as long as this reader renews its hold."""
        now, keep_alive_s = time.monotonic(), self._deps.settings.keep_alive_s
        if self._is_first or self._job.background or now < self._hold_again_at:
            return
        self._hold_again_at = now + keep_alive_s
        try:
            hold = partial(self._deps.streams.hold, self._job.id, HELD_LOOKS * keep_alive_s)
            self._deps.waits.ask_redis(hold)
        except BrokerUnavailable as error:
            log.warning("stream_not_held", extra={"job_id": show_id(self._job.id), "error": str(error)})

    def _follow(self, watch: Watch) -> Iterator[tuple[list[Any] | None, float]]:
        """New events, as soon as they come; an empty list after a while without any. None: there are none yet.

        With each comes the time until which to wait for more.
        """
        teller, waits, keep_alive_s = self._teller, self._deps.waits, self._deps.settings.keep_alive_s
        waits.watch_leader(watch, self._job)
        self._hold()
        yield list(teller.opening()), 0.0
        due = time.monotonic() + keep_alive_s
        while True:
            events: list[Event | str] | None = self._news(watch)
            if not events and time.monotonic() < due:
                events = None
            else:
                self._hold()
                due = time.monotonic() + keep_alive_s
            is_over = teller.is_over or self._job.state.is_terminal or waits.is_closed
            if events is not None or not is_over:
                yield events, 0.0 if is_over or self._owes_look else due
            if is_over:
                return

    def _news(self, watch: Watch) -> list[Event | str]:
        """The new events, with those of the stream's end if it has come."""
        if watch.has_ended or self._owes_look:
            # If the text comes from another job now, that job makes it anew.
            entries = [StreamEvent(0, "restart", "")] if self._look(watch) else []
            # What was published before the end belongs before it.
            entries += self._read()
        else:
            entries = self._entries(watch)
            # The job may have ended before the watch began. First the first text, because the look takes a while.
            self._owes_look = bool(entries) and not self._has_looked
        events: list[Event | str] = list(self._teller.more(entries))
        if self._teller.is_over:
            return events
        if self._job.state.is_terminal:
            return [*events, *self._teller.ending(self._job)]
        return [*events, *self._teller.interrupted()] if self._deps.waits.is_closed else events

    def _entries(self, watch: Watch) -> list[StreamEvent]:
        """The stream's new entries: those that its news brought, if each follows the one before it.

        Otherwise one is missing between them, or Redis has lost the one before them, and another claim continues.
        """
        at, entries = self._entry_number, []
        for piece in watch.pieces() or ():
            if piece.job_id != self._job.stream_id or (piece.event.number > at and piece.after != at):
                break
            if piece.event.number > at:
                entries.append(piece.event)
                at = piece.event.number
        else:
            if entries:
                self._entry_number = at
                return entries
        return self._read()

    def _read(self) -> list[StreamEvent]:
        """The stream's new entries; none while Redis does not answer: the stored answer makes up for them."""
        try:
            read = partial(self._deps.streams.read, self._job.stream_id, self._entry_number)
            entries = self._deps.waits.ask_redis(read)
        except BrokerUnavailable as error:
            log.warning("stream_not_read", extra={"job_id": show_id(self._job.id), "error": str(error)})
            return []
        if entries:
            self._entry_number = entries[-1].number
        return entries

    def _look(self, watch: Watch) -> bool:
        """Read the job again. If Postgres does not answer, the re-check announces the end once it does.

        Returns: True if the stream is another job's now.
        """
        watch.has_ended = self._owes_look = False
        self._has_looked = True
        before = self._job.stream_id
        try:
            self._job = self._deps.reader.read(self._job.app_id, self._job.id)
        except StoreUnavailable as error:
            log.warning("stream_job_not_read", extra={"job_id": show_id(self._job.id), "error": str(error)})
        if is_moved := self._job.stream_id != before:
            self._entry_number = 0
            self._deps.waits.watch_leader(watch, self._job)
        return is_moved
