"""What processes have used, from /proc: each with all that it has started."""

from contextlib import suppress
from pathlib import Path

TICKS_PER_S = 100


def family(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for each in found:
        with suppress(FileNotFoundError, ProcessLookupError):
            for children in Path(f"/proc/{each}/task").glob("*/children"):
                found += map(int, children.read_text().split())
    return found


def total(pid: int, field: str) -> int:
    """The sum of a field of /proc/PID/status."""
    summed = 0
    for each in family(pid):
        for line in Path(f"/proc/{each}/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                summed += int(line.split()[1])
    return summed


def cpu_s(pid: int) -> float:
    """Processor seconds, also of what it has started and seen the end of."""
    return sum(map(_ticks, family(pid))) / TICKS_PER_S


def _ticks(pid: int) -> int:
    with suppress(FileNotFoundError, ProcessLookupError):
        return sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]))
    return 0
