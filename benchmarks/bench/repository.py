"""Facts about the checkout and the machine for the figures: the commit, later changes, and the hardware."""

import os
import platform
import re
import subprocess
from collections.abc import Collection, Iterable, Mapping
from enum import Enum
from pathlib import Path

from benchmarks.bench.claims import BenchClaim
from benchmarks.bench.figures import BenchMachine, Figure

GIB = 2**30


class Age(Enum):
    """The age of a figure's commit, relative to the history of the code that the figure measures."""

    CURRENT = "current"
    #: A later commit changed the measured code.
    OLDER = "older"
    #: The commit is not part of this history, or the history is absent.
    UNKNOWN = "unknown"
    #: The figure names no commit.
    UNRECORDED = "unrecorded"


class Repository:
    """The repository in a folder. Each answer is None if git or the history is absent."""

    def __init__(self, root: Path) -> None:
        self.root = root
        # A folder inside another project's repository is not a checkout.
        self._has_history = self._run("rev-parse", "--show-prefix") == ""

    def commit(self) -> str | None:
        """The commit that is checked out."""
        return self._git("rev-parse", "HEAD")

    def is_dirty(self, besides: Collection[str]) -> bool:
        """True if a file other than `besides` differs from the commit."""
        excluded = (f":(exclude){path}" for path in besides)
        return bool(self._git("status", "--porcelain", "--", ".", *excluded))

    def age(self, commit: str | None, paths: Iterable[str]) -> Age:
        """Compare a commit with the last one that changed these paths."""
        if commit is None:
            return Age.UNRECORDED
        if self._git("merge-base", "--is-ancestor", commit, "HEAD") is None:
            return Age.UNKNOWN
        later = self._git("rev-list", "-1", f"{commit}..HEAD", "--", *paths)
        return Age.UNKNOWN if later is None else Age.OLDER if later else Age.CURRENT

    def _git(self, *arguments: str) -> str | None:
        return self._run(*arguments) if self._has_history else None

    def _run(self, *arguments: str) -> str | None:
        command = ["git", "-C", str(self.root), *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None


def ages(repository: Repository, claims: Mapping[str, BenchClaim], figures: Mapping[str, Figure]) -> dict[str, Age]:
    """The age of each claim's figure. Leaves out claims without a figure. A change of the script counts too."""
    return {name: _age(repository, claim, figures[name]) for name, claim in claims.items() if name in figures}


def _age(repository: Repository, claim: BenchClaim, figure: Figure) -> Age:
    age = repository.age(figure.commit, (claim.script, *claim.measures))
    # If the registry now runs the script with other arguments, the figure belongs to another measurement.
    return Age.OLDER if age is Age.CURRENT and figure.command != claim.run else age


def this_machine() -> BenchMachine:
    """The cores and the memory that this process may use, and the processor's name."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = _text_of("/sys/fs/cgroup/memory.max").strip()
    if limit.isdecimal():
        memory = min(memory, int(limit))
    # macOS lacks CPU affinity.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    named = re.search(r"^model name\s*: (.+)$", _text_of("/proc/cpuinfo"), re.MULTILINE)
    return BenchMachine(
        named[1].strip() if named else platform.processor() or platform.machine(), cores, round(memory / GIB)
    )


def _text_of(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""
