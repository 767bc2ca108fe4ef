"""Which processes of a machine count as hung: real processes and a real Postgres, and a clock that the test moves."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from uuid import UUID

import pytest
import sqlalchemy as sa

from headrace.config import Settings
from headrace.domain.fleet import ProcessInfo, ProcessKind
from headrace.domain.ids import new_id
from headrace.errors import StoreUnavailable
from headrace.stack import readiness
from headrace.stack.readiness import LOOK_LATE_S, SignsOfLife
from headrace.store import Store
from headrace.store.fleet import processes
from headrace.store.fleet.processes import BEAT_EVERY_S, GONE_S
from headrace.sweeper import Sweeper
from headrace.tables import processes as rows

HERE = "this-machine"
HUNG_AFTER_S = 20.0


class Machine:
    """Processes that do nothing, whose signs the test gives, and what watches them."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self.store, self.now = store, 1000.0
        self.signs = SignsOfLife(settings.model_copy(update={"hung_after_s": HUNG_AFTER_S}), lambda: self.now)
        # The test looks by itself.
        self.signs._sweeper = Sweeper([])
        self.children: dict[int, subprocess.Popen[bytes]] = {}
        self.lives: dict[int, UUID] = {}

    def start(self, host_id: str = HERE) -> int:
        """A process with a first sign of life. Returns: its pid."""
        child = subprocess.Popen(["/bin/sleep", "600"], start_new_session=True)
        self.children[child.pid], self.lives[child.pid] = child, new_id()
        about = (ProcessKind.GPU, f"gpu-{child.pid}", host_id, child.pid, "0.1.0", "chat", None)
        with self.store.begin() as db:
            processes.beat(db, ProcessInfo(self.lives[child.pid], *about), {})
        self.hung(child.pid)
        return child.pid

    def silence(self, *pids: int) -> None:
        """Age the last signs of these, and renew those of all others."""
        old = sa.func.now() - sa.text(f"interval '{GONE_S + 1} s'")
        for pid, life in self.lives.items():
            with self.store.begin() as db:
                seen_at = old if pid in pids else sa.func.now()
                db.execute(sa.update(rows).where(rows.c.id == life).values(seen_at=seen_at))

    def watch(self, seconds: float, *silent: int) -> None:
        """Look every two seconds for so long, while these are silent."""
        until = self.now + seconds
        while self.now < until:
            self.silence(*silent)
            self.now += BEAT_EVERY_S
            self.signs.look()

    def hung(self, pid: int) -> str | None:
        return self.signs.why_hung(HERE, pid)

    def end_reason(self, pid: int) -> str | None:
        with self.store.begin() as db:
            return db.scalar(sa.select(rows.c.end_reason).where(rows.c.id == self.lives[pid]))


@pytest.fixture
def machine(store: Store, settings: Settings) -> Iterator[Machine]:
    made = Machine(store, settings)
    yield made
    made.signs._store.close()
    for child in made.children.values():
        child.kill()
        child.wait()


def test_a_process_whose_signs_are_missed_while_others_arrive_hangs(machine: Machine) -> None:
    frozen, well = machine.start(), machine.start()
    machine.watch(HUNG_AFTER_S - GONE_S - BEAT_EVERY_S, frozen)
    assert machine.hung(frozen) is None
    machine.watch(3 * BEAT_EVERY_S, frozen)
    assert "while other processes gave theirs" in (machine.hung(frozen) or "")
    assert machine.hung(well) is None

    machine.watch(2 * BEAT_EVERY_S)
    assert machine.hung(frozen) is None, "it lives again"


def test_none_hangs_while_all_or_most_are_silent_as_on_a_slow_machine(machine: Machine) -> None:
    pids = [machine.start() for _ in range(4)]
    machine.watch(3 * HUNG_AFTER_S, *pids)
    machine.watch(3 * HUNG_AFTER_S, *pids[1:])
    assert list(map(machine.hung, pids)) == [None] * 4
    machine.watch(HUNG_AFTER_S - GONE_S - BEAT_EVERY_S, pids[0])
    assert machine.hung(pids[0]) is None, "its time began when the others were heard again"


def test_one_process_alone_is_not_judged(machine: Machine) -> None:
    only = machine.start()
    machine.watch(3 * HUNG_AFTER_S, only)
    assert machine.hung(only) is None


def outage(_db: object) -> None:
    raise StoreUnavailable("Postgres does not answer.")


def freeze_postgres(machine: Machine, monkeypatch: pytest.MonkeyPatch, silent: int) -> None:
    with monkeypatch.context() as frozen:
        frozen.setattr(readiness.processes, "lives", outage)
        machine.watch(2 * BEAT_EVERY_S, silent)


def pause(machine: Machine, _monkeypatch: pytest.MonkeyPatch, _silent: int) -> None:
    machine.now += LOOK_LATE_S + 1


@pytest.mark.parametrize("disturb", [freeze_postgres, pause])
def test_the_time_begins_anew_after_an_outage_of_postgres_and_after_a_pause_of_the_supervisor(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, disturb: Callable[..., None]
) -> None:
    silent, _ = machine.start(), machine.start()
    machine.watch(HUNG_AFTER_S - GONE_S, silent)
    disturb(machine, monkeypatch, silent)
    machine.watch(HUNG_AFTER_S - GONE_S - BEAT_EVERY_S, silent)
    assert machine.hung(silent) is None


def test_a_process_that_a_debugger_holds_does_not_hang(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    held, _ = machine.start(), machine.start()
    monkeypatch.setattr(readiness, "_is_traced", lambda pid: pid == held)
    machine.watch(3 * HUNG_AFTER_S, held)
    assert machine.hung(held) is None


def test_a_tracer_is_seen(machine: Machine) -> None:
    assert readiness._is_traced(machine.start()) is False


def test_rows_of_other_machines_and_of_dead_processes_judge_none(machine: Machine) -> None:
    mine, _ = machine.start(), machine.start()
    machine.watch(2 * BEAT_EVERY_S)
    with machine.store.begin() as db:
        same_pid = {rows.c.host_id: "another", rows.c.seen_at: sa.func.now() - sa.text("interval '1 min'")}
        about = ProcessInfo(new_id(), ProcessKind.GPU, "far", "another", mine, "0.1.0", "chat", None)
        processes.beat(db, about, {})
        db.execute(sa.update(rows).where(rows.c.id == about.id).values(same_pid))
    machine.watch(3 * HUNG_AFTER_S)
    assert machine.hung(mine) is None


def test_why_a_process_ended_is_noted_unless_it_said_that_it_stops(machine: Machine) -> None:
    killed, stopped = machine.start(), machine.start()
    machine.watch(BEAT_EVERY_S)
    with machine.store.begin() as db:
        processes.stop(db, machine.lives[stopped])
    for pid in (killed, stopped):
        os.kill(pid, signal.SIGKILL)
        machine.signs.note_end(HERE, pid, "It ended with signal 9.")
    machine.signs.look()
    assert (machine.end_reason(killed), machine.end_reason(stopped)) == ("It ended with signal 9.", None)
