"""The entry point of the process that moves batches on: `python -m api.batches`."""

import logging
import signal
import threading

from api.app import build
from api.batches.runner import Runner
from headrace import startup
from headrace.domain.fleet import ProcessKind
from headrace.heartbeat import Heartbeat
from headrace.logging import configure
from headrace.metrics import Endpoint
from headrace.sweeper import SweepCounts, Sweeper

log = logging.getLogger(__name__)


def main() -> None:
    """Run until a signal to stop."""
    configure()
    settings = startup.load()
    startup.check(settings)
    ended = threading.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda *_: ended.set())
    with startup.explained():
        settings.check_paid_pools()
        web = build(settings)
        runner = Runner(web)
        counts = SweepCounts()
        Endpoint([counts], settings.metrics_host, settings.metrics_port).start()
    sweeper = Sweeper(runner.sweeps(), counts.note)
    sweeper.start()
    heartbeat = Heartbeat(ProcessKind.BATCHES, settings, problems=counts.problems)
    heartbeat.start()
    log.info("batches_ready")
    ended.wait()
    runner.interrupt()
    sweeper.stop()
    runner.close()
    heartbeat.stop()
    web.close()


if __name__ == "__main__":
    main()
