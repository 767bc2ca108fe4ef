"""Which of several identical jobs that come at once is to make the answer, until its row can be found in Postgres."""

from importlib.resources import files
from uuid import UUID

from redis import Redis

from headrace.broker.upkeep import answered
from headrace.domain.queues import KEY_PREFIX

#: How long a job that was chosen may take to be durable, in milliseconds. Then another one may be chosen.
LEAD_MS = 2000


class Flights:
    """Chooses leaders, for all web processes. Safe for many threads."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        lua = files("headrace.broker") / "lua"
        self._release = redis.register_script((lua / "release_lead.lua").read_text())

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
