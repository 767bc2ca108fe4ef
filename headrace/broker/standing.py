"""How the fleets stand, read from Postgres by one web process for all of them, and kept in Redis for a moment.

Each process asks a few times a second. Without this, Postgres would count the running jobs of every worker as often as
there are processes.
"""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from typing import Any, cast

from redis import Redis
from redis.exceptions import RedisError

from headrace.broker.upkeep import answered
from headrace.domain.fleet import Fleet
from headrace.domain.queues import KEY_PREFIX

#: The standing as JSON, until it is too old.
STANDING = KEY_PREFIX + "standing"
#: How old it may be, in milliseconds.
TTL_MS = 250
_FLEET_FIELDS = tuple(field.name for field in fields(Fleet))


@dataclass(frozen=True, slots=True)
class Standing:
    """The live fleets at one moment.

    Attributes:
        departed: by pool, the jobs that had ever left its queues. It was read before the fleets: a job that was claimed
            between the two reads counts as two taken slots. In the other order it would count as none.
    """

    departed: Mapping[str, int]
    fleets: Mapping[str, Fleet]


def now(redis: Redis, read_fleets: Callable[[], Mapping[str, Fleet]]) -> Standing:
    """The standing, at most `TTL_MS` old. Raises: BrokerUnavailable. StoreUnavailable.

    Processes that ask just after it became too old each read it, which harms nothing.

    Args: read_fleets: reads the live fleet of each pool from Postgres.
    """
    with answered():
        told = cast("str | None", redis.get(STANDING))
        if told and (standing := _from_json(told)) is not None:
            return standing
        counts = cast("dict[str, str]", redis.hgetall(KEY_PREFIX + "departed"))
        departed = {pool: int(jobs) for pool, jobs in counts.items()}
    found = Standing(departed, read_fleets())
    # A Redis without memory refuses it. Then each process reads for itself.
    with suppress(RedisError):
        redis.set(STANDING, json.dumps(asdict(found)), px=TTL_MS)
    return found


def _from_json(text: str) -> Standing | None:
    """Read what a process of this release or of another wrote; None if it lacks what this one needs."""
    told = json.loads(text)
    try:
        fleets = {pool: Fleet(**_known(fleet)) for pool, fleet in told["fleets"].items()}
        return Standing(told["departed"], fleets)
    except (KeyError, TypeError):
        return None


def _known(fleet: Mapping[str, Any]) -> dict[str, Any]:
    return {name: fleet[name] for name in _FLEET_FIELDS if name in fleet}
