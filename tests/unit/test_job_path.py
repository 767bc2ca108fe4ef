"""What `benchmarks/job_path.py` counts: in a small product of its own, and in notes written by hand."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.bed.path.reading import Job, paths_of, usual
from benchmarks.bed.path.reading import Path as Way

ROOT = Path(__file__).resolve().parents[2]
TRACED = ROOT / "benchmarks" / "bed" / "path" / "traced"
ID, OTHER = "0" * 31 + "1", "0" * 31 + "2"

#: A service with a thread of its own, a value, and functions that are called for a job and for none.
PRODUCT = '''
"""Docstring."""
import threading
from dataclasses import dataclass
from queue import SimpleQueue

@dataclass(frozen=True)
class Spec:
    text: str

class Service:
    def __init__(self):
        self.jobs, self.inbox, self.outbox = {}, SimpleQueue(), SimpleQueue()
        threading.Thread(target=self.serve, name="server-1", daemon=True).start()

    def serve(self):
        while (spec := self.inbox.get()):
            self.outbox.put(self.place(spec))

    def place(self, spec):
        """Docstring."""
        self.jobs[spec.text] = kept(spec)
        return position(len(self.jobs)), {"depth": 1}

    def submit(self, text):
        self.inbox.put(Spec(text))
        place, _ = self.outbox.get()
        return place

def kept(spec):
    return spec

def position(number):
    return next(counted(number)), settled(number)

def counted(number):
    yield (number,)

settled = lambda number: number

def idle(service):
    return None

async def waits(value):
    return value
'''
RUN = """
import asyncio, sys, time
from pathlib import Path
from headrace.small import Service, idle, waits

service = Service()
service.submit("warm")
Path(sys.argv[1]).touch()
for text in sys.argv[2:]:
    print(time.monotonic())
    service.submit(text)
    idle(service)
    asyncio.run(waits(text))
print(time.monotonic())
"""


@pytest.fixture
def followed(tmp_path: Path) -> tuple[list[dict[str, Any]], list[Job]]:
    """The notes of a process that served two jobs, and the jobs."""
    product, flag = tmp_path / "headrace", tmp_path / "notes" / "on"
    product.mkdir()
    flag.parent.mkdir()
    (product / "__init__.py").touch()
    (product / "small.py").write_text(PRODUCT)
    env = {"PYTHONPATH": os.pathsep.join(map(str, (TRACED, tmp_path, ROOT))), "JOB_PATH_FLAG": str(flag)}
    command = [sys.executable, "-c", RUN, str(flag), ID, OTHER]
    ended = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")
    first, second, end = map(float, ended.stdout.split())
    [file] = flag.parent.glob("*.jsonl")
    notes = [json.loads(line) for line in file.read_text().splitlines()]
    return notes, [Job(frozenset({ID}), first, second), Job(frozenset({OTHER}), second, end)]


def test_entered_are_the_functions_that_hold_the_job_those_below_and_those_above(
    followed: tuple[list[dict[str, Any]], list[Job]],
) -> None:
    path = usual(paths_of(*followed))
    # `serve` was entered before the job came, and has it. `idle` knows of no job, though its argument holds them all.
    names = ["Service.submit", "Service.serve", "Service.place", "kept", "position", "counted", "<lambda>", "waits"]
    assert [function.name for function in path.entered] == names
    assert path.files == ["headrace/small.py"]


def test_a_function_hands_the_job_on_if_it_calls_one_that_holds_it_too(
    followed: tuple[list[dict[str, Any]], list[Job]],
) -> None:
    path = usual(paths_of(*followed))
    assert [function.name for function in path.functions] == ["Service.serve", "Service.place"]


def test_values_are_classes_and_bare_groups_by_their_function_without_what_stays(
    followed: tuple[list[dict[str, Any]], list[Job]],
) -> None:
    path = usual(paths_of(*followed))
    of = "of headrace/small.py Service.place"
    assert path.values == {"headrace.small.Spec", f"tuple {of}", f"dict {of}"}


def test_a_job_goes_to_another_thread_and_back(followed: tuple[list[dict[str, Any]], list[Job]]) -> None:
    path = usual(paths_of(*followed))
    assert path.handovers == {("MainThread", "server"), ("server", "MainThread")}


def note(call: int, at: float, **more: Any) -> dict[str, Any]:
    given = {"parent": None, "standing": [], "function": ["api/a.py", f"f{call}", call], "thread": "t", "values": []}
    return {"call": call, "at": at, **given, **more}


def test_what_a_process_does_for_few_jobs_falls_out() -> None:
    jobs = [Job(frozenset({ID}), 10 * no, 10 * no + 10) for no in range(3)]
    notes = [note(1, 1, values=[{"ids": [ID], "kinds": []}]), note(2, 2, parent=1)]
    notes += [note(3, at, values=[{"ids": [ID], "kinds": []}], function=["api/a.py", "f1", 1]) for at in (11, 21)]
    ways = paths_of(notes, jobs)
    assert [names(way) for way in ways] == [["f1", "f2"], ["f1"], ["f1"]]
    assert names(usual(ways)) == ["f1"]


def names(way: Way) -> list[str]:
    return [function.name for function in way.entered]


def test_an_object_that_serves_two_jobs_carries_neither() -> None:
    jobs = [Job(frozenset({ID}), 0, 10), Job(frozenset({OTHER}), 10, 20)]
    service = {"is": 7, "kinds": [["headrace.a.Service", 7]]}
    notes = [note(1, 1, values=[{**service, "ids": [ID]}]), note(2, 11, values=[{**service, "ids": [OTHER]}])]
    assert [path.entered for path in paths_of(notes, jobs)] == [(), ()]
