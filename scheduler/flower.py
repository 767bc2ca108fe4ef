"""Flower's Celery app, and replacements for those of Flower's pages that would mislead.

celery -A scheduler.flower flower
"""

import asyncio
import time
from base64 import b64decode
from collections.abc import Iterable
from functools import cache
from typing import Any

from celery import Celery
from flower import urls
from flower.api.control import ControlHandler
from flower.api.tasks import GetQueueLengths
from flower.utils.tasks import get_task_by_id
from flower.views.broker import BrokerView
from flower.views.tasks import TaskView
from redis import Redis
from tornado import web

from headrace import startup
from headrace.broker.messages import list_key, make_celery
from headrace.connections.redis import redis_client

#: How long a revocation waits for the workers' replies, in seconds. A worker in the middle of a tick replies late.
REPLY_S = 2.0


class JobPage(TaskView):
    """A task's page, with the button that cancels. For a job that Flower has not heard of, it says where to look."""

    def initialize(self, started: str) -> None:
        """Args: started: when Flower started."""
        self._started = started

    @web.authenticated
    def get(self, task_id: str) -> None:
        if get_task_by_id(self.application.events, task_id) is None:
            message = (
                f"Flower knows only jobs that moved since it started, at {self._started}. '{task_id}' did not. "
                "'headrace jobs show ID' tells the whole life of every job, and GET /v1/jobs/ID its state."
            )
            raise web.HTTPError(404, message)
        super().get(task_id)

    def render(self, template_name: str, **values: Any) -> Any:
        """Show the button that read-only mode hides."""
        return super().render(template_name, **values | {"read_only": False})


class Revoke(ControlHandler):
    """Revokes or terminates a task, also in read-only mode, and shows the control worker's answer."""

    @web.authenticated
    async def post(self, task_id: str) -> None:
        replies = await self.run_blocking(
            *("task.revoke", task_id, self.capp.control.broadcast, "revoke"),
            **{"arguments": {"task_id": task_id, "operator": self._user()}, "reply": True, "timeout": REPLY_S},
        )
        answers = [answer for reply in replies or () for node, answer in reply.items() if node.startswith("control")]
        done = next((answer["ok"] for answer in answers if "ok" in answer), None)
        if done is None:
            why = next((answer["error"] for answer in answers if "error" in answer), "No control worker answered.")
            self.set_status(403)
            self.write(f"Failed to revoke the task: {why}")
        else:
            self.write({"message": done})

    def _user(self) -> str:
        """The name of this request's login, which Flower has checked."""
        if isinstance(self.current_user, str):
            return self.current_user
        credentials = self.request.headers.get("Authorization", "").partition(" ")[2]
        return b64decode(credentials).decode().partition(":")[0] or "flower"


class Broker:
    """Tells Flower the queues' lengths, over a connection like every other process's.

    Flower's own class asks only the first Sentinel, without its password, and only for database 0.
    """

    def __init__(self, client: Redis) -> None:
        """Args: client: shared by all requests."""
        self._client = client

    async def queues(self, names: Iterable[str]) -> list[dict[str, Any]]:
        """The row that Flower shows for each queue. Raises: RedisError."""
        return await asyncio.to_thread(self._lengths, list(names))

    def _lengths(self, names: list[str]) -> list[dict[str, Any]]:
        with self._client.pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.llen(list_key(name))
            lengths = pipeline.execute()
        return [{"name": name, "messages": length} for name, length in zip(names, lengths, strict=True)]


class _WithBroker:
    def initialize(self, broker: Broker) -> None:
        """Args: broker: asked for the queues."""
        self._broker = broker

    def get_broker(self) -> Broker:
        """The source of the figures."""
        return self._broker


class QueuesView(_WithBroker, BrokerView):
    """The broker page."""


class QueueLengths(_WithBroker, GetQueueLengths):
    """The broker page's figures as JSON."""


def _replace_pages(broker: Broker) -> None:
    """Put these pages before Flower's own: the first pattern that matches wins."""
    started = time.strftime("%Y-%m-%d %H:%M:%S %Z")
    urls.handlers[:0] = [
        web.url(r"/task/(.+)", JobPage, {"started": started}, name="task"),
        web.url(r"/broker", QueuesView, {"broker": broker}, name="broker"),
        (r"/api/queues/length", QueueLengths, {"broker": broker}),
        (r"/api/task/revoke/(.+)", Revoke),
    ]


@cache
def _app() -> Celery:
    settings = startup.load()
    _replace_pages(Broker(redis_client(settings)))
    celery = make_celery("headrace.flower", settings)
    startup.check_first(celery, settings, uses_postgres=False)
    return celery


def __getattr__(name: str) -> Celery:
    """Make `app` when `celery --app scheduler.flower` looks for it, so that an import alone makes nothing."""
    if name == "app":
        return _app()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
