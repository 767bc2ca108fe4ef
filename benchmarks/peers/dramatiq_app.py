"""A peer: actors of dramatiq's that do nothing, as in its guide. Run by benchmarks, and never part of the product.

Its messages are in Redis alone, and are acknowledged once the actor has returned.
"""

import time

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from headrace.config import Settings

#: Its own name for where messages go.
QUEUE = "peer"

broker = RedisBroker(url=Settings.load().redis_url)
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name=QUEUE)
def noop(_job_id: str) -> None:
    """What a worker runs: nothing."""


@dramatiq.actor(queue_name=QUEUE)
def mark(key: str) -> None:
    """Leave word of when this was run."""
    broker.client.set(key, time.time())
