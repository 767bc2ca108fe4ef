"""How a server that refuses to run as root is started by root. Knows nothing of which server.

Two ways. The first is taken wherever the kernel allows it:

* **Map.** The child enters a user namespace of its own in which our uid is called `nobody`. To the server
  it is not root; to the file system it is still us, so it reads and writes a state folder under a home that
  nobody else may enter. No file changes its owner and none is copied.
* **Drop.** Where namespaces are forbidden (Docker's default seccomp profile), the child becomes `nobody`. It can
  then reach neither a state folder nor binaries under a private home; `lent_files.py` moves them while it runs.

`launch.py` carries them out.
"""

import functools
import os
import pwd
import subprocess
import sys

from headrace.stack.processes.child import launched


def is_root() -> bool:
    """True when this process is root."""
    return os.geteuid() == 0


def nobody() -> tuple[int, int]:
    """The uid and gid of `nobody`. It must have a name: initdb looks its own user up."""
    entry = pwd.getpwnam("nobody")
    return entry.pw_uid, entry.pw_gid


def mapped() -> str:
    """The identity that is called `nobody` and stays what it is."""
    return "map:{}:{}".format(*nobody())


def dropped() -> str:
    """The identity of `nobody`, for good."""
    return "drop:{}:{}".format(*nobody())


@functools.cache
def can_map() -> bool:
    """True when this kernel lets us enter a user namespace; found out by trying."""
    if not sys.platform.startswith("linux"):
        return False
    probe = subprocess.run(launched(("true",), identity=mapped()), stdin=subprocess.DEVNULL, capture_output=True)
    return probe.returncode == 0
