"""News of jobs: which processes hear of a job, and what they hear.

Each listening process has one channel. It hears of the jobs that it listens to, and of no others: what a stream costs
does not grow with the number of processes. News may be lost; listeners look again by themselves.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple, cast
from uuid import UUID

from redis import Redis

from headrace.broker.scripts import answered
from headrace.domain.jobs import StreamEvent
from headrace.domain.queues import KEY_PREFIX

#: Seconds for which Redis remembers a listener, unless it says so again. A process that dies leaves it behind, and so
#: does one that polled a job after its end.
LISTENS_S = 60


def listeners_key(job_id: UUID) -> str:
    """The set of the channels of those that listen to a job."""
    return f"{KEY_PREFIX}listeners:{job_id.hex}"


def channel_of(process: UUID) -> str:
    """The channel of one process, which `word_of` understands. Its name says that the process takes pieces."""
    return f"{KEY_PREFIX}pieces:{process.hex}"


class ToldPiece(NamedTuple):
    """A piece of a stream, as its listeners get it. Attributes: after: the number of the event before it."""

    job_id: UUID
    after: int
    event: StreamEvent


class Word(NamedTuple):
    """One message of a channel: a job has ended, or its stream has more. Attributes: piece: all that it has more."""

    job_id: UUID
    has_ended: bool
    piece: ToldPiece | None = None


def word_of(message: str) -> Word | None:
    """What a message says; None for one that a newer release may send.

    It is `ended` or `more`, and a job id of 32 hex digits. Or it is `piece`, the job id, the number of the event before
    the piece, its own number, its answer's tokens, its kind, and its text, which may contain spaces.
    """
    what, _, rest = message.partition(" ")
    if what in ("ended", "more"):
        return Word(UUID(hex=rest[:32]), what == "ended")
    if what != "piece":
        return None
    job, after, number, tokens, kind, text = rest.split(" ", 5)
    job_id = UUID(hex=job)
    return Word(job_id, False, ToldPiece(job_id, int(after), event_of(int(number), kind, text, int(tokens))))


def event_of(number: int, kind: str, text: str, tokens: int) -> StreamEvent:
    """An event of a stream. Args: kind: that of an answer after the first has its number."""
    kind, _, choice = kind.partition(".")
    return StreamEvent(number, cast(Any, kind), text, int(choice or 0), tokens)


class News:
    """Listens. Safe for many threads. `Streams.publish` and `Admission.announce_ended` send the news."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def listen(self, job_ids: Iterable[UUID], channel: str) -> None:
        """Let this channel hear of these jobs from now on, for `LISTENS_S`. Raises: BrokerUnavailable."""
        pipeline = self._redis.pipeline(transaction=False)
        for job_id in job_ids:
            pipeline.sadd(listeners_key(job_id), channel)
            pipeline.expire(listeners_key(job_id), LISTENS_S)
        with answered():
            pipeline.execute()
