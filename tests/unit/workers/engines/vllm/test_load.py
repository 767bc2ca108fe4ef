"""A vLLM that is installed and cannot be imported: libraries that it needs are missing, for example."""

import subprocess
import sys
from pathlib import Path

import pytest

from headrace.config import PROJECT_ROOT

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
