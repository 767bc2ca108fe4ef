"""A worker that is killed leaves no engine behind."""

import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from workers.engines.vllm.load import Scratch

pytestmark = pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not available on this platform")

WORKER = """
import sys, threading
from pathlib import Path
from headrace.config import PoolSettings, Settings
from workers.engines.vllm.engine import build

if __name__ == "__main__":
    pool = PoolSettings(model="tests/tiny-llama", model_dir=Path(sys.argv[1]), kv_cache_mib=64, max_model_tokens=1024)
    engine = build(Settings(), pool)
    engine.start()
    print(f"started {engine._scratch.path}", flush=True)
    threading.Event().wait()
"""


def test_no_engine_process_and_no_file_outlive_a_worker_that_is_killed(tiny_llama: Path, tmp_path: Path) -> None:
    import psutil  # Comes with vLLM.

    def has_ended(process: psutil.Process) -> bool:
        try:
            # It stays listed where the process that inherited it collects no child.
            return bool(process.status() == psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return True

    program = tmp_path / "worker.py"
    program.write_text(WORKER)
    with (
        (tmp_path / "log").open("w+") as log,
        subprocess.Popen(
            [sys.executable, program, tiny_llama], stdout=subprocess.PIPE, stderr=log, text=True
        ) as worker,
    ):
        assert worker.stdout is not None
        started = next((line for line in worker.stdout if line.startswith("started ")), None)
        assert started, (tmp_path / "log").read_text()
        scratch = Path(started.split()[1])
        children = psutil.Process(worker.pid).children(recursive=True)
        assert children
        assert scratch.is_dir()
        worker.kill()
        deadline = time.monotonic() + 20
        while not all(has_ended(process) for process in children):
            assert time.monotonic() < deadline
            threading.Event().wait(0.02)
    other = Scratch()
    other.open()
    other.close()
    assert not scratch.exists()
