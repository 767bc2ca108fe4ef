"""Streams: a running job's text, published piece by piece for readers. Calls `lua/*_stream.lua`.

A stream is a cache: Postgres gets the whole text at the job's end. If a stream is lost, its readers get the rest from
Postgres. Knows nothing about engines or HTTP.
"""

from collections.abc import Sequence
from itertools import dropwhile
from typing import Any, cast
from uuid import UUID

from redis import Redis

from headrace.broker.news import event_of, listeners_key
from headrace.broker.scripts import answered, script
from headrace.domain.jobs import NUMBERS_PER_CLAIM, StreamEvent, StreamPiece
from headrace.domain.queues import KEY_PREFIX

#: Seconds that a stream is kept: after its last piece while its job runs, and after the job's end.
RUN_S = 3600
KEEP_S = 600


class Streams:
    """Writes and reads the jobs' streams. Safe for many threads."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._begin, self._publish = script(redis, "begin_stream"), script(redis, "publish_stream")

    def begin(self, job_id: UUID, enqueue_no: int, *, anew: bool = False) -> str | None:
        """Let this claim publish, and no older claim. Safe to repeat until the claim has published.

        Args:
            anew: True if the claim continues nothing; readers that received anything then get a `restart`. A stream
                with more than answer text is never continued.

        Returns: the text that the claim must continue; None if a newer claim has begun.
        Raises: BrokerUnavailable.
        """
        arguments: list[str | int] = [enqueue_no, int(anew), RUN_S, job_id.hex, NUMBERS_PER_CLAIM]
        with answered():
            return cast("str | None", self._begin([_key(job_id), listeners_key(job_id)], arguments))

    def publish(self, pieces: Sequence[StreamPiece]) -> list[bool]:
        """Add each piece to its job's stream, in one round trip. Safe to repeat, also with pieces that have grown.

        Returns: for each piece, False if it was dropped: a newer claim has begun, or Redis lost earlier text. All later
            pieces of that claim would be dropped too.
        Raises: BrokerUnavailable: some pieces may have been added.
        """
        arguments: list[str | int] = [RUN_S]
        for piece in pieces:
            arguments += [
                piece.enqueue_no,
                piece.before_bytes,
                _kind(piece),
                piece.text,
                piece.job_id.hex,
                piece.tokens,
            ]
        keys = [key for piece in pieces for key in (_key(piece.job_id), listeners_key(piece.job_id))]
        with answered():
            taken = self._publish(keys, arguments)
        return [bool(each) for each in taken]

    def end(self, *job_ids: UUID) -> None:
        """Let the streams of ended jobs expire soon. Raises: BrokerUnavailable."""
        pipeline = self._redis.pipeline(transaction=False)
        for job_id in job_ids:
            pipeline.expire(_key(job_id), KEEP_S)
        with answered():
            pipeline.execute()

    def forget(self, job_id: UUID) -> None:
        """Delete the stream of an ended job. Raises: BrokerUnavailable."""
        with answered():
            self._redis.delete(_key(job_id))

    def read(self, job_id: UUID, after: int = 0) -> list[StreamEvent]:
        """The events with a number above `after`, oldest first.

        If Redis has lost the event `after`, a later claim may have continued what was left. Its text does not follow
        what a reader of `after` has: the events then begin with the next `restart`.

        Raises: BrokerUnavailable.
        """
        with answered():
            entries = cast(list[tuple[str, dict[str, Any]]], self._redis.xrange(_key(job_id), min=f"{after}-0"))
        events = [_event(number, entry) for number, entry in entries]
        if after and events and events[0].number != after:
            events = list(dropwhile(lambda event: event.kind != "restart", events))
        return [event for event in events if event.number > after and not _is_first_begin(event)]

    def hold(self, job_id: UUID, for_s: float) -> None:
        """Record that a reader other than the job's creator is attached, for `for_s`. Raises: BrokerUnavailable."""
        with answered():
            self._redis.set(_holder(job_id), "", px=max(1, int(for_s * 1000)))

    def is_held(self, job_id: UUID) -> bool:
        """True while such a reader is attached, in any process. Raises: BrokerUnavailable."""
        with answered():
            return bool(self._redis.exists(_holder(job_id)))


def _is_first_begin(event: StreamEvent) -> bool:
    """True where nothing is before it. Only a later claim's says anything: where its text begins."""
    return event.kind == "begin" and event.number <= NUMBERS_PER_CLAIM


def _key(job_id: UUID) -> str:
    return f"{KEY_PREFIX}stream:{job_id.hex}"


def _holder(job_id: UUID) -> str:
    return f"{KEY_PREFIX}held:{job_id.hex}"


def _kind(piece: StreamPiece) -> str:
    """The kind of a piece's entry. That of an answer after the first has its number: `begin` then continues nothing."""
    return f"{piece.kind}.{piece.choice}" if piece.choice else piece.kind


def _event(number: str, entry: dict[str, Any]) -> StreamEvent:
    # An older release published no tokens.
    tokens = int(entry.get("tokens", 0))
    return event_of(int(number.partition("-")[0]), entry["kind"], entry["text"], tokens)
