"""A peer: what a team writes first, on Flask and Celery. Run by benchmarks, and never part of the product.

It has no durable record, no atomic cap, no keys and no validation. The broker connections are pooled, there is no
result backend and there are no events; hiredis parses what Redis answers, as it does for the API. The message carries
the job's id alone, which favours this peer: a real one would have to carry the prompt as well.
"""

import time
import uuid

import sqlalchemy as sa
from celery import Celery
from flask import Flask, Response, jsonify, request
from orjson import dumps, loads
from redis import BlockingConnectionPool, Redis

from headrace.config import Settings
from headrace.domain.queues import Lane

#: The list that this peer's messages go to; kombu names a list after its queue.
QUEUE = "bare"
#: To Redis; who finds none free waits for one.
CONNECTIONS = 64
#: To Postgres, for the route that writes a row.
ROWS_CONNECTIONS = 16

settings = Settings.load()
celery = Celery("bare", broker=settings.redis_url, set_as_current=False)
celery.conf.update(
    task_ignore_result=True,
    worker_send_task_events=False,
    task_send_sent_event=False,
    broker_pool_limit=CONNECTIONS,
    task_default_queue=QUEUE,
)
redis = Redis.from_pool(BlockingConnectionPool.from_url(settings.redis_url, max_connections=CONNECTIONS))
engine = sa.create_engine(settings.database_url, pool_size=ROWS_CONNECTIONS, max_overflow=0)
rows = sa.Table("bare_jobs", sa.MetaData(), sa.Column("id", sa.Uuid, primary_key=True), sa.Column("body", sa.JSON))
app = Flask(__name__, static_folder=None)


@celery.task(name="bare.noop")
def noop(job_id: str) -> None:
    """What a worker would run: nothing."""


@celery.task(name="bare.mark")
def mark(key: str) -> None:
    """Leave word of when this was run."""
    redis.set(key, time.time())


@app.get("/hello")
def hello() -> Response:
    """The least that Flask can do."""
    return jsonify(ok=True)


@app.post("/bare")
def bare() -> Response:
    """Publish with `apply_async`: neither durable nor capped."""
    loads(request.get_data())
    return _published(uuid.uuid4())


@app.post("/rows")
def with_row() -> Response:
    """A row and a commit of its own for each job, then `apply_async`: durable, and nothing is shared."""
    job_id = uuid.uuid4()
    with engine.begin() as db:
        db.execute(rows.insert().values(id=job_id, body=loads(request.get_data())))
    return _published(job_id)


@app.post("/look-then-push")
def look_then_push() -> Response:
    """A cap that is looked at and then acted on: between the two, others look as well."""
    loads(request.get_data())
    if int(redis.llen(QUEUE)) >= settings.lane(Lane.NORMAL).depth_cap:  # type: ignore[arg-type]
        return Response(dumps({"error": "full"}), 429, mimetype="application/json")
    return _published(uuid.uuid4())


def _published(job_id: uuid.UUID) -> Response:
    noop.apply_async(args=(str(job_id),), task_id=str(job_id), argsrepr="", kwargsrepr="")
    return Response(dumps({"id": str(job_id)}), 202, mimetype="application/json")
