"""Two apps with the same prompts, keys and webhook paths, while the cache and single flight are on: no byte crosses.

Random lives of both: they submit by every route, read, list, cancel and erase, also by each other's ids, while workers,
the sweeps and the webhooks do their part. What an app is told may contain nothing that only the other's jobs have: each
answer, vector, metadata and end user has a mark of its app, and the ids of its jobs are marks too.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck
from hypothesis import settings as effort
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    initialize,
    multiple,
    rule,
    run_state_machine_as_test,
)
from redis import Redis

from headrace.broker.streams import Streams
from headrace.config import PoolSettings, Settings
from headrace.domain.deliveries import Terms
from headrace.domain.ids import ID_PREFIXES, parse_id
from headrace.domain.jobs import StreamPiece
from headrace.domain.prompts.embeddings import pack_floats
from headrace.domain.states import TERMINAL, JobState
from headrace.policies.webhooks import payload
from headrace.store import Store, apps, deliveries
from headrace.store import jobs as stored_jobs
from headrace.store.cache import exact_cache
from headrace.tables import jobs
from tests.web import ApiClient, Web

EXAMPLES, STEPS, ROUNDS = 20, 20, 5
NAMES = ("one", "two")
PROMPTS = ("Why is the sky blue?", "And the sea?")
#: The same text for both apps.
KEY = "order-1"
SAMPLED: dict[str, Any] = {"temperature": 0}
TERMS = Terms(most=100, per_app=100, per_receiver=100, max_tries=5, lease_s=60)


def chat(prompt: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": prompt}], **SAMPLED, **more}


#: Every way to submit: its path, and the body of a prompt.
ROUTES: dict[str, tuple[str, Callable[[str], dict[str, Any]]]] = {
    "jobs": ("/v1/jobs", lambda prompt: {"prompt": prompt, **SAMPLED}),
    "messages": ("/v1/jobs", chat),
    "exact": ("/v1/jobs", lambda prompt: {"prompt": prompt, "cache": "exact"}),
    "embedding_job": ("/v1/jobs", lambda prompt: {"model": "embeds", "input": prompt, "cache": "exact"}),
    "embeddings": ("/v1/embeddings", lambda prompt: {"input": prompt, "job": {"cache": "exact"}}),
    "base64": ("/v1/embeddings", lambda prompt: {"input": [prompt], "encoding_format": "base64"}),
    "response": ("/v1/responses", lambda prompt: {"input": prompt, "background": True, **SAMPLED}),
    "response_stream": (
        "/v1/responses",
        lambda prompt: {"input": prompt, "stream": True, "background": True, **SAMPLED},
    ),
    "chat": ("/v1/chat/completions", chat),
    "chat_stream": ("/v1/chat/completions", partial(chat, stream=True)),
}
LISTS = (
    "/v1/jobs?limit=100",
    "/v1/jobs?status=succeeded",
    "/v1/usage?group_by=day,model,lane,end_user",
    "/v1/queues",
    "/v1/models",
)


def options(route: str, mark: str, webhook: str | None) -> dict[str, Any]:
    """What a request by this route has beside its prompt: marks of its app, and a webhook."""
    hook = {"webhook": webhook} if webhook else {}
    if ROUTES[route][0] == "/v1/jobs":
        return {"metadata": {"of": mark}, "end_user": mark, **hook}
    return {"user": mark, "job": hook}


@dataclass(frozen=True, slots=True)
class Ask:
    """A request. Attributes: key: its Idempotency-Key."""

    route: str
    prompt: str
    key: str | None
    has_webhook: bool


ASKS = st.builds(
    Ask, st.sampled_from(list(ROUTES)), st.sampled_from(PROMPTS), st.sampled_from((None, KEY)), st.booleans()
)


@dataclass(frozen=True, slots=True)
class Asked:
    """A job, the app that submitted it, and how."""

    app: str
    job_id: UUID
    ask: Ask
    is_stream: bool


@dataclass
class Client:
    """One app: what is its alone, and what it was told."""

    http: ApiClient
    app_id: UUID
    secret: str
    vector: list[float]
    mark: str
    job_ids: set[str] = field(default_factory=set)

    @property
    def marks(self) -> set[str]:
        """Texts that nothing of another app may contain."""
        return {self.mark, pack_floats(self.vector), str(self.vector[0]), self.secret, *self.job_ids}


@dataclass
class House:
    """All servers, and what plays the workers and the sweeps.

    Attributes:
        clients: the apps of all examples: what an earlier one has left must not reach a later one either.
        seen: what happened how often.
    """

    web: Web
    store: Store
    redis: Redis
    end: Callable[..., bool]
    make_client: Callable[[str], Client]
    clients: list[Client] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)

    def state(self, job_id: UUID) -> JobState:
        return JobState(self.row(job_id).state)

    def row(self, job_id: UUID) -> sa.Row[Any]:
        with self.store.begin() as db:
            return db.execute(sa.select(jobs).where(jobs.c.id == job_id)).one()

    def open_ids(self) -> list[UUID]:
        with self.store.begin() as db:
            return list(db.scalars(sa.select(jobs.c.id).where(jobs.c.state.not_in(TERMINAL)).order_by(jobs.c.id)))

    def sweep(self) -> None:
        """Settle followers, and queue those that lead now."""
        with self.store.begin() as db:
            exact_cache.settle_followers(db, exact_cache.of_ended_leaders(db))
            stored_jobs.enqueue_due(db)


def calls(web: Web) -> Iterator[tuple[str, str]]:
    """Every method and path that takes a job's id, with each spelling of the id."""
    for rule_ in web.url_map.iter_rules():
        if rule_.rule.startswith("/v1/") and "public_id" in rule_.arguments:
            for method in sorted((rule_.methods or set()) - {"HEAD", "OPTIONS"}):
                for prefix in ID_PREFIXES:
                    yield method, rule_.rule.replace("<public_id>", prefix + "{}")


class TwoApps(RuleBasedStateMachine):
    """What both apps do, in any order."""

    asked = Bundle("asked")
    house: House

    def __init__(self) -> None:
        super().__init__()
        house = self._house = self.house
        # Places that the jobs of the last example had.
        house.redis.flushall()
        self._clients = {name: house.make_client(name) for name in NAMES}
        house.clients += self._clients.values()
        self._streams = Streams(house.redis)
        self._said: dict[UUID, str] = {}
        self._open: list[tuple[str, Any]] = []
        self._calls = list(calls(house.web))

    @initialize(target=asked, asks=st.lists(ASKS, min_size=2, max_size=5))
    def both_submit(self, asks: list[Ask]) -> MultipleResults[Asked]:
        """Both apps ask the same, also in the examples that leave the next rules out."""
        asks = [*asks, *(Ask("jobs", prompt, None, has_webhook=False) for prompt in PROMPTS)]
        return multiple(*(made for ask in asks for app in NAMES for made in self._submit(app, ask)))

    @rule(target=asked, app=st.sampled_from(NAMES), asks=st.lists(ASKS, min_size=1, max_size=3))
    def submit(self, app: str, asks: list[Ask]) -> MultipleResults[Asked]:
        return multiple(*(made for ask in asks for made in self._submit(app, ask)))

    @rule(target=asked, asked=asked, app=st.sampled_from(NAMES))
    def submit_again(self, asked: Asked, app: str) -> MultipleResults[Asked]:
        """An app sends what it, or the other one, has sent before, under the same key."""
        return multiple(*self._submit(app, asked.ask))

    def _submit(self, app: str, ask: Ask) -> list[Asked]:
        client, (path, body) = self._clients[app], ROUTES[ask.route]
        webhook = f"https://hooks.example.com/{client.mark}" if ask.has_webhook else None
        headers = {"Prefer": "wait=0", **({"Idempotency-Key": ask.key} if ask.key else {})}
        request = {**body(ask.prompt), **options(ask.route, client.mark, webhook)}
        response = client.http.post(path, json=request, headers=headers)
        if "x-job-id" not in response.headers:
            assert ask.key, response.get_data()
            self._note(app, response)
            return []
        job_id = parse_id(response.headers["x-job-id"])
        client.job_ids.add(job_id.hex)
        self._house.seen[response.headers.get("x-headrace-cache", "none")] += 1
        self._house.seen["replays"] += "Idempotent-Replayed" in response.headers
        is_stream = response.mimetype == "text/event-stream"
        if is_stream:
            self._open.append((app, response))
        else:
            self._note(app, response)
        return [Asked(app, job_id, ask, is_stream)]

    @rule(asked=asked, what=st.sampled_from(("say", "answer", "answer", "sweep", "deliver")))
    def work(self, asked: Asked, what: str) -> None:
        """A worker or a sweep does its part. One rule for all: Hypothesis leaves whole rules out of an example."""
        match what:
            case "say":
                self._say(asked)
            case "answer":
                self._answer(asked)
            case "sweep":
                self._house.sweep()
            case "deliver":
                self._deliver()

    def _say(self, asked: Asked) -> None:
        """A worker publishes the beginning of an answer."""
        is_new = asked.is_stream and asked.job_id not in self._said
        if is_new and self._house.state(asked.job_id) is JobState.QUEUED:
            self._said[asked.job_id] = text = f"{self._clients[asked.app].secret} "
            self._streams.begin(asked.job_id, 1)
            assert self._streams.publish([StreamPiece(asked.job_id, 1, 0, text)]) == [True]

    def _answer(self, asked: Asked) -> None:
        """A worker ends a job, or the one that it follows, if that is queued."""
        leader_id = self._house.row(asked.job_id).served_by_job
        self._end(asked.app, leader_id or asked.job_id)

    def _end(self, app: str, job_id: UUID) -> None:
        client = self._clients[app]
        text = f"{self._said.get(job_id, '')}{client.secret}"
        self._house.seen["answers"] += self._house.end(job_id, text, vector=pack_floats(client.vector))

    @rule(asked=asked, app=st.sampled_from(NAMES), place=st.integers(0, 1000), query=st.sampled_from(["", "?limit=1"]))
    def call(self, asked: Asked, app: str, place: int, query: str) -> None:
        """An app calls a route with an id, its own or the other's: reads, cancels or erases the job."""
        method, path = self._calls[place % len(self._calls)]
        before = self._house.row(asked.job_id)
        response = self._clients[app].http.open(path.format(asked.job_id.hex) + query, method=method)
        if app == asked.app:
            self._note(app, response)
            return
        assert response.status_code in ((400, 404) if query else (404,)), response.get_data()
        self._check(app, response.get_data(as_text=True).replace(asked.job_id.hex, "ID"))
        assert self._house.row(asked.job_id) == before
        self._house.seen["strange ids"] += 1

    @rule(asked=asked, path=st.sampled_from(LISTS))
    def read(self, asked: Asked, path: str) -> None:
        """An app reads its own job in both formats, and a list."""
        self._note(asked.app, self._clients[asked.app].http.get(path))
        for spelling in ("jobs/job_", "responses/resp_"):
            self._note(asked.app, self._clients[asked.app].http.get(f"/v1/{spelling}{asked.job_id.hex}"))
        if asked.is_stream and self._house.state(asked.job_id) in TERMINAL:
            http = self._clients[asked.app].http
            self._note(asked.app, http.get(f"/v1/responses/resp_{asked.job_id.hex}?stream=true"))

    def _deliver(self) -> None:
        """A webhook worker posts what is due: to the receiver that an app has named, under that app's secret."""
        owners = {client.app_id: name for name, client in self._clients.items()}
        with self._house.store.begin() as db:
            for each in deliveries.pull(db, TERMS).deliveries:
                assert each.app_id in owners
                client = self._clients[owners[each.app_id]]
                assert each.url == f"https://hooks.example.com/{client.mark}"
                assert each.secrets == (client.secret,)
                self._check(owners[each.app_id], payload(each.id, each.event, each.data, each.at))
                deliveries.record_success(db, each, 200)
                self._house.seen["webhooks"] += 1

    def teardown(self) -> None:
        """Answer all that is open, and read the streams to their ends."""
        self._end_all()
        for prompt in PROMPTS:
            for app in NAMES:
                # The last answers serve these, of their own app alone.
                self._submit(app, Ask("jobs", prompt, None, has_webhook=False))
        self._end_all()
        for app, response in self._open:
            self._note(app, response)
        self._deliver()
        for app, client in self._clients.items():
            jobs_told = [f"/v1/jobs/job_{job_id}" for job_id in client.job_ids]
            for path in (*LISTS, *jobs_told):
                self._note(app, client.http.get(path))

    def _end_all(self) -> None:
        owners = {job_id: app for app, client in self._clients.items() for job_id in client.job_ids}
        while open_ids := self._house.open_ids():
            for job_id in open_ids:
                self._end(owners[job_id.hex], job_id)
            self._house.sweep()

    def _note(self, app: str, response: Any) -> None:
        """Look through an answer to an app."""
        assert response.status_code < 500 or response.status_code == 504, response.get_data()
        text = f"{response.headers} {response.get_data(as_text=True)}"
        response.close()
        self._house.seen["own secrets"] += self._clients[app].secret in text
        self._house.seen["own vectors"] += any(mark in text for mark in self._vector_marks(app))
        self._check(app, text)

    def _vector_marks(self, app: str) -> tuple[str, str]:
        vector = self._clients[app].vector
        return pack_floats(vector), str(vector[0])

    def _check(self, app: str, text: str) -> None:
        for client in self._house.clients:
            if client is not self._clients[app]:
                assert not [mark for mark in client.marks if mark in text], (app, text)


@pytest.fixture
def house(
    build_web: Callable[..., Web],
    settings: Settings,
    client_of: Any,
    make_key: Callable[[str], str],
    store: Store,
    redis: Redis,
    end: Callable[..., bool],
) -> House:
    embed = PoolSettings(model="embeds", engine="simulator", serves="embeddings")
    pools = {**settings.pools, "embed": embed}
    shared = {name: pool.model_copy(update={"cache_s": 3600.0, "single_flight": True}) for name, pool in pools.items()}
    web = build_web(pools=shared)
    numbers = count(1)

    def make_client(name: str) -> Client:
        # New apps for each example, so that none finds what an earlier one has left.
        number = next(numbers)
        http = client_of(make_key(f"{name}-{number}"), web)
        with store.begin() as db:
            app = apps.ensure(db, f"{name}-{number}")
            secret = db.scalar(sa.text("SELECT webhook_secret FROM apps WHERE id = :id"), {"id": app.id})
        # An odd number of 4096ths has twelve decimals: no such number begins as another one.
        vector = [0.5 + (2 * number + 1) / 4096, 0.25]
        return Client(http, app.id, secret, vector, f"mark-of-{name}-{number}-")

    return House(web, store, redis, end, make_client)


def test_no_byte_of_one_app_reaches_the_other_by_any_route(house: House) -> None:
    TwoApps.house = house
    wanted = ("hit", "shared", "miss", "replays", "answers", "strange ids", "webhooks", "own secrets", "own vectors")
    # Each of these must happen: else the test would say nothing. The examples are random, so a rare one may need more.
    for _ in range(ROUNDS):
        run_state_machine_as_test(
            TwoApps,
            settings=effort(
                max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None, suppress_health_check=list(HealthCheck)
            ),
        )
        if all(house.seen[name] for name in wanted):
            break
    assert [name for name in wanted if not house.seen[name]] == [], house.seen
