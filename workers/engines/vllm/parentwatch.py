"""Ends an engine's child processes when their worker is killed, so that none keeps a GPU's memory.

The child processes also leave nothing else behind, keep to the CPUs that `VLLM_CPU_OMP_THREADS_BIND` lists, and exit
fast. This is a vLLM plugin (entry point `vllm.general_plugins`): vLLM calls `register` in each of its processes.
"""

import atexit
import gc
import multiprocessing
import os
import signal
import threading
from contextlib import suppress
from multiprocessing.process import BaseProcess

from headrace.policies.cpus import listed


def register() -> None:
    """Make this process exit fast. In a child process, also end it when its parent ends."""
    # At exit the interpreter would collect garbage among all loaded objects, which takes two seconds for nothing.
    atexit.register(gc.freeze)
    parent = multiprocessing.parent_process()
    watched = any(thread.name == _NAME for thread in threading.enumerate())
    if parent is not None and not watched:
        threading.Thread(target=_die_with, args=(parent,), name=_NAME, daemon=True).start()
        _keep_no_semaphore()
        _keep_to_its_cpus()


def _keep_to_its_cpus() -> None:
    # vLLM does this only where core and model are two processes. Here they are one; threads started later inherit it.
    if cpus := listed(os.environ.get("VLLM_CPU_OMP_THREADS_BIND", "")):  # noqa: TID251 (vLLM is configured through it)
        for thread in os.listdir("/proc/self/task"):
            with suppress(OSError):  # The thread has ended, or this machine has no such CPU.
                os.sched_setaffinity(int(thread), cpus)


def _keep_no_semaphore() -> None:
    # tqdm's progress bars share a named lock between processes. The name would outlive a killed process.
    from tqdm import tqdm  # It comes with vLLM.

    tqdm.set_lock(threading.RLock())


_NAME = "parentwatch"


def _die_with(parent: BaseProcess) -> None:
    parent.join()
    # SIGKILL, because vLLM's own exit would wait for running requests, whose results have no reader any more.
    os.kill(os.getpid(), signal.SIGKILL)
