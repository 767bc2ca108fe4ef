"""The cache at the door, with fakes for the servers: what is asked of them, and in which order."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID

import pytest

from api.door.drafts import Draft, Spelling
from api.door.sharing import ExactCache
from api.door.submit import Submitter
from headrace.broker.admission import Admission
from headrace.broker.rates import AppRates
from headrace.broker.reuse import Flights
from headrace.config import Settings
from headrace.config.pools import SemanticCacheSettings
from headrace.domain.apps import App, AppLimits
from headrace.domain.ids import new_id
from headrace.domain.jobs import Idempotency
from headrace.domain.limits import RateLeft, RatesLeft
from headrace.domain.places import Refusal
from headrace.domain.prompts import CacheChoice, Message
from headrace.domain.states import JobState
from headrace.errors import AppLimited, BrokerUnavailable
from headrace.store import Store
from headrace.store.cache import exact_cache
from headrace.store.cache.exact_cache import Found, Hit, Question

DRAFT = Draft(Spelling("prompt"), (Message("user", "Why is the sky blue?"),), max_tokens=256, temperature=0.0)
START_BY = datetime(2026, 11, 27, tzinfo=UTC)
LEFT = RatesLeft(RateLeft(60, 7))


class FakeAnswers:
    """Stands for the store's module, and for AppRates; `steps` is what was asked, in order.

    Attributes:
        found: what each search finds.
        is_there: False if the answer has gone by the time it is to be served.
        refusal: of the app's rate.
    """

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.found = Found()
        self.is_there = True
        self.refusal: Refusal | None = None
        self.hits: list[Hit] = []

    def search(self, _: Store, questions: Sequence[Question]) -> dict[UUID, Found]:
        self.steps.append("search")
        return {each.spec.id: self.found for each in questions}

    def serve(self, _: Store, hits: Sequence[Hit]) -> dict[UUID, datetime]:
        self.steps.append("serve")
        self.hits += hits
        return {each.question.spec.id: START_BY for each in hits if self.is_there}

    def use_request(self, _app_id: UUID, _limits: AppLimits, _tokens: int = 0) -> RatesLeft | Refusal:
        self.steps.append("rate")
        return self.refusal or LEFT

    def return_request(self, _app_id: UUID, _limits: AppLimits) -> None:
        self.steps.append("returned")


class OpenFlights:
    """Lets every job lead."""

    def lead(self, _key: bytes, _job_id: UUID) -> bool:
        return True

    def release(self, _key: bytes) -> None: ...


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> FakeAnswers:
    fake = FakeAnswers()
    monkeypatch.setattr(exact_cache, "search", fake.search)
    monkeypatch.setattr(exact_cache, "serve", fake.serve)
    return fake


Make = Callable[..., Submitter]


@pytest.fixture
def make(submitter: Submitter, settings: Settings, answers: FakeAnswers, door: Any) -> Make:
    """Makes a submitter whose pool has a cache, and other settings on request."""

    def build(**changes: Any) -> Submitter:
        pools = {n: pool.model_copy(update={"cache_s": 60.0, **changes}) for n, pool in settings.pools.items()}
        on = settings.model_copy(update={"pools": pools})
        servers = cast(Store, None), cast(AppRates, answers), cast(Admission, door)
        return replace(submitter, cache=ExactCache(on, *servers, cast(Flights, None)))

    return build


@pytest.fixture
def caching(make: Make) -> Submitter:
    return make()


@pytest.mark.parametrize("draft", [replace(DRAFT, cache=choice) for choice in (None, "exact")], ids=["none", "exact"])
def test_a_cache_that_is_off_costs_a_submit_neither_a_key_nor_a_query(
    submitter: Submitter, answers: FakeAnswers, door: Any, app: App, monkeypatch: pytest.MonkeyPatch, draft: Draft
) -> None:
    monkeypatch.setattr("headrace.policies.caching.key_of", lambda *_: pytest.fail("a key was computed"))
    monkeypatch.setattr("headrace.policies.caching.is_shared", lambda *_: pytest.fail("the sampling was looked at"))

    accepted = submitter.submit(draft, app)

    assert answers.steps == []
    assert accepted.cache is None
    [(spec, _)] = door.inserted
    assert (spec.cache_key, spec.is_cache_miss) == (None, False)


@pytest.mark.parametrize(
    ("named", "choice", "max_error", "looked_up_by"),
    [
        ("embed", None, None, "embed"),
        ("embed", "semantic", None, "embed"),
        ("embed", "exact", None, None),
        ("embed", None, 0.0, None),
        (None, None, None, None),
        (None, "semantic", None, None),
    ],
)
def test_a_miss_is_looked_up_by_meaning_where_pool_app_and_request_want_it(
    make: Make,
    door: Any,
    app: App,
    named: str | None,
    choice: CacheChoice | None,
    max_error: float | None,
    looked_up_by: str | None,
) -> None:
    make(semantic_cache=SemanticCacheSettings(pool=named)).submit(
        replace(DRAFT, cache=choice), replace(app, max_error=max_error)
    )

    [(spec, _)] = door.inserted
    assert spec.looked_up_by == looked_up_by
    assert door.lookups == ({spec.id: looked_up_by} if looked_up_by else {})


def test_a_hit_takes_no_place_and_no_part_in_the_refusals(
    caching: Submitter, answers: FakeAnswers, door: Any, app: App
) -> None:
    answers.found = Found(new_id())

    accepted = caching.submit(DRAFT, app)

    assert answers.steps == ["search", "serve"]
    assert door.steps == []
    assert door.refused == []
    assert (accepted.state, accepted.cache, accepted.start_by) == (JobState.SUCCEEDED, "hit", START_BY)
    assert (accepted.queue, accepted.position, accepted.depth) == ("chat.normal", None, None)
    assert answers.hits[0].job_id == answers.found.job_id


def test_a_miss_goes_on_with_its_key(caching: Submitter, answers: FakeAnswers, door: Any, app: App) -> None:
    accepted = caching.submit(DRAFT, app)
    assert answers.steps == ["search"]
    [(spec, _)] = door.inserted
    assert (accepted.cache, spec.is_cache_miss, len(spec.cache_key)) == ("miss", True, 32)


def test_a_job_that_comes_while_another_of_its_key_is_under_way_has_no_key(
    caching: Submitter, answers: FakeAnswers, door: Any, app: App
) -> None:
    answers.found = Found(is_pending=True)
    assert caching.submit(DRAFT, app).cache == "miss"
    [(spec, _)] = door.inserted
    assert (spec.is_cache_miss, spec.cache_key) == (True, None)


def test_a_job_whose_answer_has_gone_meanwhile_is_queued(
    caching: Submitter, answers: FakeAnswers, door: Any, app: App
) -> None:
    answers.found, answers.is_there = Found(new_id()), False
    accepted = caching.submit(DRAFT, app)
    assert answers.steps == ["search", "serve"]
    assert (accepted.state, accepted.cache) == (JobState.QUEUED, "miss")
    assert [spec.cache_key is not None for spec, _ in door.inserted] == [True]


def test_a_job_whose_answer_has_gone_is_one_request_of_its_app(
    caching: Submitter, answers: FakeAnswers, app: App
) -> None:
    """The place that it asks for counts it."""
    answers.found, answers.is_there = Found(new_id()), False
    caching.submit(DRAFT, replace(app, limits=AppLimits(requests_per_minute=60)))
    assert answers.steps == ["search", "rate", "serve", "returned"]


@pytest.mark.parametrize(
    ("limits", "steps"),
    [
        (AppLimits(requests_per_minute=60), ["search", "rate", "serve"]),
        (AppLimits(tokens_per_minute=60, queued_jobs=1), ["search", "serve"]),
    ],
)
def test_a_hit_uses_one_request_of_a_limited_app(
    caching: Submitter, answers: FakeAnswers, app: App, limits: AppLimits, steps: list[str]
) -> None:
    answers.found = Found(new_id())
    accepted = caching.submit(DRAFT, replace(app, limits=limits))
    assert answers.steps == steps
    assert accepted.rates_left == (LEFT if "rate" in steps else RatesLeft())


def test_a_hit_beyond_the_app_s_requests_is_refused_and_counted(
    caching: Submitter, answers: FakeAnswers, door: Any, app: App
) -> None:
    answers.found = Found(new_id())
    answers.refusal = Refusal("requests_per_minute", 0, 0, 0, LEFT, retry_in_ms=1500)
    with pytest.raises(AppLimited) as raised:
        caching.submit(DRAFT, replace(app, limits=AppLimits(requests_per_minute=60)))
    assert (raised.value.reason, raised.value.retry_after_s) == ("requests_per_minute", 2)
    assert answers.steps == ["search", "rate"]
    assert [(queue, reason) for _, queue, reason, *_ in door.refused] == [("chat.normal", "requests_per_minute")]


def test_a_hit_with_a_webhook_wakes_the_webhook_workers_and_needs_no_redis_for_it(
    caching: Submitter, answers: FakeAnswers, door: Any, app: App
) -> None:
    rung: list[bool] = []

    def ring(_job_ids: Any, *, has_webhooks: bool) -> None:
        rung.append(has_webhooks)
        raise BrokerUnavailable("Redis does not answer: gone")

    door.announce_ended = ring
    answers.found = Found(new_id())
    assert caching.submit(DRAFT, app).cache == "hit"
    assert rung == []
    assert caching.submit(replace(DRAFT, webhook_url="https://hooks.example.com/"), app).cache == "hit"
    assert rung == [True]


def test_a_hit_whose_key_another_request_has_taken_is_tried_once_and_then_a_replay(
    submitter: Submitter,
    settings: Settings,
    answers: FakeAnswers,
    door: Any,
    app: App,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("api.door.submit.find_replay", lambda *_: None)
    pools = {name: pool.model_copy(update={"single_flight": True}) for name, pool in settings.pools.items()}
    on = settings.model_copy(update={"pools": pools})
    servers = cast(AppRates, answers), cast(Admission, door), cast(Flights, OpenFlights())
    cache = ExactCache(on, cast(Store, None), *servers)
    answers.found, answers.is_there = Found(new_id()), False
    limited = replace(app, limits=AppLimits(requests_per_minute=60))

    replace(submitter, cache=cache).submit(DRAFT, limited, Idempotency("key", b"hash"))

    assert answers.steps == ["search", "rate", "serve", "returned"]
    assert len(door.inserted) == 1, "whose insert finds the other request's job"
