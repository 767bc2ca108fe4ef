"""Checks whether a process can do its work, over the same protocols as its clients, and whether one hangs.

Starts and stops no process.
"""

import http.client
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import sqlalchemy as sa
from celery import Celery
from kombu.exceptions import OperationalError as BrokerError
from redis import RedisError
from sqlalchemy.exc import DBAPIError

from headrace import connections
from headrace.config import Settings
from headrace.errors import StoreUnavailable
from headrace.stack.ports import LOOPBACK
from headrace.store import Store
from headrace.store.fleet import processes
from headrace.store.fleet.processes import LifeKey
from headrace.sweeper import Sweep, Sweeper
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


#: Seconds between two looks at the signs of life, beyond which this process was stopped, or had no CPU.
LOOK_LATE_S = 4 * processes.BEAT_EVERY_S
#: A leader of a process group, and the host that its settings name.
Leader = tuple[str, int]


class SignsOfLife:
    """Which of the machine's processes hang, by their signs of life in Postgres; and notes there why some ended.

    A process hangs if its signs are missed for `hung_after_s` while most others arrive, and no debugger holds it. The
    time begins anew when Postgres does not answer, when most processes are silent, and after a pause of this one: so a
    slow machine, or a server that is frozen for a while, kills none. A process that has never given a sign is not
    judged.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._after_s, self._clock = settings.hung_after_s, clock
        self._store = Store(connections.postgres(settings, pool_size=1))
        # It reads in a thread of its own: the supervisor waits for no server.
        self._sweeper: Sweeper | None = None
        self._looked_at = 0.0
        #: Since when each silent life has been missed, by the monotonic clock.
        self._missed: Mapping[LifeKey, float] = {}
        #: The lives in the group of each leader. Both are replaced as a whole.
        self._lives: Mapping[Leader, Sequence[LifeKey]] = {}
        self._hung: Mapping[Leader, str] = {}
        #: The leaders that the supervisor runs.
        self._leaders: set[Leader] = set()
        self._ends: deque[tuple[LifeKey, str]] = deque()

    def why_hung(self, host_id: str, pid: int) -> str | None:
        """Why the process, or one of its group, is to be killed; None: it lives. The first call begins the watch."""
        self._leaders.add((host_id, pid))
        if self._sweeper is None:
            self._sweeper = Sweeper([Sweep("signs-of-life", processes.BEAT_EVERY_S, self.look)])
            self._sweeper.start()
        return self._hung.get((host_id, pid))

    def note_end(self, host_id: str, pid: int, reason: str) -> None:
        """Have it noted why a process ended."""
        self._leaders.discard((host_id, pid))
        self._ends.extend((life, reason) for life in self._lives.get((host_id, pid), ()))

    def look(self) -> int:
        """Look at the signs once. Returns: how many processes hang."""
        ends = list(self._ends)
        try:
            with self._store.begin() as db:
                processes.note_ends(db, dict(ends))
                found = processes.lives(db)
        except StoreUnavailable:
            self._missed, self._hung = {}, {}
            return 0
        for _ in ends:
            self._ends.popleft()
        leaders = self._leaders.copy()
        running = [(life, (life.host_id, _group(life.pid))) for life in found if life.stopped_at is None]
        here = {(life.host_id, life.pid, life.started_at): (life, of) for life, of in running if of in leaders}
        self._lives = {leader: [key for key, (_, of) in here.items() if of == leader] for leader in leaders}
        silent = [key for key, (life, _) in here.items() if not life.is_alive and not _is_traced(life.pid)]
        self._judge(silent, others=len(here) - 1)
        why = "no sign of life for {:.0f} s, while other processes gave theirs."
        now, after_s = self._clock(), max(self._after_s - processes.GONE_S, processes.BEAT_EVERY_S)
        hung = [here[key] for key, since in self._missed.items() if self._after_s and now - since >= after_s]
        self._hung = {leader: why.format(life.silent_s) for life, leader in hung}
        return len(hung)

    def _judge(self, silent: Sequence[LifeKey], others: int) -> None:
        """Keep since when each is missed; begin anew if they may not be to blame."""
        now, alive = self._clock(), others + 1 - len(silent)
        is_late, self._looked_at = now - self._looked_at > LOOK_LATE_S, now
        are_heard = alive > 0 and 2 * alive >= others
        self._missed = {key: self._missed.get(key, now) for key in silent} if are_heard and not is_late else {}


def _group(pid: int) -> int:
    """The leader of the process's group; 0 if it has ended."""
    try:
        return os.getpgid(pid)
    except OSError:
        return 0


def _is_traced(pid: int) -> bool:
    """Whether a debugger holds the process; False where /proc does not say so."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    return "TracerPid:" in status and "TracerPid:\t0\n" not in status
