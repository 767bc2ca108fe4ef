"""The oldest SDK that the project admits passes the same tests as the newest, which is installed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.config import PROJECT_ROOT

#: Where `bin/headrace install --dev` puts it, beside the environment's own packages.
FLOOR = Path(sys.prefix) / "sdk-floor"
TESTS = Path(__file__).parent / "sdk"


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=PROJECT_ROOT, capture_output=True, text=True, check=False)


def test_the_oldest_sdk_passes_the_same_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    [locked] = re.findall(
        r"^openai==(\S+)", (PROJECT_ROOT / "requirements" / "sdk-floor.txt").read_text(), re.MULTILINE
    )
    monkeypatch.setenv("PYTHONPATH", str(FLOOR), prepend=os.pathsep)
    found = python("-c", "import openai; print(openai.__version__)").stdout.strip()
    assert found == locked, f"{FLOOR} should hold openai {locked}: run bin/headrace install --dev"

    ran = python("-m", "pytest", "-q", "-p", "no:cacheprovider", str(TESTS))

    assert ran.returncode == 0, ran.stdout
