"""Chooses lines for the provider's batch tier, and gathers them in batches for the provider.

An overflow worker sends those: `workers/batch_tier.py`.
"""

import threading
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

from api.deps import WebDeps
from headrace.config.rules import AUTO
from headrace.domain.apps import App
from headrace.domain.queues import Lane, Overflow, queue_name
from headrace.errors import ConfigError, ModelNotFound
from headrace.store import apps, clock
from plugins.batches import store as batches
from plugins.batches.domain import Batch, BatchState, Line
from plugins.batches.provider_lines import has_batch_tier, lines_for_provider
from plugins.batches.running.feeding import draft_of, note, sent_as, unhurried
from plugins.batches.settings import BatchSettings
from plugins.batches.store import provider_batches
from plugins.batches.store.provider_batches import HOLD

#: What a provider's batch takes. Source: OpenAI's guide "Batch API": 50,000 requests and 200 MB, of which the requests
#: as they are sent need a part for what the API adds.
LINES_LIMIT, BYTES_LIMIT = 50_000, 150_000_000
#: Lines that are submitted at once.
AT_ONCE = 64
THREADS = 16
#: How often it is looked which lines own GPUs will not reach.
LOOK_EVERY = timedelta(minutes=10)
#: In-progress batches that share a pool's lane, at most.
MOST_BATCHES = 1000
#: The endpoints whose lines the paid API answers.
PAID_ENDPOINTS = ("/v1/chat/completions", "/v1/responses")


#: Why a line's job waits in Postgres.
WHY = "for the provider's batch tier"


class Gatherer:
    """Chooses lines by `lines_for_provider`."""

    def __init__(self, web: WebDeps) -> None:
        self._web = web
        self._is_on = web.settings.of(BatchSettings).provider_tier and web.settings.openai_api_key is not None
        self._threads = ThreadPoolExecutor(THREADS, "gathered")
        self._is_closing = threading.Event()
        #: The jobs' ids of lines that are being submitted.
        self.under_way: Sequence[UUID] = ()

    def close(self) -> None:
        """Stop; lines that are being submitted are submitted."""
        self._is_closing.set()
        self._threads.shutdown()

    def takes_all(self, batch: Batch) -> bool:
        """Whether all lines of a batch that wait go to the provider now."""
        pool = self._pool(batch)
        return pool is not None and self._is_paid_alone(batch, pool) and _wanted(batch, 1, None, is_paid_alone=True) > 0

    def gather(self, batch: Batch) -> Iterator[int]:
        """Choose lines of this batch, and let those that fill a batch for the provider go. Yields: after some, how many
        went.

        Raises: StoreUnavailable. BrokerUnavailable.
        """
        left, gathered = self._wanted_of(batch) if self._is_on and batch.has_begun else 0, 0
        while left > gathered and not self._is_closing.is_set():
            filled = yield from self._fill(batch, min(LINES_LIMIT, left - gathered))
            gathered += filled
            with self._web.store.begin() as db:
                provider_batches.close(db, batch.id)
            yield filled
            if not filled:
                break

    def _fill(self, batch: Batch, most: int) -> Generator[int, None, int]:
        """Add lines to one batch for the provider. Returns: how many; 0 if no more can be added now."""
        filled = size = 0
        model = self._web.catalogue.find(batch.model).name
        while filled < most and size < BYTES_LIMIT and not self._is_closing.is_set():
            with self._web.store.begin() as db:
                lines = provider_batches.take_lines(db, batch.id, model, min(AT_ONCE, most - filled))
                owners, batch = apps.by_id(db, {batch.app_id}), replace(batch, read_at=clock.now(db))
            if not lines:
                break
            filled += len(lines)
            size += sum(len(line.body.encode()) for line in lines)
            if not self._set_aside(owners[batch.app_id], batch, lines):
                return 0
            yield 0
        return filled

    def _set_aside(self, app: App, batch: Batch, lines: Sequence[Line]) -> bool:
        """Submit lines. Returns: False if one can only be submitted later."""

        def submit(line: Line) -> Exception | None:
            try:
                draft = draft_of(batch, line)
                self._web.submitter.set_aside(draft, unhurried(app), batch.read_at + HOLD, WHY, sent_as(line))
            except Exception as error:  # Also a bug: it must not hold up the other lines.
                return error
            return None

        is_done = True
        self.under_way = [line.job_id for line in lines if line.job_id is not None]
        try:
            errors = list(self._threads.map(submit, lines))
        finally:
            self.under_way = ()
        for line, error in zip(lines, errors, strict=True):
            if error is not None and not note(self._web, line, error):
                is_done = False
        return is_done

    def _wanted_of(self, batch: Batch) -> int:
        """How many of its lines should go to the provider now."""
        if (pool := self._pool(batch)) is None:
            return 0
        if self._is_paid_alone(batch, pool):
            return _wanted(batch, batch.total, None, is_paid_alone=True)
        if _wanted(batch, 1, 0, is_paid_alone=False) == 0:
            return 0
        with self._web.store.begin() as db:
            if provider_batches.was_begun_within(db, batch.id, LOOK_EVERY):
                return 0
            others = batches.newest(db, None, limit=MOST_BATCHES, state=BatchState.IN_PROGRESS)
            there = provider_batches.lines_at_provider(db, [each.id for each in others])
        left = {each.id: each.total - each.completed - each.failed - there.get(each.id, 0) for each in others}
        mine = left.get(batch.id, 0)
        shared = sum(left[each.id] for each in others if self._is_in_lane(each, pool))
        reached = self._reached(batch, pool)
        if reached is not None and shared:
            reached = reached * mine // shared
        return _wanted(batch, mine, reached, is_paid_alone=False)

    def _reached(self, batch: Batch, pool: str) -> int | None:
        """The lines of all batches that the pool's workers start until this one's window ends; None: unknown."""
        forecast, queue = self._web.forecast, queue_name(pool, Lane.BATCH)
        now = forecast.pool(pool)
        if not now.fleet.slots:
            return 0
        tokens = forecast.ahead_cap_tokens(queue, batch.left_s, by_settings=True)
        return None if tokens is None else int(tokens / now.mean_tokens[Lane.BATCH])

    def _pool(self, batch: Batch) -> str | None:
        """Its pool, if the provider's batch tier is open to its lines."""
        is_open = self._is_on and batch.endpoint in PAID_ENDPOINTS and batch.model != AUTO
        if not is_open or batch.overflow is Overflow.NEVER:
            return None
        try:
            found = self._web.catalogue.find(batch.model)
        except (ModelNotFound, ConfigError):
            # Each line is told when it is fed.
            return None
        return found.pool if has_batch_tier(self._web.submitter.tariff(), found.name) else None

    def _is_paid_alone(self, batch: Batch, pool: str) -> bool:
        return batch.overflow is Overflow.ONLY or pool in self._web.settings.paid_pools

    def _is_in_lane(self, batch: Batch, pool: str) -> bool:
        """Whether its lines wait for the pool's own workers."""
        try:
            its = self._web.catalogue.pool_of(batch.model, is_embedding=batch.endpoint == "/v1/embeddings")
        except ModelNotFound:
            return False
        return its == pool and not self._is_paid_alone(batch, pool)


def _wanted(batch: Batch, lines: int, reached: int | None, *, is_paid_alone: bool) -> int:
    return lines_for_provider(batch.left_s, lines, reached, is_paid_alone=is_paid_alone)
