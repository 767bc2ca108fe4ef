"""`headrace hosts` on a real Postgres."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import Result

from headrace.domain.fleet import WorkerInfo
from headrace.domain.ids import new_id
from headrace.domain.queues import Ticket
from headrace.store import Store
from headrace.store.audit import this_user
from headrace.store.fleet import workers
from headrace.tables import decisions, hosts
from tests import one_attempt

Run = Callable[..., Result]
ACTIVE = {"HEADRACE_SCALING__MODE": "active", "HEADRACE_SCALING__ACTUATOR": "local"}


def ago(**units: float) -> sa.ColumnElement[Any]:
    return sa.func.now() - timedelta(**units)


@pytest.fixture
def add(store: Store) -> Callable[..., None]:
    """Writes the lease of a host that was ordered an hour ago; keyword arguments replace its columns."""

    def insert(host_id: str, **changes: Any) -> None:
        usual = {"pool": "chat", "requested_at": ago(hours=1), "ordered_at": ago(hours=1), "usd_per_hour": 4}
        with store.begin() as db:
            db.execute(sa.insert(hosts).values(**{"id": host_id, "ready_at": ago(minutes=50), **usual, **changes}))

    return insert


@pytest.fixture
def decided(store: Store) -> Callable[..., int]:
    """Writes a decision; returns its id."""

    def insert(reason: str) -> int:
        row = {"pool": "chat", "mode": "active", "hosts": 2, "target": 3, "reason": reason, "inputs": {}}
        with store.begin() as db:
            return int(db.scalar(sa.insert(decisions).values(**row).returning(decisions.c.id)) or 0)

    return insert


def columns(result: Result) -> list[list[str]]:
    """The words of each line below the heading."""
    return [line.split() for line in result.stdout.splitlines()[1:]]


def lease(store: Store, host_id: str) -> Any:
    with store.begin() as db:
        return db.execute(sa.select(hosts).where(hosts.c.id == host_id)).one()


def test_hosts_are_listed_with_their_work_their_cost_and_the_decision_behind_them(
    run: Run, add: Callable[..., None], decided: Callable[..., int], store: Store, queued: Callable[..., Ticket]
) -> None:
    up, down = decided("up: the load needs 3 hosts"), decided("down: 2 are enough")
    add("host-1", decision_id=up, provider_id="i-0abc")
    add("host-2", decision_id=up, drain_decision_id=down, drain_at=ago(minutes=3), end_reason="scaled_down")
    add("host-3", requested_at=ago(seconds=30), ordered_at=None, ready_at=None, usd_per_hour=None)
    worker = WorkerInfo(new_id(), "gpu@test", "i-0abc", "chat", "simulator", "test-model", 4)
    ticket = queued()
    with store.begin() as db:
        workers.register(db, worker, 60)
        one_attempt.claim(db, ticket.job_id, ticket.enqueue_no, worker.id, "simulator")

    assert columns(run("hosts")) == [
        ["host-1", "chat", "i-0abc", "ready", "50", "m", "1", "1", "4.00", "4.00", "ordered", str(up)],
        ["host-2", "chat", "-", "draining", "3", "m", "0", "0", "4.00", "4.00", "scaled_down", str(down)],
        ["host-3", "chat", "-", "requested", "30", "s", "0", "0", "-", "-", "ordered"],
    ]
    first, second, third = json.loads(run("hosts", "--json").stdout)
    assert (first["state"], first["running"], first["provider_id"]) == ("ready", 1, "i-0abc")
    assert float(first["usd"]) == pytest.approx(4, abs=0.01)
    assert (second["decision_id"], second["reason"]) == (down, "down: 2 are enough")
    assert (third["usd_per_hour"], third["usd"], third["reason"]) == (None, None, None)


def test_a_machine_of_several_pools_is_one_line_and_one_bill(run: Run, add: Callable[..., None], store: Store) -> None:
    add("desk", is_adopted=True)
    add(
        "host-2", provider_id="desk", pool="embed", is_adopted=True, ordered_at=ago(minutes=30), ready_at=ago(minutes=9)
    )
    add("host-3")

    assert columns(run("hosts")) == [
        ["desk", "chat,", "embed", "desk", "ready", "9", "m", "0", "0", "4.00", "4.00", "adopted"],
        ["host-3", "chat", "-", "ready", "50", "m", "0", "0", "4.00", "4.00", "ordered"],
    ]
    assert [each["id"] for each in json.loads(run("hosts", "--json").stdout)] == ["desk", "host-3", "host-2"]

    # The id of its first lease is the name of its machine, too.
    assert "name one of them, chat, embed" in run("hosts", "drain", "desk", "--yes").stderr
    assert run("hosts", "drain", "desk", "--pool", "embed", "--yes").stdout == "host-2 drains: 0 jobs still run on it\n"
    assert lease(store, "desk").drain_at is None
    assert columns(run("hosts"))[0][4:6] == ["ready,", "draining"]
    assert run("hosts", "resume", "desk", "--pool", "embed").stdout == "host-2 takes jobs again\n"


def test_ended_hosts_are_listed_when_asked_for_with_what_they_cost_in_all(run: Run, add: Callable[..., None]) -> None:
    assert "There are no hosts. The autoscaler is advisory" in run("hosts").stdout
    assert "Is 'control' running?" in run("hosts", **ACTIVE).stdout
    assert "there were none" in run("hosts", "--all").stdout

    add("host-1", drain_at=ago(minutes=40), ended_at=ago(minutes=30), end_reason="by_hand")
    add("host-2", pool="code")
    assert [words[0] for words in columns(run("hosts"))] == ["host-2"]
    assert columns(run("hosts", "--all", "--pool", "chat")) == [
        ["host-1", "chat", "ended", "30", "m", "0", "0", "4.00", "2.00", "by_hand"]
    ]
    assert "--limit N shows more" in run("hosts", "--all", "--limit", "1").stderr
    assert (
        "There is no pool 'nope' with hosts of its own: headrace.toml has chat" in run("hosts", "--pool", "nope").stderr
    )


@pytest.mark.parametrize("name", ["host-1", "i-0abc"])
def test_a_host_is_drained_by_hand_and_called_back(run: Run, add: Callable[..., None], store: Store, name: str) -> None:
    add("host-1", provider_id="i-0abc")
    drained = run("hosts", "drain", name, "--yes", **ACTIVE)
    assert (drained.stdout, drained.stderr) == ("host-1 drains: 0 jobs still run on it\n", "")
    row = lease(store, "host-1")
    assert (row.drain_at is not None, row.end_reason, row.drain_decision_id) == (True, "by_hand", None)
    assert "drains already, by hand" in run("hosts", "drain", name, "--yes").stdout
    assert lease(store, "host-1").drain_at == row.drain_at

    assert run("hosts", "resume", name).stdout == "host-1 takes jobs again\n"
    row = lease(store, "host-1")
    assert (row.drain_at, row.end_reason) == (None, None)
    assert "Host 'host-1' does not drain: it is ready." in run("hosts", "resume", name).stderr


def test_the_list_says_who_drained_a_host_and_who_called_it_back(run: Run, add: Callable[..., None]) -> None:
    add("host-1")
    add("host-2")
    who = this_user().name
    run("hosts", "drain", "host-1", "--yes")
    assert f"host-1: drained by {who} at " in run("hosts").stderr
    run("hosts", "resume", "host-1")
    assert f"host-1: called back by {who} at " in run("hosts").stderr
    first, second = json.loads(run("hosts", "--json").stdout)
    assert (first["by_hand"].startswith(f"called back by {who}"), second["by_hand"]) == (True, None)


def test_the_autoscaler_does_not_call_back_what_an_operator_drains_too(
    run: Run, add: Callable[..., None], decided: Callable[..., int], store: Store
) -> None:
    add("host-1", drain_at=ago(minutes=3), end_reason="scaled_down", drain_decision_id=decided("down"))
    assert "the autoscaler does not call it back any more" in run("hosts", "drain", "host-1", "--yes").stdout
    row = lease(store, "host-1")
    assert (row.end_reason, row.drain_decision_id) == ("by_hand", None)


def test_draining_asks_first_and_does_nothing_without_a_yes(run: Run, add: Callable[..., None], store: Store) -> None:
    add("host-1")
    asked = run("hosts", "drain", "host-1", **ACTIVE)
    assert asked.exit_code == 1
    assert "Host host-1 of pool 'chat' is ready and runs 0 jobs.\nDrain it? [y/N]" in asked.stderr
    assert lease(store, "host-1").drain_at is None


def test_it_says_which_machine_will_not_be_ended_for_the_operator(run: Run, add: Callable[..., None]) -> None:
    add("desk", is_adopted=True)
    add("host-1")
    assert "advisory and ends no machine" in run("hosts", "drain", "host-1", "--yes").stderr
    told = run("hosts", "drain", "desk", "--yes", **ACTIVE).stderr
    assert "The actuator 'local' does not know its machine" in told


def test_a_host_that_cannot_be_meant_is_named(run: Run, add: Callable[..., None]) -> None:
    assert "There is no host 'host-1'. 'headrace hosts' lists them." in run("hosts", "drain", "host-1").stderr
    add("host-018f2c", provider_id="i-0abc")
    assert "There is no host 'host-018f2d'. Did you mean 'host-018f2c'?" in run("hosts", "drain", "host-018f2d").stderr
    add("old", ended_at=ago(minutes=5), end_reason="gone")
    assert "Host 'old' ended at " in run("hosts", "resume", "old").stderr
    assert "(gone)." in run("hosts", "drain", "old", "--yes").stderr
    add("late", drain_at=ago(minutes=9), released_at=ago(minutes=1), end_reason="scaled_down")
    assert (
        "Host 'late' cannot be called back: its machine is being ended since " in run("hosts", "resume", "late").stderr
    )
    add("twin", provider_id="i-0abc", pool="code")
    assert "Host 'i-0abc' serves several pools: name one of them, chat, code." in run("hosts", "drain", "i-0abc").stderr
    assert "There is no host 'i-0abc' of pool 'embed'" in run("hosts", "drain", "i-0abc", "--pool", "embed").stderr
    # A name that an ended lease had before is that of the live one.
    add("again", provider_id="old")
    assert run("hosts", "drain", "old", "--yes").stdout == "again drains: 0 jobs still run on it\n"


def test_hosts_of_a_removed_pool_are_listed_with_what_becomes_of_them(run: Run, add: Callable[..., None]) -> None:
    add("host-1", pool="removed")
    add("host-2")

    advisory, active = run("hosts"), run("hosts", "--pool", "removed", **ACTIVE)

    assert [row[:2] for row in columns(active)] == [["host-1", "removed"]]
    for result, remedy in ((advisory, "end the machines yourself"), (active, "Its hosts drain and are ended")):
        said = " ".join(result.stderr.split())
        assert "headrace.toml has no pool 'removed' with hosts of its own" in said
        assert remedy in said
    assert run("hosts", "--pool", "chat").stderr == ""
