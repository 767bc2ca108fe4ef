"""The way of one job through the product: the functions that a maintainer reads to follow it, and what they hand over.

The claim: few functions and few kinds of values accept a job. Real processes on real servers, a simulated engine. Knows
the system from outside, and its functions by what they note as they are called (`bed/path/`).
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID, uuid4

import click
from rich.table import Table

from bed.commits import tree_of
from bed.load import drive, request
from bed.neighbour.receivers import GoodReceiver
from bed.path import reading
from bed.testbed import Testbed, bearer, console, line_of, patched, rounds, wait_until
from headrace.config import PROJECT_ROOT

HERE = Path(__file__).parent
#: What `--before` adds to an earlier commit's files: this script, and what it stands on.
OWN = ("job_path.py", "bed/path", "bed/commits.py")
WITHOUT = ("ops", "overflow", "beat", "flower")
SETTINGS = {"HEADRACE_WEBHOOKS__ALLOW_PRIVATE": "true", "HEADRACE_SIMULATOR__OUTPUT_TOKENS": "8"}
#: The first job fills caches and does not count. An odd number counts.
JOBS = 6
DELIVERED = "SELECT id FROM deliveries WHERE job_id = %s AND state = 'delivered'"
LONGEST_S = 60.0
#: After a webhook was recorded: what its threads still do.
AFTER_S = 0.3
#: The stretches of the way, and the process of the Procfile that each is in.
STRETCHES = {"submit": "web", "run": "gpu", "webhook": "webhooks"}
COUNTS = ("files", "functions", "entered", "values", "handovers")
GOALS = {
    "submit_functions": 25,
    "submit_values": 12,
    "submit_files": 10,
    "run_functions": 35,
    "run_values": 15,
    "run_files": 10,
    "handovers": 6,
}

#: By stretch, what most jobs have in common.
Found = Mapping[str, reading.Path]


def follow() -> Found:
    """Submit jobs one after the other, each when the one before has been told of by its webhook."""
    with TemporaryDirectory(prefix="headrace-path-") as folder, GoodReceiver() as receiver:
        flag = Path(folder) / "on"
        paths = patched(HERE / "bed" / "path" / "traced")
        env = {
            **SETTINGS,
            "JOB_PATH_FLAG": str(flag),
            "PYTHONPATH": os.pathsep.join((paths["PYTHONPATH"], str(PROJECT_ROOT))),
        }
        console.print("the stack starts, and its functions note their calls", style="dim")
        with Testbed(env, WITHOUT) as bed:
            flag.touch()
            jobs = list(_jobs(bed, receiver))
            flag.unlink()
            notes = _notes(Path(folder), bed.stack.report.pids)
    found = {}
    for stretch, process in STRETCHES.items():
        # A submit ends with the 202; what the web process does later for the job is not part of it.
        times = [
            reading.Job(ids, began_at, answered_at if stretch == "submit" else ended_at)
            for ids, began_at, answered_at, ended_at in jobs
        ]
        _, *ways = reading.paths_of(notes.get(process, []), times)
        found[stretch] = reading.usual(ways)
    return found


def _jobs(bed: Testbed, receiver: GoodReceiver) -> Iterator[tuple[frozenset[str], float, float, float]]:
    """The ids of each job, and when it was sent, answered and over."""
    for no in rounds(JOBS, lambda no: f"job {no} of {JOBS}"):
        prompt_id, began_at = uuid4().hex, time.monotonic()
        body = {"prompt": f"Why is the sky blue? {prompt_id}", "max_tokens": 64, "webhook": receiver.url}
        submit = request("POST", "/v1/jobs", bearer(bed.api_key), json.dumps(body).encode())
        [answer] = drive([bed.url], iter([submit]), 1).answers
        answered_at = time.monotonic()
        if answer.status != 202:
            raise click.ClickException(f"The job was answered {answer.status}: {answer.body.decode()}")
        job_id = UUID(json.loads(answer.body)["id"].rpartition("_")[2])
        deliveries = wait_until(partial(bed.sql, DELIVERED, job_id), LONGEST_S, f"No webhook tells of job {no}.")
        time.sleep(AFTER_S)
        ids = frozenset({prompt_id, job_id.hex, *(row[0].hex for row in deliveries)})
        yield ids, began_at, answered_at, time.monotonic()


def _notes(folder: Path, pids: Mapping[str, int]) -> dict[str, list[reading.Note]]:
    """What the processes noted, by name. The HTTP server's worker is a child of the Procfile's process."""
    names, notes = {pid: name for name, pid in pids.items()}, dict[str, list[reading.Note]]()
    for path in folder.glob("*.jsonl"):
        pid = int(path.stem)
        parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        if name := names.get(pid) or names.get(parent):
            notes.setdefault(name, []).extend(json.loads(line) for line in path.read_text().splitlines())
    return {name: sorted(each, key=lambda note: note["at"]) for name, each in notes.items()}


def earlier(commit: str) -> dict[str, Any]:
    """The report of an earlier commit: this script, run among that commit's files."""
    with tree_of(commit) as root, TemporaryDirectory() as folder:
        for name in OWN:
            source, target = HERE / name, root / "benchmarks" / name
            (shutil.copytree if source.is_dir() else shutil.copyfile)(source, target)
        inherited = dict(os.environ)  # noqa: TID251 - it is handed on whole; nothing is read from it here.
        report = Path(folder) / "report.json"
        command = [sys.executable, str(root / "benchmarks" / "job_path.py"), "--json", str(report)]
        subprocess.run(command, cwd=root, env={**inherited, "PYTHONPATH": str(root)}, stdout=subprocess.DEVNULL)
        if not report.exists():
            raise click.ClickException(f"The jobs of {commit} were not followed.")
        read: dict[str, Any] = json.loads(report.read_text())
        return read


def figures_of(found: Found) -> dict[str, int]:
    """What the last line says."""
    return {f"{stretch}_{count}": len(getattr(path, count)) for stretch, path in found.items() for count in COUNTS}


def show(found: Found) -> None:
    """The way, function by function, with the values and the threads of each stretch."""
    table = Table("stretch", "file", "function", header_style="bold")
    for stretch, path in found.items():
        for function in path.functions:
            table.add_row(stretch, f"{function.file}:{function.line}", function.name)
        table.add_section()
    console.print(table)
    for stretch, path in found.items():
        console.print(f"{stretch}, values: {', '.join(sorted(path.values))}", markup=False)
        console.print(f"{stretch}, threads: {', '.join(map(' > '.join, sorted(path.handovers)))}", markup=False)


def compare(now: Mapping[str, int], before: Mapping[str, int]) -> None:
    """Both counts of each stretch."""
    table = Table("", "before", "now", header_style="bold")
    for name, value in now.items():
        table.add_row(name.replace("_", " "), str(before[name]), str(value))
    console.print(table)


@click.command()
@click.option("--before", "commit", metavar="COMMIT", help="Follow a job through an earlier commit too.")
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write the path.")
def main(commit: str | None, file: Path | None) -> None:
    """Follow jobs through a stack, one at a time, and count what a reader of the code meets on their way.

    Starts Postgres, Valkey and the Procfile's processes in a temporary folder. Each of six jobs has a webhook; the
    first one warms up, and what most of the others have in common counts. Stretches:

    \b
    submit    all that the web process does for the job until its 202 has come
    run       all that the worker does for it: take, claim, engine, end with its ledger row, notice
    webhook   all that the webhook worker does for it, from the outbox to the row that says it was delivered

    \b
    functions   of the product that hand the job on. One holds the job if a value that it gets, returns or yields holds
                the id of the job, of its prompt or of its webhook. It hands the job on if it calls, directly or through
                others, a function that holds the job too. One that only looks at the job does not count. A loop that
                was entered before the job came counts with what it calls
    files       of these functions
    entered     every function of the product that is entered for the job: all that hold it, all below these and all
                above
    values      what the functions that hand the job on get, return or yield, alone or as a member of a list, tuple or
                dict. Each class of the product counts once. So does each bare tuple or dict that is not empty, for each
                function that is the first to get or give it. What outlives the job (services, settings, constants, what
                is cached) does not count; nor do numbers, texts, ids and lists
    handovers   pairs of threads of which one goes on with the job when the other was the last that did; the threads of
                a pool are one

    With --before, this script runs among the files of that commit, in a temporary folder, with this environment's
    libraries.

    The last line is name=value pairs: submit_files, submit_functions, submit_entered, submit_values, submit_handovers,
    the same of run and webhook; handovers, of all three; with --before also those of the commit, as before_submit_files
    and so on. The status is 1 when a goal is missed: a submit takes 25 functions, 12 values and 10 files at most, a run
    35, 15 and 10, and all three 6 hand-overs.

    \b
    bin/headrace python benchmarks/job_path.py
    bin/headrace python benchmarks/job_path.py --before COMMIT
    """
    found = follow()
    show(found)
    figures = figures_of(found)
    figures["handovers"] = sum(figures[f"{stretch}_handovers"] for stretch in STRETCHES)
    if file is not None:
        ways = {
            name: {
                "functions": path.functions,
                "entered": path.entered,
                "values": sorted(path.values),
                "handovers": sorted(path.handovers),
            }
            for name, path in found.items()
        }
        file.write_text(json.dumps({"figures": figures, "paths": ways}, indent=2) + "\n")
    before = {} if commit is None else earlier(commit)["figures"]
    if before:
        compare(figures, before)
    print(line_of(figures | {f"before_{name}": value for name, value in before.items()}))
    missed = [f"{name}={figures[name]} (at most {most})" for name, most in GOALS.items() if figures[name] > most]
    if missed:
        console.print(f"missed: {', '.join(missed)}", style="red")
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
