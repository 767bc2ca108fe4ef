"""The parts of the web process: `build` makes them once, and each handler gets them."""

from dataclasses import dataclass

from redis import Redis

from api.bodies.in_flight import Bodies
from api.call import Reply
from api.callers import Callers
from api.door.catalogue import Catalogue
from api.door.plain_jobs import PlainJobs
from api.door.submit import Submitter
from api.metrics import WebMetrics
from api.readiness import Readiness
from api.reading.reader import Reader
from api.reading.waits import Waits
from api.slots import Slots
from headrace.broker.admission import Admission
from headrace.broker.forecast import Forecast
from headrace.broker.streams import Streams
from headrace.config import Settings
from headrace.store import Store

#: Names the parts among the Flask app's extensions.
EXTENSION = "headrace"


@dataclass(frozen=True, slots=True)
class WebDeps:
    """The parts of the web process.

    Attributes:
        redis: closed last; the other parts have it too.
    """

    settings: Settings
    redis: Redis
    store: Store
    admission: Admission
    catalogue: Catalogue
    forecast: Forecast
    callers: Callers
    bodies: Bodies
    submitter: Submitter
    plain_jobs: PlainJobs[Reply]
    reader: Reader
    waits: Waits
    streams: Streams
    metrics: WebMetrics
    usage_slots: Slots
    readiness: Readiness

    def close(self) -> None:
        """Stop the threads and close the connections."""
        self.waits.close()
        self.forecast.close()
        self.submitter.refusals.counts.close()
        self.store.close()
        self.redis.connection_pool.disconnect()
