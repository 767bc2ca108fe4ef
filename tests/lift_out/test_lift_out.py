"""A plugin is lifted out by deleting its folder and its line: the rest passes its checks, and its core's tests.

Each test works in a copy of the tree, so that what it deletes is gone for all that it starts.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from headrace.config import PROJECT_ROOT
from headrace.installed import plugins

NAMES = [plugin.name for plugin in plugins()]
#: The core's tests that run without any plugin: from a request to the ledger, its ends, and what repairs them.
SMOKE = (
    "tests/integration/api/test_delayed.py",
    "tests/integration/api/test_jobs.py",
    "tests/integration/api/test_streaming.py",
    "tests/integration/scheduler/test_rescue.py",
    "tests/integration/scheduler/test_spill.py",
    "tests/integration/workers/delivering/test_deliver.py",
    "tests/integration/workers/running/test_ends.py",
)
#: Imports each process, makes what the API says of itself, and names the plugins and the commands.
ROOTS = """
import api.asgi, ops.asgi, scheduler.app, scheduler.flower, workers.app, workers.delivering.deliver
import headrace.plugin_processes
from headrace.cli import main
from headrace.installed import plugins
print(*(each.name for each in plugins()), "|", *main.commands)
"""


#: The environment would find what the copy lacks in the checkout that it was installed from.
ALONE = """import sys

sys.meta_path[:] = [each for each in sys.meta_path if "editable" not in each.__module__]
"""


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Sequence[str]], Path]:
    """A copy of the tree without these plugins, and without those that need one of them."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=PROJECT_ROOT, capture_output=True, text=True, check=True
    )
    cache = PROJECT_ROOT / ".mypy_cache"

    def copy(names: Sequence[str]) -> Path:
        folder = tmp_path_factory.mktemp("tree")
        for name in filter(lambda each: (PROJECT_ROOT / each).is_file(), listed.stdout.splitlines()):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(PROJECT_ROOT / name, folder / name)
        if cache.is_dir():
            shutil.copytree(cache, folder / cache.name)
        lines = (folder / "plugins" / "__init__.py").read_text()
        gone = set(names)
        for plugin in plugins():
            if gone & {plugin.name, *plugin.needs}:
                gone.add(plugin.name)
                shutil.rmtree(folder / "plugins" / plugin.name)
                lines = re.sub(rf'^ *"{plugin.name}",\n', "", lines, flags=re.MULTILINE)
        (folder / "plugins" / "__init__.py").write_text(lines)
        (folder / "sitecustomize.py").write_text(ALONE)
        return folder

    return copy


def run(tree: Path, *command: str, **variables: str) -> str:
    """Run a program of the environment on this tree. Returns what it said."""
    folder = Path(sys.executable).parent
    env = {"PATH": f"{folder}:{os.defpath}", "PYTHONPATH": str(tree), "HOME": str(tree), **variables}
    done = subprocess.run([folder / command[0], *command[1:]], cwd=tree, env=env, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-5000:]}{done.stderr[-5000:]}"
    return done.stdout


@pytest.mark.parametrize("name", [*NAMES, "all"])
def test_the_rest_passes_its_static_checks_and_starts(name: str, without: Callable[[Sequence[str]], Path]) -> None:
    tree = without(NAMES if name == "all" else [name])
    run(tree, "ruff", "check", "--no-cache")
    run(tree, "lint-imports", "--no-cache")
    run(tree, "mypy")
    installed, _, commands = run(tree, "python", "-c", ROOTS).partition("|")
    assert not {name, *(NAMES if name == "all" else ())}.intersection(installed.split())
    here = [plugin for plugin in plugins() if plugin.name in installed.split()]
    ours = {command for plugin in here for command in plugin.commands if " " not in command}
    others = {command for plugin in plugins() for command in plugin.commands} - ours
    assert set(commands.split()) >= {"up", "submit", *ours}
    assert not others.intersection(commands.split())


def test_the_core_runs_alone(without: Callable[[Sequence[str]], Path]) -> None:
    said = run(without(NAMES), "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", *SMOKE)
    assert re.search(r"^\d+ passed", said, re.MULTILINE)


def test_a_line_without_its_folder_is_named(without: Callable[[Sequence[str]], Path]) -> None:
    tree = without(())
    shutil.rmtree(tree / "plugins" / NAMES[0])
    said = f"Error: plugins/__init__.py lists '{NAMES[0]}', and there is no plugins/{NAMES[0]}. Delete that line."
    with pytest.raises(AssertionError, match=rf"headrace queues\n *{re.escape(said)}\n"):
        run(tree, "python", "-m", "headrace", "queues")
