"""Whether a process can do its work: asked over the same wires as its clients use. Starts and stops nothing."""

import http.client
import socket
from pathlib import Path

import sqlalchemy as sa
from celery import Celery
from kombu.exceptions import OperationalError as BrokerError
from redis import RedisError
from sqlalchemy.exc import DBAPIError

from headrace import connections
from headrace.config import Settings
from headrace.stack.ports import LOOPBACK
from headrace.tables import workers

_HTTP_TIMEOUT_S = 2.0
_PING_TIMEOUT_S = 0.5


def answers(port: int, path: str) -> bool:
    """True when a GET on loopback gets a 200."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=_HTTP_TIMEOUT_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def pongs(celery: Celery, name: str) -> bool:
    """True when the Celery worker `name` of this host takes remote commands."""
    try:
        node = f"{name}@{socket.gethostname()}"
        return bool(celery.control.ping(destination=[node], timeout=_PING_TIMEOUT_S, limit=1))
    except (BrokerError, RedisError, OSError):
        return False


def has_said(log: Path, text: str) -> bool:
    """True when this is in the log: for a process that serves nobody, and so can be asked nothing."""
    return text in log.read_text(errors="replace")


class WorkerRow:
    """A worker's row in Postgres: it writes one when its engine can answer, and keeps a lease on it."""

    def __init__(self, settings: Settings, pool: str) -> None:
        self._engine = connections.postgres(settings, pool_size=1)
        self._name = f"{pool}@{socket.gethostname()}"
        self._last_before: object = None

    def mark(self) -> None:
        """Remember the rows that are there: those of earlier lives do not count."""
        with self._engine.connect() as db:
            self._last_before = db.execute(sa.select(sa.func.now())).scalar_one()

    def is_live(self) -> bool:
        """True when a worker that started after `mark` is ready and holds its lease."""
        statement = sa.select(workers.c.id).where(
            workers.c.name == self._name,
            workers.c.started_at > self._last_before,
            workers.c.ready,
            workers.c.lease_until > sa.func.now(),
        )
        try:
            with self._engine.connect() as db:
                live = db.execute(statement).first() is not None
        except DBAPIError:
            return False
        if live:
            self._engine.dispose()
        return live
