"""Lets root start a server that refuses to run as root. Knows nothing of the server.

Two ways exist. The first is used wherever the kernel allows it:

* **Map.** The child enters its own user namespace, which maps root's uid to `nobody`. The server does not see root.
  The file system still sees root's uid, so the child can use a state folder under a private home. No file changes its
  owner, and none is copied.
* **Drop.** Where namespaces are forbidden (Docker's default seccomp profile), the child becomes `nobody`. It can then
  reach neither a state folder nor binaries under a private home. `lent_files.py` moves them while the server runs.

`launch.py` applies them.
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
    """The uid and gid of `nobody`. The user must have a name, because initdb looks up its own user."""
    entry = pwd.getpwnam("nobody")
    return entry.pw_uid, entry.pw_gid


def mapped() -> str:
    """The identity that maps the present user to `nobody`."""
    return "map:{}:{}".format(*nobody())


def dropped() -> str:
    """The identity that becomes `nobody` for good."""
    return "drop:{}:{}".format(*nobody())


@functools.cache
def can_map() -> bool:
    """True if this process may enter a user namespace. Tries it to find out."""
    if not sys.platform.startswith("linux"):
        return False
    probe = subprocess.run(launched(("true",), identity=mapped()), stdin=subprocess.DEVNULL, capture_output=True)
    return probe.returncode == 0
