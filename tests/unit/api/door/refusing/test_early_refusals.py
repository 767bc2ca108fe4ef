"""What is refused before it is examined: only what would be refused anyway, and only for a moment."""

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from api.door.cached.full_queues import FRESH_S, REMEMBER_S
from api.door.drafts import Draft, Spelling
from api.door.refusing.early_refusals import EarlyRefusals
from api.door.submit import Submitter
from headrace.config import PoolSettings, Settings
from headrace.domain.apps import App
from headrace.domain.ids import new_id
from headrace.domain.limits.rates import NO_RATES
from headrace.domain.places import Refusal, bound_of
from headrace.domain.prompts import Message
from headrace.domain.queues import Lane, Overflow
from headrace.errors import QueueFull

DRAFT = Draft(Spelling("prompt"), (Message("user", "Why is the sky blue?"),), max_tokens=256)
FULL = Refusal("depth", 500, 150_000, 150_000, NO_RATES, cap_jobs=500)
LIKE_IT: dict[str, Any] = {"prompt": "Another.", "max_tokens": "not even valid"}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    clock = SimpleNamespace(now_s=1000.0)
    for module in ("api.door.intake", "api.door.cached.full_queues"):
        monkeypatch.setattr(f"{module}.time", SimpleNamespace(monotonic=lambda: clock.now_s))
    return clock


@pytest.fixture
def early(submitter: Submitter) -> EarlyRefusals:
    return submitter.refuser.early


def refuse(submitter: Submitter, app: App, draft: Draft = DRAFT) -> QueueFull:
    with pytest.raises(QueueFull) as raised:
        submitter.submit(draft, app)
    return raised.value


def is_refused(early: EarlyRefusals, app: App, body: Any = LIKE_IT) -> bool:
    return early.check(app.id, body if isinstance(body, bytes) else json.dumps(body).encode()) is not None


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("reason", ["depth", "share", "app_jobs"])
def test_it_says_what_the_last_examined_job_was_told(
    submitter: Submitter, early: EarlyRefusals, door: Any, app: App, reason: Any
) -> None:
    door.refusal = Refusal(reason, 500, 150_000, 150_000, NO_RATES, **bound_of(reason, 5))
    examined = refuse(submitter, app)
    assert early.check(app.id, json.dumps(LIKE_IT).encode()) is examined
    assert door.steps.count("reserve") == 1
    assert len(door.refused) == 2
    assert door.refused[0] == door.refused[1], "it is counted as demand like the examined one"


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("reason", ["tokens", "wait", "token_share"])
def test_what_depends_on_a_jobs_size_is_examined(
    submitter: Submitter, early: EarlyRefusals, door: Any, app: App, reason: Any
) -> None:
    door.refusal = Refusal(reason, 500, 150_000, 150_000, NO_RATES, **bound_of(reason, 5))
    refuse(submitter, app)
    assert not is_refused(early, app)


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(
    "body",
    [
        {**LIKE_IT, "lane": "high"},
        {**LIKE_IT, "lane": ["normal"]},
        {**LIKE_IT, "model": "another"},
        {**LIKE_IT, "model": 7},
        {**LIKE_IT, "overflow": "never"},
        {"input": "embed me", "prompt": "Another."},
        {"max_tokens": 1},
        ["prompt"],
        b'{"prompt": "Another."',
        b'{"prompt": "\xff"}',
    ],
    ids=str,
)
def test_what_does_not_look_alike_is_examined(
    submitter: Submitter, early: EarlyRefusals, door: Any, app: App, body: Any
) -> None:
    door.refusal = FULL
    refuse(submitter, app)
    assert is_refused(early, app)
    assert not is_refused(early, app, body)


@pytest.mark.usefixtures("clock")
def test_another_app_is_examined(submitter: Submitter, early: EarlyRefusals, door: Any, app: App) -> None:
    door.refusal = FULL
    refuse(submitter, app)
    assert not is_refused(early, replace(app, id=new_id()))


def test_one_request_is_examined_after_a_moment_and_all_are_soon(
    submitter: Submitter, early: EarlyRefusals, door: Any, app: App, clock: SimpleNamespace
) -> None:
    door.refusal = FULL
    refuse(submitter, app)
    clock.now_s += FRESH_S * 1.1
    assert [is_refused(early, app) for _ in range(3)] == [False, True, True]
    clock.now_s += REMEMBER_S
    assert not is_refused(early, app)


def test_a_refusal_from_memory_is_not_kept_for_longer_than_what_redis_said(
    submitter: Submitter, early: EarlyRefusals, door: Any, app: App, clock: SimpleNamespace
) -> None:
    door.refusal = FULL
    refuse(submitter, app)
    clock.now_s += FRESH_S * 0.9
    refuse(submitter, app)
    assert door.steps.count("reserve") == 1
    clock.now_s += REMEMBER_S - FRESH_S * 0.9
    assert not is_refused(early, app)


def test_a_job_that_finds_room_ends_it(
    submitter: Submitter, early: EarlyRefusals, door: Any, app: App, clock: SimpleNamespace
) -> None:
    door.refusal = FULL
    refuse(submitter, app)
    clock.now_s += FRESH_S
    door.refusal = None
    submitter.submit(DRAFT, app)
    assert not is_refused(early, app)


@pytest.mark.usefixtures("clock")
def test_a_job_that_may_find_room_elsewhere_is_examined(
    submitter: Submitter, early: EarlyRefusals, door: Any, app: App, settings: Settings
) -> None:
    """With a key for the paid API: another job may be one that its owner would pay for."""
    keyed = settings.model_copy(update={"openai_api_key": "sk"})
    with_key = replace(submitter, settings=keyed, refuser=replace(submitter.refuser, settings=keyed))
    door.refusal = FULL
    refuse(with_key, app)
    assert not is_refused(early, app)
    refuse(with_key, app, replace(DRAFT, overflow=Overflow.NEVER))
    assert is_refused(early, app, {**LIKE_IT, "overflow": "never"})


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("change", ["app", "pool", "flight"])
def test_a_job_that_a_cache_may_serve_is_examined(
    submitter: Submitter, early: EarlyRefusals, door: Any, app: App, settings: Settings, change: str
) -> None:
    caching = {"app": {}, "pool": {"cache_s": 60.0}, "flight": {"single_flight": True}}[change]
    pool = PoolSettings(**{**settings.pools["chat"].model_dump(exclude_unset=True), **caching})
    submitter.cache._settings = settings.model_copy(update={"pools": {"chat": pool}})
    door.refusal = FULL
    refuse(submitter, replace(app, cache_s=60.0) if change == "app" else app)
    assert not is_refused(early, app)


@pytest.mark.usefixtures("clock")
def test_lanes_are_kept_apart(submitter: Submitter, early: EarlyRefusals, door: Any, app: App) -> None:
    door.refusal = FULL
    refuse(submitter, app, replace(DRAFT, lane=Lane.HIGH))
    assert is_refused(early, app, {**LIKE_IT, "lane": "high"})
    assert not is_refused(early, app)
