"""What a plugin brings to the control process: its `control.py` has a `PART`."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from sqlalchemy import Connection

from headrace.installed import parts
from headrace.sweeper import Sweep
from scheduler.deps import ControlDeps

#: A gauge's name, what it says, and the names of its labels.
Gauge: TypeAlias = tuple[str, str, tuple[str, ...]]
#: The name of a gauge, the values of its labels, and its own.
GaugeValue: TypeAlias = tuple[str, Sequence[str], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlPart:
    """A plugin's part of the control process.

    Attributes:
        gauges: what it measures.
        values: reads them at a scrape, in the transaction of all gauges.
        sweeps: made once, at the start.
    """

    gauges: tuple[Gauge, ...] = ()
    values: Callable[[Connection], Iterator[GaugeValue]] = lambda _: iter(())
    sweeps: Callable[[ControlDeps], Sequence[Sweep]] = lambda _: ()


def of_plugins() -> list[ControlPart]:
    """Each plugin's part, in the order of the plugins."""
    return [module.PART for module in parts("control")]
