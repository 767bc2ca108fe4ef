"""What Headrace is compared with, and stand-ins for a paid API. Nothing in here imports `bed`."""

import os
from collections.abc import Mapping
from pathlib import Path

_BENCHMARKS = Path(__file__).parents[1]


def python_path(env: Mapping[str, str]) -> str:
    """The PYTHONPATH for a process that runs `peers.NAME`, before what this environment already has."""
    return os.pathsep.join(filter(None, (str(_BENCHMARKS), env.get("PYTHONPATH"))))
