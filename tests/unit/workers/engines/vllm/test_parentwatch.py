import os
import subprocess
import sys
from pathlib import Path

from workers.engines.vllm.parentwatch import register

PARENT = """
import multiprocessing, os, threading
from tqdm import tqdm
from workers.engines.vllm import parentwatch

def child(write):
    parentwatch.register()
    parentwatch.register()
    tqdm(disable=True)
    cpus = {cpu for task in os.listdir("/proc/self/task") for cpu in os.sched_getaffinity(int(task))}
    write.send(([thread.name for thread in threading.enumerate()].count("parentwatch"), *sorted(cpus)))
    threading.Event().wait()

if __name__ == "__main__":
    read, write = multiprocessing.get_context("spawn").Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(target=child, args=(write,))
    process.start()
    print(process.pid, *read.recv(), flush=True)
    threading.Event().wait()
"""


def test_a_child_dies_with_its_parent_watches_once_and_keeps_to_its_cpus(tmp_path: Path) -> None:
    program = tmp_path / "parent.py"
    program.write_text(PARENT)
    last = max(os.sched_getaffinity(0))
    env = {**os.environ, "VLLM_CPU_OMP_THREADS_BIND": str(last)}  # noqa: TID251 - it is handed on whole, with one more.
    with subprocess.Popen([sys.executable, program], stdout=subprocess.PIPE, text=True, env=env) as parent:
        assert parent.stdout is not None
        pid, watchers, *cpus = map(int, parent.stdout.readline().split())
        of_parent = os.sched_getaffinity(parent.pid)
        maps = Path(f"/proc/{pid}/maps").read_text()
        parent.kill()
        # The child holds the other end of this pipe: it closes when the child is gone.
        assert parent.stdout.read() == ""
    assert watchers == 1
    assert (cpus, of_parent) == ([last], os.sched_getaffinity(0))
    assert "python" in maps
    assert "/dev/shm/sem." not in maps, "a progress bar's lock would outlive it"


def test_the_end_of_a_process_does_not_wait_for_a_search_for_garbage() -> None:
    program = (
        "import atexit, gc; from workers.engines.vllm.parentwatch import register;"
        "atexit.register(lambda: print(gc.get_freeze_count())); register()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 1000


def test_a_process_without_a_parent_watches_nothing() -> None:
    import threading

    register()
    assert "parentwatch" not in [thread.name for thread in threading.enumerate()]
