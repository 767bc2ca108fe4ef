"""Which CPUs the processes of one machine keep to. Decided before they start, and never changed.

Python runs one thread of a process at a time. While its threads are spread over several CPUs, most hand-overs from one
thread to the next wake another CPU: a submit costs a quarter more processor time (`benchmarks/submit.py --off cpus`).
An engine that computes on CPUs slows down fourfold while its threads wait for one, so others keep off its CPUs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

#: More threads than this do not speed up the small models that a CPU can serve.
_MOST_THREADS = 8


@dataclass(frozen=True, slots=True)
class CpuPlace:
    """Where one process runs.

    Attributes:
        cpus: the process keeps to these; empty if it may use any.
        of_engine: other CPUs, for its engine alone.
    """

    cpus: tuple[int, ...] = ()
    of_engine: tuple[int, ...] = ()


def engine_threads(cpus: int) -> int:
    """The threads with which an engine computes on a machine with `cpus` CPUs. Half of them stay free."""
    return max(1, min(cpus // 2, _MOST_THREADS))


def give_out(cpus: Sequence[int], processes: Sequence[str], engines: Mapping[str, bool]) -> dict[str, CpuPlace]:
    """Give each process a CPU of its own while there are enough; the others use every CPU that no engine has.

    Args:
        cpus: those that may be used, in the order in which they are given out.
        processes: those that serve requests or run jobs, the most important first.
        engines: those of them whose engine is a process of its own, and whether that computes on CPUs. An engine gets
            as many CPUs as it has threads, if one is left for everything else. Without, it and its process use any CPU.
    """
    if len(cpus) < 2:
        return {}
    free, threads, of_engines = list(cpus), engine_threads(len(cpus)), dict[str, tuple[int, ...]]()
    for name, computes in engines.items():
        if computes and threads < len(free):
            of_engines[name] = tuple(free.pop() for _ in range(threads))
    left, places = iter(free), dict[str, CpuPlace]()
    for name in processes:
        # An engine runs where its process does, unless it has CPUs.
        if name not in engines or name in of_engines:
            own = next(left, None)
            places[name] = CpuPlace(tuple(free) if own is None else (own,), of_engines.get(name, ()))
    return places


def listed(text: str) -> list[int]:
    """The CPUs in a list such as '3,5-7', as vLLM reads `VLLM_CPU_OMP_THREADS_BIND`; none for anything else."""
    cpus = list[int]()
    for part in text.split(","):
        first, _, last = part.partition("-")
        if not first.isdecimal() or not (last or first).isdecimal():
            return []
        cpus += range(int(first), int(last or first) + 1)
    return cpus
