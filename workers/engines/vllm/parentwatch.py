"""Ends an engine's child processes when their worker is killed, so that none is left holding a GPU's memory.

Nor is anything else left of them, and all of vLLM's processes end soon when they are told to. A vLLM plugin (entry
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
    """See to it that this process ends soon, once it does; and in a child process, when its parent ends."""
    # The interpreter would look through all that was loaded for garbage: two seconds, for nothing.
    atexit.register(gc.freeze)
    parent = multiprocessing.parent_process()
    watched = any(thread.name == _NAME for thread in threading.enumerate())
    if parent is not None and not watched:
        threading.Thread(target=_die_with, args=(parent,), name=_NAME, daemon=True).start()
        _keep_no_semaphore()


def _keep_no_semaphore() -> None:
    # The lock that progress bars share between processes has a name, by which it outlives a process that is killed.
    from tqdm import tqdm  # It comes with vLLM.

    tqdm.set_lock(threading.RLock())


_NAME = "parentwatch"


def _die_with(parent: BaseProcess) -> None:
    parent.join()
    # Nobody is left to be told, and vLLM's own exit would wait for running requests.
    os.kill(os.getpid(), signal.SIGKILL)
