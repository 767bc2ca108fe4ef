"""Which CPUs processes keep to: on CPUs that do not exist, and in processes of their own on those of this machine."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import get_native_id
from uuid import uuid4

import pytest

from headrace.cpus import CROWDED, IDLE, Names, OwnCpus

#: No machine has these, so that nothing moves the tests' own process.
CPUS = frozenset(range(5000, 5004))
PROGRAM = """
import json, os, subprocess, sys, threading
from headrace.cpus import Names, OwnCpus

def of_threads():
    return sorted({tuple(sorted(os.sched_getaffinity(int(each)))) for each in os.listdir("/proc/self/task")})

def of_a_child():
    ask = "import os; print(*sorted(os.sched_getaffinity(0)))"
    told = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True).stdout
    return list(map(int, told.split()))

stay = threading.Event()
threading.Thread(target=stay.wait, daemon=True).start()
cpus = OwnCpus(frozenset(os.sched_getaffinity(0)), "a", Names(sys.argv[1]))
cpus.is_on = sys.argv[2] == "on"
with cpus.for_engine(int(sys.argv[3])):
    engine = of_a_child()
cpus.keep_to_one()
threading.Thread(target=stay.wait, daemon=True).start()
with cpus.for_engine(int(sys.argv[3])):  # It has died, and starts again.
    threading.Thread(target=stay.wait, daemon=True).start()
told = {"engine": engine, "threads": of_threads(), "present": sorted(cpus.present), "child": of_a_child()}
with cpus.anywhere():
    told["anywhere"] = sorted(os.sched_getaffinity(0))
told["afterwards"] = of_threads()
print(json.dumps(told), flush=True)
sys.stdin.read()
"""

#: A thread that was started `anywhere` stays while the process moves.
MOVING = """
import json, os, sys, threading
from headrace.cpus import Names, OwnCpus

allowed = frozenset(os.sched_getaffinity(0))
cpus = OwnCpus(allowed, "a", Names(sys.argv[1]))
cpus.is_on = True
stay = threading.Event()
helper, other = (threading.Thread(target=stay.wait, daemon=True) for _ in range(2))
cpus.keep_to_one()
before = min(cpus.present)
with cpus.anywhere():
    helper.start()
other.start()
cpus.look({**dict.fromkeys(allowed, 0.0), before: 1.0}, own=0.0)
at = [sorted(os.sched_getaffinity(each.native_id)) for each in (helper, other)]
print(json.dumps({"before": before, "present": sorted(cpus.present), "helper": at[0], "other": at[1]}))
"""

#: An engine asks for three CPUs while two files can be opened. Then the process starts while none can.
FULL = """
import json, os, resource, sys
from headrace.cpus import Names, OwnCpus

all_ = range(5000, 5008)
names = Names(sys.argv[1])
cpus = OwnCpus(frozenset(all_), "a", names)
cpus.is_on = True
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
files = []
try:
    while True:
        files.append(os.dup(0))
except OSError:
    pass
os.close(files.pop())
os.close(files.pop())
with cpus.for_engine(3):
    pass
os.dup(0)
os.dup(0)
cpus.keep_to_one()
present = sorted(cpus.present)
for file in files:
    os.close(file)
print(json.dumps({"held": [cpu for cpu in all_ if names.is_held(f"engine-{cpu}")], "present": present}))
"""


@pytest.fixture
def process() -> Iterator[Callable[[], OwnCpus]]:
    """Makes processes of one host, each as its `OwnCpus`."""
    family, made = uuid4().hex, list[Names]()

    def make() -> OwnCpus:
        made.append(Names(family))
        cpus = OwnCpus(CPUS, "host", made[-1])
        cpus.is_on = True
        return cpus

    yield make
    for names in made:
        names.close()


def looking(cpus: OwnCpus) -> OwnCpus:
    cpus.look({}, 0)
    return cpus


def engine_of(cpus: OwnCpus) -> frozenset[int]:
    return cpus._of_engine


def test_each_process_has_a_cpu_of_its_own_while_there_are_enough(process: Callable[[], OwnCpus]) -> None:
    first = [looking(process()) for _ in CPUS]
    assert {cpu for each in first for cpu in each.present} == CPUS
    assert all(len(each.present) == 1 for each in first)


def test_a_process_without_a_cpu_of_its_own_uses_all_until_one_is_free(process: Callable[[], OwnCpus]) -> None:
    first = [looking(process()) for _ in CPUS]
    last = looking(process())
    assert last.present == CPUS
    first[2]._names.close()
    assert looking(last).present == first[2].present


def test_processes_leave_the_cpus_of_an_engine(process: Callable[[], OwnCpus]) -> None:
    others = [looking(process()) for _ in CPUS]
    worker = process()
    with worker.for_engine(2):
        pass
    assert len(engine_of(worker)) == 2
    for each in (*others, worker):
        assert not looking(each).present & engine_of(worker)


def test_an_engine_gets_all_its_cpus_or_none_and_leaves_one(process: Callable[[], OwnCpus]) -> None:
    first, second, third = process(), process(), process()
    with first.for_engine(2), second.for_engine(2), third.for_engine(1):
        pass
    assert [len(engine_of(each)) for each in (first, second, third)] == [2, 0, 1]
    assert not engine_of(first) & engine_of(third)


def test_an_engine_that_starts_again_has_the_same_cpus(process: Callable[[], OwnCpus]) -> None:
    worker = process()
    with worker.for_engine(2):
        pass
    before = engine_of(worker)
    with worker.for_engine(2):
        pass
    assert engine_of(worker) == before


def test_an_engine_on_gpus_takes_no_cpu(process: Callable[[], OwnCpus]) -> None:
    worker = process()
    with worker.for_engine(None):
        pass
    assert engine_of(worker) == frozenset()


def test_a_process_moves_from_a_crowded_cpu_to_an_idle_one(process: Callable[[], OwnCpus]) -> None:
    cpus = looking(process())
    [mine] = cpus.present
    other = min(CPUS - {mine})
    cpus.look({**dict.fromkeys(CPUS, 1.0), other: IDLE - 0.01}, own=1 - CROWDED - 0.01)
    assert cpus.present == {other}


def test_it_does_not_move_to_an_idle_cpu_that_another_keeps_to(process: Callable[[], OwnCpus]) -> None:
    """Both would wake up on it, and stay there while all CPUs are busy."""
    cpus, *others = (looking(process()) for _ in CPUS)
    [mine] = cpus.present
    cpus.look({**dict.fromkeys(CPUS, 0.0), mine: 1.0}, own=0.0)
    assert cpus.present == {mine}
    assert len({cpu for each in others for cpu in each.present}) == len(CPUS) - 1


@pytest.mark.parametrize(("others", "idle"), [(CROWDED - 0.01, 0.0), (CROWDED + 0.01, IDLE + 0.01)])
def test_it_stays_where_others_use_little_or_no_cpu_is_idle(
    others: float, idle: float, process: Callable[[], OwnCpus]
) -> None:
    cpus = looking(process())
    [mine] = cpus.present
    cpus.look({**dict.fromkeys(CPUS, idle), mine: 0.5 + others}, own=0.5)
    assert cpus.present == {mine}


def test_an_idle_cpu_of_an_engine_tempts_nobody(process: Callable[[], OwnCpus]) -> None:
    worker = process()
    with worker.for_engine(3):
        pass
    looking(worker)
    [mine] = worker.present
    worker.look({**dict.fromkeys(CPUS, 0.0), mine: 1.0}, own=0.0)
    assert worker.present == {mine}


def test_a_move_leaves_the_thread_that_starts_an_engine_on_the_engines_cpus(
    process: Callable[[], OwnCpus], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine inherits them, seconds after they were taken, and would share its worker's CPU."""
    others = [looking(process()) for _ in CPUS]
    worker = looking(process())
    assert len(others) == len(worker.present)
    at = dict[int, frozenset[int]]()
    monkeypatch.setattr("headrace.cpus._keep_thread", lambda thread, to: at.update({thread or get_native_id(): to}))
    with worker.for_engine(2):
        looking(worker)
        assert worker.present == CPUS - engine_of(worker)
        assert at[get_native_id()] == engine_of(worker)
    assert at[get_native_id()] == worker.present


def test_a_thread_that_ends_long_work_is_not_left_behind_by_a_move(
    process: Callable[[], OwnCpus], monkeypatch: pytest.MonkeyPatch
) -> None:
    cpus = looking(process())
    [before] = cpus.present
    at = dict[int, frozenset[int]]()
    monkeypatch.setattr("headrace.cpus._keep_thread", lambda thread, to: at.update({thread or get_native_id(): to}))
    present = OwnCpus.present.fget
    assert present is not None

    def moves_once_it_is_read(self: OwnCpus) -> frozenset[int]:
        read: frozenset[int] = present(self)
        if read == {before} and not self._lock.locked():
            self.look({**dict.fromkeys(CPUS, 0.0), before: 1.0}, own=0.0)
        return read

    with cpus.anywhere():
        monkeypatch.setattr(OwnCpus, "present", property(moves_once_it_is_read))
    assert at[get_native_id()] == present(cpus)


def test_the_log_says_where_the_kernel_lets_a_process_run(
    process: Callable[[], OwnCpus], caplog: pytest.LogCaptureFixture
) -> None:
    """It refuses CPUs that do not exist."""
    with caplog.at_level("INFO", "headrace.cpus"):
        looking(process())
    assert [record.__dict__["cpus"] for record in caplog.records] == [sorted(os.sched_getaffinity(0))]


def test_without_proc_nothing_keeps_to_a_cpu(
    process: Callable[[], OwnCpus], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.cpus._THREADS", tmp_path / "none")
    cpus = process()
    with cpus.for_engine(2):
        pass
    cpus.keep_to_one()
    assert cpus.present == CPUS


def test_a_process_with_too_many_open_files_starts_and_takes_nothing() -> None:
    family = uuid4().hex
    done = subprocess.run([sys.executable, "-c", FULL, family], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told == {"held": [], "present": list(range(5000, 5008))}


def test_a_move_takes_along_all_threads_but_those_that_were_started_to_run_anywhere() -> None:
    """Such as those of a tokenizer, which encode many texts at once."""
    allowed = sorted(os.sched_getaffinity(0))
    words = [sys.executable, "-c", MOVING, uuid4().hex]
    told = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    assert told["helper"] == allowed
    assert told["other"] == told["present"]
    assert len(told["present"]) == 1
    assert (told["present"] == [told["before"]]) == (len(allowed) == 1)


def started(family: str, is_on: bool, threads: int = 1) -> "subprocess.Popen[str]":
    words = [sys.executable, "-c", PROGRAM, family, "on" if is_on else "off", str(threads)]
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_all_threads_of_a_process_run_on_its_cpu_and_its_engine_beside_it() -> None:
    """On a machine with one CPU nothing changes, and the same holds."""
    allowed = sorted(os.sched_getaffinity(0))
    family = uuid4().hex
    with started(family, is_on=True) as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        names = Names(family)
        held = [cpu for cpu in allowed if names.is_held(f"engine-{cpu}")]
        process.communicate()
    assert told["threads"] == told["afterwards"] == [told["present"]]
    assert told["anywhere"] == [cpu for cpu in allowed if cpu not in held]
    if len(allowed) == 1:
        assert told["present"] == told["engine"] == allowed
        assert held == []
    else:
        assert len(told["present"]) == 1
        assert told["engine"] == held
        assert len(held) == 1
        assert held != told["present"]
    assert not any(names.is_held(f"engine-{cpu}") for cpu in allowed), "A name outlived its process."


def test_an_engine_without_cpus_of_its_own_may_use_all_and_its_worker_keeps_to_one() -> None:
    """Also the threads that the worker starts with its engine, the second time too."""
    allowed = sorted(os.sched_getaffinity(0))
    with started(uuid4().hex, is_on=True, threads=len(allowed)) as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        process.communicate()
    assert told["engine"] == allowed
    assert told["threads"] == told["afterwards"] == [told["present"]]
    assert len(told["present"]) == 1


def test_switched_off_nothing_keeps_to_a_cpu() -> None:
    allowed = sorted(os.sched_getaffinity(0))
    with started(uuid4().hex, is_on=False) as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        process.communicate()
    assert told["threads"] == [allowed]
    assert (told["present"], told["engine"], told["anywhere"]) == (allowed, allowed, allowed)
