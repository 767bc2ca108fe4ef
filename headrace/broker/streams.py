"""Streams: a running job's text, published piece by piece for readers. The face of `lua/stream_*.lua`.

A cache of what Postgres will hold at the job's end: all of it can be lost, and readers then hear the rest from there.
Knows nothing of engines or HTTP.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from typing import Any, cast
from uuid import UUID

from redis import Redis, RedisError

from headrace.domain.jobs import NUMBERS_PER_CLAIM, StreamEvent, StreamPiece
from headrace.domain.queues import KEY_PREFIX
from headrace.errors import BrokerUnavailable

#: The channel on which jobs with news in their stream are named, by 32 hex digits. A message may be lost.
STREAMED = KEY_PREFIX + "streamed"
#: How long a stream outlives its last piece while its job is not over, and how long once it is, in seconds.
RUN_S = 3600
KEEP_S = 600


class Streams:
    """Writes and reads the jobs' streams. Safe for many threads."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        scripts = files("headrace.broker") / "lua"
        self._begin, self._publish = (
            redis.register_script((scripts / f"stream_{name}.lua").read_text()) for name in ("begin", "publish")
        )

    def begin(self, job_id: UUID, enqueue_no: int, *, anew: bool = False) -> str | None:
        """Let this claim publish, and no older one any more. Safe to repeat until it has published.

        Args:
            anew: the claim continues nothing; readers that heard anything are told so by a `restart`. What had more
                than text is never continued.

        Returns: the text the claim must continue; None when a newer claim has begun.
        Raises: BrokerUnavailable.
        """
        arguments: list[str | int] = [enqueue_no, int(anew), RUN_S, job_id.hex, STREAMED, NUMBERS_PER_CLAIM]
        with _answered():
            return cast("str | None", self._begin([_key(job_id)], arguments))

    def publish(self, pieces: Sequence[StreamPiece]) -> list[bool]:
        """Add each piece to its job's stream, all in one round trip. Safe to repeat, also with more in a piece.

        Returns: for each piece, False when it was dropped, as all that follow it would be: a newer claim has begun,
            or Redis lost earlier text.
        Raises: BrokerUnavailable: some may have been added.
        """
        arguments: list[str | int] = [RUN_S, STREAMED]
        for piece in pieces:
            arguments += [piece.enqueue_no, piece.before_bytes, piece.kind, piece.text, piece.job_id.hex]
        with _answered():
            taken = self._publish([_key(piece.job_id) for piece in pieces], arguments)
        return [bool(each) for each in taken]

    def end(self, job_id: UUID) -> None:
        """Keep the stream of a job that is over for a while only. Raises: BrokerUnavailable."""
        with _answered():
            self._redis.expire(_key(job_id), KEEP_S)

    def forget(self, job_id: UUID) -> None:
        """Drop the stream of a job that is over. Raises: BrokerUnavailable."""
        with _answered():
            self._redis.delete(_key(job_id))

    def read(self, job_id: UUID, after: int = 0) -> list[StreamEvent]:
        """The events with a number above `after`, oldest first. Raises: BrokerUnavailable."""
        with _answered():
            entries = cast(list[tuple[str, dict[str, Any]]], self._redis.xrange(_key(job_id), min=f"({after}-0"))
        return [
            StreamEvent(int(number.partition("-")[0]), entry["kind"], entry["text"])
            for number, entry in entries
            if entry["kind"] != "begin"
        ]

    def hold(self, job_id: UUID, for_s: float) -> None:
        """Note that somebody besides its maker listens to this job, for so long. Raises: BrokerUnavailable."""
        with _answered():
            self._redis.set(_holder(job_id), "", px=max(1, int(for_s * 1000)))

    def is_held(self, job_id: UUID) -> bool:
        """True while somebody besides its maker listens, at whichever process. Raises: BrokerUnavailable."""
        with _answered():
            return bool(self._redis.exists(_holder(job_id)))

    def exists(self, job_id: UUID) -> bool:
        """True when a claim has begun to publish this job's text and it has not been forgotten.

        Raises: BrokerUnavailable.
        """
        with _answered():
            return bool(self._redis.exists(_key(job_id)))


def _key(job_id: UUID) -> str:
    return f"{KEY_PREFIX}stream:{job_id.hex}"


def _holder(job_id: UUID) -> str:
    return f"{KEY_PREFIX}held:{job_id.hex}"


@contextmanager
def _answered() -> Iterator[None]:
    try:
        yield
    except RedisError as error:
        raise BrokerUnavailable(f"Redis does not answer: {error}") from error
