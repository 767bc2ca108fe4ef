import subprocess
import sys
from pathlib import Path

from workers.engines.parentwatch import register

PARENT = """
import multiprocessing, os, threading
from workers.engines import parentwatch

def child(write):
    parentwatch.register()
    parentwatch.register()
    write.send([thread.name for thread in threading.enumerate()].count("parentwatch"))
    threading.Event().wait()

if __name__ == "__main__":
    read, write = multiprocessing.get_context("spawn").Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(target=child, args=(write,))
    process.start()
    print(process.pid, read.recv(), flush=True)
    threading.Event().wait()
"""


def test_a_child_dies_with_its_parent_and_watches_once(tmp_path: Path) -> None:
    program = tmp_path / "parent.py"
    program.write_text(PARENT)
    with subprocess.Popen([sys.executable, program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid, watchers = map(int, parent.stdout.readline().split())
        assert watchers == 1
        assert Path(f"/proc/{pid}").exists()
        parent.kill()
        # The child holds the other end of this pipe: it closes when the child is gone.
        assert parent.stdout.read() == ""


def test_a_process_without_a_parent_watches_nothing() -> None:
    import threading

    register()
    assert "parentwatch" not in [thread.name for thread in threading.enumerate()]
