"""Sends Flower the events of jobs that moved without a worker: cancelled or expired while they waited, or rescued.

Celery sends events only where a task runs. These jobs never ran, or their worker died. The channel names the jobs, and
Postgres has their states. An event may be lost, as any of Celery's.
"""

import logging
import threading
from functools import partial
from typing import Any
from uuid import UUID

from celery.events.event import Event
from redis import Redis, RedisError

from headrace.domain.ids import show_id
from headrace.domain.queues import EXECUTE, MOVED
from headrace.domain.states import JobState
from headrace.errors import StoreUnavailable
from headrace.store import Store
from headrace.store.jobs import overview

log = logging.getLogger(__name__)

#: How long a read of the channel waits, and the pause after an error of Redis or Postgres, in seconds.
LISTEN_S = 0.5


class EndsListener:
    """Listens in a thread of its own, from `start` to `stop`. It can be started again after a stop."""

    def __init__(self, store: Store, redis: Redis) -> None:
        self._store, self._redis = store, redis
        self._ended = threading.Event()

    def start(self, dispatcher: Any) -> None:
        """Start listening. Events go out through this dispatcher, which belongs to one connection of the worker."""
        self._ended = threading.Event()
        arguments = (self._store, self._redis, dispatcher, self._ended)
        threading.Thread(target=_listen, args=arguments, name="show-ends", daemon=True).start()

    def stop(self) -> None:
        """Stop listening; the thread ends within `LISTEN_S`. Does nothing before the first start."""
        self._ended.set()


def _listen(store: Store, redis: Redis, dispatcher: Any, ended: threading.Event) -> None:
    while not ended.is_set():
        try:
            with redis.pubsub(ignore_subscribe_messages=True) as channel:  # type: ignore[no-untyped-call]
                channel.subscribe(MOVED)
                while not ended.is_set():
                    named = channel.get_message(timeout=LISTEN_S)
                    if named is not None:
                        _show(store, dispatcher, [UUID(hex=each) for each in named["data"].split()])
        except (RedisError, StoreUnavailable) as error:
            log.warning("ends_not_shown", extra={"error": str(error)})
            ended.wait(LISTEN_S)
        except Exception:
            # An error must not end the thread: Flower would get no more events of such jobs.
            log.exception("ends_not_shown")
            ended.wait(LISTEN_S)


def _show(store: Store, dispatcher: Any, job_ids: list[UUID]) -> None:
    with store.autocommit() as db:
        found = overview.outcomes(db, job_ids)
    for job_id, state, error_code, worker in found:
        kind, fields = _event(JobState(state), error_code)
        # Flower counts a lost attempt for the worker that it was lost with, not for this process.
        made = Event if worker is None else partial(_event_of, worker)
        dispatcher.send(kind, uuid=show_id(job_id), name=EXECUTE, Event=made, **fields)
    dispatcher.flush()


def _event_of(worker: str, kind: str, **fields: Any) -> dict[str, Any]:
    made: dict[str, Any] = Event(kind, **fields | {"hostname": worker})
    return made


def _event(state: JobState, error_code: str | None) -> tuple[str, dict[str, Any]]:
    """Celery's event for a job in this state, and its fields. Without an error's message, which may quote a prompt."""
    if state is JobState.FAILED:
        return "task-failed", {"exception": f"JobFailed({error_code!r})", "traceback": None}
    if state in (JobState.CANCELLED, JobState.EXPIRED):
        is_expired = state is JobState.EXPIRED
        return "task-revoked", {"terminated": False, "signum": None, "expired": is_expired, "exception": str(state)}
    return "task-retried", {"exception": "HandedBack('worker_lost')", "traceback": None}
