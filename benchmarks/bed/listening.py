"""Processes that listen to the words of streams, each as a `web` process does, without the readers of its streams."""

import multiprocessing
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from uuid import UUID

from api import reading
from api.reading import Waits
from headrace import connections
from headrace.broker import news
from headrace.broker.news import Word
from headrace.config import Settings
from headrace.connections.redis import redis_client
from headrace.store import Store

START_TIMEOUT_S = 120.0
#: Longer than a run: the re-check is the same with one channel and with many, and not what is measured.
NEVER_S = 1e6


@dataclass(frozen=True, slots=True)
class Heard:
    """What one process has heard. Attributes: cpu_s: processor seconds since its start."""

    messages: int
    cpu_s: float


class _Counting(Waits):
    """Waits that count the messages that reach this process, also those of jobs that it does not watch."""

    messages = 0

    def _pass_on(self, word: Word) -> None:
        self.messages += 1
        super()._pass_on(word)


class Listener:
    """One process, which watches some jobs. Start and use it from one thread."""

    def __init__(self, settings: Settings, job_ids: Sequence[UUID], channel: str | None) -> None:
        """Start it. Args: channel: the one that it shares with the others; None for a channel of its own."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["__main__", __name__])
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_listen, args=(theirs, settings, job_ids, channel), daemon=True)
        self._process.start()

    def heard(self) -> Heard:
        """Ask it. The first answer comes once it listens."""
        self._pipe.send("heard")
        if not self._pipe.poll(START_TIMEOUT_S):
            raise TimeoutError("A listener does not answer.")
        answer: Heard = self._pipe.recv()
        return answer

    def stop(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.join()


@contextmanager
def listeners(settings: Settings, shares: Sequence[Sequence[UUID]], channel: str | None) -> Iterator[list[Listener]]:
    """A process for each share of the jobs, all of which listen."""
    with ExitStack() as stack:
        made = [Listener(settings, job_ids, channel) for job_ids in shares]
        for each in made:
            stack.callback(each.stop)
        for each in made:
            each.heard()
        yield made


def _listen(pipe: Connection, settings: Settings, job_ids: Sequence[UUID], channel: str | None) -> None:
    reading.RECHECK_S = reading.LISTEN_AGAIN_S = NEVER_S
    news.LISTENS_S = int(NEVER_S)
    if channel is not None:
        reading.channel_of = partial(_shared, channel)
    redis = redis_client(settings)
    counting = _Counting(redis, Store(connections.postgres(settings)), wait_slots=1, stream_slots=1)
    subscribed = threading.Event()
    with ExitStack() as stack:
        for job_id in job_ids:
            stack.enter_context(counting.watch(job_id, subscribed.set))
        # The first news: the process is subscribed. Watches that began after that are not told.
        subscribed.wait(START_TIMEOUT_S)
        while pipe.recv():
            pipe.send(Heard(counting.messages, time.process_time()))


def _shared(channel: str, process: UUID) -> str:
    return channel
