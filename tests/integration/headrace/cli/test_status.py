"""`headrace status`: what is wrong, and which processes run."""

import json
import re
from collections.abc import Callable

import pytest
import sqlalchemy as sa
from click.testing import Result
from redis import Redis

from headrace.broker.admission import Admission
from headrace.config import Settings
from headrace.domain.apps import App, AppLimits
from headrace.domain.fleet import ProcessInfo, ProcessKind
from headrace.domain.ids import new_id
from headrace.domain.places import Ask
from headrace.domain.queues import Candidate
from headrace.store import Store
from headrace.store.fleet import processes
from headrace.tables import queue_samples
from tests import one_attempt

Run = Callable[..., Result]


@pytest.fixture
def status(run: Run, redis: Redis, settings: Settings) -> Run:
    """Runs the command on an empty Redis."""
    return lambda *arguments: run("status", *arguments, REDIS_URL=settings.redis_url)


def beat(store: Store, *kinds: ProcessKind) -> None:
    with store.begin() as db:
        for kind in kinds:
            processes.beat(db, ProcessInfo(new_id(), kind, f"{kind}@one", "one", 7, "0.1.0", None, None), {})


def test_a_well_system_has_nothing_wrong(status: Run, store: Store) -> None:
    beat(store, *ProcessKind)
    told = status()
    assert (told.exit_code, told.stdout.splitlines()[0]) == (0, "Nothing is wrong.")
    assert "beat@one" in told.stdout


def test_what_a_person_must_act_on_ends_with_a_status(status: Run, store: Store, query: Callable[..., object]) -> None:
    beat(store, *ProcessKind)
    query("UPDATE processes SET seen_at = now() - interval '30 s' WHERE kind = 'gpu'")
    told = status()
    assert (told.exit_code, "gpu@one has given no sign of life for 3" in told.stdout) == (1, True)
    found = json.loads(status("--json").stdout)
    assert [each["rule"] for each in found["problems"]] == ["HeadraceProcessDown"]
    states = {each["name"]: each["state"] for each in found["processes"]}
    assert (states["gpu@one"], states["web@one"]) == ("lost", "live")


def test_it_says_why_a_process_was_lost_that_is_back(status: Run, store: Store, query: Callable[..., object]) -> None:
    beat(store, ProcessKind.GPU)
    query("UPDATE processes SET seen_at = now() - interval '30 s', end_reason = 'It hung.'")
    beat(store, *ProcessKind)
    told = status()
    assert (told.exit_code, "gpu@one, lost: It hung." in told.stdout) == (0, True), told.stdout
    [gpu] = [each for each in json.loads(status("--json").stdout)["processes"] if each["kind"] == "gpu"]
    assert (gpu["state"], gpu["lost_last_hour"], gpu["last_end_reason"]) == ("live", 1, "It hung.")


def test_a_locked_table_hides_no_depth_and_the_command_names_who_holds_it(
    status: Run, run: Run, store: Store, admission: Admission, holder: Callable[[str], int]
) -> None:
    beat(store, *ProcessKind)
    admission.reserve(
        [Ask(new_id(), new_id(), 600, (Candidate("chat.normal", 500, 10**6, None, "test"),), AppLimits())]
    )
    pid = holder("LOCK TABLE jobs")
    told = status()
    assert told.exit_code == 1
    assert "'a-forgotten-psql' of" in told.stdout
    assert f"SELECT pg_terminate_backend({pid})" in told.stdout
    assert "Not available: oldest waits, since a table is locked." in told.stdout
    assert re.search(r"chat.normal +1 +-", told.stdout), told.stdout
    assert "web@one" in told.stdout
    other = run("jobs")
    assert (other.exit_code, "'headrace status' names a session that holds a lock" in other.stderr) == (1, True)


def test_a_paid_api_that_failed_its_last_five_jobs_is_named_also_where_the_command_has_no_key(
    status: Run, store: Store
) -> None:
    beat(store, *ProcessKind)
    row = {"depth": 0, "oldest_wait_s": 0, "arrivals": 0, "refused": 0, "started": 0, "running": 0, "slots": 8}
    with store.begin() as db:
        one_attempt.add_worker(db, "overflow", "openai")
        ends = {"ended": 5, "failed": 5, "hosts": 1, "at": sa.func.now()}
        db.execute(sa.insert(queue_samples).values(queue="overflow.normal", **row, **ends))
    [only] = json.loads(status("--json").stdout)["problems"]
    assert (only["rule"], only["severity"]) == ("HeadraceJobsFail", "act")
    assert only["text"] == "100% of the jobs of overflow failed in the last 15 minutes: 5 of 5."


def test_it_names_a_paused_receiver(status: Run, run: Run, store: Store, app: App) -> None:
    beat(store, *ProcessKind)
    run("deliveries", "pause", app.name, "hooks.example.com")
    told = status()
    assert (told.exit_code, "Webhooks of test to hooks.example.com are paused since" in told.stdout) == (0, True)


def test_without_redis_it_says_so(run: Run, store: Store) -> None:
    beat(store, *ProcessKind)
    told = run("status", REDIS_URL="redis://127.0.0.1:1/0")
    assert (told.exit_code, "Redis does not answer." in told.stdout) == (1, True)
