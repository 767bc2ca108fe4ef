"""Ends an engine's child processes when their worker is killed, so that none is left holding a GPU's memory.

A vLLM plugin (entry point `vllm.general_plugins`): vLLM calls `register` in each of its processes. Knows nothing else.
"""

import multiprocessing
import os
import signal
import threading
from multiprocessing.process import BaseProcess


def register() -> None:
    """In a child process, watch the parent from now on. In a process that is nobody's child, do nothing."""
    parent = multiprocessing.parent_process()
    watched = any(thread.name == _NAME for thread in threading.enumerate())
    if parent is not None and not watched:
        threading.Thread(target=_die_with, args=(parent,), name=_NAME, daemon=True).start()


_NAME = "parentwatch"


def _die_with(parent: BaseProcess) -> None:
    parent.join()
    # Nobody is left to be told, and vLLM's own exit would wait for running requests.
    os.kill(os.getpid(), signal.SIGKILL)
