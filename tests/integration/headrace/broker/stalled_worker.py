"""A worker whose event loop hangs for good, soon after it has begun to consume. Run by `celery --app` alone."""

import threading

from celery.signals import worker_ready

from headrace.broker import watchdog
from headrace.broker.messages import make_celery
from headrace.config import Settings
from headrace.domain.queues import CONTROL

watchdog.PATIENCE_S, watchdog.LOOK_EVERY_S, watchdog.END_WITHIN_S = 1.0, 0.1, 0.5
_settings = Settings.load()
app = make_celery("stalled", _settings)
app.amqp.queues.select([CONTROL])
app.conf.worker_pool = "solo"
watchdog.watch(app, _settings)


@worker_ready.connect
def hang(sender: object, **_: object) -> None:
    app.conf.broker_transport_options["pulse"].feel()
    threading.Event().wait()
