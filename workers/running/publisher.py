"""Tells Redis of running jobs: that they were claimed, the pieces of their answers, and that they have ended.

Callers only queue here, so a slow or absent Redis does not delay them. What gathers meanwhile shares a round trip.
"""

import json
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TypeVar
from uuid import UUID

from headrace.batching import Gathering
from headrace.broker.admission import Admission
from headrace.broker.streams import Streams
from headrace.domain.ids import show_id
from headrace.domain.jobs import PieceKind, StreamPiece
from headrace.domain.prompts import storable
from headrace.domain.prompts.tools import merged
from headrace.errors import BrokerUnavailable, Unavailable
from workers.engines.base import Delta, OnDelta

log = logging.getLogger(__name__)

Notice = TypeVar("Notice")

#: Seconds between two round trips: too short for a reader to notice, and few calls for Redis.
FLUSH_EVERY_S = 0.05
#: Seconds before the next try after Redis did not answer.
RETRY_AFTER_S = 0.5
#: Seconds that the end of an attempt waits for its last pieces to be published.
LAST_FLUSH_S = 1.0
#: The most bytes that one attempt publishes, because Redis holds the queues in the same memory. Text alone never gets
#: this long. Log probabilities do, with twenty alternatives to each of 2,500 tokens.
MOST_BYTES = 4 * 2**20
#: The number of a job's first claim: no older one can have published anything.
FIRST = 1
#: Seconds that `end` waits for the thread: longer than Redis may take for one command.
END_TIMEOUT_S = 5.0


@dataclass(eq=False, slots=True)
class _Publication:
    """One attempt's answer, as far as it is published.

    Attributes:
        enqueue_no: the claim's number, which fences every published piece.
        prefix: the published text that the attempt continues.
        has_begun: True once Redis knows the claim.
        awaits_first: True until the engine has added a piece.
        is_dropped: True once the attempt can publish no more.
        published_bytes: the length of its stream in Redis.
        pieces: what the engine has added since the last round trip.
        unpublished: what the current round trip sends, in the stream's format. After a failure, the next one sends it.
    """

    job_id: UUID
    enqueue_no: int
    prefix: str = ""
    has_begun: bool = False
    awaits_first: bool = True
    is_dropped: bool = False
    published_bytes: int = 0
    pieces: list[Delta] = field(default_factory=list)
    unpublished: list[tuple[PieceKind, str, int, int]] = field(default_factory=list)

    @property
    def is_settled(self) -> bool:
        """True when nothing is left to send."""
        return self.is_dropped or not (self.pieces or self.unpublished)

    @property
    def is_due(self) -> bool:
        """True when the next round trip has something to do for it."""
        return not (self.is_dropped or (self.has_begun and self.is_settled))

    def due(self) -> Iterator[StreamPiece]:
        """Yield the unpublished pieces, each with its offset in the stream."""
        before_bytes = self.published_bytes
        for kind, text, choice, tokens in self.unpublished:
            yield StreamPiece(self.job_id, self.enqueue_no, before_bytes, text, kind, choice, tokens)
            before_bytes += len(text.encode())


class Publisher:
    """Publishes the pieces of every running attempt into its job's stream. Safe for many threads.

    The published text is always a prefix of the attempt's answer. Readers get the unpublished rest from Postgres when
    the job ends.
    """

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._changed = threading.Condition()
        self._open: list[_Publication] = []
        self._ended = deque[UUID]()
        self._has_news = self._is_hurried = self._is_failing = self._is_ending = False
        self._thread = threading.Thread(target=self._flush_until_ended, name="publisher", daemon=True)

    def begin(self) -> None:
        self._thread.start()

    def end(self) -> None:
        """Stop publishing, after all attempts have ended. Does nothing before `begin`."""
        with self._changed:
            self._is_ending = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(END_TIMEOUT_S)

    @contextmanager
    def publishing(
        self, job_id: UUID, enqueue_no: int, can_continue: Callable[[str], bool]
    ) -> Iterator[tuple[str, OnDelta]]:
        """Publish one claim's output. The exit waits for the last pieces, for `LAST_FLUSH_S` at most.

        Args: can_continue: whether the engine can continue this text, which an earlier claim published.
        Yields: the text that the engine must continue, and a callback for its pieces, which does not block.
        """
        publication = self._begun(job_id, enqueue_no, can_continue)
        with self._changed:
            self._open.append(publication)
            # Redis learns of the claim while the engine computes the first token.
            self._has_news |= publication.is_due
            self._changed.notify_all()

        def add(piece: Delta) -> None:
            with self._changed:
                publication.pieces.append(piece)
                # Once per round trip: waking the thread for each piece would cost the engine's loop time. A first piece
                # does not wait for the other streams' next round trip.
                if not self._has_news or publication.awaits_first:
                    self._has_news = True
                    self._is_hurried |= publication.awaits_first
                    self._changed.notify_all()
                publication.awaits_first = False

        try:
            yield publication.prefix, add
        finally:
            self._settle(publication)

    def forget(self, job_id: UUID) -> None:
        """Let the stream of an ended job expire soon. If Redis does not answer, it expires as one that still runs."""
        with self._changed:
            self._ended.append(job_id)
            self._has_news = True
            self._changed.notify_all()

    def _begun(self, job_id: UUID, enqueue_no: int, can_continue: Callable[[str], bool]) -> _Publication:
        """Take the stream over. Without Redis, the thread does so later, and the text starts from the beginning."""
        publication = _Publication(job_id, enqueue_no)
        if enqueue_no == FIRST:
            # Nothing to continue: the thread begins the stream while the engine computes the first token.
            return publication
        try:
            text = self._streams.begin(job_id, enqueue_no)
            if text and not can_continue(text):
                text = self._streams.begin(job_id, enqueue_no, anew=True)
        except BrokerUnavailable as error:
            log.warning("stream_not_begun", extra={"job_id": show_id(job_id), "error": str(error)})
            return publication
        publication.has_begun, publication.is_dropped = True, text is None
        publication.prefix = text or ""
        publication.published_bytes = len(publication.prefix.encode())
        return publication

    def _settle(self, publication: _Publication) -> None:
        """Wait a moment for the last pieces to be published, then forget the publication."""
        with self._changed:
            if not publication.is_settled:
                self._has_news = self._is_hurried = True
                self._changed.notify_all()
                # Does not wait for a Redis that is known to be down.
                self._changed.wait_for(lambda: publication.is_settled or self._is_idle, LAST_FLUSH_S)
            self._open.remove(publication)

    @property
    def _is_idle(self) -> bool:
        return self._is_failing or self._is_ending

    def _flush_until_ended(self) -> None:
        is_ending = False
        while not is_ending:
            due = self._collect()
            # Ends that came before it are flushed.
            is_ending = self._is_ending
            is_failing = True
            try:
                self._flush(due)
                is_failing = False
            except BrokerUnavailable as error:
                if not self._is_failing:
                    log.warning("streams_not_published", extra={"error": str(error)})
            except Exception:
                # A fault here must not end the thread: this worker's streams would stop.
                log.exception("publisher_fault")
            self._pause(is_failing)

    def _collect(self) -> list[_Publication]:
        """Wait for news, and return the attempts that have any."""
        with self._changed:
            self._changed.wait_for(lambda: self._has_news or self._is_ending)
            self._has_news = self._is_hurried = False
            due = [each for each in self._open if each.is_due]
            for publication in due:
                publication.unpublished += _in_format(publication.pieces)
                publication.pieces.clear()
            return due

    def _pause(self, is_failing: bool) -> None:
        """Let pieces gather until the next round trip. The end of an attempt cuts the pause short."""
        with self._changed:
            self._is_failing = is_failing
            self._has_news |= is_failing
            self._changed.notify_all()
            pause_s = RETRY_AFTER_S if is_failing else FLUSH_EVERY_S
            self._changed.wait_for(lambda: self._is_ending or (self._is_hurried and not is_failing), pause_s)

    def _flush(self, due: list[_Publication]) -> None:
        """Send the due pieces. Raises: BrokerUnavailable: all of them are still due."""
        for publication in due:
            if not publication.has_begun:
                text = self._streams.begin(publication.job_id, publication.enqueue_no, anew=True)
                publication.has_begun, publication.is_dropped = True, text is None
        due = [each for each in due if not each.is_dropped]
        pieces = [(each, piece) for each in due for piece in each.due()]
        taken = self._streams.publish([piece for _, piece in pieces]) if pieces else []
        for (publication, piece), is_taken in zip(pieces, taken, strict=True):
            publication.published_bytes += len(piece.text.encode())
            if not (is_taken or publication.is_dropped):
                log.warning("stream_dropped", extra={"job_id": show_id(publication.job_id)})
                publication.is_dropped = True
        for publication in due:
            publication.unpublished.clear()
            if publication.published_bytes >= MOST_BYTES and not publication.is_dropped:
                log.info("stream_full", extra={"job_id": show_id(publication.job_id)})
                publication.is_dropped = True
        if self._ended:
            self._streams.end(*(self._ended.popleft() for _ in range(len(self._ended))))


def _in_format(pieces: Sequence[Delta]) -> Iterator[tuple[PieceKind, str, int, int]]:
    """The pieces of each answer in the stream's format, with the answer's number and its tokens."""
    for choice in dict.fromkeys(piece.choice for piece in pieces):
        of_choice = [piece for piece in pieces if piece.choice == choice]
        for kind, text in _of_one(of_choice):
            yield kind, text, choice, of_choice[-1].tokens


def _of_one(pieces: Sequence[Delta]) -> Iterator[tuple[PieceKind, str]]:
    """First the reasoning, then log probabilities, the text, and one piece of each call."""
    if reasoning := storable("".join(piece.reasoning for piece in pieces)):
        yield "reasoning", reasoning
    if logprobs := [json.dumps(each, separators=(",", ":")) for piece in pieces for each in piece.logprobs]:
        yield "logprobs", "".join(f"{line}\n" for line in logprobs)
    if text := storable("".join(piece.text for piece in pieces)):
        yield "delta", text
    for call in merged(call for piece in pieces for call in piece.tool_calls):
        fields = {name: storable(each) if isinstance(each, str) else each for name, each in asdict(call).items()}
        yield "tool_call", json.dumps(fields, separators=(",", ":"))


#: Seconds that notices wait for more of them while many jobs come.
GATHER_S = 0.01
#: Returns those of these stays (job and `enqueue_no`) that are over, once that is on disk.
Over = Callable[[Sequence[tuple[UUID, int]]], Sequence[tuple[UUID, int]]]


class Notices:
    """Notifies Redis of what Postgres already records: jobs that left their queue, and jobs that ended.

    Safe for many threads. A lost notice is repaired: a place in a queue by `publish_due`, an end by the readers' own
    timer, a webhook by the webhook workers' timer.
    """

    def __init__(self, admission: Admission, over: Over, gathering: Gathering | None = None) -> None:
        """Send nothing yet.

        Args:
            over: a claim that a crash of Postgres has forgotten is not over: its job keeps its place, and with it the
                mark by which `publish_due` finds it.
            gathering: how notices wait for more of them.
        """
        self._admission, self._over = admission, over
        self._gathering = gathering or Gathering(GATHER_S)
        # Two threads: notices of claims wait for the disk, and ends, for which callers wait, must not wait behind them.
        self._claims, self._ends = ThreadPoolExecutor(1, "claims"), ThreadPoolExecutor(1, "ends")
        self._claimed = deque[tuple[UUID, int]]()
        #: Each with whether it has a webhook.
        self._ended = deque[tuple[UUID, bool]]()

    def claimed(self, job_id: UUID, enqueue_no: int) -> None:
        """Notify that this job was claimed, so it left its queue."""
        self._gathering.came()
        self._claimed.append((job_id, enqueue_no))
        self._claims.submit(self._send_claims)

    def ended(self, job_id: UUID, *, has_webhook: bool) -> None:
        """Notify that this job has ended. If it has a webhook, its delivery is due."""
        self._ended.append((job_id, has_webhook))
        self._ends.submit(self._send_ended)

    def close(self) -> None:
        """Send what is left."""
        self._claims.shutdown()
        self._ends.shutdown()

    def _send_claims(self) -> None:
        if not self._claimed:
            return  # An earlier call has sent it.
        self._gathering.wait()
        left = _all_of(self._claimed)
        with _logged("place_not_freed"):
            over = self._over(left)
            if len(over) < len(left):
                forgotten = [show_id(job_id) for job_id, _ in set(left).difference(over)]
                log.warning("claims_forgotten", extra={"jobs": forgotten})
            self._admission.leave(over)

    def _send_ended(self) -> None:
        if not self._ended:
            return
        self._gathering.wait()
        ended = _all_of(self._ended)
        with _logged("end_not_announced"):
            has_webhooks = any(has_webhook for _, has_webhook in ended)
            self._admission.announce_ended([job_id for job_id, _ in ended], has_webhooks=has_webhooks)


def _all_of(queue: deque[Notice]) -> list[Notice]:
    return [queue.popleft() for _ in range(len(queue))]


@contextmanager
def _logged(event: str) -> Iterator[None]:
    """Log a notice that a server does not accept, and a defect."""
    try:
        yield
    except Unavailable as error:
        log.warning(event, extra={"error": str(error)})
    except Exception:
        log.exception(event)
