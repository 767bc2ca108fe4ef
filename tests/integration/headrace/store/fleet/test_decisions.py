"""Decisions as operators read them."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from headrace.store import Store
from headrace.store.fleet import decisions as decided
from headrace.tables import decisions, hosts

HOLD: dict[str, Any] = {"action": "hold", "hosts": 2, "target": 2}
UP: dict[str, Any] = {"action": "up", "hosts": 2, "target": 4}


def ago(**units: float) -> sa.ColumnElement[Any]:
    return sa.func.now() - timedelta(**units)


@pytest.fixture
def decide(store: Store) -> Callable[..., int]:
    """Writes a decision that was made this number of seconds ago; returns its id."""

    def insert(seconds: float, reason: str = "because", **columns: Any) -> int:
        usual = {"pool": "chat", "mode": "active", "reason": reason, "inputs": {"a": 1}, "at": ago(seconds=seconds)}
        with store.begin() as db:
            added = sa.insert(decisions).values(**{**usual, **columns}).returning(decisions.c.id)
            return int(db.execute(added).scalar_one())

    return insert


def test_the_newest_is_that_of_the_pool(store: Store, decide: Callable[..., int]) -> None:
    with store.begin() as db:
        assert decided.newest(db, "chat") is None
    decide(60, **HOLD)
    last = decide(30, "more load", **UP, applied_at=ago(seconds=20), tries=2, error="Busy.", policy="fixed")
    decide(10, **HOLD, pool="code")
    with store.begin() as db:
        found = decided.newest(db, "chat")
        assert found is not None
        assert (found.id, found.tries, found.error) == (last, 2, "Busy.")
        assert found.applied_at is not None
        assert found.applied_at - found.at == timedelta(seconds=10)
        assert found.record == decided.find(db, last)


def test_decisions_in_a_row_that_say_the_same_are_one(store: Store, decide: Callable[..., int]) -> None:
    held = [decide(400 - 30 * n, f"hold {n}", **HOLD) for n in range(3)]
    up = decide(300, "up", **UP, applied_at=ago(seconds=290), tries=1, error="Busy.")
    decide(295, **HOLD, pool="code")
    again = [decide(270 - 30 * n, "advice", **UP, mode="advisory", tries=n) for n in range(3)]
    last = decide(60, "enough", action="hold", hosts=4, target=4)
    old = decide(8 * 86_400, **HOLD)
    with store.begin() as db:
        found = decided.runs(db, "chat", 10)
        assert decided.runs(db, "chat", 2) == found[:2]
        assert decided.runs(db, "other", 2) == []
    assert [(run.id, run.first_id, run.count, run.reason) for run in found] == [
        (last, last, 1, "enough"),
        (again[-1], again[0], 3, "advice"),
        (up, up, 1, "up"),
        (held[-1], held[0], 3, "hold 2"),
    ]
    assert [(run.action, run.mode, run.hosts, run.target, run.tries, run.error) for run in found] == [
        ("hold", "active", 4, 4, 0, None),
        ("up", "advisory", 2, 4, 3, None),
        ("up", "active", 2, 4, 1, "Busy."),
        ("hold", "active", 2, 2, 0, None),
    ]
    assert (found[1].at - found[1].first_at).total_seconds() == pytest.approx(60, abs=5)
    assert [run.applied_at is not None for run in found] == [False, False, True, False]
    assert old not in [run.first_id for run in found]


def test_hosts_that_come_back_to_the_same_number_begin_a_new_run(store: Store, decide: Callable[..., int]) -> None:
    for seconds, columns in ((90, HOLD), (60, UP), (30, HOLD)):
        decide(seconds, **columns)
    with store.begin() as db:
        assert [(run.action, run.count) for run in decided.runs(db, "chat", 10)] == [
            ("hold", 1),
            ("up", 1),
            ("hold", 1),
        ]


@pytest.mark.parametrize(
    ("host", "is_failing"),
    [
        pytest.param({"ordered_at": None}, True, id="not accepted yet"),
        pytest.param({}, False, id="accepted since"),
        pytest.param({"ordered_at": None, "drain_at": ago(seconds=5)}, False, id="wanted no more"),
        pytest.param({"ordered_at": None, "ended_at": ago(seconds=5)}, False, id="over"),
        pytest.param({"drains": True, "released_at": ago(seconds=5)}, True, id="not ended yet"),
        pytest.param({"drains": True}, False, id="it finishes its jobs"),
        pytest.param({"ordered_at": None, "pool": "code"}, False, id="of another pool"),
    ],
)
def test_the_last_decision_that_a_provider_fails_to_carry_out_is_found(
    store: Store, decide: Callable[..., int], host: dict[str, Any], is_failing: bool
) -> None:
    failed = decide(90, **UP, tries=3, error="Denied.")
    for seconds in (60, 30):
        decide(seconds, **HOLD)
    drains = {"decision_id": None, "drain_decision_id": failed, "drain_at": ago(seconds=60)}
    usual = {"id": "host-1", "pool": "chat", "requested_at": ago(seconds=90), "ordered_at": ago(seconds=80)}
    changes = {**host}
    by = drains if changes.pop("drains", False) else {"decision_id": failed}
    with store.begin() as db:
        db.execute(sa.insert(hosts).values(**{**usual, **by, **changes}))
        found = decided.failing(db, "chat")
    assert (found is not None and found.id == failed and found.error == "Denied.") is is_failing
