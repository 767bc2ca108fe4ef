"""The verdict of `benchmarks/soak.py` on the lines of batches: it must see each way in which one goes wrong."""

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import psycopg
import pytest
from openai.types import Batch, BatchRequestCounts

from headrace.config import PROJECT_ROOT
from headrace.domain.apps import App
from headrace.domain.ids import new_id, show_id
from plugins.batches.domain import BATCH_PREFIX, noted

LINES = 12


class World:
    """What the verdict asks of a world."""

    def __init__(self, url: str) -> None:
        self._url = url.replace("+psycopg", "")

    @contextmanager
    def database(self) -> Iterator[Any]:
        with psycopg.connect(self._url) as db:
            yield db


@pytest.fixture
def soaked(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module, as the script imports it."""
    monkeypatch.syspath_prepend(PROJECT_ROOT / "benchmarks")
    return importlib.import_module("bed.chaos.lines")


@pytest.fixture
def batch_id(app: App, query: Callable[..., Any]) -> UUID:
    """A batch in Postgres."""
    made = new_id()
    query(
        "INSERT INTO batches (id, app_id, endpoint, input_file_id, completion_window, overflow, expires_at)"
        " VALUES (:id, :app, '/v1/chat/completions', :id, '24h', 'never', now())",
        id=made,
        app=app.id,
    )
    return made


@pytest.fixture
def order(soaked: Any, batch_id: UUID) -> Any:
    """A batch that ended as it should."""
    shown = show_id(batch_id, BATCH_PREFIX)
    [made] = soaked.make_batches(LINES, 10.0, 1)
    made.batch_id = shown
    made.results = [
        soaked.Result(shown, made.custom_id(line), "error", "invalid_value")
        if soaked.is_refused(line)
        else soaked.Result(shown, made.custom_id(line), "output", f"It says {made.fingerprint(line)}.")
        for line in range(LINES)
    ]
    counts = BatchRequestCounts(total=LINES, completed=LINES - 1, failed=1)
    made.ended = Batch.model_construct(id=shown, request_counts=counts)
    return made


@pytest.fixture
def judge(soaked: Any, order: Any, database_url: str, app: App) -> Callable[[], dict[str, int]]:
    """What is wrong, by name."""

    def look() -> dict[str, int]:
        figures = soaked.judge_lines(World(database_url), [order])
        assert (figures["batches"], figures["lines"]) == (1, LINES)
        return {name: figures[name] for name in soaked.NEVER if figures[name]}

    return look


def test_lines_that_are_where_they_belong_are_no_fault(judge: Callable[[], dict[str, int]]) -> None:
    assert judge() == {}


def test_a_line_in_no_file_is_lost(judge: Callable[[], dict[str, int]], order: Any) -> None:
    del order.results[0]
    assert judge() == {"lines_lost": 1, "lines_wrong": 1}


def test_a_batch_that_never_ended_has_lost_its_lines(judge: Callable[[], dict[str, int]], order: Any) -> None:
    order.results = order.ended = order.batch_id = None
    assert judge() == {"lines_lost": LINES}


def test_a_line_that_still_waits_is_lost(
    judge: Callable[[], dict[str, int]], batch_id: UUID, query: Callable[..., Any]
) -> None:
    query(
        "INSERT INTO batch_lines (batch_id, number, custom_id, prefix, body) VALUES (:id, 1, 'line-0-0', '', '{}')",
        id=batch_id,
    )
    assert judge() == {"lines_lost": 1}


def test_a_line_in_both_files_is_there_twice(judge: Callable[[], dict[str, int]], order: Any) -> None:
    order.results.append(order.results[0]._replace(file="error", text="server_error"))
    assert judge() == {"lines_twice": 1, "lines_wrong": 2}


def test_a_line_with_a_job_beside_its_own_ran_twice(
    judge: Callable[[], dict[str, int]], batch_id: UUID, queued: Callable[..., Any]
) -> None:
    queued(notes=noted(batch_id))
    assert judge() == {"lines_twice": 1}


def test_another_lines_answer_is_wrong(judge: Callable[[], dict[str, int]], order: Any) -> None:
    order.results[0] = order.results[0]._replace(text=order.results[1].text)
    assert judge() == {"lines_wrong": 1}


def test_a_line_that_is_cancelled_belongs_into_a_batch_that_was_called_off(
    judge: Callable[[], dict[str, int]], order: Any
) -> None:
    order.results[0] = order.results[0]._replace(file="error", text="batch_cancelled")
    order.ended.request_counts.completed, order.ended.request_counts.failed = LINES - 2, 2
    assert judge() == {"lines_wrong": 1}
    order.is_called_off = True
    assert judge() == {}


def test_a_sum_that_is_not_that_of_the_ledger_is_a_wrong_bill(
    judge: Callable[[], dict[str, int]], batch_id: UUID, query: Callable[..., Any]
) -> None:
    query("UPDATE batches SET usd = 0.01 WHERE id = :id", id=batch_id)
    assert judge() == {"batches_misbilled": 1}
