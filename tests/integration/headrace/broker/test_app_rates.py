"""Requests of an app that take no place in a queue, in the same rate as those that do."""

import pytest
from redis import Redis

from headrace.broker.admission import Admission
from headrace.broker.app_rates import AppRates
from headrace.config import Settings
from headrace.connections.redis import redis_client as connect
from headrace.domain.apps import AppLimits
from headrace.domain.ids import new_id
from headrace.domain.limits.rates import RateLeft, RatesLeft
from headrace.domain.places import Ask, Place, Refusal
from headrace.domain.queues import Candidate
from headrace.errors import BrokerUnavailable

LIMITS = AppLimits(requests_per_minute=3, tokens_per_minute=1000)
QUEUE = (Candidate("chat.normal", 500, 10**6, None, "test"),)


@pytest.fixture
def rates(redis: Redis) -> AppRates:
    return AppRates(redis)


def test_a_request_without_a_place_uses_the_rate_of_requests_alone(rates: AppRates, admission: Admission) -> None:
    app = new_id()
    [place] = admission.reserve([Ask(new_id(), app, 600, QUEUE, LIMITS)])
    assert isinstance(place, Place)

    left = rates.use_request(app, LIMITS)

    assert isinstance(left, RatesLeft)
    assert left.requests == RateLeft(3, 1)
    assert left.tokens is not None
    assert 400 <= left.tokens.left < 450
    [again] = admission.reserve([Ask(new_id(), app, 400, QUEUE, LIMITS)])
    assert isinstance(again, Place)
    refused = rates.use_request(app, LIMITS)
    assert isinstance(refused, Refusal)
    assert refused.reason == "requests_per_minute"
    assert 0 < (refused.retry_in_ms or 0) <= 20_000
    assert rates.free_in_ms(app, 3) > 0


def test_a_request_that_came_to_nothing_is_given_back_and_no_more_than_that(rates: AppRates) -> None:
    app = new_id()
    for _ in range(3):
        rates.use_request(app, LIMITS)
    assert isinstance(rates.use_request(app, LIMITS), Refusal)
    rates.return_request(app, LIMITS)
    left = rates.use_request(app, LIMITS)
    assert isinstance(left, RatesLeft)
    assert left.requests == RateLeft(3, 0)
    for _ in range(5):
        rates.return_request(app, LIMITS)
    full = rates.use_request(app, LIMITS)
    assert isinstance(full, RatesLeft)
    assert full.requests == RateLeft(3, 2)


def test_a_rate_without_tokens_says_nothing_of_them(rates: AppRates) -> None:
    assert rates.use_request(new_id(), AppLimits(requests_per_minute=60)) == RatesLeft(RateLeft(60, 59))


def test_a_limit_that_is_set_later_begins_with_a_full_bucket(rates: AppRates) -> None:
    app = new_id()
    rates.use_request(app, LIMITS)
    rates.use_request(app, AppLimits(requests_per_minute=3))
    left = rates.use_request(app, LIMITS)
    assert isinstance(left, RatesLeft)
    assert left.tokens == RateLeft(1000, 1000)


def test_a_redis_that_is_away_is_told() -> None:
    away = AppRates(connect(Settings.load(redis_url="redis://127.0.0.1:1/0")))
    with pytest.raises(BrokerUnavailable):
        away.use_request(new_id(), LIMITS)
