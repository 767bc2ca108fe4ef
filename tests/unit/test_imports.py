"""Nothing happens at import in the web process and the control processes: no connection, pipe, thread or set-up."""

import json
import subprocess
import sys

import pytest

#: Imports a module, and prints what that changed in the process. What the broker's modules open is not measured here.
PROGRAM = """
import importlib, json, logging, os, signal, sys, threading
import headrace.broker.messages
from flower import urls

def state():
    files = len(os.listdir("/proc/self/fd"))
    return files, sys.getswitchinterval(), len(urls.handlers), len(logging.root.handlers), threading.active_count()

before = state()
importlib.import_module(sys.argv[1])
print(json.dumps({"before": before, "after": state(), "wakeup_fd": signal.set_wakeup_fd(-1)}))
"""


@pytest.mark.parametrize("name", ["api.asgi", "ops.asgi", "scheduler.app", "scheduler.flower"])
def test_the_import_of_a_process_does_nothing(name: str) -> None:
    # A setting that cannot be used would end a process that reads it.
    env = {"HEADRACE_SWEEP_EVERY_S": "never", "PATH": ""}
    done = subprocess.run([sys.executable, "-c", PROGRAM, name], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["after"] == found["before"]
    assert found["wakeup_fd"] == -1


@pytest.mark.parametrize("name", ["api.asgi", "ops.asgi", "scheduler.app", "scheduler.flower"])
def test_a_process_has_nothing_but_its_app(name: str) -> None:
    program = f"import {name} as module; module.application"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert f"module '{name}' has no attribute 'application'" in done.stderr


@pytest.mark.parametrize(
    "name", ["api.asgi", "ops.asgi", "scheduler.app", "workers.app", "plugins.batches.running.runner"]
)
def test_no_process_imports_what_it_may_not_need(name: str) -> None:
    # The `openai` package takes half a second of processor time, Alembic a fifth.
    heavy = "{'alembic', 'boto3', 'kubernetes', 'numpy', 'openai', 'torch', 'vllm'}"
    program = f"import sys, {name}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
