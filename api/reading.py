"""Reads jobs, and waits for their ends: one reader for all requests of a process. Knows no HTTP.

An open wait holds neither a thread nor a database connection. One Redis subscription and one re-check wake all waits;
the re-check makes up for lost messages, in one query for all.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Literal, TypeVar
from uuid import UUID

from redis import Redis, RedisError

from api.door.refusals import slots_full
from api.slots import Slot, Slots
from api.turns import ClientGone, Step, Wake
from headrace.batching import Batching
from headrace.broker import ending
from headrace.broker.admission import Admission
from headrace.broker.news import LISTENS_S, News, ToldPiece, Word, channel_of, word_of
from headrace.domain.ids import new_id
from headrace.domain.jobs import Job
from headrace.domain.states import JobState
from headrace.errors import BrokerUnavailable, StoreUnavailable, Unavailable
from headrace.store import Store, jobs

#: Pieces kept for a waiter that does not fetch them. If older ones are dropped, it reads its stream.
MOST_PIECES = 64


class Watch:
    """News of one job for one waiter.

    Attributes:
        has_ended: True once the job's end was announced or seen. The waiter may reset it.
        job_ids: the job, and the job whose answer it waits for.
    """

    def __init__(self, wake: Wake) -> None:
        self.has_ended = False
        self.job_ids: set[UUID] = set()
        self._wake = wake
        self._pieces = deque[ToldPiece | None](maxlen=MOST_PIECES)

    def tell(self, *, has_ended: bool, piece: ToldPiece | None = None) -> None:
        """Wake the waiter: the job has ended, or its stream may have more. Args: piece: all that it has more."""
        self.has_ended |= has_ended
        self._pieces.append(piece)
        self._wake()

    def pieces(self) -> list[ToldPiece] | None:
        """The new pieces since the last call; None if the news lacks some, so that the stream must be read."""
        news = []
        while self._pieces:
            news.append(self._pieces.popleft())
        pieces = [piece for piece in news if piece is not None]
        return pieces if pieces and len(pieces) == len(news) else None


log = logging.getLogger(__name__)

#: Seconds between re-checks of the watched jobs. It bounds how late an end without a message is seen, as by expiry.
RECHECK_S = 1.0
#: Seconds after which this process tells Redis again which jobs it listens to.
LISTEN_AGAIN_S = LISTENS_S / 4
#: Seconds that the reader waits for a message, and before it reconnects.
POLL_S = 1.0
#: Concurrent reads of streams after news. A message may wake thousands of readers, and other requests need Redis too.
READS_AT_ONCE = 4
#: Redis counts as silent once a call to it has failed after this many seconds. Then no call waits for it for
#: `SPARED_S`, and afterwards one call at a time does, until one is answered.
SILENCE_S = 1.0
SPARED_S = 1.0
#: Seconds that such a try may take: a time-out to connect, and one for the answer.
TRY_S = 4.0
#: Jobs in one round trip that tells Redis who listens. A few thousand readers may come at once.
LISTENS_AT_ONCE = 64

T = TypeVar("T")
Kind = Literal["wait", "stream"]


class Waits:
    """The open waits of one process. Its two threads start with the first.

    Attributes:
        listening: tells Redis which jobs this process listens to; waits that begin together share a round trip.
    """

    def __init__(
        self,
        redis: Redis,
        store: Store,
        *,
        wait_slots: int,
        stream_slots: int,
    ) -> None:
        self._redis = redis
        self._news, self._channel = News(redis), channel_of(new_id())
        self.listening = Batching[UUID, None](self._listen_all, LISTENS_AT_ONCE)
        self._store = store
        self._slots: dict[Kind, Slots] = {"wait": Slots(wait_slots), "stream": Slots(stream_slots)}
        self._reads = threading.BoundedSemaphore(READS_AT_ONCE)
        self._lock = threading.Lock()
        self._watches: dict[UUID, set[Watch]] = {}
        self._stop = threading.Event()
        self._is_started = False
        self._listened_at = time.monotonic()
        #: When Redis may be called again; 0 while it answers.
        self._silent_until = 0.0

    @property
    def is_closed(self) -> bool:
        """True once the process is stopping."""
        return self._stop.is_set()

    def slots(self) -> dict[Kind, Slots]:
        """The slots of each kind."""
        return dict(self._slots)

    @contextmanager
    def hold(self, kind: Kind, app_id: UUID) -> Iterator[Slot]:
        """Hold a slot for an app's synchronous request, or for a stream, which takes it over. Raises: SlotsFull."""
        slot = self.take(kind, app_id)
        if slot is None:
            raise slots_full(kind)
        try:
            yield slot
        finally:
            if not slot.is_handed_over:
                slot.release()

    def take(self, kind: Kind, app_id: UUID) -> Slot | None:
        """A slot, which the caller must release; None without a free one for the app."""
        return self._slots[kind].take(app_id)

    def follow(
        self, job_id: UUID, read: Callable[[], Job], wait_s: float, wake: Wake
    ) -> Generator[Step, None, Job | ClientGone]:
        """The job from `read`, as soon as it has ended, or as it stands after `wait_s`. The caller holds a slot.

        Yields: where it waits, until it is woken. Throw ClientGone there to end it: then it returns that.
        Raises: StoreUnavailable. NotFound.
        """
        until = time.monotonic() + wait_s
        with self.watch(job_id, wake) as watch:
            job = read()
            self.watch_leader(watch, job)
            while not job.state.is_terminal and not self.is_closed and time.monotonic() < until:
                try:
                    yield Step(b"", until)
                except ClientGone as gone:
                    return gone
                if watch.has_ended or self.is_closed or time.monotonic() >= until:
                    watch.has_ended = False
                    job = self._look_again(read, job, until)
                    self.watch_leader(watch, job)
            return job

    def _look_again(self, read: Callable[[], Job], job: Job, until: float) -> Job:
        """Read the job. While Postgres does not answer and time is left, return it as it stood: a re-check follows."""
        try:
            return read()
        except StoreUnavailable:
            if self.is_closed or time.monotonic() >= until:
                raise
            return job

    def ask_redis(self, ask: Callable[[], T]) -> T:
        """Call `ask`, with `READS_AT_ONCE` concurrent calls at most. Raises: what `ask` raises. BrokerUnavailable.

        While Redis is silent, one call at a time waits for it, and the others fail at once: they hold threads.
        """
        with self._reads:
            return self._unless_silent(ask)

    def _unless_silent(self, ask: Callable[[], T]) -> T:
        began = time.monotonic()
        if began < self._silent_until:
            raise BrokerUnavailable("Redis does not answer.")
        if self._silent_until:
            self._silent_until = began + TRY_S
        try:
            answer = ask()
        except BrokerUnavailable:
            if time.monotonic() - began >= SILENCE_S:
                self._silent_until = time.monotonic() + SPARED_S
            raise
        self._silent_until = 0.0
        return answer

    @contextmanager
    def watch(self, job_id: UUID, wake: Wake) -> Iterator[Watch]:
        """Watch the job from now on. To miss nothing, the caller must read the job after the watch has begun.

        Args: wake: called whenever there is news.
        """
        watch = Watch(wake)
        self._add(watch, job_id)
        try:
            yield watch
        finally:
            with self._lock:
                for watched_id in watch.job_ids:
                    watches = self._watches[watched_id]
                    watches.discard(watch)
                    if not watches:
                        del self._watches[watched_id]

    def watch_leader(self, watch: Watch, job: Job) -> None:
        """If the job waits for another job's answer, that job's news are its own."""
        if job.state is JobState.WAITING and job.stream_id not in watch.job_ids:
            self._add(watch, job.stream_id)
            # The leader may have ended, or published, since the job was read.
            watch.tell(has_ended=True)

    def _add(self, watch: Watch, job_id: UUID) -> None:
        with self._lock:
            self._start()
            self._watches.setdefault(job_id, set()).add(watch)
            watch.job_ids.add(job_id)
        with _without_redis():
            self.listening.call(job_id)

    def is_watched(self, job_id: UUID) -> bool:
        """True while this process has a watch on this job."""
        with self._lock:
            return job_id in self._watches

    def close(self) -> None:
        """Stop the threads and end every wait, with the job as it stands. Call it when the process stops."""
        self._stop.set()
        self._tell_all()

    def _start(self) -> None:
        if self._is_started or self.is_closed:
            return
        self._is_started = True
        for name, step in (("reader", self._read_messages), ("recheck", self._recheck)):
            threading.Thread(target=self._repeat, args=(name, step), name=f"waits-{name}", daemon=True).start()

    def _repeat(self, name: str, step: Callable[[], None]) -> None:
        while not self.is_closed:
            try:
                step()
            except Exception as error:
                self._note(name, error)
            self._stop.wait(POLL_S)

    def _note(self, name: str, error: Exception) -> None:
        if self.is_closed:  # Its connections were closed while it read.
            return
        if isinstance(error, (RedisError, StoreUnavailable)):
            log.warning("waits_lost_server", extra={"of": name, "error": str(error)})
        else:
            log.error("waits_failed", exc_info=error, extra={"of": name})

    def _read_messages(self) -> None:
        with self._redis.pubsub() as channel:  # type: ignore[no-untyped-call]
            channel.subscribe(self._channel)
            while not self.is_closed:
                message = channel.get_message(timeout=POLL_S)
                if message is None:
                    continue
                if message["type"] == "message":
                    if (word := word_of(message["data"])) is not None:
                        self._pass_on(word)
                else:
                    # Subscribed, perhaps again. Messages before that were missed, but the streams have their entries.
                    self._listen_again()
                    self._tell_all()

    def _listen_all(self, job_ids: Sequence[UUID]) -> list[None]:
        self._unless_silent(partial(self._news.listen, job_ids, self._channel))
        return [None] * len(job_ids)

    def _listen_again(self) -> None:
        with self._lock:
            watched = list(self._watches)
        if watched:
            with _without_redis():
                self._news.listen(watched, self._channel)

    def _recheck(self) -> None:
        while not self._stop.wait(RECHECK_S):
            # Before Postgres is asked: this loop begins again each time that it does not answer.
            if time.monotonic() - self._listened_at >= LISTEN_AGAIN_S:
                self._listened_at = time.monotonic()
                self._listen_again()
            with self._lock:
                watched = list(self._watches)
            if watched:
                with self._store.begin() as db:
                    ended = jobs.ended_among(db, watched)
                for job_id in ended:
                    self._tell(job_id, has_ended=True)

    def _pass_on(self, word: Word) -> None:
        with self._lock:
            for watch in self._watches.get(word.job_id, ()):
                watch.tell(has_ended=word.has_ended, piece=word.piece)

    def _tell(self, job_id: UUID, *, has_ended: bool) -> None:
        with self._lock:
            for watch in self._watches.get(job_id, ()):
                watch.tell(has_ended=has_ended)

    def _tell_all(self) -> None:
        with self._lock:
            for watches in self._watches.values():
                for watch in watches:
                    watch.tell(has_ended=False)


@contextmanager
def _without_redis() -> Iterator[None]:
    """Log that Redis does not know of this listener. The re-check finds the ends of its jobs."""
    try:
        yield
    except BrokerUnavailable as error:
        log.warning("waits_lost_server", extra={"of": "listen", "error": str(error)})


#: Jobs in one read. An answer may be megabytes, and a whole batch is in memory at once.
JOBS_IN_READ = 8

#: The app's id and the job's.
_Key = tuple[UUID, UUID]


class Reader:
    """Reads jobs as they stand, and ends those whose time to start is over. Its threads share one connection."""

    def __init__(self, store: Store, admission: Admission) -> None:
        self._store, self._admission = store, admission
        self.batching = Batching[_Key, Job | None](self._serve, JOBS_IN_READ)

    def read(self, app_id: UUID, job_id: UUID) -> Job:
        """As `ending.read`. Raises: NotFound. StoreUnavailable."""
        found: Job | BaseException | None
        try:
            found = self.batching.call((app_id, job_id))
        except Exception as error:
            found = error
        return self.job_of(app_id, job_id, found)

    def job_of(self, app_id: UUID, job_id: UUID, found: Job | BaseException | None) -> Job:
        """The job by what its batch found, or failed with. Raises: NotFound. StoreUnavailable."""
        if isinstance(found, Unavailable):
            raise found
        if isinstance(found, BaseException):
            # A row that cannot be read must fail only its own reader.
            return ending.read(self._store, self._admission, app_id, job_id)
        if found is None:
            raise jobs.not_found(job_id)
        return ending.ended_if_over(self._store, self._admission, found)

    def _serve(self, keys: Sequence[_Key]) -> list[Job | None]:
        found = jobs.find_all(self._store, keys)
        return [found.get(key) for key in keys]
