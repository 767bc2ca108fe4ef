"""`headrace.__main__`: what Ctrl-C does while the command line is imported, and after."""

import signal
import subprocess
import sys

import pytest

#: Starts the command line with a stand-in for it, which is interrupted while it or a command is imported, or runs.
START = """
import importlib.machinery, os, signal, sys, types
from headrace import __main__ as start

class LazyGroup:
    pass

def main(**_):
    with main.importing():
        interrupt("import of a command")
    try:
        interrupt("run")
    except KeyboardInterrupt:
        print("the command hears of it")

def interrupt(moment):
    if moment == {moment!r}:
        os.kill(os.getpid(), signal.SIGINT)

class Importer:
    def find_spec(self, name, path=None, target=None):
        if name == "headrace.cli":
            interrupt("import")
            return importlib.machinery.ModuleSpec(name, self)

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        module.main, module.LazyGroup = main, LazyGroup

signal.signal(signal.SIGINT, {handler})
sys.meta_path.insert(0, Importer())
start.main()
print("whole")
"""


def started(moment: str, handler: str = "signal.default_int_handler") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", START.format(moment=moment, handler=handler)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("moment", ["import", "import of a command"])
def test_ctrl_c_while_it_is_imported_ends_it_without_a_traceback(moment: str) -> None:
    done = started(moment)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_the_command_itself_hears_ctrl_c() -> None:
    done = started("run")
    assert (done.returncode, done.stdout, done.stderr) == (0, "the command hears of it\nwhole\n", "")


@pytest.mark.parametrize("moment", ["import", "import of a command", "run"])
def test_in_the_background_ctrl_c_stays_ignored(moment: str) -> None:
    done = started(moment, "signal.SIG_IGN")
    assert (done.returncode, done.stdout, done.stderr) == (0, "whole\n", "")
