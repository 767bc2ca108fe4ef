"""Observe: write down how every queue stands. Knows neither Celery nor what the samples are for."""

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta

from headrace.queues import OVERFLOW, lane_queues
from headrace.store import clock, locks, observations, workers
from headrace.store.observations import QueueActivity, QueueSample
from headrace.store.workers import Fleet
from scheduler.parts import Parts

IDLE = QueueActivity()

#: Over how long a drain rate is measured, in seconds.
DRAIN_WINDOW_S = 60


def observe(parts: Parts) -> int:
    """Sample every queue, and tell the doors how fast each drains. Of several at once, one makes the samples.

    Without Redis there is no depth to write, hence no sample: whoever reads them must ask how old they are.
    Returns: samples written.
    Raises: BrokerUnavailable, StoreUnavailable.
    """
    depths = parts.admission.depths(parts.queues)
    every = timedelta(seconds=parts.settings.observe_every_s)
    with parts.store.begin() as db:
        if not locks.try_take(db, "observe"):
            return 0
        at = clock.now(db)
        last = observations.last_sample_at(db)
        if last is not None and at - last < every / 2:
            return 0
        activity = observations.activity(db, last or at - every)
        fleets = workers.fleets(db)
        samples = [
            _sample(queue, at, depths[queue], activity.get(queue, IDLE), fleets.get(pool))
            for pool in (*parts.settings.pools, OVERFLOW)
            for queue in lane_queues(pool)
        ]
        observations.add_samples(db, samples)
        window = observations.recent_samples(db, parts.queues, at - timedelta(seconds=DRAIN_WINDOW_S))
    parts.admission.publish_drain_rates(drain_rates(window))
    return len(samples)


def drain_rates(samples: Iterable[QueueSample]) -> dict[str, float]:
    """How fast each queue drains when it is backed up, in jobs per second; absent where it was not, lately.

    Only the time between two samples that both saw work waiting counts: a queue that runs empty starts as many jobs
    as arrive, which says nothing about how many it could.

    Args:
        samples: in the order they were taken.
    """
    started: dict[str, int] = defaultdict(int)
    seconds: dict[str, float] = defaultdict(float)
    before: dict[str, QueueSample] = {}
    for sample in samples:
        last = before.get(sample.queue)
        before[sample.queue] = sample
        if last is not None and last.depth and sample.depth:
            started[sample.queue] += sample.started
            seconds[sample.queue] += (sample.at - last.at).total_seconds()
    return {queue: started[queue] / seconds[queue] for queue in seconds if started[queue]}


def _sample(queue: str, at: datetime, depth: int, activity: QueueActivity, fleet: Fleet | None) -> QueueSample:
    return QueueSample(
        queue=queue,
        at=at,
        depth=depth,
        oldest_wait_s=activity.oldest_wait_s,
        arrivals=activity.arrivals,
        refused=activity.refused,
        started=activity.started,
        running=activity.running,
        slots=fleet.slots if fleet else 0,
        hosts=fleet.hosts if fleet else 0,
    )
