"""Celery as the workers use it: each override of Celery or kombu, in the order of a message's way.

1. Published, in `headrace/broker/messages.py`. `apply_async` makes each envelope anew, which takes 40 times as long.
2. Fetched, in `headrace/broker/transport.py`. kombu waits with BRPOP, which removes a message that no worker has seen.
3. Taken, in `headrace/broker/transport.py`. kombu takes the oldest message; a `Taker` takes what fits its engine.
4. Acknowledged at once, by settings alone (`messages.py`). A job's claim in Postgres is what counts.
5. Run, in `pool.py`. Celery wakes a thread for each message, which then waits for the claim.
6. Ended, in `pool.py`. Celery reports an outcome before it is on disk, and wakes no consumer.
7. Shown, in `events.py`. Celery shows no cancelled job, and sends events at each turn of the worker's event loop.

The control worker shares two more. `headrace/broker/remote_control.py`: Celery's `revoke` drops a message, which is
then published again. `headrace/broker/watchdog.py`: a worker whose event loop hangs would look alive for good.
"""
