"""A vLLM that is installed and cannot be imported: libraries that it needs are missing, for example."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from headrace.config import PROJECT_ROOT
from workers.engines.base import EngineStats
from workers.engines.vllm.load import LoadTally, Scratch

PROGRAM = """
from headrace.config import PoolSettings
from headrace.errors import ConfigError, EngineUnavailable
from headrace.policies.tokens import EstimatingTokenizer
from workers.engines.vllm.engine import VllmEngine

try:
    VllmEngine(PoolSettings(), EstimatingTokenizer()).start()
except (ConfigError, EngineUnavailable) as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        ("ImportError('no torch')", "ConfigError vLLM cannot be started with these settings: no torch\n"),
        ("OSError('libcudart.so.12: no such file')", "EngineUnavailable vLLM did not start: libcudart.so.12: no such"),
    ],
)
def test_it_did_not_start_as_the_engine_says_it(tmp_path: Path, failure: str, told: str) -> None:
    (tmp_path / "vllm.py").write_text(f"raise {failure}\n")
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(
        command, env={"PYTHONPATH": str(tmp_path)}, cwd=PROJECT_ROOT, capture_output=True, text=True, check=False
    )
    assert (done.stdout[: len(told)], done.stderr) == (told, "")


HOLDER = """
import sys, tempfile, threading
from workers.engines.vllm.load import Scratch
tempfile.tempdir = sys.argv[1]
scratch = Scratch()
scratch.open()
(scratch.path / "socket").touch()
print(scratch.path, flush=True)
threading.Event().wait()
"""


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="scratch-") as name:
        monkeypatch.setattr(tempfile, "tempdir", name)
        yield Path(name)


def test_close_leaves_nothing(root: Path) -> None:
    scratch = Scratch()
    scratch.open()
    scratch.open()
    assert scratch.path.parent == root
    (scratch.path / "socket").touch()
    scratch.close()
    scratch.close()
    assert list(root.iterdir()) == []


def test_a_dead_process_s_folder_is_swept_and_a_live_one_s_is_not(root: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        path = Path(holder.stdout.readline().strip())
        mine = Scratch()
        mine.open()
        assert path.is_dir()
        mine.close()
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    assert path.is_dir()
    mine.open()
    assert not path.exists()
    assert sorted(root.iterdir()) == sorted([mine.path, mine.path.with_name(f"{mine.path.name}.lock")])
    mine.close()


def test_a_folder_for_sockets_has_a_short_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("long" * 20)))
    assert len(str(Scratch().path)) <= 65


# What becomes of vLLM's reports after each step.


def scheduler(running: int, kv: float, waiting: int = 0, skipped: int = 0) -> Any:
    return SimpleNamespace(
        num_running_reqs=running, num_waiting_reqs=waiting, num_skipped_waiting_reqs=skipped, kv_cache_usage=kv
    )


def iteration(prompt: int = 0, made: int = 0, preempted: int = 0, first: tuple[float, ...] = ()) -> Any:
    return SimpleNamespace(
        num_prompt_tokens=prompt,
        num_generation_tokens=made,
        num_preempted_reqs=preempted,
        time_to_first_tokens_iter=list(first),
    )


def test_before_the_first_step_nothing_is_held_and_nothing_was_done() -> None:
    assert LoadTally().stats == EngineStats(kv_use=0.0)


def test_steps_add_up_and_the_last_one_says_what_holds_now() -> None:
    tally = LoadTally()
    tally.record(scheduler(2, 0.25, waiting=3, skipped=1), iteration(30, 2, first=(0.5, 0.25)))
    tally.record(scheduler(1, 0.5), iteration(made=2, preempted=1))
    assert tally.stats == EngineStats(
        running=1,
        waiting=0,
        kv_use=0.5,
        steps=2,
        kv_use_sum=0.75,
        running_sum=3,
        prompt_tokens=30,
        output_tokens=4,
        preemptions=1,
        first_tokens=2,
        first_token_s=0.75,
    )


def test_a_step_of_a_long_prompt_counts_though_it_gives_no_token() -> None:
    tally = LoadTally()
    tally.record(scheduler(1, 0.5), None)
    assert (tally.stats.steps, tally.stats.running_sum, tally.stats.kv_use_sum) == (1, 1, 0.5)


def test_the_step_in_which_a_core_tidies_up_is_none_and_says_that_it_is_empty() -> None:
    tally = LoadTally()
    tally.record(scheduler(1, 0.5), iteration(made=1))
    tally.record(scheduler(0, 0.0), None)
    assert tally.stats == EngineStats(0, 0, 0.0, steps=1, kv_use_sum=0.5, running_sum=1, output_tokens=1)


def test_tokens_without_a_schedule_are_no_step() -> None:
    tally = LoadTally()
    tally.record(None, iteration(made=1))
    assert tally.stats == EngineStats(kv_use=0.0, output_tokens=1)


def test_a_core_that_is_gone_holds_nothing_and_takes_no_total_with_it() -> None:
    tally = LoadTally()
    tally.record(scheduler(2, 0.25, waiting=3), iteration(30, 2, first=(0.5,)))
    before = tally.stats
    tally.emptied()
    after = tally.stats
    assert (after.running, after.waiting, after.kv_use) == (0, 0, 0.0)
    assert (after.steps, after.running_sum, after.prompt_tokens) == (before.steps, before.running_sum, 30)
