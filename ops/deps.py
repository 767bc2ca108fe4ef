"""The dependencies of the pages: `create_app` makes them once, and the running Flask app holds them."""

from dataclasses import dataclass
from typing import cast

from flask import current_app
from redis import Redis

from headrace.broker.admission import Admission
from headrace.broker.forecast import Forecast
from headrace.config import Settings
from headrace.http import RequestMetrics
from headrace.store import Store
from ops.logins import Logins

EXTENSION = "headrace"


@dataclass(frozen=True, slots=True)
class OpsDeps:
    """The parts of the process. Attributes: redis: closed last; the other parts have it too."""

    settings: Settings
    redis: Redis
    store: Store
    admission: Admission
    forecast: Forecast
    logins: Logins
    metrics: RequestMetrics

    def close(self) -> None:
        """Stop the threads and close the connections."""
        self.logins.close()
        self.forecast.close()
        self.store.close()
        self.redis.connection_pool.disconnect()


def deps() -> OpsDeps:
    """The dependencies of the app that serves this request."""
    return cast(OpsDeps, current_app.extensions[EXTENSION])
