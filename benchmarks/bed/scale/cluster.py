"""A large cluster as the servers see it: rows of workers with running jobs, apps, knocks, and workers that wait.

Knows the parts of the product, and not what is claimed.
"""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from uuid import UUID

from redis import ConnectionPool, Redis
from redis.connection import AbstractConnection

from bed.steps.meter import Meter
from bed.testbed import Testbed
from headrace import connections
from headrace.broker.admission import Admission
from headrace.broker.messages import ExecuteMessage, make_celery
from headrace.config import Settings
from headrace.connections.redis import redis_client
from headrace.domain.fleet import WorkerReport
from headrace.domain.ids import new_id
from headrace.domain.places import Ask
from headrace.domain.queues import Candidate, bell_key, books_key
from headrace.store import Store
from headrace.store.fleet import workers
from headrace.store.money import budgets

POOL, QUEUE, FULL = "chat", "chat.low", "chat.batch"
#: Running jobs of each worker.
RUNNING = 10
#: Apps that send jobs to the paid API at one time.
ASKING = 50
#: How often each thing is done in a round.
TIMES = 500
RINGS = 5

_WORKERS = """
    INSERT INTO workers (id, name, host_id, pool, engine, model, max_running, ready, lease_until)
    SELECT gen_random_uuid(), 'gpu@' || no, 'host-' || no / 8, 'chat', 'simulator', 'm', 32, true,
           now() + interval '1 day'
    FROM generate_series(1, %s) AS no
"""
_RUNNING = """
    INSERT INTO jobs (id, app_id, state, lane, pool, queue, route, route_reason, overflow, model_requested, background,
                      prompt_tokens, max_tokens, created_at, start_by, queued_at, started_at, worker_id, attempt)
    SELECT (lpad(to_hex((extract(epoch FROM now()) * 1000)::bigint), 12, '0')
            || '7' || substr(md5(workers.id::text || no), 1, 3)
            || '8' || substr(md5(workers.id::text || no), 4, 15))::uuid,
           app.id, 'running', 'normal', 'chat', 'chat.normal', 'pool', 'scale', 'allow', 'none', true, 100, 28,
           now(), now() + interval '1 day', now(), now(), workers.id, 1
    FROM workers, generate_series(1, %s) AS no, (SELECT id FROM apps ORDER BY name LIMIT 1) AS app
"""
_APPS = """
    INSERT INTO apps (id, name, webhook_secret)
    SELECT gen_random_uuid(), 'scale-' || no, 'whsec_' || md5(no::text) FROM generate_series(1, %s) AS no
"""
_ACCOUNTS = """
    INSERT INTO budgets (id, app_id, period, starts_at)
    SELECT gen_random_uuid(), apps.id, period, date_trunc(period, now(), 'UTC')
    FROM apps, unnest(ARRAY['day', 'month']) AS period WHERE name LIKE 'scale-%'
"""


class Cluster:
    """So many workers and apps in the servers of a test bed."""

    def __init__(self, bed: Testbed, number: int, apps: int) -> None:
        """Make them. Args: number: of the workers."""
        report = bed.stack.report
        self._settings = Settings.load(database_url=report.database_url, redis_url=report.redis_url, engine="simulator")
        self._redis: Redis = redis_client(self._settings)
        self._store = Store(connections.postgres(self._settings))
        message = ExecuteMessage(make_celery("scale", self._settings))
        self._admission = Admission(self._redis, message, reservation_ttl_s=3600)
        self._apps = [new_id() for _ in range(apps)]
        for statement, size in ((_WORKERS, number), (_APPS, apps), (_RUNNING, RUNNING), (_ACCOUNTS, None)):
            bed.sql(statement, *([] if size is None else [size]))
        bed.sql("ANALYZE")
        self._asking = [row[0] for row in bed.sql("SELECT id FROM apps WHERE name LIKE 'scale-%%' LIMIT %s", ASKING)]
        self._ids = [row[0] for row in bed.sql("SELECT id FROM workers WHERE name LIKE 'gpu@%%'")]

    def close(self) -> None:
        """Close the connections."""
        self._store.close()

    def measure(self, meter: Meter) -> None:
        """One round of everything."""
        meter.each("read the fleets", TIMES, self._read_fleets)
        meter.each("ask how the fleets stand", TIMES, lambda: self._admission.standing(dict))
        meter.each("read the budgets", TIMES, self._read_budgets)
        order = itertools.cycle(self._ids)
        meter.each("renew a lease", 2 * TIMES, lambda: self._renew(next(order)))
        self._measure_knocks(meter)
        with self._waiting() as (sockets, bell):
            meter.step("wake a worker", len(sockets) * RINGS, lambda: [self._ring(sockets, bell) for _ in range(RINGS)])

    def _read_fleets(self) -> None:
        with self._store.begin() as db:
            assert workers.fleets(db)[POOL].running >= len(self._ids) * RUNNING

    def _read_budgets(self) -> None:
        with self._store.begin() as db:
            budgets.balances(db, self._settings.budgets, self._asking)

    def _renew(self, worker_id: UUID) -> None:
        with self._store.begin() as db:
            workers.renew(db, worker_id, 86_400, WorkerReport(RUNNING, ready=True))

    def _measure_knocks(self, meter: Meter) -> None:
        """A job for a queue that is full, and at which every app knocks."""
        knocks = {app.hex: 4_000_000_000_000 for app in self._apps}
        self._redis.zadd(books_key("knocks", FULL), knocks)
        self._redis.hset(books_key("wishes", FULL), mapping=dict.fromkeys(knocks, 100))
        self._admission.reserve([self._ask(FULL)])
        meter.each("refuse while every app knocks", TIMES, lambda: self._admission.reserve([self._ask(FULL)]))

    def _ask(self, queue: str) -> Ask:
        return Ask(new_id(), self._apps[0], 100, (Candidate(queue, 1, 10**12, None, "scale"),))

    @contextmanager
    def _waiting(self) -> Iterator[tuple[list[AbstractConnection], str]]:
        """A connection for each worker, which waits for the bell as a worker's does."""
        pool = ConnectionPool.from_url(self._settings.redis_url, max_connections=len(self._ids))
        sockets = [pool.get_connection() for _ in self._ids]
        bell = bell_key("scale")
        try:
            yield sockets, bell
        finally:
            pool.disconnect()
            self._redis.delete(bell)

    def _ring(self, sockets: Sequence[AbstractConnection], bell: str) -> None:
        """Let all wait, ring once, and hear it."""
        for socket in sockets:
            socket.send_command("XREAD", "COUNT", 1, "BLOCK", 60_000, "STREAMS", bell, "$")
        while self._redis.info("clients")["blocked_clients"] < len(sockets):
            pass
        self._redis.xadd(bell, {"queues": "new"}, maxlen=1)
        for socket in sockets:
            socket.read_response()
