"""The import contracts in pyproject.toml: each is kept by the tree as it stands, and broken by one wrong import."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("api", "headrace", "ops", "plugins", "scheduler", "workers")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the packages and their contracts."""
    folder = tmp_path_factory.mktemp("tree")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def verdicts(tree: Path) -> dict[str, str]:
    """KEPT or BROKEN, by the contract's name."""
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--no-logo"]
    env = {"PATH": os.defpath, "PYTHONPATH": str(tree), "COLUMNS": "200"}
    done = subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True, check=False)
    found = dict(re.findall(r"^(.+) (KEPT|BROKEN)\b", done.stdout, re.MULTILINE))
    assert found, done.stdout + done.stderr
    return found


@pytest.mark.parametrize(
    ("contract", "module", "line"),
    [
        (
            "Plugins stand on processes, and those on the core alone",
            "headrace/startup.py",
            "import api.app",
        ),
        (
            "Plugins stand on processes, and those on the core alone",
            "api/auth.py",
            "import workers.engines",
        ),
        ("Plugins stand on processes, and those on the core alone", "ops/gate.py", "import api.deps"),
        (
            "Core: every layer is a folder, and imports run down this list",
            "headrace/store/locks.py",
            "import headrace.broker.rates",
        ),
        (
            "Core: every layer is a folder, and imports run down this list",
            "headrace/domain/jobs.py",
            "import headrace.config",
        ),
        (
            "Core: every layer is a folder, and imports run down this list",
            "headrace/errors.py",
            "import headrace.domain.limits",
        ),
        (
            "No circle among the folders and files of one folder",
            "workers/running/worker_state.py",
            "import workers.worker",
        ),
        ("Pure modules import no I/O library", "headrace/domain/apps.py", "import sqlalchemy"),
        ("Pure modules import no I/O library", "headrace/policies/lanes.py", "import redis"),
        ("Pure modules import no I/O library", "api/schemas/fields.py", "import headrace.store.locks"),
        ("Pure modules import no I/O library", "workers/taking/kv_ledger.py", "import headrace.broker.admission"),
        ("Use cases do not know Flask or Celery", "api/door/submit.py", "import flask"),
        ("Use cases do not know Flask or Celery", "scheduler/actuators/base.py", "import celery"),
        ("Use cases do not know Flask or Celery", "workers/running/execute.py", "import celery"),
        ("Each SDK is imported by its one adapter", "workers/engines/base.py", "import vllm"),
        ("Each SDK is imported by its one adapter", "workers/paid.py", "import openai"),
        ("Each SDK is imported by its one adapter", "scheduler/actuators/base.py", "import boto3"),
        ("Each SDK is imported by its one adapter", "scheduler/sweep.py", "import botocore"),
        ("Each SDK is imported by its one adapter", "scheduler/autoscale.py", "import kubernetes"),
        ("Actuators are independent of each other", "scheduler/actuators/command.py", "import scheduler.actuators.aws"),
        (
            "Adapters are independent of each other",
            "workers/engines/simulator/engine.py",
            "import workers.engines.vllm.core",
        ),
    ],
)
def test_a_wrong_import_breaks_its_contract(tree: Path, contract: str, module: str, line: str) -> None:
    file = tree / module
    before = file.read_text()
    file.write_text(f"{before}\n{line}\n")
    try:
        found = verdicts(tree)
    finally:
        file.write_text(before)
    assert found[contract] == "BROKEN"


def test_the_tree_keeps_every_contract(tree: Path) -> None:
    assert set(verdicts(tree).values()) == {"KEPT"}
