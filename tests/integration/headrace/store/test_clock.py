"""The time up to which every row can be read."""

from datetime import timedelta

import pytest

from headrace.store import Store, clock


def test_without_other_transactions_all_is_settled_up_to_now(store: Store) -> None:
    with store.begin() as db:
        assert clock.settled(db) == clock.now(db)


def test_nothing_is_settled_from_the_start_of_a_transaction_that_still_runs(store: Store) -> None:
    with store.begin() as first:
        began_at = clock.now(first)
        with store.begin() as second:
            assert clock.settled(second) == began_at - timedelta(microseconds=1)


def test_a_transaction_that_stays_open_holds_nothing_up(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "PATIENCE", timedelta(0))
    with store.begin() as first:
        clock.now(first)
        with store.begin() as second:
            assert clock.settled(second) == clock.now(second)
