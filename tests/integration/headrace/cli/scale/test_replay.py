"""`headrace scale replay`: a decision is computed again from its row."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import Result

from headrace.config import ScalingSettings
from headrace.domain.fleet import ScalingRecord
from headrace.domain.scaling import History, Moment, PoolHosts
from headrace.policies.scaling import VERSION, decide
from headrace.policies.scaling.replay import DecisionInputs, to_json
from headrace.store import Store
from headrace.store.fleet import decisions

Run = Callable[..., Result]
NOW = datetime(2026, 11, 27, 9, 30, 0, 123456, UTC)


@pytest.fixture
def decided(store: Store) -> int:
    """The id of a decision to add hosts."""
    moments = tuple(
        Moment(NOW - timedelta(seconds=5 * n), 5.0, 3, 1000 + n, 0, 0, 140, 9000, 16, 16) for n in range(150)
    )
    inputs = DecisionInputs(History(moments), PoolHosts(2), ScalingSettings(policy="reactive"), NOW)
    made = decide(inputs.history, inputs.hosts, inputs.policy, inputs.now)
    values: dict[str, Any] = {"action": made.action, "need": made.need, "spare_need": made.spare_need}
    values |= {"version": VERSION, "policy": "reactive"}
    with store.begin() as db:
        return decisions.add(
            db, ScalingRecord("chat", "active", 2, made.target, made.reason, to_json(inputs), **values)
        )


def test_a_decision_is_the_same_again(run: Run, decided: int) -> None:
    shown = run("scale", "replay", str(decided))
    assert shown.exit_code == 0, shown.output
    first, last = shown.stdout.splitlines()
    assert first.startswith(f"Decision {decided} of pool chat: reactive, up from 2 to 4: ")
    assert last == "Computed again, it is the same."
    assert json.loads(run("scale", "replay", str(decided), "--json").stdout)["is_same"]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ("target = 7", "  target: was 7, is now 4"),
        ("reason = 'no reason'", "  reason: was no reason, is now "),
        ("inputs = jsonb_set(inputs, '{policy,up_step}', '3')", "  target: was 4, is now 5"),
        ("version = 0", f"Version 0 of the policies made it; this is version {VERSION}."),
    ],
)
def test_a_row_that_its_inputs_do_not_explain_is_an_error(
    run: Run, decided: int, store: Store, change: str, line: str
) -> None:
    with store.begin() as db:
        db.execute(sa.text(f"UPDATE decisions SET {change}"))
    shown = run("scale", "replay", str(decided))
    assert shown.exit_code == 1
    assert line in shown.stdout


def test_inputs_of_another_shape_and_an_unknown_id_are_explained(run: Run, decided: int, store: Store) -> None:
    with store.begin() as db:
        db.execute(sa.text("UPDATE decisions SET inputs = inputs - 'now'"))
    shown = run("scale", "replay", str(decided))
    assert shown.exit_code == 1
    assert f"Decision {decided} cannot be computed again" in shown.output
    assert "No decision with id 999" in run("scale", "replay", "999").output
    assert run("scale", "replay", str(10**22)).exit_code == 2
