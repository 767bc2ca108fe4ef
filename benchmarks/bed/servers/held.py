"""Requests that the event loop holds open: waits for a job's end, and streams of a job's events."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from api.call import Call, Reply, Wait
from api.handlers.operation import Operation
from api.handlers.problems import problem
from api.reading.peers import Peer
from api.reading.waits import ClientGone
from api.reading.watch import Watch
from api.streams.events import Event
from api.streams.sse import KEEP_ALIVE, JobStream
from bed.servers.exchange import Exchange
from bed.servers.loop import Mailbox
from headrace import hops
from headrace.broker.news import ToldPiece
from headrace.domain.jobs import Job
from headrace.errors import NotFound, StoreUnavailable

if TYPE_CHECKING:
    from bed.servers.mount import Mount


class LoopWatch(Watch):
    """A watch whose waiter is a coroutine."""

    mailbox: ClassVar[Mailbox]

    def __init__(self, peer: Peer | None = None) -> None:
        super().__init__(peer)
        self._has_news = False
        self._waiter: asyncio.Future[None] | None = None

    def tell(self, *, has_ended: bool, piece: ToldPiece | None = None) -> None:
        """Wake the waiter, from any thread."""
        super().tell(has_ended=has_ended, piece=piece)
        self.mailbox.post(self.wake)

    def wake(self) -> None:
        """Wake the waiter, from the loop."""
        self._has_news = True
        self._stop_waiting()

    def _stop_waiting(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def news(self, until: float) -> None:
        """Return when there is news since the last call, or at this monotonic time."""
        if not self._has_news:
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            alarm = loop.call_at(until, self._stop_waiting)
            try:
                await self._waiter
            finally:
                alarm.cancel()
                self._waiter = None
        self._has_news = False


class Leaving:
    """Looks out for one client's leave."""

    def __init__(self, exchange: Exchange, then: Callable[[], None]) -> None:
        self._then = then
        self._task = asyncio.get_running_loop().create_task(exchange.left())  # type: ignore[arg-type]
        self._task.add_done_callback(self._note)

    def stop(self) -> None:
        """Look no more."""
        self._task.cancel()

    def _note(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and task.exception() is None:
            self._then()


class Waiting:
    """A wait: as `Waits.follow`, with a thread only while it reads the job."""

    def __init__(self, mount: "Mount", exchange: Exchange, operation: Operation, call: Call, wait: Wait) -> None:
        self._mount, self._exchange, self._operation, self._call, self._wait = mount, exchange, operation, call, wait
        self._waits = mount.web.waits
        self._until = time.monotonic() + wait.for_s
        self._watching = ExitStack()
        self._job: Job | None = None

    def begin(self) -> bool:
        """Watch the job. Returns True if the wait is over, and answered. In a thread."""
        try:
            self._watch = self._watching.enter_context(self._waits.watch(self._wait.job_id))
        except BaseException:
            self._wait.slot.release()
            raise
        return self._look()

    async def run(self) -> None:
        """Wait, and answer."""
        leaving = Leaving(self._exchange, self._leave)
        try:
            while True:
                await self._watch.news(self._until)  # type: ignore[attr-defined]
                if self._is_due() and await self._mount.threads.run(self._look):
                    return
        finally:
            leaving.stop()

    def _leave(self) -> None:
        self._watch.is_abandoned = True
        self._watch.wake()  # type: ignore[attr-defined]

    def _is_due(self) -> bool:
        """Whether the job must be read, or the wait is over."""
        return self._watch.has_ended or self._watch.is_abandoned or self._is_over()

    def _is_over(self) -> bool:
        return self._waits.is_closed or time.monotonic() >= self._until

    def _look(self) -> bool:
        """Read the job. Returns True if the wait is over, and answered."""
        try:
            found = self._found()
            if found is None:
                return False
            # A job that is watched is not cancelled.
            self._watching.close()
            reply = self._wait.reply(found)
        except Exception as error:
            reply = problem(error, self._call.id)
        self._watching.close()
        self._wait.slot.release()
        self._mount.send(self._exchange, self._operation.path, self._call, reply)
        return True

    def _found(self) -> Job | Exception | None:
        """What ends the wait; None while it goes on."""
        if self._watch.is_abandoned and not self._watch.has_ended:
            return ClientGone()
        self._watch.has_ended = False
        try:
            self._job = self._wait.read()
        except StoreUnavailable as error:
            return error if self._job is None or self._is_over() else None
        self._waits.watch_leader(self._watch, self._job)
        return self._job if self._job.state.is_terminal or self._is_over() else None


@dataclass(frozen=True, slots=True)
class Pause:
    """A stream has no more for now: until there is news, or this monotonic time."""

    watch: LoopWatch
    until: float


class LoopStream(JobStream):
    """A reader's stream that pauses where `JobStream` blocks."""

    def chunks(self, write: Callable[[Event], str]) -> Iterator[bytes]:
        """The bytes, and pauses between them."""
        try:
            for events in self._follow():
                if isinstance(events, Pause):
                    yield events  # type: ignore[misc]
                    continue
                hops.reach("event", self._job.id)
                yield self._teller.fragments.filled("".join(map(write, events))).encode() or KEEP_ALIVE
        except NotFound:
            yield "".join(map(write, self._teller.gone())).encode()
        self._is_told = True

    def _follow(self) -> Iterator[list[Event]]:
        teller, waits, keep_alive_s = self._teller, self._deps.waits, self._deps.settings.keep_alive_s
        with waits.watch(self._job.id) as watch:
            hops.reach("listening", self._job.id)
            waits.watch_leader(watch, self._job)
            self._hold()
            yield list(teller.opening())
            due = time.monotonic() + keep_alive_s
            while True:
                events = self._news(watch)
                if events or time.monotonic() >= due:
                    self._hold()
                    yield events
                    due = time.monotonic() + keep_alive_s
                if teller.is_over or self._job.state.is_terminal or waits.is_closed:
                    return
                if not self._owes_look:
                    yield Pause(watch, due)  # type: ignore[arg-type, misc]


class Streaming:
    """A stream: a thread makes what is new of it; the loop sends that, and waits for more."""

    def __init__(self, mount: "Mount", exchange: Exchange, reply: Reply) -> None:
        assert not isinstance(reply.body, bytes)
        self._mount, self._exchange, self._reply = mount, exchange, reply
        self._pieces: Iterator[bytes | Pause] = iter(reply.body)
        self._watch: LoopWatch | None = None
        self._has_left = False
        # Before the first events: to make them may take a while.
        exchange.begin(reply.status, reply.headers)

    async def run(self) -> None:
        """Send events until the end, or until the client leaves."""
        leaving = Leaving(self._exchange, self._leave)
        try:
            while not self._has_left:
                data, pause = await self._mount.threads.run(self._make)
                if data:
                    await self._exchange.send(data)
                if pause is None:
                    break
                self._watch = pause.watch
                if not self._has_left:
                    await pause.watch.news(pause.until)
            await self._exchange.end()
        finally:
            leaving.stop()
            await self._mount.threads.run(self._close)

    def _leave(self) -> None:
        self._has_left = True
        if self._watch is not None:
            self._watch.wake()

    def _make(self) -> tuple[bytes, Pause | None]:
        """All that is new, and the pause after it; no pause at the end."""
        made: list[bytes] = []
        for piece in self._pieces:
            if isinstance(piece, Pause):
                return b"".join(made), piece
            made.append(piece)
        return b"".join(made), None

    def _close(self) -> None:
        """Let go of the job, in a thread: one that is watched is not cancelled."""
        try:
            self._pieces.close()  # type: ignore[attr-defined]
        finally:
            self._mount.close_all(self._reply)
