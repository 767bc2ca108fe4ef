"""vLLM's own OpenAI-compatible server, which `vllm serve` runs, on the engine arguments of Headrace's worker.

By its module and not by that command, which does not start where vLLM is its build for the CPU. It keeps to the CPUs
that `headrace up` gives a worker of the same engine.
"""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from headrace.config import PROJECT_ROOT, PoolSettings
from headrace.policies.cpus import CpuPlace, give_out
from headrace.stack import readiness
from headrace.stack.child import Child, Command
from headrace.stack.machine import ENGINE_CPUS
from headrace.stack.ports import LOOPBACK, free_port
from workers.engines.vllm.settings import arguments, environment

START_TIMEOUT_S = 600.0
MODULE = "vllm.entrypoints.openai.api_server"
#: Seconds that it keeps a connection open on which nothing is asked: a client comes back when others have answered.
KEEP_ALIVE_S = 600


@contextmanager
def vllm_server(pool: PoolSettings) -> Iterator[str]:
    """The server with this pool's model loaded; its address. It logs no requests. Raises: StackError."""
    port = free_port()
    with TemporaryDirectory(prefix="headrace-vllm-") as folder, environment(pool, Path(folder)):
        argv = (sys.executable, "-m", MODULE, "--host", LOOPBACK, "--port", str(port), "--disable-uvicorn-access-log")
        inherited = dict(os.environ)  # noqa: TID251 - it is handed on whole; nothing is read from it here.
        engines = {"vllm": inherited.get(ENGINE_CPUS) == "nobind"}
        place = give_out(sorted(os.sched_getaffinity(0)), ("vllm",), engines).get("vllm", CpuPlace())
        env = {**inherited, "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": str(KEEP_ALIVE_S)}
        if place.of_engine:
            threads = {"OMP_NUM_THREADS": str(len(place.of_engine))}
            env |= threads | {ENGINE_CPUS: ",".join(map(str, place.of_engine))}
        command = Command("vllm", (*argv, *flags_of(arguments(pool))), env, PROJECT_ROOT, cpus=place.cpus)
        child = Child(command, Path(folder) / "vllm.log")
        try:
            child.wait_until(lambda: readiness.answers(port, "/health"), START_TIMEOUT_S)
            yield f"http://{LOOPBACK}:{port}"
        finally:
            child.stop()


def flags_of(arguments: Mapping[str, Any]) -> list[str]:
    """Engine arguments as the server's command line has them."""
    flags: list[str] = []
    for name, value in arguments.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            flags.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            flags += [f"--{flag}", json.dumps(value) if isinstance(value, dict) else str(value)]
    return flags
