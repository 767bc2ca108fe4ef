"""What a key opens over HTTP, when it ceases to, and that its text is nowhere but in the caller's hand."""

import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest
import sqlalchemy as sa
from pydantic import SecretStr
from redis import Redis

from api.auth import KEY_TTL_S, Authenticator
from headrace.config import Settings
from headrace.domain.apps import App, AppLimits, KeyState, Scope
from headrace.domain.queues import Lane
from headrace.store import Store, apps, keys
from headrace.tables import metadata
from tests.web import ApiClient, Web

GOOD = {"prompt": "Hi"}


@pytest.fixture
def client_with(store: Store, settings: Settings, app: App, client_of: Any) -> Callable[..., ApiClient]:
    """A client whose key has these scopes."""

    def make(*scopes: Scope) -> ApiClient:
        with store.begin() as db:
            key = keys.make(db, app.id, settings.pepper.get_secret_value(), scopes=scopes)
        client: ApiClient = client_of(key)
        return client

    return make


def test_a_key_that_may_only_read_submits_cancels_and_deletes_nothing(
    client_with: Callable[..., ApiClient], client: ApiClient, web: Web
) -> None:
    reader = client_with(Scope.READ)
    job_id = client.post("/v1/jobs", json=GOOD).get_json()["id"]

    assert [reader.get(path).status_code for path in ("/v1/jobs", f"/v1/jobs/{job_id}", "/v1/models")] == [200] * 3
    for rule in web.url_map.iter_rules():
        if rule.rule == "/ping":
            continue  # It needs no key.
        for method in (rule.methods or set()) & {"POST", "DELETE", "PUT", "PATCH"}:
            path = re.sub(r"<[^>]+>", job_id, rule.rule)
            refused = reader.open(path, method=method, json=GOOD)
            error = refused.get_json()["error"]
            assert (refused.status_code, error["code"], error["type"]) == (
                403,
                "scope_not_allowed",
                "permission_error",
            ), (method, path)
    assert "scope 'submit'; this one's: read." in error["message"]
    assert client.get(f"/v1/jobs/{job_id}").get_json()["status"] == "queued"
    assert len(client.get("/v1/jobs").get_json()["data"]) == 1


def test_a_key_that_may_only_submit_reads_nothing(client_with: Callable[..., ApiClient]) -> None:
    submitter = client_with(Scope.SUBMIT)
    accepted = submitter.post("/v1/jobs", json=GOOD)
    assert accepted.status_code == 202
    job_id = accepted.get_json()["id"]
    for path in ("/v1/jobs", f"/v1/jobs/{job_id}", f"/v1/responses/{job_id}", "/v1/queues", "/v1/models"):
        assert submitter.get(path).status_code == 403, path
    assert submitter.post(f"/v1/jobs/{job_id}/cancel").status_code == 200


@pytest.mark.parametrize("path", ["/v1/models", "/v1/responses/resp_1", "/v1/jobs"])
def test_a_key_is_asked_for_before_anything_else_is_said(web: Web, path: str) -> None:
    refused = web.test_client().get(path)
    assert (refused.status_code, refused.headers["WWW-Authenticate"]) == (401, "Bearer")


class Clock:
    """A clock that moves when told to."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_what_an_operator_changes_holds_when_what_is_remembered_is_over(
    store: Store, app: App, key: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr("api.auth.time", SimpleNamespace(monotonic=clock))
    known = Authenticator(store, settings.pepper.get_secret_value())
    assert known.authenticate(f"Bearer {key}") == app

    with store.begin() as db:
        apps.set_limits(db, app.name, {"requests_per_minute": 7, "lanes": [Lane.LOW]})
    clock.now_s += KEY_TTL_S
    limited = known.authenticate(f"Bearer {key}")
    assert (limited.limits, limited.lanes) == (AppLimits(requests_per_minute=7), {Lane.LOW})

    with store.begin() as db:
        keys.revoke(db, keys.find(db, key))
    clock.now_s += KEY_TTL_S
    with pytest.raises(keys.Unauthenticated):
        known.authenticate(f"Bearer {key}")


@dataclass(frozen=True, slots=True)
class Traces:
    """Where a key's text could be left: everything in Postgres and Redis, and everything that was logged."""

    store: Store
    redis: Redis
    log: pytest.LogCaptureFixture

    def __iter__(self) -> Iterator[str]:
        with self.store.begin() as db:
            for table in metadata.sorted_tables:
                # A bytea is shown in hexadecimal.
                yield from db.scalars(sa.select(sa.cast(sa.column(table.name), sa.Text)).select_from(table))
        for name in self.redis.scan_iter():
            yield str(name)
            yield str(self.redis.dump(name) if self.redis.type(name) != "list" else self.redis.lrange(name, 0, -1))
        for record in self.log.records:
            yield f"{record.getMessage()} {vars(record)}"


OPERATIONS = st.sampled_from(["make", "rotate", "expire", "revoke", "call", "call_changed", "call_without_scheme"])


@hypothesis.given(st.lists(OPERATIONS, min_size=1, max_size=12))
@hypothesis.settings(max_examples=20, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
def test_no_keys_text_is_stored_or_logged_whatever_is_done_with_it(
    store: Store,
    redis: Redis,
    app: App,
    settings: Settings,
    web: Web,
    caplog: pytest.LogCaptureFixture,
    operations: list[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    pepper = settings.pepper.get_secret_value()
    with store.begin() as db:
        shown = [keys.make(db, app.id, pepper)]
    for operation in operations:
        shown += perform(operation, shown[-1], store, app, pepper, web)

    traces = list(Traces(store, redis, caplog))

    assert any(app.name in trace for trace in traces)
    for key in shown:
        # Its hint is all that is kept; the rest of it must be nowhere, in no spelling.
        rest = key[keys.HINT_CHARS :]
        for spelling in (rest, rest.encode().hex()):
            assert not [trace for trace in traces if spelling in trace]


def perform(operation: str, key: str, store: Store, app: App, pepper: str, web: Web) -> list[str]:
    """Do it with the key. Returns: other keys that were shown or sent."""
    sent = {"call": f"Bearer {key}", "call_changed": f"Bearer {key}x", "call_without_scheme": key}
    if header := sent.get(operation):
        web.test_client().post("/v1/jobs", json=GOOD, headers={"Authorization": header})
        return []
    with store.begin() as db:
        record = keys.find(db, key)
        if operation == "make" or record.state is not KeyState.LIVE:
            return [keys.make(db, app.id, pepper)]
        if operation == "rotate":
            day = timedelta(days=1)
            return [keys.rotate(db, record, pepper, keep_old_for=day, lifetime=day)]
        if operation == "expire":
            keys.expire(db, record, timedelta(seconds=-1))
        else:
            keys.revoke(db, record)
    return []


def test_no_part_of_a_key_is_in_an_answer_to_it(web: Web, key: str) -> None:
    wrong = key[:-1] + ("A" if key[-1] != "A" else "B")
    known: Authenticator = web.deps.callers.authenticator
    for sent in (wrong, key):
        answered = web.test_client().get(f"/v1/jobs/job_{'0' * 32}", headers={"Authorization": f"Bearer {sent}"})
        assert sent[3:] not in answered.get_data(as_text=True) + str(answered.headers)
    assert key not in repr(vars(known))


def test_keys_of_two_peppers_open_the_door_while_one_is_rotated(
    build_web: Callable[..., Web], client_of: Callable[..., ApiClient], store: Store, app: App
) -> None:
    with store.begin() as db:
        before, after = keys.make(db, app.id, "before"), keys.make(db, app.id, "after")

    def statuses(**peppers: str) -> list[int]:
        web = build_web(**{name: SecretStr(pepper) for name, pepper in peppers.items()})
        return [client_of(key, web).get("/v1/models").status_code for key in (before, after)]

    assert statuses(pepper="before") == [200, 401]
    assert statuses(pepper="after", old_pepper="before") == [200, 200]
    assert statuses(pepper="after") == [401, 200]
