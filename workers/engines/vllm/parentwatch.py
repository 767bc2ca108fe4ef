"""Ends an engine's child processes when their worker is killed, so that none keeps a GPU's memory.

The child processes also leave nothing else behind, and all of vLLM's processes exit fast. This is a vLLM plugin (entry
point `vllm.general_plugins`): vLLM calls `register` in each of its processes. Knows nothing else.
"""

import atexit
import gc
import multiprocessing
import os
import signal
import threading
from multiprocessing.process import BaseProcess


def register() -> None:
    """Make this process exit fast. In a child process, also end it when its parent ends."""
    # At exit the interpreter would collect garbage among all loaded objects, which takes two seconds for nothing.
    atexit.register(gc.freeze)
    parent = multiprocessing.parent_process()
    watched = any(thread.name == _NAME for thread in threading.enumerate())
    if parent is not None and not watched:
        threading.Thread(target=_die_with, args=(parent,), name=_NAME, daemon=True).start()
        _keep_no_semaphore()


def _keep_no_semaphore() -> None:
    # tqdm's progress bars share a named lock between processes. The name would outlive a killed process.
    from tqdm import tqdm  # It comes with vLLM.

    tqdm.set_lock(threading.RLock())


_NAME = "parentwatch"


def _die_with(parent: BaseProcess) -> None:
    parent.join()
    # SIGKILL, because vLLM's own exit would wait for running requests, whose results have no reader any more.
    os.kill(os.getpid(), signal.SIGKILL)
