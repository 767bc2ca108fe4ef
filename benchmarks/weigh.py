"""What processes have used, from /proc: each with all that it has started."""

from pathlib import Path

TICKS_PER_S = 100


def family(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for each in found:
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
    """Processor seconds."""
    fields = (Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split() for each in family(pid))
    return sum(int(field[11]) + int(field[12]) for field in fields) / TICKS_PER_S
