"""The parts of the web process: `build` makes them once, and `api.calls.parts` returns them."""

from dataclasses import dataclass
from typing import TypeVar

from redis import Redis

from api.auth import Callers
from api.bodies import Bodies
from api.door.catalogue import Catalogue
from api.door.submit import Submitter
from api.door.vacancies import Vacancies
from api.health import ReadinessCheck, WebMetrics
from api.hooks import WebPart
from api.reading import Reader, Waits
from api.slots import Slots
from headrace.broker.admission import Admission
from headrace.broker.forecast import Forecast
from headrace.broker.streams import Streams
from headrace.config import Settings
from headrace.store import Store

P = TypeVar("P", bound=WebPart)


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
    vacancies: Vacancies
    callers: Callers
    bodies: Bodies
    submitter: Submitter
    reader: Reader
    waits: Waits
    streams: Streams
    metrics: WebMetrics
    usage_slots: Slots
    readiness: ReadinessCheck
    plugins: tuple[WebPart, ...] = ()

    def of(self, kind: type[P]) -> P:
        """A plugin's part. Args: kind: its class."""
        return next(part for part in self.plugins if isinstance(part, kind))

    def close(self) -> None:
        """Stop the threads and close the connections."""
        self.waits.close()
        for part in self.plugins:
            if part.close is not None:
                part.close()
        self.forecast.close()
        self.submitter.refusals.counts.close()
        self.store.close()
        self.redis.connection_pool.disconnect()
