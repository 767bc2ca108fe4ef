"""Peers: what a team writes on Flask, SQLAlchemy and Celery. Run by benchmarks, and never part of the product.

The durable ones are the peers that count. `POST /rows` inserts a row with the prompt, commits, and publishes the row's
id. The task `bare.claim_and_end` claims the row and ends it, with a commit for each. `POST /refuse` checks the key,
reads its body, counts the prompt's tokens and asks Redis once; a full list is a 429.

The bare ones have no record: `POST /bare` publishes an id, and the task `bare.noop` does nothing. A real one would have
to carry the prompt in its message.

Nothing slows a peer down that is not its work. Each thread finds a pooled connection to Postgres and to Redis, and
hiredis parses what Redis answers, as it does for the API. Statements are SQLAlchemy's Core, which costs less than its
ORM, and are built once. A task has no result and no events. Messages are acknowledged as they come, which is Celery's
default: a worker that dies loses its task.
"""

import hashlib
import os
import time
import uuid
from contextlib import ExitStack
from functools import cache

import sqlalchemy as sa
from celery import Celery, signals
from flask import Flask, Response, jsonify, request
from orjson import dumps, loads
from redis import BlockingConnectionPool, Redis
from sqlalchemy.dialects.postgresql import JSONB
from tokenizers import Tokenizer

from headrace.config import Settings
from headrace.domain.queues import Lane

#: The list that this peer's messages go to; kombu names a list after its queue.
QUEUE = "bare"
#: The list whose length `POST /refuse` asks for. Its cap is that of the lane `high`.
CAPPED_QUEUE = "bare.high"
#: To Redis. A thread that finds none free waits for one.
CONNECTIONS = 64
#: To Postgres: one for each of a worker's threads. A server has fewer requests at once.
ROWS_CONNECTIONS = int(os.environ.get("BARE_CONNECTIONS", "32"))  # noqa: TID251 - no setting of the product.
#: Seconds for which a key's app is remembered.
KEY_S = 60.0
RETRY_AFTER_S = 5

settings = Settings.load()
CAP = settings.lane(Lane.HIGH).depth_cap
MODEL_TOKENS = settings.served_pool.max_model_tokens
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
app = Flask(__name__, static_folder=None)

tables = sa.MetaData()
jobs = sa.Table(
    "bare_jobs",
    tables,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("prompt", sa.Text, nullable=False),
    sa.Column("max_tokens", sa.Integer, nullable=False),
    sa.Column("lane", sa.Text, nullable=False),
    sa.Column("metadata", JSONB, nullable=False),
    sa.Column("state", sa.Text, nullable=False, server_default="queued"),
    sa.Column("result", sa.Text),
    sa.Column("created_at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=sa.func.now()),
    sa.Column("started_at", sa.TIMESTAMP(timezone=True)),
    sa.Column("ended_at", sa.TIMESTAMP(timezone=True)),
)
keys = sa.Table(
    "bare_keys",
    tables,
    sa.Column("digest", sa.LargeBinary, primary_key=True),
    sa.Column("app", sa.Text, nullable=False),
)
INSERT = sa.insert(jobs)
FIND_APP = sa.select(keys.c.app).where(keys.c.digest == sa.bindparam("digest"))
CLAIM = (
    sa.update(jobs)
    .where(jobs.c.id == sa.bindparam("job_id"), jobs.c.state == "queued")
    .values(state="running", started_at=sa.func.now())
    .returning(jobs.c.prompt, jobs.c.max_tokens)
)
END = (
    sa.update(jobs)
    .where(jobs.c.id == sa.bindparam("job_id"), jobs.c.state == "running")
    .values(state="succeeded", result=sa.bindparam("answer"), ended_at=sa.func.now())
)

#: App and end of memory on the monotonic clock, by key.
_apps: dict[str, tuple[str, float]] = {}


def make_tables(database_url: str, api_key: str) -> None:
    """Create the peer's tables, with one app's key."""
    own = sa.create_engine(database_url, poolclass=sa.NullPool)
    with own.begin() as db:
        tables.create_all(db)
        db.execute(sa.insert(keys), {"digest": digest(api_key), "app": "benchmark"})


def digest(key: str) -> bytes:
    """The stored form of a key."""
    return hashlib.sha256(key.encode()).digest()


@signals.worker_init.connect
def connect(**_: object) -> None:
    """Open all connections before a worker takes tasks: a login costs Postgres as much as fifteen tasks."""
    with ExitStack() as exits:
        for _each in range(ROWS_CONNECTIONS):
            exits.enter_context(engine.connect())


@celery.task(name="bare.noop")
def noop(job_id: str) -> None:
    """What a worker would run: nothing."""


@celery.task(name="bare.mark")
def mark(key: str) -> None:
    """Leave word of when this was run."""
    redis.set(key, time.time())


@celery.task(name="bare.claim_and_end")
def claim_and_end(job_id: str) -> None:
    """Claim a row, answer its prompt at once, and end it."""
    with engine.begin() as db:
        claimed = db.execute(CLAIM, {"job_id": uuid.UUID(job_id)}).first()
    if claimed is None:
        return
    with engine.begin() as db:
        db.execute(END, {"job_id": uuid.UUID(job_id), "answer": claimed.prompt[: claimed.max_tokens]})


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
def durable() -> tuple[Response, int]:
    """Insert a row, commit, and publish its id."""
    body = request.get_json()
    job_id = uuid.uuid4()
    row = {name: body[name] for name in ("prompt", "max_tokens", "lane", "metadata")}
    with engine.begin() as db:
        db.execute(INSERT, {"id": job_id, **row})
    claim_and_end.apply_async((str(job_id),))
    return jsonify(id=str(job_id)), 202


@app.post("/refuse")
def refuse() -> tuple[Response, int] | tuple[Response, int, dict[str, str]]:
    """Check the key and the prompt's length, and refuse if the list is full; else accept as `/rows` does."""
    if _app_of(request.headers.get("Authorization", "").removeprefix("Bearer ")) is None:
        return jsonify(error={"message": "Unknown API key.", "code": "invalid_api_key"}), 401
    body = request.get_json()
    tokens = len(_tokenizer().encode(body["prompt"]).ids) + body["max_tokens"]
    if tokens > MODEL_TOKENS:
        message = f"{tokens} tokens are more than the model has room for."
        return jsonify(error={"message": message, "code": "context_length_exceeded"}), 400
    depth = int(redis.llen(CAPPED_QUEUE))  # type: ignore[arg-type]
    if depth >= CAP:
        message = f"{depth} jobs wait, and {CAP} may. Come back in {RETRY_AFTER_S} s."
        return jsonify(error={"message": message, "code": "queue_full"}), 429, {"Retry-After": str(RETRY_AFTER_S)}
    return durable()


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


def _app_of(key: str) -> str | None:
    """The app behind a key; None for an unknown one. Postgres is asked once in `KEY_S` seconds."""
    app_name, until = _apps.get(key, ("", 0.0))
    if until > time.monotonic():
        return app_name
    with engine.connect() as db:
        found = db.execute(FIND_APP, {"digest": digest(key)}).scalar()
    if found is not None:
        _apps[key] = found, time.monotonic() + KEY_S
    return found


@cache
def _tokenizer() -> Tokenizer:
    """The tokenizer of the pool that is served here."""
    folder = settings.served_pool.model_dir
    assert folder is not None
    return Tokenizer.from_file(str(folder / "tokenizer.json"))
