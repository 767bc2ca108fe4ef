"""Moves batches on: reads their files, submits their lines as room appears, and writes their results.

A second process takes over what a dead one left.
"""

from api.app import build
from headrace.config import Settings
from headrace.plugin_processes import ProcessPart
from plugins.batches.running.runner import Runner


def make(settings: Settings) -> ProcessPart:
    """Raises: ConfigError."""
    settings.check_paid_pools()
    web = build(settings)
    runner = Runner(web)

    def close() -> None:
        runner.close()
        web.close()

    return ProcessPart(sweeps=runner.sweeps(), interrupt=runner.interrupt, close=close)
