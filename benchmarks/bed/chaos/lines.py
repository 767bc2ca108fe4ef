"""Batches among the orders: files of lines that are uploaded, run as batches and read again, and the verdict on them.

Knows the API, by the unchanged `openai` SDK, and the tables that the verdict reads. It does not know what breaks when.
"""

import hashlib
import json
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeVar
from uuid import UUID

import openai
from openai.types import Batch

from bed.batches.client import ENDPOINT, TOO_WARM
from bed.chaos.orders import HUNG_S, PATIENCE_S
from bed.chaos.world import World

#: Lines of a batch at least, and batches of a run at most.
LEAST_LINES, MOST_BATCHES = 25, 10
#: Every this many, a line asks for what its endpoint refuses, and belongs into the error file.
REFUSED_EVERY = 10
#: Every this many, a batch is cancelled once one of its lines has ended.
CANCELLED_EVERY = 4
#: Batches come in this share of the time of the other orders, so that they run while things break.
EARLY_SHARE = 0.7
LOOK_EVERY_S = 1.0
#: Answers that an outage excuses.
EXCUSED = (409, 429, 503)
TERMINAL = ("completed", "failed", "expired", "cancelled")

Answer = TypeVar("Answer")


class Result(NamedTuple):
    """What a file of results says of a line. Attributes: text: its answer, or the code of its error."""

    batch_id: str
    custom_id: str
    file: Literal["output", "error"]
    text: str


@dataclass(slots=True)
class BatchOrder:
    """One batch that is wanted, and what became of it.

    Attributes:
        due_s: when its file is to be uploaded, in seconds from the beginning.
        is_called_off: it is cancelled once one of its lines has ended.
        ended: as it ended, by the API.
        results: the lines of both its files.
    """

    number: int
    lines: int
    due_s: float
    is_called_off: bool
    batch_id: str | None = None
    ended: Batch | None = None
    results: list[Result] | None = None

    def prompt(self, line: int) -> str:
        """What a line asks."""
        return f"Line {line} of batch {self.number}?"

    def custom_id(self, line: int) -> str:
        """A line's name."""
        return f"line-{self.number}-{line}"

    def fingerprint(self, line: int) -> str:
        """What the right answer to a line has in it."""
        return hashlib.sha256(f"user: {self.prompt(line)}".encode()).hexdigest()

    def file(self) -> bytes:
        """Its input file. The metadata name a line's jobs as they name an order's."""
        return b"".join(json.dumps(self._line(line)).encode() + b"\n" for line in range(self.lines))

    def _line(self, line: int) -> dict[str, Any]:
        body: dict[str, Any] = {
            "messages": [{"role": "user", "content": self.prompt(line)}],
            "max_tokens": 8,
            "metadata": {"order": self.custom_id(line)},
        }
        if is_refused(line):
            body["temperature"] = TOO_WARM
        return {"custom_id": self.custom_id(line), "method": "POST", "url": ENDPOINT, "body": body}


def is_refused(line: int) -> bool:
    """Whether a line asks for what its endpoint refuses."""
    return line % REFUSED_EVERY == REFUSED_EVERY - 1


def make_batches(lines: int, seconds: float, seed: int) -> list[BatchOrder]:
    """Batches that have this number of lines together, spread over the first part of a time."""
    chance = random.Random(seed + 2)
    number = max(1, min(MOST_BATCHES, lines // LEAST_LINES)) if lines else 0
    sizes = [lines // number + (each < lines % number) for each in range(number)]
    return [
        BatchOrder(each, size, chance.uniform(0, EARLY_SHARE * seconds), each % CANCELLED_EVERY == CANCELLED_EVERY - 1)
        for each, size in enumerate(sizes)
    ]


@dataclass(slots=True)
class BatchClient:
    """Sees each batch through in a thread of its own, between `begin` and `end`. Each call is repeated until an answer.

    Attributes:
        complaints: answers that no outage excuses.
    """

    url: str
    api_key: str
    orders: Sequence[BatchOrder]
    complaints: list[str] = field(default_factory=list)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def begin(self) -> None:
        """Start; batches come by the clock from now on."""
        self._threads = [threading.Thread(target=self._follow, args=[order], daemon=True) for order in self.orders]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Stop, whatever is left."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(HUNG_S)

    @property
    def seen(self) -> int:
        """Batches whose results were read."""
        return sum(order.results is not None for order in self.orders)

    def _follow(self, order: BatchOrder) -> None:
        if self._stopping.wait(order.due_s):
            return
        with openai.OpenAI(base_url=f"{self.url}/v1", api_key=self.api_key, max_retries=0, timeout=HUNG_S) as sdk:
            try:
                self._run(sdk, order)
            except _Stopped:
                return

    def _run(self, sdk: openai.OpenAI, order: BatchOrder) -> None:
        name = f"batch-{order.number}"
        # An upload whose answer was lost leaves a file that no batch has.
        upload = self._until_answered(
            name, lambda: sdk.files.create(file=(f"{name}.jsonl", order.file()), purpose="batch")
        )
        batch = self._until_answered(
            name,
            lambda: sdk.batches.create(
                input_file_id=upload.id,
                endpoint=ENDPOINT,
                completion_window="24h",
                extra_headers={"Idempotency-Key": name},
            ),
        )
        order.batch_id = batch_id = batch.id
        while batch.status not in TERMINAL:
            counts = batch.request_counts
            assert counts is not None
            if order.is_called_off and batch.status == "in_progress" and counts.completed:
                self._until_answered(name, lambda: sdk.batches.cancel(batch_id))
            self._pause(LOOK_EVERY_S)
            batch = self._until_answered(name, lambda: sdk.batches.retrieve(batch_id))
        order.ended = batch
        order.results = [*self._results(sdk, batch, "output"), *self._results(sdk, batch, "error")]

    def _results(self, sdk: openai.OpenAI, batch: Batch, file: Literal["output", "error"]) -> Iterator[Result]:
        file_id = batch.output_file_id if file == "output" else batch.error_file_id
        if file_id is None:
            return
        text = self._until_answered(batch.id, lambda: sdk.files.content(file_id).text)
        for line in map(json.loads, text.splitlines()):
            yield Result(batch.id, line["custom_id"], file, _said(line))

    def _until_answered(self, name: str, call: Callable[[], Answer]) -> Answer:
        """The answer of a call, which is made again as long as servers are down. Raises: _Stopped."""
        while True:
            try:
                return call()
            except openai.APITimeoutError:
                self.complaints.append(f"{name}: no answer in {HUNG_S:.0f} s")
            except openai.APIConnectionError:
                pass
            except openai.APIStatusError as error:
                if error.status_code not in EXCUSED:
                    self.complaints.append(f"{name}: {error}")
            self._pause(PATIENCE_S / 4)

    def _pause(self, seconds: float) -> None:
        if self._stopping.wait(seconds):
            raise _Stopped


class _Stopped(Exception):
    """The run is over."""


def _said(line: dict[str, Any]) -> str:
    if line["error"] is not None:
        return str(line["error"]["code"])
    body = line["response"]["body"]
    if line["response"]["status_code"] != 200:
        return str(body["error"]["code"])
    return str(body["choices"][0]["message"]["content"])


_TABLES = """
    CREATE TEMPORARY TABLE wanted (batch_id uuid, custom_id text, belongs text, fingerprint text) ON COMMIT DROP;
    CREATE TEMPORARY TABLE results (batch_id uuid, custom_id text, file text, said text) ON COMMIT DROP;
    CREATE TEMPORARY TABLE told (batch_id uuid, total int, completed int, failed int) ON COMMIT DROP;
"""
#: By the name of a figure: each counts what must not be there.
NEVER = {
    # In no file, or not ended. A batch that never got an id has no file.
    "lines_lost": """
        SELECT (SELECT count(*) FROM wanted LEFT JOIN results USING (batch_id, custom_id) WHERE results.file IS NULL)
             + (SELECT count(*) FROM batch_lines WHERE state IN ('waiting', 'submitted'))
    """,
    # In more than one place, or with two jobs, two answers or two bills.
    "lines_twice": """
        SELECT (SELECT count(*) FROM (SELECT FROM results GROUP BY batch_id, custom_id HAVING count(*) > 1))
             + (SELECT count(*) FROM jobs WHERE notes->>'batches' IS NOT NULL
                    AND NOT EXISTS (SELECT FROM batch_lines WHERE batch_lines.job_id = jobs.id))
             + (SELECT count(*) FROM (SELECT FROM ledger l JOIN jobs j ON j.id = l.job_id
                                      WHERE l.kind <> 'waste' AND j.notes->>'batches' IS NOT NULL
                                      GROUP BY j.id HAVING count(*) > 1))
    """,
    # In the wrong file, with another line's answer, or unknown; and counts that are not those of the files.
    "lines_wrong": """
        SELECT (SELECT count(*) FROM results r LEFT JOIN wanted w USING (batch_id, custom_id)
                WHERE CASE WHEN r.file = 'output' THEN
                               coalesce(w.belongs = 'error' OR position(w.fingerprint in r.said) = 0, true)
                           ELSE w.belongs IS DISTINCT FROM 'error'
                               AND (w.belongs IS DISTINCT FROM 'either' OR r.said <> 'batch_cancelled') END)
             + (SELECT count(*) FROM told WHERE completed <> (
                   SELECT count(*) FROM results r WHERE r.batch_id = told.batch_id AND r.file = 'output'))
             + (SELECT count(*) FROM told WHERE failed <> (
                   SELECT count(*) FROM results r WHERE r.batch_id = told.batch_id AND r.file = 'error'))
    """,
    # Batches whose sum is not that of their lines' ledger.
    "batches_misbilled": """
        SELECT count(*) FROM batches b WHERE usd <> (
            SELECT coalesce(sum(l.usd), 0) FROM ledger l JOIN jobs j ON j.id = l.job_id
            WHERE j.notes->>'batches' = 'batch_' || replace(b.id::text, '-', '') AND l.kind <> 'waste')
    """,
}


def judge_lines(world: World, orders: Sequence[BatchOrder]) -> dict[str, Any]:
    """Every figure on lines, counted in SQL: each must be in one file, once, as Postgres has it."""
    results = [each for order in orders for each in order.results or ()]
    rows: dict[str, list[tuple[Any, ...]]] = {
        "wanted": [row for order in orders for row in _wanted(order)],
        "results": [(_uuid(each.batch_id), *each[1:]) for each in results],
        "told": [_told(order.ended) for order in orders if order.ended is not None],
    }
    figures: dict[str, Any] = {
        "batches": len(orders),
        "lines": len(rows["wanted"]),
        "lines_answered": sum(each.file == "output" for each in results),
    }
    with world.database() as db:
        db.execute(_TABLES)
        for table, values in rows.items():
            with db.cursor().copy(f"COPY {table} FROM STDIN".encode()) as copy:
                for row in values:
                    copy.write_row(row)
        for name, query in NEVER.items():
            [(figures[name],)] = db.execute(query.encode()).fetchall()
    return figures


def _wanted(order: BatchOrder) -> Iterator[tuple[Any, ...]]:
    batch_id = None if order.batch_id is None else _uuid(order.batch_id)
    for line in range(order.lines):
        belongs = "error" if is_refused(line) else "either" if order.is_called_off else "output"
        yield batch_id, order.custom_id(line), belongs, order.fingerprint(line)


def _told(batch: Batch) -> tuple[UUID, int, int, int]:
    counts = batch.request_counts
    assert counts is not None
    return _uuid(batch.id), counts.total, counts.completed, counts.failed


def _uuid(batch_id: str) -> UUID:
    return UUID(batch_id.removeprefix("batch_"))
