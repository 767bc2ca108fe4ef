"""The whole stack on the real engine: real answers, and no engine process that outlives its worker or the stack."""

import os
import re
import signal
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
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


def engine_cores(processes: Any, worker: int) -> list[int]:
    """The pids of the engine's own processes under a worker."""
    return [pid for pid, command in processes.tree(worker).items() if "EngineCore" in command]


def test_real_answers_and_no_engine_is_left_behind(
    start: Callable[..., Any], processes: Any, wait_until: Callable[..., None], tmp_path: Path
) -> None:
    model = prepare(Settings.load(model=None, model_dir=None, engine="vllm"), print)
    system = start(
        engine="vllm",
        folder=tmp_path,
        model_dir=str(model.folder),
        pools__chat__kv_cache_mib="128",
        pools__chat__max_model_tokens="512",
        lease_s="3",
    )
    asked = [{"prompt": None, "messages": CAPITALS}, *({"prompt": text} for text in PROMPTS)]
    answers = system.all_ended([system.submit(**prompt, max_tokens=24, temperature=0) for prompt in asked])
    assert {(job["status"], job["engine"]) for job in answers} == {("succeeded", "vllm")}
    assert answers[0]["text"] == "Paris"
    assert all(re.search(r"\w+ \w+ \w+", job["text"]) for job in answers[1:])

    served = httpx2.get(system.stack.report.metrics_urls["gpu"]).text
    assert re.search(r'^headrace_output_tokens_total\{pool="chat"\} [1-9]', served, re.MULTILINE)
    assert re.search(r"^vllm:generation_tokens_total\{.*\} [1-9]", served, re.MULTILINE)

    cores = engine_cores(processes, system.pid("gpu"))
    assert cores, "no engine process was found"
    lost = system.submit(prompt="Tell a long story.", max_tokens=300)
    wait_until(lambda: system.count("running") == 1, "a job runs")
    killed = system.stack.kill("gpu")
    wait_until(lambda: not processes.running(cores), "the engine has ended with its worker", ENGINE_GONE_S)
    job = system.ended(lost, ENGINE_UP_S)
    assert (job["status"], job["engine"], job["attempts"]) == ("succeeded", "vllm", 2)
    assert system.bills([lost]) == [("compute", 2), ("waste", 1)]
    assert system.pid("gpu") != killed

    tree = processes.tree(system.stack.pid)
    assert set(engine_cores(processes, system.pid("gpu"))) & set(tree)
    os.kill(system.stack.pid, signal.SIGKILL)
    wait_until(lambda: not processes.running(list(tree)), "nothing runs", ENGINE_GONE_S)
    logs = "".join(path.read_text() for path in (tmp_path / "logs").iterdir())
    assert not [text for text in PROMPTS if text in logs]
    assert CAPITALS[-1]["content"] not in logs
