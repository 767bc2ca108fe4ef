"""Celery as the workers use it: each override of Celery or kombu, in the order of a message's way.

Published, in `headrace/broker/messages.py`. `apply_async` makes each envelope anew, which takes 40 times as long.
Fetched, in `headrace/broker/transport.py`. kombu waits with BRPOP, which removes a message before its worker knows it.
Taken, in `headrace/broker/transport.py`. kombu takes the oldest message; a `Taker` takes what fits its engine.
Run, in `pool.py`. Celery wakes a thread for each message, before it is known whether the worker may run its job.
Ended, in `pool.py`. Celery shows a success when the thread ends, before it is on disk, and wakes no consumer.
Shown, in `events.py`. Celery shows no cancelled job, and sends events at each turn of the worker's event loop.

The control worker shares two more. `headrace/broker/remote_control.py`: Celery's `revoke` drops a message, which is
then published again. `headrace/broker/watchdog.py`: a worker whose event loop hangs would look alive for good.
"""
