"""The cache is each app's own: two apps send the same prompts by every route, and no byte of one reaches the other."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.config import Settings
from headrace.domain.ids import parse_id
from headrace.domain.states import JobState
from headrace.store import Store
from headrace.tables import jobs
from tests.web import ApiClient, Web

CACHE = "x-headrace-cache"
APPS = ("one", "two")
PROMPTS = ("Why is the sky blue?", "And the sea?")
SAMPLED = ({"temperature": 0}, {"seed": 7}, {"temperature": 0, "top_logprobs": 1})


def chat(prompt: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": prompt}], **more}


#: Every way to submit: its path, and the body of a prompt. None waits for the end of a job that is queued.
ROUTES: dict[str, tuple[str, Callable[[str], dict[str, Any]]]] = {
    "jobs": ("/v1/jobs", lambda prompt: {"prompt": prompt}),
    "messages": ("/v1/jobs", chat),
    "exact": ("/v1/jobs", lambda prompt: {"prompt": prompt, "cache": "exact"}),
    "response": ("/v1/responses", lambda prompt: {"input": prompt, "background": True}),
    "response_stream": ("/v1/responses", lambda prompt: {"input": prompt, "stream": True, "background": True}),
    "chat": ("/v1/chat/completions", chat),
    "chat_stream": ("/v1/chat/completions", lambda prompt: chat(prompt, stream=True)),
}
SUBMITS = st.tuples(
    st.sampled_from(APPS), st.sampled_from(list(ROUTES)), st.sampled_from(PROMPTS), st.sampled_from(SAMPLED)
)


def secret(app: str) -> str:
    """What only this app's answers contain."""
    return f"said-to-{app}"


class Clients:
    """Two apps at one API. Notes all that each was told."""

    def __init__(self, clients: dict[str, ApiClient], store: Store, end: Callable[..., bool]) -> None:
        self._clients, self._store, self._end = clients, store, end
        self.told: dict[str, list[str]] = {app: [] for app in clients}
        self.hits = 0

    def submit(self, app: str, route: str, prompt: str, sampled: dict[str, Any]) -> None:
        """Submit, have what was queued answered, and read all that there is of it."""
        path, body = ROUTES[route]
        fields = dict(sampled)
        if route.startswith("chat") and "top_logprobs" in fields:
            fields["logprobs"] = True
        elif route.startswith("response"):
            fields.pop("seed", None)
            if fields.pop("top_logprobs", None):
                fields |= {"include": ["message.output_text.logprobs"], "top_logprobs": 1}
        response = self._clients[app].post(path, json={**body(prompt), **fields}, headers={"Prefer": "wait=0"})
        assert response.status_code in (200, 202, 504), response.get_data()
        job_id = parse_id(response.headers["x-job-id"])
        self.hits += response.headers.get(CACHE) == "hit"
        self._answer(job_id, app)
        self._note(app, response)
        for spelling in ("jobs/job_", "responses/resp_"):
            self._note(app, self._clients[app].get(f"/v1/{spelling}{job_id.hex}"))

    def _answer(self, job_id: UUID, app: str) -> None:
        with self._store.begin() as db:
            state = db.scalar(jobs.select().with_only_columns(jobs.c.state).where(jobs.c.id == job_id))
        if state == JobState.QUEUED:
            assert self._end(job_id, secret(app))

    def _note(self, app: str, response: Any) -> None:
        self.told[app].append(f"{response.headers} {response.get_data(as_text=True)}")

    def look_around(self) -> None:
        """Read what lists there are."""
        for app, client in self._clients.items():
            for path in ("/v1/jobs?limit=100", "/v1/usage?group_by=day,model,lane,end_user"):
                self._note(app, client.get(path))


@pytest.fixture
def both(
    build_web: Callable[..., Web],
    settings: Settings,
    client_of: Any,
    make_key: Callable[[str], str],
    store: Store,
    end: Callable[..., bool],
) -> Clients:
    pools = {name: pool.model_copy(update={"cache_s": 3600.0}) for name, pool in settings.pools.items()}
    web = build_web(pools=pools)
    return Clients({app: client_of(make_key(app), web) for app in APPS}, store, end)


def check(both: Clients) -> None:
    both.look_around()
    for app, other in (APPS, reversed(APPS)):
        assert not [text for text in both.told[app] if secret(other) in text]
        assert [text for text in both.told[app] if secret(app) in text] or not both.told[app][2:]


@pytest.mark.parametrize("second", list(ROUTES))
@pytest.mark.parametrize("first", ["jobs", "response_stream", "chat"])
def test_an_answer_serves_its_own_app_by_every_route_and_no_other(both: Clients, first: str, second: str) -> None:
    sampled = {"temperature": 0}
    both.submit("one", first, PROMPTS[0], sampled)
    both.submit("two", second, PROMPTS[0], sampled)
    assert both.hits == 0
    both.submit("one", second, PROMPTS[0], sampled)
    assert both.hits == 1
    check(both)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(SUBMITS, min_size=2, max_size=8))
def test_no_byte_crosses_whatever_two_apps_ask_in_whatever_order(
    both: Clients, steps: list[tuple[str, str, str, dict[str, Any]]]
) -> None:
    for step in steps:
        both.submit(*step)
    check(both)
