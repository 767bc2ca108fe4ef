"""The process in which plugins work by themselves: `python -m headrace.plugin_processes`. Without any it idles.

A plugin's `process.py` has `make(settings) -> ProcessPart`.
"""

import logging
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from headrace import startup
from headrace.domain.fleet import ProcessKind
from headrace.heartbeat import Heartbeat
from headrace.installed import parts
from headrace.logging import configure
from headrace.metrics import Endpoint
from headrace.sweeper import Sweep, SweepCounts, Sweeper

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessPart:
    """A plugin's part of the process `plugins`.

    Attributes:
        interrupt: lets its sweeps come to their ends early.
        close: called once they have ended.
    """

    sweeps: Sequence[Sweep]
    interrupt: Callable[[], object] = lambda: None
    close: Callable[[], object] = lambda: None


def main() -> None:
    """Run until a signal to stop."""
    configure()
    settings = startup.load()
    startup.check(settings)
    ended = threading.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda *_: ended.set())
    with startup.explained():
        made: list[ProcessPart] = [module.make(settings) for module in parts("process")]
        counts = SweepCounts()
        Endpoint([counts], settings.metrics_host, settings.metrics_port).start()
    sweeper = Sweeper([sweep for part in made for sweep in part.sweeps], counts.note)
    sweeper.start()
    heartbeat = Heartbeat(ProcessKind.PLUGINS, settings, problems=counts.problems)
    heartbeat.start()
    log.info("plugins_ready")
    ended.wait()
    for part in made:
        part.interrupt()
    sweeper.stop()
    for part in made:
        part.close()
    heartbeat.stop()


if __name__ == "__main__":
    main()
