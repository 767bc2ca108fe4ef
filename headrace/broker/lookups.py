"""Jobs that are to be looked up in the semantic cache. `lua/commit.lua` enters them, together with their messages.

An entry that is lost only means that its job is not looked up.
"""

from collections.abc import Sequence
from importlib.resources import files
from uuid import UUID

from redis import Redis

from headrace.broker.upkeep import answered
from headrace.domain.queues import KEY_PREFIX, books_key

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
        lua = files("headrace.broker") / "lua"
        self._take = redis.register_script((lua / "books.lua").read_text() + (lua / "look_up.lua").read_text())

    def take(self, most: int) -> list[UUID]:
        """The next jobs, the newest first. Call `done` with them. Raises: BrokerUnavailable."""
        with answered():
            found = self._take([KEY_PREFIX], [self.pool, most, OPEN_MS, LOOK_UP_MS])
        return [UUID(hex=job) for job in found]

    def wait(self, for_s: float) -> None:
        """Return when there are new jobs, or after so many seconds. Raises: BrokerUnavailable."""
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
