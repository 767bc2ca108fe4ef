"""Costs by the metadata that `[costs].label_keys` names: what the views show before and after a day is closed."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa

from headrace.config import CostSettings
from headrace.domain.apps import App
from headrace.domain.queues import Ticket
from headrace.store.money import cost_hours
from headrace.tables import ledger
from scheduler.deps import ControlDeps
from scheduler.money import close_days

DAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=3)

Charge = Callable[..., None]
Read = Callable[[str], dict[str | None, tuple[int, Decimal]]]


@pytest.fixture
def labelled(deps: ControlDeps) -> ControlDeps:
    """Costs are split by two keys, once the control process has looked."""
    costs = CostSettings(label_keys=("feature", "team"))
    made = replace(deps, settings=deps.settings.model_copy(update={"costs": costs}))
    close_days(made)
    return made


@pytest.fixture
def charge(deps: ControlDeps, app: App, queued: Callable[..., Ticket]) -> Charge:
    """Charges a job with this metadata, three days ago."""

    def write(metadata: Mapping[str, str], usd: str = "1", kind: str = "compute") -> None:
        job_id = queued(metadata=metadata).job_id
        usage = {"app_id": app.id, "pool": "chat", "model": "m", "prompt_tokens": 10, "output_tokens": 5}
        row = {**usage, "at": DAY + timedelta(hours=1), "kind": kind, "usd": Decimal(usd), "job_id": job_id}
        with deps.store.begin() as db:
            db.execute(sa.insert(ledger).values(row))

    return write


@pytest.fixture
def read(query: Callable[..., Any]) -> Read:
    """Requests and USD by the values of a key."""

    def look(key: str) -> dict[str | None, tuple[int, Decimal]]:
        rows = query("SELECT value, requests, usd FROM cost_per_label_day WHERE key = :key", key=key)
        assert len({row[0] for row in rows}) == len(rows)
        return {row[0]: tuple(row[1:]) for row in rows}

    return look


def test_each_key_splits_all_charges_of_an_app_also_once_its_day_is_closed(
    labelled: ControlDeps, charge: Charge, read: Read
) -> None:
    charge({"feature": "chat", "team": "a"})
    charge({"feature": "chat", "secret": "never shown"}, usd="2")
    charge({"feature": "search"}, usd="4", kind="api")
    charge({})
    charge({"feature": "search"}, usd="8", kind="waste")
    by_feature = {"chat": (2, 3), "search": (1, 4), None: (1, 1)}
    by_team = {"a": (1, 1), None: (3, 7)}
    assert (read("feature"), read("team"), read("secret")) == (by_feature, by_team, {})
    assert close_days(labelled) == 3
    assert (read("feature"), read("team"), read("secret")) == (by_feature, by_team, {})


def test_a_closed_day_keeps_its_sums_when_a_job_is_erased_or_the_keys_change(
    labelled: ControlDeps, deps: ControlDeps, charge: Charge, read: Read, query: Callable[..., Any]
) -> None:
    charge({"feature": "chat"})
    close_days(labelled)
    query("UPDATE jobs SET metadata = '{}', erased_at = now()")
    close_days(deps)
    assert read("feature") == {"chat": (1, 1)}
    assert query("SELECT labels FROM charges") == [(None,)]


def test_a_long_value_is_cut_and_rare_values_share_a_row(labelled: ControlDeps, charge: Charge, read: Read) -> None:
    for number in range(103):
        charge({"feature": f"{number:03}" + "x" * 100}, usd=str(1 + number))
    charge({})
    close_days(labelled)
    found = read("feature")
    assert found.pop(None) == (1, 1)
    # The three that cost least.
    assert found.pop("(other)") == (3, 1 + 2 + 3)
    assert set(found) == {f"{number:03}" + "x" * 61 for number in range(3, 103)}


def test_a_charge_and_a_request_have_their_labels(
    labelled: ControlDeps, charge: Charge, query: Callable[..., Any]
) -> None:
    charge({"feature": "chat", "team": "a", "other": "x"})
    labels = {"feature": "chat", "team": "a"}
    assert query("SELECT labels FROM charges") == query("SELECT labels FROM cost_per_request") == [(labels,)]


def test_without_keys_nothing_is_split(deps: ControlDeps, charge: Charge, read: Read) -> None:
    with deps.store.begin() as db:
        cost_hours.set_label_keys(db, ())
    charge({"feature": "chat"})
    close_days(deps)
    assert read("feature") == {}
