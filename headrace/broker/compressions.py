"""Asks the workers of another pool which phrases of a prompt can go. Carries ids and places, never text.

Nothing of it outlives its asker's patience, and Redis may lose any of it: the asker then does without.
"""

import json
import time
from collections.abc import Sequence
from typing import NamedTuple, cast
from uuid import UUID

from redis import Redis

from headrace.broker.scripts import answered
from headrace.domain.prompts.compression import Cut
from headrace.domain.queues import KEY_PREFIX

#: Seconds that one call of Redis waits: less than the client's own time-out.
LOOK_S = 1.0
#: Milliseconds for which a pool counts as served after a worker of it has looked for requests.
SERVED_MS = 5_000
#: Milliseconds that an answer is kept for its asker.
ANSWER_MS = 10_000
#: Requests that wait at most: more would come too late anyway. Without workers, none wait for long.
MOST_WAITING = 1_000
WAITING_S = 60


class CompressionReply(NamedTuple):
    """What another pool has found.

    Attributes:
        digest: of the messages in which it cut.
    """

    digest: str
    cuts: tuple[Cut, ...]


class Compressions:
    """Both sides of the requests. Safe for many threads and processes."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def ask(self, pool: str, job_id: UUID, within_s: float) -> CompressionReply | None:
        """Have a worker of the pool look at a job's prompt.

        Returns: None if no worker of the pool looks for requests, if it could not do it, or not in time.
        Raises: BrokerUnavailable.
        """
        give_up_at = time.monotonic() + within_s
        with answered():
            if not self._redis.exists(_served(pool)):
                return None
            with self._redis.pipeline() as together:
                together.delete(_answer(job_id))
                together.set(_asked(job_id), "", px=max(1, int(within_s * 1000)))
                together.rpush(_waiting(pool), job_id.hex)
                together.ltrim(_waiting(pool), -MOST_WAITING, -1)
                together.expire(_waiting(pool), WAITING_S)
                together.execute()
            while (left_s := give_up_at - time.monotonic()) > 0:
                if found := self._pop(_answer(job_id), left_s):
                    return _read(found)
            self._redis.delete(_asked(job_id))
        return None

    def take(self, pool: str) -> UUID | None:
        """The next job that the pool's workers are asked about; None after a while without one.

        Raises: BrokerUnavailable.
        """
        with answered():
            self._redis.set(_served(pool), "", px=SERVED_MS)
            found = self._pop(_waiting(pool), LOOK_S)
            if found is None:
                return None
            job_id = UUID(hex=found)
            # Its asker may have given up, or another worker has it.
            return job_id if self._redis.getdel(_asked(job_id)) is not None else None

    def answer(self, job_id: UUID, found: CompressionReply | None) -> None:
        """Answer a job's asker. Args: found: None if its prompt cannot be looked at now. Raises: BrokerUnavailable."""
        cuts = None if found is None else [(cut.message, cut.start, cut.end) for cut in found.cuts]
        written = json.dumps(None if found is None else [found.digest, cuts])
        with answered(), self._redis.pipeline() as together:
            together.rpush(_answer(job_id), written)
            together.pexpire(_answer(job_id), ANSWER_MS)
            together.execute()

    def _pop(self, key: str, wait_s: float) -> str | None:
        popped = cast("Sequence[str] | None", self._redis.blpop([key], timeout=min(wait_s, LOOK_S)))
        return popped[1] if popped else None


def _read(written: str) -> CompressionReply | None:
    """What `answer` wrote, of this release or of a newer one, which may add to the ends of the lists."""
    found = json.loads(written)
    if found is None:
        return None
    return CompressionReply(found[0], tuple(Cut(message, start, end) for message, start, end, *_ in found[1]))


def _waiting(pool: str) -> str:
    return f"{KEY_PREFIX}compress:waiting:{pool}"


def _served(pool: str) -> str:
    return f"{KEY_PREFIX}compress:served:{pool}"


def _asked(job_id: UUID) -> str:
    return f"{KEY_PREFIX}compress:asked:{job_id.hex}"


def _answer(job_id: UUID) -> str:
    return f"{KEY_PREFIX}compress:answer:{job_id.hex}"
