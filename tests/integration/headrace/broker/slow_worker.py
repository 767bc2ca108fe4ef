"""A worker whose consumer counts as stalled while its event loop runs on, and which takes its time to stop. Run by
`celery --app` alone.
"""

import sys
import threading
from typing import Any

from celery import bootsteps

from headrace.broker import watchdog
from headrace.broker.messages import make_celery
from headrace.config import Settings
from headrace.domain.queues import CONTROL

# It goes to its queues about once a second, and hears of its end as often.
watchdog.PATIENCE_S, watchdog.LOOK_EVERY_S, watchdog.END_WITHIN_S = 0.5, 0.1, 5.0
_settings = Settings.load()
app = make_celery("slow", _settings)
app.amqp.queues.select([CONTROL])
app.conf.worker_pool = "solo"
watchdog.watch(app, _settings)


class Drain(bootsteps.StartStopStep):
    """Stops before the watchdog does, as whatever belongs to the consumer."""

    def stop(self, parent: Any) -> None:
        """Let what runs finish, for longer than a watchdog that looks on would let it."""
        threading.Event().wait(watchdog.END_WITHIN_S + 0.5)
        print("drained", file=sys.stderr)


app.steps["consumer"].add(Drain)
