"""An idle ordered host ends itself once no control process was seen for long, and never below the pool's minimum."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headrace.config import ScalingSettings, Settings
from headrace.domain.fleet import WorkerInfo, WorkerReport
from headrace.domain.ids import new_id
from headrace.errors import LockHeld
from headrace.store import Store, locks
from headrace.store.fleet import decisions, hosts, workers
from workers.unattended import Unattended

LEASE_S = 60.0
#: What a control process that died half an hour ago has left.
SILENT = (
    "INSERT INTO decisions (at, pool, mode, hosts, target, reason, inputs)"
    " VALUES (now() - interval '31 minutes', 'chat', 'active', 3, 3, 'hold', '{}')"
)

Host = Callable[..., Unattended]


class Left:
    """Whether the process was told to end."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        self.times += 1


@pytest.fixture
def left() -> Left:
    return Left()


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """The operator's program, which notes the host that it ends. It fails while `refuse` exists."""
    program = tmp_path / "end-host"
    program.write_text(
        f"#!/bin/sh\n[ ! -e {tmp_path}/refuse ] || {{ echo no >&2; exit 3; }}\n"
        f'echo "$HEADRACE_HOST_ID $HEADRACE_POOL" >> {tmp_path}/ended\n'
    )
    program.chmod(0o755)
    return program


@pytest.fixture
def host(store: Store, settings: Settings, program: Path, left: Left, query: Any) -> Host:
    """Makes a host that was ordered an hour ago, with one ready worker; returns what looks after it."""

    def make(name: str, *, adopted: bool = False, pool: str = "chat", **unattended: Any) -> Unattended:
        changes = {"argv": (str(program),), "after_s": 1800, **unattended}
        scaling = ScalingSettings.model_validate(
            {"mode": "active", "actuator": "command", "min_hosts": 1, "unattended": changes}
        )
        query(
            "INSERT INTO hosts (id, pool, requested_at, ordered_at, ready_at, is_adopted) VALUES (:id, :pool,"
            " now() - interval '1 hour', now() - interval '1 hour', now() - interval '59 minutes', :adopted)",
            id=name if pool == "chat" else f"{name}-{pool}",
            pool=pool,
            adopted=adopted,
        )
        if pool != "chat":
            query("UPDATE hosts SET provider_id = :name WHERE pool = :pool", name=name, pool=pool)
        with store.begin() as db:
            info = WorkerInfo(new_id(), f"gpu@{name}.{pool}", name, pool, "simulator", "m", max_running=8)
            workers.register(db, info, LEASE_S)
        own = settings.model_copy(update={"scaling": scaling, "host_id": name})
        return Unattended(own, store, pool, left)

    return make


def states(query: Any) -> dict[str, str | None]:
    return dict(query("SELECT id, end_reason FROM hosts WHERE drain_at IS NOT NULL ORDER BY id"))


def hear(store: Store, query: Any) -> None:
    """The workers of draining hosts renew their leases, hear of it, and say so."""
    for _ in range(2):
        for (worker_id,) in query("SELECT id FROM workers"):
            with store.begin() as db:
                drains = workers.renew(db, worker_id, LEASE_S, WorkerReport(0, ready=True)).host_drains
                workers.renew(db, worker_id, LEASE_S, WorkerReport(0, ready=not drains, draining=drains))


def test_an_idle_host_drains_runs_the_operators_program_and_leaves(
    host: Host, store: Store, query: Any, left: Left, tmp_path: Path
) -> None:
    first, second = host("h-1"), host("h-2")
    query(SILENT)
    first.look()
    assert states(query) == {"h-1": "unattended"}
    assert first.unseen_s == pytest.approx(31 * 60, abs=30)
    assert left.times == 0, "its workers hear of it first"
    hear(store, query)
    first.look()
    assert (left.times, (tmp_path / "ended").read_text()) == (1, "h-1 chat\n")
    for _ in range(2):
        second.look()
    assert states(query) == {"h-1": "unattended"}, "never below min_hosts"


def test_a_program_that_fails_is_run_again(
    host: Host, store: Store, query: Any, left: Left, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, _ = host("h-1"), host("h-2")
    query(SILENT)
    (tmp_path / "refuse").touch()
    first.look()
    hear(store, query)
    first.look()
    assert left.times == 0
    assert caplog.records[-1].error == "status 3: no\n"  # type: ignore[attr-defined]
    (tmp_path / "refuse").unlink()
    first.look()
    assert left.times == 1


@pytest.mark.parametrize(
    "sign",
    [
        "INSERT INTO decisions (pool, mode, hosts, target, reason, inputs) VALUES ('chat', 'active', 2, 2, '', '{}')",
        "INSERT INTO host_actors (pool, holder, until) VALUES ('chat', gen_random_uuid(), now() + interval '9 s')",
        "INSERT INTO host_actors (pool, holder, until) VALUES ('chat', gen_random_uuid(), now() - interval '9 s')",
        "INSERT INTO queue_samples (queue, at, depth, oldest_wait_s, arrivals, refused, started, running, slots, hosts)"
        " VALUES ('chat.normal', now(), 0, 0, 0, 0, 0, 0, 0, 2)",
    ],
    ids=["decision", "claim", "past claim", "sample"],
)
def test_any_sign_of_control_keeps_the_host(host: Host, query: Any, sign: str) -> None:
    first, _ = host("h-1"), host("h-2")
    query(SILENT)
    query(sign)
    first.look()
    assert states(query) == {}
    assert first.unseen_s == pytest.approx(0, abs=60)


@pytest.mark.parametrize(
    "use",
    [
        "INSERT INTO ledger (job_id, kind, pool, host_id, usd, at)"
        " VALUES (:job_id, 'compute', 'chat', 'h-1', 0, now() - interval '29 minutes')",
        "UPDATE hosts SET ready_at = now() - interval '29 minutes' WHERE id = 'h-1' AND :job_id IS NOT NULL",
    ],
    ids=["an attempt ended", "it became ready"],
)
def test_a_host_that_was_used_lately_stays(host: Host, query: Any, use: str) -> None:
    first, _ = host("h-1"), host("h-2")
    query(SILENT)
    query(use, job_id=new_id())
    first.look()
    assert states(query) == {}


def test_a_host_that_runs_a_job_stays(host: Host, store: Store, query: Any, queued: Any) -> None:
    first, _ = host("h-1"), host("h-2")
    query(SILENT)
    ticket = queued()
    [(worker_id,)] = query("SELECT id FROM workers WHERE host_id = 'h-1'")
    query(
        "UPDATE jobs SET state = 'running', worker_id = :worker_id, started_at = now(), attempt = 1 WHERE id = :id",
        worker_id=worker_id,
        id=ticket.job_id,
    )
    first.look()
    assert states(query) == {}


@pytest.mark.parametrize(
    "options", [{"adopted": True}, {"argv": ()}, {"after_s": 3600}], ids=["adopted", "without a program", "too early"]
)
def test_other_hosts_stay(host: Host, query: Any, options: dict[str, Any]) -> None:
    first, _ = host("h-1", **options), host("h-2")
    query(SILENT)
    first.look()
    assert states(query) == {}


def test_without_any_sign_ever_nothing_is_concluded(host: Host, query: Any) -> None:
    first, _ = host("h-1"), host("h-2")
    first.look()
    assert (states(query), first.unseen_s) == ({}, None)


def test_no_two_hosts_leave_at_once(host: Host, store: Store, query: Any) -> None:
    first, _ = host("h-1"), host("h-2")
    query(SILENT)
    with store.begin() as db:
        locks.take(db, "leave.chat")
    with store.begin() as db:
        locks.take(db, "leave.chat")
        with pytest.raises(LockHeld):
            first.look()
    assert states(query) == {}


def test_a_machine_whose_other_pool_serves_is_not_ended(host: Host, store: Store, query: Any, left: Left) -> None:
    first, _ = host("h-1"), host("h-2")
    host("h-1", pool="small")
    query(SILENT)
    first.look()
    hear(store, query)
    first.look()
    assert (states(query), left.times) == ({"h-1": "unattended"}, 0)
    query("UPDATE workers SET ready = false WHERE pool = 'small'")
    first.look()
    assert left.times == 1


def test_the_lease_of_a_host_that_ended_itself_ends_with_its_workers(host: Host, store: Store, query: Any) -> None:
    first, _ = host("h-1"), host("h-2")
    query(SILENT)
    first.look()
    query("UPDATE hosts SET drain_at = now() - interval '20 minutes' WHERE id = 'h-1'")
    query("UPDATE workers SET lease_until = now() - interval '15 minutes' WHERE host_id = 'h-1'")
    with store.begin() as db:
        assert hosts.end(db, ["h-1"], hosts.HostEnd.GONE) == ["h-1"]
    [(age, reason)] = query("SELECT extract(epoch FROM now() - ended_at)::float, end_reason FROM hosts WHERE id='h-1'")
    assert (age, reason) == (pytest.approx(900, abs=30), "unattended")


def test_operators_are_told_since_when_no_control_process_was_seen(
    store: Store, settings: Settings, query: Any
) -> None:
    def notice() -> str | None:
        with store.begin() as db:
            return decisions.silence_notice(db, settings)

    assert "No control process was seen yet" in (notice() or "")
    query("DELETE FROM decisions")
    query(SILENT)
    [(at,)] = query("SELECT at FROM decisions")
    assert f"No control process was seen since {at:%Y-%m-%dT%H:%M:%SZ}" in (notice() or "")
    query("UPDATE decisions SET at = now() - interval '80 s'")
    assert notice() is None
