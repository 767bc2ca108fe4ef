"""Checks whether a process can do its work, over the same protocols as its clients. Starts and stops nothing."""

import http.client
import socket
from datetime import UTC, datetime
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
    """True if a GET on loopback returns status 200."""
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


class Said:
    """A text that a process logs at each start, for a process without clients, which no request can check."""

    def __init__(self, log: Path, text: str) -> None:
        self._log, self._text = log, text
        self._times = 0

    def is_new(self) -> bool:
        """True if the log has the text more often than at the last call."""
        times = self._log.read_text(errors="replace").count(self._text)
        is_new, self._times = times > self._times, times
        return is_new


class WorkerRow:
    """The row of this host's worker in Postgres. The worker writes it when its engine can answer, and keeps a lease."""

    def __init__(self, settings: Settings, pool: str) -> None:
        self._engine = connections.postgres(settings, pool_size=1)
        self._pool, self._host_id = pool, settings.host_id
        self._last_before: object = datetime.fromtimestamp(0, UTC)

    def mark(self) -> None:
        """Remember the time: rows of workers that started earlier do not count."""
        with self._engine.connect() as db:
            self._last_before = db.execute(sa.select(sa.func.now())).scalar_one()

    def is_live(self) -> bool:
        """True if a worker that started after `mark` is ready and holds its lease. Reports each worker once.

        A killed worker's row keeps its lease for a while, and must not count as the next worker.
        """
        statement = sa.select(sa.func.max(workers.c.started_at)).where(
            workers.c.pool == self._pool,
            workers.c.host_id == self._host_id,
            workers.c.started_at > self._last_before,
            workers.c.ready,
            workers.c.lease_until > sa.func.now(),
        )
        try:
            with self._engine.connect() as db:
                last = db.execute(statement).scalar_one()
        except DBAPIError:
            return False
        if last is None:
            return False
        self._last_before = last
        self._engine.dispose()
        return True
