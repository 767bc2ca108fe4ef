"""The sign of life of a process: one row of Postgres for each life, renewed every few seconds.

Pages, commands, `/readyz` and metrics all read these rows. A process that is stopped says so. One that is killed, or
frozen, says nothing, and is missed after `processes.GONE_S`. The signs have a connection of their own: a locked table
can hold all others of a process for as long as it is locked.
"""

import logging
import os
from collections.abc import Callable, Mapping
from importlib.metadata import version
from multiprocessing.util import Finalize
from typing import Any

from celery import Celery, bootsteps

from headrace import connections
from headrace.config import Settings
from headrace.domain.fleet import ProcessInfo, ProcessKind
from headrace.domain.ids import new_id
from headrace.errors import StoreUnavailable
from headrace.store import Store
from headrace.store.fleet import processes
from headrace.sweeper import Sweep, Sweeper

log = logging.getLogger(__name__)


class Heartbeat:
    """Says every few seconds that this process lives, from `start` until the process ends."""

    def __init__(
        self,
        kind: ProcessKind,
        settings: Settings,
        *,
        node: str | None = None,
        problems: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        """Say nothing yet.

        Args:
            node: the process's name in Celery; the others are named by their kind and host.
            problems: what is wrong in this process, in a sentence for each alert.
        """
        self._store, self._problems = Store(connections.postgres(settings, pool_size=1)), problems
        self._info = ProcessInfo(
            id=new_id(),
            kind=kind,
            name=node or f"{kind}@{settings.host_id}",
            host_id=settings.host_id,
            pid=os.getpid(),
            version=version("headrace"),
            pool=settings.pool if kind is ProcessKind.GPU else None,
            scaling_mode=settings.scaling.mode if kind is ProcessKind.CONTROL else None,
        )
        self._sweeper = Sweeper([Sweep("heartbeat", processes.BEAT_EVERY_S, self.beat)])

    def start(self) -> None:
        """Begin. The row gets its end when this process exits by itself."""
        self._sweeper.start()
        # `atexit` is not called in a child of `multiprocessing`, as the HTTP server's worker is; this is called in all.
        self._ending = Finalize(None, self._note_stop, exitpriority=0)

    def beat(self) -> int:
        """Say it once. Raises: StoreUnavailable."""
        with self._store.autocommit() as db:
            processes.beat(db, self._info, self._problems())
        return 1

    def stop(self) -> None:
        """Say that the process has stopped. Without Postgres it will be missed, as one that was killed."""
        self._ending()

    def _note_stop(self) -> None:
        self._sweeper.stop()
        try:
            with self._store.autocommit() as db:
                processes.stop(db, self._info.id)
        except StoreUnavailable as error:
            log.warning("stop_not_noted", extra={"error": str(error)})
        self._store.close()


def beat_in_workers(
    celery: Celery,
    kind: ProcessKind,
    settings: Settings,
    problems: Callable[[], Mapping[str, str]] = dict,
) -> None:
    """Let workers of this app give signs of life, from before their other steps until they have ended."""

    class HeartbeatStep(bootsteps.Step):
        """Begins when the worker is put together: an engine may load for minutes."""

        def __init__(self, worker: Any, **_: object) -> None:
            super().__init__(worker)
            Heartbeat(kind, settings, node=worker.hostname, problems=problems).start()

    celery.steps["worker"].add(HeartbeatStep)
