"""Submits the lines of batches as room appears: apps in turn, and the batches of an app in turn."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import replace
from http import HTTPStatus
from uuid import UUID

from api.deps import WebDeps
from api.door.drafts import Draft, Sent
from api.routes.formats import FORMATS
from api.routes.replies import problem
from api.schemas.body import parse_object, validated
from headrace.domain.apps import App
from headrace.domain.ids import show_id
from headrace.domain.queues import Lane, wanted_queue
from headrace.errors import HeadraceError, InvalidRequest, ModelNotFound, Refused, StoreUnavailable
from headrace.http import shape_of
from headrace.policies.routing import OVERFLOW_OUT
from headrace.store import apps, clock
from plugins.batches import store as batches
from plugins.batches.domain import BATCH_PREFIX, LINE_PREFIX, Batch, Line, noted
from plugins.batches.settings import BatchSettings

log = logging.getLogger(__name__)

#: Lines of one batch that are submitted before the next batch has its turn.
TURN = 16
#: Lines that are submitted at once. They share round trips, as requests do that come at once.
AT_ONCE = 64
#: The most bytes of one app's lines, and of all lines, under way at once; one line may exceed them.
APP_BYTES, BYTES = 1024**2, 16 * 1024**2
#: A round does not wait for lines above LONG_CHARS characters, and waits ROUND_S at most. A later round notes their
#: ends.
LONG_CHARS = 64 * 1024
ROUND_S = 2.0
#: Seconds for which a batch rests whose line found no room.
REST_S = 0.5


class Feeder:
    """Keeps a share of each pool's `batch` lane filled from batches."""

    def __init__(self, web: WebDeps, leaves: Callable[[Batch], bool] = lambda _: False) -> None:
        """Submit nothing yet. Args: leaves: whether a batch's lines go elsewhere now."""
        self._web, self._leaves = web, leaves
        self._threads = ThreadPoolExecutor(AT_ONCE, "lines")
        #: What is being submitted, or has been, and is not noted yet.
        self._under_way: dict[Future[Exception | None], tuple[Batch, Line]] = {}
        #: By batch, until when it rests, on the monotonic clock.
        self._resting: dict[UUID, float] = {}
        #: By app and by batch, the number of its last turn.
        self._served: dict[UUID, int] = {}
        self._turns_given = 0

    def close(self) -> None:
        """Stop; lines that are being submitted are submitted."""
        self._threads.shutdown()
        with suppress(StoreUnavailable):
            self._note_done()

    @property
    def under_way(self) -> list[UUID]:
        """The jobs' ids of lines that are being submitted."""
        return [line.job_id for _, line in list(self._under_way.values()) if line.job_id is not None]

    def feed(self, mine: Sequence[Batch]) -> int:
        """Submit some lines of these batches. Returns: how many lines were accepted, of earlier rounds, too.

        Raises: StoreUnavailable. BrokerUnavailable.
        """
        accepted = self._note_done()
        ready = self._ready(mine)
        lines = self._take(ready, self._rooms(ready)) if ready else []
        if not lines:
            return accepted
        with self._web.store.begin() as db:
            owners = apps.by_id(db, {batch.app_id for batch, _ in lines})
        begun = {
            self._threads.submit(self._submit, owners[batch.app_id], batch, line): (batch, line)
            for batch, line in lines
        }
        self._under_way |= begun
        short = [each for each, (_, line) in begun.items() if len(line.body) <= LONG_CHARS]
        wait(short or begun, ROUND_S)
        return accepted + self._note_done()

    def _ready(self, mine: Sequence[Batch]) -> list[Batch]:
        now = time.monotonic()
        self._resting = {batch_id: until for batch_id, until in self._resting.items() if until > now}
        return [
            batch
            for batch in mine
            if batch.has_begun and not batch.is_ending and batch.id not in self._resting and not self._leaves(batch)
        ]

    def _rooms(self, ready: Sequence[Batch]) -> dict[str, int]:
        """By queue, how many lines may be submitted now."""
        queues = {queue for batch in ready for queue in self._queues(batch)}
        settings = self._web.settings
        loads = self._web.admission.loads(sorted(queues))
        rooms = {}
        for queue in queues:
            pool = queue.rpartition(".")[0]
            most = max(1, int(settings.lane(Lane.BATCH, pool).depth_cap * settings.of(BatchSettings).queue_share))
            rooms[queue] = most - loads[queue].jobs
        for batch, _ in self._under_way.values():
            for queue in queues.intersection(self._queues(batch)):
                rooms[queue] -= 1
        return rooms

    def _queues(self, batch: Batch) -> Sequence[str]:
        """The queues that its lines may wait in: several where rules choose the pool."""
        settings = self._web.settings
        try:
            pools = [self._web.catalogue.pool_of(batch.model, is_embedding=batch.endpoint == "/v1/embeddings")]
        except ModelNotFound:
            pools = sorted({pool for rule in settings.rules.values() for pool in rule.pools})
        # Without a model any more, each line will be told: any queue serves for that.
        pools = pools or list(settings.pools)[:1]
        return [wanted_queue(pool, Lane.BATCH, batch.overflow, settings.paid_pools) for pool in pools]

    def _take(self, ready: Sequence[Batch], rooms: dict[str, int]) -> list[tuple[Batch, Line]]:
        """The next lines, as long as there is room: the app and the batch whose last turn is longest ago come first."""
        self._served = {key: turn for key, turn in self._served.items() if key in _keys(ready)}
        taken, free = list[tuple[Batch, Line]](), AT_ONCE - len(self._under_way)
        sizes = _sizes(self._under_way.values())
        with self._web.store.begin() as db:
            now = clock.now(db)
            left = [replace(batch, read_at=now) for batch in ready]
            while left and len(taken) < free and sizes.total() < BYTES:
                batch = min(left, key=lambda each: (self._turn(each.app_id), self._turn(each.id), each.id))
                # Where rules choose, that of the most room: if the lines go to another one, it has its own bound.
                queue = max(self._queues(batch), key=rooms.__getitem__)
                limit, room_bytes = min(TURN, rooms[queue], free - len(taken)), APP_BYTES - sizes[batch.app_id]
                found = batches.take_lines(db, batch.id, limit, room_bytes) if min(limit, room_bytes) > 0 else []
                if not found:
                    left.remove(batch)
                    continue
                new = [(batch, line) for line in found]
                taken += new
                sizes += _sizes(new)
                rooms[queue] -= len(found)
                self._turns_given += 1
                self._served[batch.app_id] = self._served[batch.id] = self._turns_given
        return taken

    def _turn(self, key: UUID) -> int:
        """When this app or batch had its last turn."""
        return self._served.get(key, 0)

    def _submit(self, app: App, batch: Batch, line: Line) -> Exception | None:
        """Submit one line. Returns: why it was not accepted; None if it was."""
        try:
            self._web.submitter.submit(draft_of(batch, line), unhurried(app), None, sent_as(line))
        except Exception as error:  # Also a bug: it must not hold up the other lines.
            return error
        return None

    def _note_done(self) -> int:
        """Note what became of submitted lines. Returns: how many were accepted."""
        accepted = 0
        for each in [each for each in self._under_way if each.done()]:
            batch, line = self._under_way.pop(each)
            error = each.result()
            if error is None:
                accepted += 1
            elif not note(self._web, line, error):
                self._resting[batch.id] = time.monotonic() + REST_S
        return accepted


def _sizes(lines: Iterable[tuple[Batch, Line]]) -> Counter[UUID]:
    """The bytes of lines, by app."""
    sizes = Counter[UUID]()
    for batch, line in lines:
        sizes[batch.app_id] += len(line.body.encode())
    return sizes


def note(web: WebDeps, line: Line, error: Exception) -> bool:
    """Note that a submitted line was not accepted. Returns: False if it may be later.

    A line whose job may exist stays submitted: `give_back_lost` looks for it. So does one that has a job, although this
    submit of it was refused: the job answers it.
    """
    if isinstance(error, Refused):
        with web.store.begin() as db:
            batches.give_back(db, line.batch_id, [line.number])
        return False
    if _may_pass(error):
        facts = {"batch_id": show_id(line.batch_id, BATCH_PREFIX), "line": line.number, "error": str(error)}
        log.warning("line_not_submitted", extra=facts)
        return False
    if isinstance(error, InvalidRequest) and OVERFLOW_OUT in str(error):
        # A line has the overflow of its batch, whatever its body says.
        said = str(error).replace(OVERFLOW_OUT, "make the batch with job.overflow 'only' or 'allow'")
        error = InvalidRequest(said, code=error.code, param=error.param)
    reply = problem(error, request_id(line))
    with web.store.begin() as db:
        batches.refuse(db, line, reply.status_code, reply.get_data(as_text=True).strip())
    return True


def _may_pass(error: Exception) -> bool:
    """Whether the same line may be accepted later, because a server is down now. A bug is not waited for."""
    return isinstance(error, HeadraceError) and shape_of(error).status == HTTPStatus.SERVICE_UNAVAILABLE


def sent_as(line: Line) -> Sent:
    """Lines wait in Postgres: one that finds no room is no demand that was lost."""
    return Sent(request_id(line), is_kept=True)


def request_id(line: Line) -> str:
    """For the log, as the results name the line."""
    return f"{show_id(line.batch_id, LINE_PREFIX)}_{line.number}"


def draft_of(batch: Batch, line: Line) -> Draft:
    """The draft of a line, by the format of its batch's endpoint. Raises: InvalidRequest."""
    assert line.job_id is not None
    if not line.body:
        message = "The request of this line is deleted, and so is the input file: make a new batch."
        raise InvalidRequest(message, code="file_not_found", param="input_file_id")
    values = parse_object(line.body.encode())
    if values.pop("stream", False):
        raise InvalidRequest("The lines of a batch are not streamed: leave 'stream' out.", param="stream")
    draft: Draft = validated(FORMATS[batch.endpoint].schema, values).to_draft()
    return replace(
        draft,
        lane=Lane.BATCH,
        overflow=batch.overflow,
        max_wait_s=max(1.0, batch.left_s),
        background=True,
        not_before=None,
        # The file of the results has the texts anyway.
        is_stored=True,
        job_id=line.job_id,
        notes=noted(batch.id),
    )


def unhurried(app: App) -> App:
    """The app without its rates, which bound what it sends. Its lines are half of the jobs that it may have waiting."""
    queued = app.limits.queued_jobs
    limits = replace(
        app.limits,
        queued_jobs=None if queued is None else max(1, queued // 2),
        requests_per_minute=None,
        tokens_per_minute=None,
    )
    return replace(app, limits=limits)


def _keys(ready: Sequence[Batch]) -> set[UUID]:
    return {key for batch in ready for key in (batch.id, batch.app_id)}
