"""What the developer's own environment changes in the tests: nothing."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_variables_of_headrace_and_of_its_clients_change_no_test() -> None:
    test = "tests/unit/headrace/config/test_config.py::test_committed_file_is_valid"
    client = {"OPENAI_API_KEY": "hr-key", "OPENAI_BASE_URL": "nowhere", "HEADRACE_POOL": "no-such-pool"}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", test]
    env = {**os.environ, **client}  # noqa: TID251 - it is handed on whole, with more.

    ended = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=False)

    assert ended.returncode == 0, ended.stdout
