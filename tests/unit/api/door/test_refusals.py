"""Refused demand is summed, and survives a store that is down."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest

from api.door.refusals import Refusals
from headrace.domain.fleet import RefusedDemand
from headrace.domain.ids import new_id
from headrace.errors import StoreUnavailable
from headrace.store import Store

APP = new_id()


class Written:
    """A Store, and what was added through it."""

    def __init__(self) -> None:
        self.is_down = False
        self.counts: list[dict[Any, Any]] = []

    @contextmanager
    def begin(self) -> Iterator[None]:
        if self.is_down:
            raise StoreUnavailable
        yield


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Written:
    written = Written()
    monkeypatch.setattr(
        "headrace.store.fleet.observations.add_refusals", lambda _, counts: written.counts.append(counts)
    )
    return written


def test_counts_are_summed_by_app_queue_and_reason(written: Written) -> None:
    refusals = Refusals(cast(Store, written), flush_every_s=3600)
    for tokens in (10, 5):
        refusals.count(APP, "chat.high", "queue_full", tokens, tokens // 5)
    refusals.count(APP, "chat.low", "queue_full", 1, 1)

    refusals.flush()
    refusals.close()

    assert written.counts == [
        {
            (APP, "chat.high", "queue_full"): RefusedDemand(2, 15, 3),
            (APP, "chat.low", "queue_full"): RefusedDemand(1, 1, 1),
        }
    ]


def test_nothing_is_forgotten_while_the_store_is_down(written: Written) -> None:
    refusals = Refusals(cast(Store, written), flush_every_s=3600)
    refusals.count(APP, "chat.high", "queue_full", 10, 4)
    written.is_down = True
    with pytest.raises(StoreUnavailable):
        refusals.flush()
    written.is_down = False
    refusals.count(APP, "chat.high", "queue_full", 1, 1)

    refusals.flush()
    refusals.close()

    assert written.counts == [{(APP, "chat.high", "queue_full"): RefusedDemand(2, 11, 5)}]
