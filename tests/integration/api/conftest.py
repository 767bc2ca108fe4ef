"""The whole API on real servers: in process for most tests, behind a real HTTP server for the SDK."""

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2
import pytest
import sqlalchemy as sa
from redis import Redis

from headrace.broker.admission import Admission
from headrace.broker.messages import list_key
from headrace.broker.streams import Streams
from headrace.config import PROJECT_ROOT, Settings
from headrace.domain.answers import Choice, TokenLogprob, alternative
from headrace.domain.apps import App
from headrace.domain.attempts import AttemptEnd, Usage
from headrace.domain.fleet import WorkerInfo
from headrace.domain.ids import new_id
from headrace.domain.jobs import PieceKind, StreamPiece
from headrace.domain.limits import Cost
from headrace.domain.prompts.embeddings import are_inputs, pack_floats, to_answer
from headrace.domain.prompts.tools import ToolCallPiece, joined
from headrace.domain.queues import KEY_PREFIX, lane_queues
from headrace.domain.states import JobState
from headrace.stack.child import Child, Command, read_procfile, shell
from headrace.stack.ports import free_port
from headrace.store import Store, apps, keys
from headrace.store.fleet import workers
from headrace.tables import idempotency_keys, job_texts, jobs
from tests import one_attempt
from tests.waiting import DEADLINE_S
from tests.web import ApiClient, Web

#: What a worker thinks where the prompt says "think", piece by piece, and what it says.
THOUGHTS = ("Light, ", "and air: ")
PIECES = ("Because of ", "Rayleigh ", "scattering.")
#: What a worker calls where the job has tools and the user spoke last, piece by piece.
CALLS = (
    ToolCallPiece(0, "call_1", "weather"),
    ToolCallPiece(0, arguments='{"city": '),
    ToolCallPiece(0, arguments='"Paris"}'),
    ToolCallPiece(1, "call_2", "time", "{}"),
)
#: The vector of each input of an embedding job.
VECTOR = pack_floats([0.6, 0.8])


@pytest.fixture
def build_web(settings: Settings, redis: Redis) -> Iterator[Callable[..., Web]]:
    """Makes the API, with some settings changed."""
    made: list[Web] = []

    def build(**changes: Any) -> Web:
        web = Web.of(settings.model_copy(update=changes))
        made.append(web)
        return web

    yield build
    for web in made:
        web.close()


@pytest.fixture
def web(build_web: Callable[..., Web]) -> Web:
    return build_web()


@pytest.fixture
def make_key(store: Store, settings: Settings) -> Callable[[str], str]:
    """Makes an API key for the app of that name."""

    def make(name: str) -> str:
        with store.begin() as db:
            return keys.make(db, apps.ensure(db, name).id, settings.pepper.get_secret_value())

    return make


@pytest.fixture
def key(make_key: Callable[[str], str], app: App) -> str:
    """A key of the app `test`."""
    return make_key(app.name)


@pytest.fixture
def client_of(web: Web) -> Callable[..., ApiClient]:
    """A client that sends this key with every request."""

    def make(key: str, web: Web = web) -> ApiClient:
        return ApiClient(web, key)

    return make


@pytest.fixture
def client(client_of: Callable[..., ApiClient], key: str) -> ApiClient:
    return client_of(key)


@pytest.fixture
def base_url(web: Web) -> Iterator[str]:
    """The address of the API, on the server that production runs."""
    with web.served() as url:
        yield url


@pytest.fixture
def serve_web(settings: Settings, redis: Redis, tmp_path: Path) -> Iterator[Callable[..., tuple[Child, str]]]:
    """Starts the Procfile's web process with more settings, once, and returns it and its URL when it answers."""
    children: list[Child] = []

    def serve(**more: str) -> tuple[Child, str]:
        port = free_port()
        env = {
            "PATH": f"{Path(sys.executable).parent}:{os.defpath}",
            "PORT": str(port),
            "DATABASE_URL": settings.database_url,
            "REDIS_URL": settings.redis_url,
            "HEADRACE_ENGINE": "simulator",
            "HEADRACE_PEPPER": settings.pepper.get_secret_value(),
            **more,
        }
        line = read_procfile(PROJECT_ROOT / "Procfile")["web"]
        child = Child(Command("web", shell(line), env, PROJECT_ROOT), tmp_path / "web.log")
        children.append(child)
        url = f"http://127.0.0.1:{port}"
        child.wait_until(lambda: _is_up(url), DEADLINE_S)
        return child, url

    yield serve
    for child in children:
        child.stop()


def _is_up(url: str) -> bool:
    with suppress(httpx2.TransportError):
        return httpx2.get(f"{url}/healthz").status_code == 200
    return False


@pytest.fixture
def nothing_enqueued(store: Store, redis: Redis) -> Callable[[], bool]:
    """Whether Postgres has no job and no key, and Redis no message and no place taken."""

    def look() -> bool:
        with store.begin() as db:
            rows = [db.scalar(sa.select(sa.func.count()).select_from(table)) for table in (jobs, idempotency_keys)]
        queues = [*lane_queues("chat"), *lane_queues("overflow")]
        return rows == [0, 0] and redis.exists(f"{KEY_PREFIX}waiting", *map(list_key, queues)) == 0

    return look


End = Callable[..., bool]


def further(text: str, number: int) -> str:
    """What a worker answers after the first of several answers."""
    return f"{text} {number}"


def tokens(top_logprobs: int | None) -> list[TokenLogprob] | None:
    """The answer's tokens as an engine reports them on request; the last has no text of its own."""
    if top_logprobs is None:
        return None
    made = [alternative(piece, -0.5) for piece in (*PIECES, "<|im_end|>")]
    others = [alternative(f"other{number}", -1.0 - number) for number in range(top_logprobs)]
    return [{**each, "top_logprobs": [each, *others][:top_logprobs]} for each in made]


@pytest.fixture
def end(store: Store, admission: Admission) -> End:
    """Ends a queued job as a worker would: claims it, finishes it, and announces it. False: there is none to claim."""

    def end(job_id: UUID, text: str | None = None, finish_reason: str = "stop", *, vector: str = VECTOR) -> bool:
        text = "".join(PIECES) if text is None else text
        worker = WorkerInfo(new_id(), "gpu@test", "host-1", "chat", "simulator", "served", 8, 2048, 65_536, 16)
        with store.begin() as db:
            workers.register(db, worker, 30)
            enqueue_no = db.scalar(sa.select(jobs.c.enqueue_no).where(jobs.c.id == job_id))
            claim = one_attempt.claim(db, job_id, enqueue_no, worker.id, "simulator")
            if claim is None:
                return False
            cost = Cost(Decimal("0.00000123"), "test-1")
            answer = to_answer(vector for _ in claim.messages) if are_inputs(claim.messages) else text
            end = AttemptEnd("succeeded", 0.5, cost, "compute", Usage(9, 7, 2), answer, finish_reason, "served")
            end = replace(end, logprobs=tokens(claim.sampling.top_logprobs))
            if claim.sampling.tools and claim.messages[-1].role == "user":
                reason = "stop" if claim.sampling.tools.choice == "function" else "tool_calls"
                end = replace(end, text="", finish_reason=reason, tool_calls=joined(CALLS), logprobs=None)
            if "think" in claim.messages[-1].content:
                end = replace(end, reasoning="".join(THOUGHTS), usage=Usage(9, 7, 2, 3))
            others = [
                Choice(further(text, number), finish_reason, tokens(claim.sampling.top_logprobs))
                for number in range(1, claim.sampling.n)
            ]
            end = replace(end, others=tuple(others))
            one_attempt.finish(db, claim, JobState.SUCCEEDED, end)
        admission.announce_ended([job_id])
        return True

    return end


@pytest.fixture
def finish(end: End) -> Callable[..., None]:
    """Ends a queued job, which must be there."""

    def finish(*arguments: Any, **options: Any) -> None:
        assert end(*arguments, **options)

    return finish


def said(top_logprobs: int | None) -> Iterator[tuple[PieceKind, str]]:
    """The answer's text, with the log probabilities of its tokens, as a worker publishes it."""
    for piece, token in zip(PIECES, tokens(top_logprobs) or [None] * len(PIECES), strict=False):
        if token:
            yield "logprobs", f"{json.dumps(token)}\n"
        yield "delta", piece


@pytest.fixture
def answering(store: Store, redis: Redis, end: End) -> Iterator[None]:
    """Answers what is queued as a worker would, piece by piece where somebody may listen."""
    streams, stop = Streams(redis), threading.Event()

    def say(job_id: UUID, messages: list[dict[str, str]], sampling: dict[str, Any]) -> None:
        streams.begin(job_id, 1)
        told: list[tuple[PieceKind, str]] = []
        if "think" in messages[-1]["content"]:
            told += [("reasoning", thought) for thought in THOUGHTS]
        if sampling.get("tools") and messages[-1]["role"] == "user":
            told += [("tool_call", json.dumps(asdict(call))) for call in CALLS]
        else:
            told += said(sampling.get("top_logprobs"))
        before = 0
        for kind, text in told:
            assert streams.publish([StreamPiece(job_id, 1, before, text, kind)]) == [True]
            before += len(text.encode())
        for number in range(1, sampling.get("n", 1)):
            assert streams.publish([StreamPiece(job_id, 1, before, PIECES[0], "delta", number)]) == [True]
            before += len(PIECES[0].encode())

    def work() -> None:
        while not stop.wait(0.02):
            with store.begin() as db:
                texts = job_texts.c.messages, job_texts.c.sampling
                asked = sa.select(jobs.c.id, jobs.c.stream, *texts).join(job_texts, job_texts.c.job_id == jobs.c.id)
                queued = db.execute(asked.where(jobs.c.state == JobState.QUEUED)).all()
            for job_id, is_heard, messages, sampling in queued:
                if is_heard:
                    say(job_id, messages, sampling)
                # One that was cancelled or expired meanwhile needs no answer.
                end(job_id)

    thread = threading.Thread(target=work)
    thread.start()
    yield
    stop.set()
    thread.join()
