"""The signs of life of a process, as Postgres keeps them."""

import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa

from headrace.config import Settings
from headrace.domain.fleet import Life, ProcessInfo, ProcessKind
from headrace.domain.ids import new_id
from headrace.heartbeat import Heartbeat
from headrace.store import Store
from headrace.store.fleet import processes
from tests.waiting import until


def lives(store: Store) -> list[Life]:
    with store.begin() as db:
        return processes.lives(db)


def info(kind: ProcessKind = ProcessKind.WEB, name: str = "web@one") -> ProcessInfo:
    return ProcessInfo(new_id(), kind, name, "one", 7, "0.1.0", None, None)


@pytest.fixture
def heartbeat(store: Store, settings: Settings) -> Iterator[Heartbeat]:
    made = Heartbeat(ProcessKind.CONTROL, settings, node="control@one", problems=lambda: {"Rule": "It is late."})
    made.start()
    yield made
    made.stop()


def test_a_process_is_seen_with_what_it_says_of_itself_until_it_stops(
    store: Store, settings: Settings, heartbeat: Heartbeat
) -> None:
    until(lambda: bool(lives(store)), "its first sign comes")
    [seen] = lives(store)
    assert (seen.kind, seen.name, seen.host_id) == (ProcessKind.CONTROL, "control@one", settings.host_id)
    assert (seen.scaling_mode, seen.problems, seen.version) == (settings.scaling.mode, {"Rule": "It is late."}, "0.1.0")
    assert (seen.is_alive, seen.was_lost) == (True, False)
    heartbeat.stop()
    [stopped] = lives(store)
    assert (stopped.is_alive, stopped.was_lost, stopped.stopped_at is not None) == (False, False, True)


def test_the_signs_go_on_after_an_outage(
    store: Store, heartbeat: Heartbeat, query: Callable[..., list[tuple[object, ...]]]
) -> None:
    until(lambda: bool(lives(store)), "its first sign comes")
    # As if a fail-over had lost the row.
    query("DELETE FROM processes")
    until(lambda: bool(lives(store)), "the next sign makes it again")


def test_a_process_that_exits_says_so_and_a_killed_one_is_missed(
    store: Store, settings: Settings, query: Callable[..., list[tuple[object, ...]]]
) -> None:
    program = (
        "import os, sys\n"
        "from headrace.config import Settings\n"
        "from headrace.domain.fleet import ProcessKind\n"
        "from headrace.heartbeat import Heartbeat\n"
        "settings = Settings.load(database_url=sys.argv[1], redis_url=sys.argv[2], pepper='of-the-tests')\n"
        "beat = Heartbeat(ProcessKind.BEAT, settings, node=sys.argv[3])\n"
        "beat.beat(); beat.start()\n"
        "os._exit(9) if sys.argv[3] == 'killed' else sys.exit()\n"
    )
    for name in ("left", "killed"):
        command = [sys.executable, "-c", program, settings.database_url, settings.redis_url, name]
        assert subprocess.run(command, timeout=60).returncode == (9 if name == "killed" else 0)
    query("UPDATE processes SET seen_at = seen_at - interval '10 s'")
    assert {each.name: each.was_lost for each in lives(store)} == {"left": False, "killed": True}


def test_a_process_is_missed_after_some_seconds_without_a_sign(
    store: Store, query: Callable[..., list[tuple[object, ...]]]
) -> None:
    with store.begin() as db:
        processes.beat(db, info(), {})
        assert processes.silent_s(db, ProcessKind.BEAT) is None
    query("UPDATE processes SET seen_at = now() - :silent * interval '1 s'", silent=processes.GONE_S - 1)
    assert [each.is_alive for each in lives(store)] == [True]
    query("UPDATE processes SET seen_at = now() - :silent * interval '1 s'", silent=processes.GONE_S + 1)
    assert [each.was_lost for each in lives(store)] == [True]
    with store.begin() as db:
        silent_s = processes.silent_s(db, ProcessKind.WEB)
    assert silent_s is not None
    assert processes.GONE_S < silent_s < processes.GONE_S + 30


def test_old_lives_are_forgotten(store: Store, query: Callable[..., list[tuple[object, ...]]]) -> None:
    with store.begin() as db:
        for name in ("new", "old"):
            processes.beat(db, info(name=name), {})
        db.execute(sa.text("UPDATE processes SET seen_at = now() - interval '8 days' WHERE name = 'old'"))
        assert processes.forget_old(db, 7) == 1
    assert query("SELECT name FROM processes") == [("new",)]
