"""Answers that serve several jobs: which of several identical jobs makes one, and what the semantic cache looks up.

`lua/commit.lua` enters the latter, with their messages. Redis may lose any of this: a job then makes its own answer.
"""

from collections.abc import Sequence
from uuid import UUID

from redis import Redis

from headrace.broker.scripts import answered, script
from headrace.domain.queues import KEY_PREFIX, books_key

#: How long a job that was chosen may take to be durable, in milliseconds. Then another one may be chosen.
LEAD_MS = 2000


class Flights:
    """Chooses leaders, for all web processes. Safe for many threads."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._release = script(redis, "release_lead")

    def lead(self, key: bytes, job_id: UUID) -> bool:
        """True if this job is to make the answer; False while another is. Raises: BrokerUnavailable."""
        with answered():
            return bool(self._redis.set(_name(key), job_id.hex, nx=True, px=LEAD_MS))

    def release(self, key: bytes, job_id: UUID) -> None:
        """The job is durable, or was refused: let another lead, unless another does. Raises: BrokerUnavailable."""
        with answered():
            self._release([_name(key)], [job_id.hex])


def _name(key: bytes) -> str:
    return f"{KEY_PREFIX}flight:{key.hex()}"


#: For how long jobs are entered after a worker has last asked for some, in milliseconds.
OPEN_MS = 5_000
#: How long a worker may take to look jobs up, in milliseconds. Then another one may.
LOOK_UP_MS = 3_000


class Lookups:
    """What the workers of one pool look up. Safe for many threads.

    Attributes:
        pool: of the embedding model.
    """

    def __init__(self, redis: Redis, pool: str) -> None:
        """Send nothing yet."""
        self._redis, self.pool = redis, pool
        self._waiting, self._bell = books_key("lookups", pool), books_key("lookup_bell", pool)
        self._take = script(redis, "books", "look_up")

    def take(self, most: int) -> list[UUID]:
        """The next jobs, the newest first. Call `done` with them. Raises: BrokerUnavailable."""
        with answered():
            found = self._take([KEY_PREFIX], [self.pool, most, OPEN_MS, LOOK_UP_MS])
        return [UUID(hex=job) for job in found]

    def wait(self, for_s: float) -> None:
        """Return when there are new jobs, or after `for_s`. Raises: BrokerUnavailable."""
        with answered():
            self._redis.blpop([self._bell], timeout=for_s)

    def done(self, job_ids: Sequence[UUID]) -> None:
        """These jobs need no look-up any more. Raises: BrokerUnavailable."""
        if job_ids:
            with answered():
                self._redis.zrem(self._waiting, *(job_id.hex for job_id in job_ids))

    def close(self) -> None:
        """Enter no more jobs: this worker stops. Another of the pool lets them in again. Raises: BrokerUnavailable."""
        with answered():
            self._redis.delete(books_key("looking", self.pool))

    def is_pending(self, job_id: UUID) -> bool:
        """Whether the job is still to be looked up. Raises: BrokerUnavailable."""
        with answered():
            return self._redis.zscore(self._waiting, job_id.hex) is not None
