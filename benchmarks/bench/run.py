"""One claim's run: runs the script as a separate process, and records its output, commit and machine."""

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from os import killpg

from benchmarks.bench.claims import BenchClaim
from benchmarks.bench.figures import FIGURES, Figure, pairs_of
from benchmarks.bench.page import PAGE
from benchmarks.bench.repository import Repository, this_machine
from headrace.errors import ConfigError
from headrace.stack.child import launched

#: Seconds that a script has to end its servers after it is asked to stop. Then its process group is killed.
STOP_TIMEOUT_S = 60.0


def measure(repository: Repository, claim: BenchClaim, limit_s: float, say: Callable[[str], None]) -> Figure:
    """Run the claim's script to its end. Its standard error goes to the caller's.

    A failed script gives a figure too, with its status. A script that runs longer than `limit_s` is stopped and counts
    as failed. If the caller is interrupted, the script is stopped first.

    Raises: ConfigError: the script does not exist.
    """
    if not (repository.root / claim.script).is_file():
        raise ConfigError(f"{claim.name}: {claim.script} does not exist. Correct `run` in the registry.", param="run")
    commit, is_dirty = repository.commit(), repository.is_dirty(besides=(FIGURES, PAGE))
    date, began = datetime.now(UTC), time.monotonic()
    # A file, not a pipe, because a process that the script leaves behind would keep a pipe open.
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        process = subprocess.Popen(
            launched((sys.executable, claim.script, *claim.arguments), signal.SIGINT),
            cwd=repository.root,
            stdin=subprocess.DEVNULL,
            stdout=output,
            start_new_session=True,
        )
        status = _status(process, limit_s)
        if status is None:
            say(f"{claim.name} is stopped: it has run for {limit_s / 60:g} minutes.")
            # The claim has failed, even if the stopped script ends with status 0.
            status = _stop(process) or 1
        output.seek(0)
        printed = output.read()
    return Figure(
        command=claim.run,
        commit=commit,
        is_dirty=is_dirty,
        date=date.isoformat(timespec="seconds"),
        machine=this_machine(),
        status=status,
        seconds=round(time.monotonic() - began, 1),
        figures=pairs_of(printed),
    )


def _status(process: "subprocess.Popen[bytes]", limit_s: float) -> int | None:
    """Wait for the script's end; None when it still runs. If the caller is interrupted, stop the script first."""
    try:
        return process.wait(limit_s)
    except subprocess.TimeoutExpired:
        return None
    except BaseException:
        _stop(process)
        raise


def _stop(process: "subprocess.Popen[bytes]") -> int:
    """Stop the script as Ctrl-C does. Its servers end with it."""
    process.send_signal(signal.SIGINT)
    try:
        return process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            killpg(process.pid, signal.SIGKILL)
        return process.wait()
