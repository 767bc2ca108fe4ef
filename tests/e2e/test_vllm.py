"""The whole stack on the real engine: real answers, and no engine process that outlives its worker or the stack."""

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import Any

import httpx2
import pytest

from headrace.config import Settings
from headrace.stack.model import prepare

pytestmark = pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not available on this platform")

#: Two examples, so that the answer to the third does not hang on how a processor rounds.
CAPITALS = [
    {"role": "user", "content": "What is the capital of Spain?"},
    {"role": "assistant", "content": "Madrid"},
    {"role": "user", "content": "What is the capital of Greece?"},
    {"role": "assistant", "content": "Athens"},
    {"role": "user", "content": "What is the capital of France?"},
]
PROMPTS = ("Name three colours of the rainbow.", "What do plants need to grow?")
#: The engine's own process is gone this long after its worker was killed.
ENGINE_GONE_S = 10
ENGINE_UP_S = 180
BATCH = 20
#: Answers of an engine that is killed again and again come slowly, and the door would say that one waits too long.
MAX_WAIT_S = 3600
#: With so few tokens in one step, a longer prompt is computed in parts, and one with a seed then kills the
#: engine on a CPU: torch's CPU generator has no offset. A real poison, which Headrace's own settings keep away.
SMALL_STEPS = {"enable_chunked_prefill": True, "max_num_batched_tokens": 256}
POISON = {"prompt": "Tell me about the water wheel. " * 50, "seed": 1, "max_tokens": 8, "max_wait": MAX_WAIT_S}


@pytest.fixture(scope="module")
def started() -> list[Any]:
    """Every stack that `full` has made."""
    return []


@pytest.fixture
def full(start: Callable[..., Any], processes: Any, started: list[Any]) -> Any:
    """The real engine, with room for twenty jobs at once: after a test that killed the whole stack, another."""
    if not started or not processes.running([started[-1].stack.pid]):
        model = prepare(Settings.load(model=None, model_dir=None, engine="vllm"), print)
        system = start(
            engine="vllm",
            model_dir=str(model.folder),
            pools__chat__kv_cache_mib="256",
            pools__chat__max_model_tokens="1024",
            pools__chat__max_running=str(BATCH),
            pools__chat__engine_options=json.dumps(SMALL_STEPS),
        )
        started.append(system)
    return started[-1]


def engine_cores(processes: Any, worker: int) -> list[int]:
    """The pids of the engine's own processes under a worker."""
    return [pid for pid, command in processes.tree(worker).items() if "EngineCore" in command]


@contextmanager
def held(full: Any, processes: Any) -> Iterator[int]:
    """The engine's process, which computes nothing meanwhile: no answer ends before the last job runs."""
    # An engine that died in the test before has started again once it answers.
    full.ended(full.submit(prompt="Ready?", max_wait=MAX_WAIT_S, max_tokens=1), ENGINE_UP_S)
    [core] = engine_cores(processes, full.pid("gpu"))
    os.kill(core, signal.SIGSTOP)
    try:
        yield core
    finally:
        with suppress(ProcessLookupError):
            os.kill(core, signal.SIGCONT)


def test_jobs_of_a_killed_engine_core_come_back_and_succeed(
    full: Any, processes: Any, wait_until: Callable[..., None]
) -> None:
    worker = full.pid("gpu")
    with held(full, processes) as core:
        jobs = full.submit_many(BATCH, max_wait=MAX_WAIT_S, max_tokens=32)
        wait_until(lambda: full.count("running") == BATCH, "all run")
        os.kill(core, signal.SIGKILL)
        killed_at = time.monotonic()
    wait_until(lambda: full.count("running") == 0, "none runs")
    wait_until(lambda: full.count("running") > 0, "jobs run again", ENGINE_UP_S)
    recovered_s = time.monotonic() - killed_at
    ended = full.all_ended(jobs, ENGINE_UP_S)
    print(f"core killed under {BATCH} jobs: running again after {recovered_s:.1f} s")

    assert {(job["status"], job["attempts"]) for job in ended} == {("succeeded", 1)}
    assert full.paid(jobs) == [("compute", 1)] * BATCH
    assert full.pid("gpu") == worker


def cpus_of(pid: int) -> set[int]:
    """Where the threads of a process may run."""
    return {cpu for task in os.listdir(f"/proc/{pid}/task") for cpu in os.sched_getaffinity(int(task))}


def test_api_and_worker_keep_off_the_cpus_of_the_engine(full: Any, processes: Any) -> None:
    """On a machine with one CPU there is nothing to give out."""
    every, worker = os.sched_getaffinity(0), full.pid("gpu")
    [core] = engine_cores(processes, worker)
    [api] = [pid for pid in processes.tree(full.pid("web")) if pid != full.pid("web")]
    of_core, of_others = cpus_of(core), cpus_of(api) | cpus_of(worker)

    assert of_core == of_others == every if len(every) == 1 else of_core.isdisjoint(of_others)
    assert of_core | of_others <= every


def test_a_prompt_that_kills_the_engine_fails_and_its_neighbours_succeed(
    full: Any, processes: Any, wait_until: Callable[..., None]
) -> None:
    crashes_before = deaths(full)
    # All run when the poison joins them. Alone, it would kill the engine once only.
    with held(full, processes):
        neighbours = full.submit_many(BATCH - 1, max_wait=MAX_WAIT_S, max_tokens=128)
        wait_until(lambda: full.count("running") == BATCH - 1, "the neighbours run")
        poison = full.submit(**POISON)
        wait_until(lambda: full.count("running") == BATCH, "the poison runs with them")
    ended = full.all_ended([poison, *neighbours], ENGINE_UP_S)
    assert (ended[0]["status"], ended[0]["error"]["code"]) == ("failed", "engine_crash")
    assert {(job["status"], job["attempts"]) for job in ended[1:]} == {("succeeded", 1)}
    assert full.paid(neighbours) == [("compute", 1)] * (BATCH - 1)
    # The worker notices a death at its next renewal, which may come after the last job's end.
    wait_until(lambda: deaths(full) - crashes_before >= 2, "both deaths are noticed")
    assert deaths(full) - crashes_before == 2


def deaths(system: Any) -> int:
    """How often the engine has died."""
    return int((system.stack.state_dir / "logs" / "gpu.log").read_text().count("engine_dead"))


def test_a_worker_told_to_stop_finishes_what_runs_and_leaves_the_rest_in_the_queue(
    full: Any, processes: Any, wait_until: Callable[..., None]
) -> None:
    with held(full, processes):
        jobs = full.submit_many(BATCH, max_wait=MAX_WAIT_S, max_tokens=32)
        wait_until(lambda: full.count("running") == BATCH, "the engine is full")
        jobs += full.submit_many(BATCH, max_wait=MAX_WAIT_S, max_tokens=32)
        stopped, told_at = full.stack.kill("gpu", signal.SIGTERM), time.monotonic()
    full.restarted("gpu", stopped)
    print(f"told to stop with {BATCH} running and {BATCH} waiting: gone after {time.monotonic() - told_at:.1f} s")
    ended = full.all_ended(jobs, ENGINE_UP_S)

    assert {(job["status"], job["attempts"]) for job in ended} == {("succeeded", 1)}
    assert full.bills(jobs) == [("compute", 1)] * len(jobs), "nothing was computed twice"
    assert "gpu ended with status 0" in (full.stack.state_dir / "logs" / "up.log").read_text()


def test_real_answers_and_no_engine_is_left_behind(full: Any, processes: Any, wait_until: Callable[..., None]) -> None:
    asked = [{"prompt": None, "messages": CAPITALS}, *({"prompt": text} for text in PROMPTS)]
    answers = full.all_ended(
        [full.submit(**prompt, max_wait=MAX_WAIT_S, max_tokens=24, temperature=0) for prompt in asked]
    )
    assert {(job["status"], job["engine"]) for job in answers} == {("succeeded", "vllm")}
    assert answers[0]["text"] == "Paris"
    assert all(re.search(r"\w+ \w+ \w+", job["text"]) for job in answers[1:])

    served = httpx2.get(full.stack.report.metrics_urls["gpu"]).text
    assert re.search(r'^headrace_output_tokens_total\{pool="chat"\} [1-9]', served, re.MULTILINE)
    assert re.search(r"^vllm:generation_tokens_total\{.*\} [1-9]", served, re.MULTILINE)

    cores = engine_cores(processes, full.pid("gpu"))
    assert cores, "no engine process was found"
    lost = full.submit(prompt="Tell a long story.", max_wait=MAX_WAIT_S, max_tokens=100)
    wait_until(lambda: full.count("running") == 1, "a job runs")
    killed = full.stack.kill("gpu")
    wait_until(lambda: not processes.running(cores), "the engine has ended with its worker", ENGINE_GONE_S)
    job = full.ended(lost, ENGINE_UP_S)
    assert (job["status"], job["engine"], job["attempts"]) == ("succeeded", "vllm", 2)
    assert full.bills([lost]) == [("compute", 2), ("waste", 1)]
    assert full.pid("gpu") != killed

    tree = processes.tree(full.stack.pid)
    assert set(engine_cores(processes, full.pid("gpu"))) & set(tree)
    os.kill(full.stack.pid, signal.SIGKILL)
    wait_until(lambda: not processes.running(list(tree)), "nothing runs", ENGINE_GONE_S)
    logs = "".join(path.read_text() for path in (full.stack.state_dir / "logs").iterdir())
    assert not [text for text in PROMPTS if text in logs]
    assert CAPITALS[-1]["content"] not in logs
