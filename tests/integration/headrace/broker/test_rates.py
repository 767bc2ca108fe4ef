"""Requests of an app that take no place in a queue, and the shared pace of calls to a provider, on a real Valkey."""

import math
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from redis import Redis

from headrace.broker.admission import Admission
from headrace.broker.rates import ON_ITS_WAY_S, AppRates, Headroom, Pace
from headrace.config import Settings
from headrace.connections.redis import redis_client
from headrace.domain.apps import AppLimits
from headrace.domain.ids import new_id
from headrace.domain.limits import ProviderRate, ProviderRates, RateLeft, RatesLeft
from headrace.domain.places import Ask, Place, Refusal
from headrace.domain.queues import KEY_PREFIX, Candidate
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


def test_a_request_with_tokens_uses_both_rates_or_neither(rates: AppRates) -> None:
    app = new_id()
    left = rates.use_request(app, LIMITS, 600)
    assert left == RatesLeft(RateLeft(3, 2), RateLeft(1000, 400))

    refused = rates.use_request(app, LIMITS, 600)

    assert isinstance(refused, Refusal)
    assert refused.reason == "tokens_per_minute"
    assert 0 < (refused.retry_in_ms or 0) <= 12_000
    again = rates.use_request(app, LIMITS, 400)
    assert isinstance(again, RatesLeft)
    assert again.requests == RateLeft(3, 1)


def test_tokens_may_be_the_only_rate(rates: AppRates) -> None:
    app, limits = new_id(), AppLimits(tokens_per_minute=1000)
    assert rates.use_request(app, limits, 1000) == RatesLeft(None, RateLeft(1000, 0))
    refused = rates.use_request(app, limits, 1001)
    assert isinstance(refused, Refusal)
    assert refused.reason == "tokens_per_minute"


def test_a_redis_that_is_away_is_told() -> None:
    away = AppRates(redis_client(Settings.load(redis_url="redis://127.0.0.1:1/0")))
    with pytest.raises(BrokerUnavailable):
        away.use_request(new_id(), LIMITS)


MODEL = "gpt-4o-mini"


@pytest.fixture
def pace(redis: Redis) -> Pace:
    return Pace(redis)


def said(
    requests: tuple[int, int, float] | None = None, tokens: tuple[int, int, float] | None = None, ago_s: float = 0.0
) -> ProviderRates:
    """Limit, left, and seconds until it is full, of each."""
    return ProviderRates(
        time.monotonic() - ago_s,
        ProviderRate(*requests) if requests else None,
        ProviderRate(*tokens) if tokens else None,
    )


def test_nobody_waits_while_nothing_is_known(pace: Pace, redis: Redis) -> None:
    assert [pace.ask(MODEL, str(no), 10_000) for no in range(3)] == [0, 0, 0]
    assert redis.keys() == [], "and nothing is kept"


def test_as_many_calls_go_as_the_provider_has_left(pace: Pace) -> None:
    pace.hear(MODEL, said(requests=(60, 2, 58)))

    assert [pace.ask(MODEL, str(no), 1) for no in range(2)] == [0, 0]
    # It fills up by 58 in 58 s.
    assert 0.5 < pace.ask(MODEL, "third", 1) <= 1


def test_tokens_are_counted_as_well_and_whichever_lacks_more_is_waited_for(pace: Pace) -> None:
    pace.hear(MODEL, said(requests=(100, 0, 100), tokens=(6000, 1000, 50)))

    assert pace.ask(MODEL, "small", 100) == pytest.approx(1, abs=0.2), "one request in a second"
    assert pace.ask(MODEL, "large", 2000) == pytest.approx(10, abs=0.5), "a thousand tokens in ten seconds"


def test_a_call_larger_than_the_rate_goes_when_the_bucket_is_full(pace: Pace) -> None:
    pace.hear(MODEL, said(tokens=(1000, 1000, 0)))

    assert pace.ask(MODEL, "huge", 5000) == 0
    assert pace.ask(MODEL, "next", 1) > 200, "4000 tokens are owed, at 1000 a minute"


def test_calls_that_were_asked_for_after_an_answer_are_not_in_what_it_said(pace: Pace) -> None:
    pace.hear(MODEL, said(requests=(100, 50, 3000), ago_s=100))
    for no in range(3):
        pace.ask(MODEL, str(no), 1)
    pace.hear(MODEL, said(requests=(100, 4, 30_000), ago_s=90))

    assert pace.ask(MODEL, "the fourth", 1) == 0
    assert pace.ask(MODEL, "the fifth", 1) > 0


def test_calls_that_were_asked_for_before_it_are(pace: Pace) -> None:
    pace.hear(MODEL, said(requests=(100, 50, 3000), ago_s=100))
    for no in range(3):
        pace.ask(MODEL, str(no), 1)
    # As if the answer had come so much later.
    pace.hear(MODEL, said(requests=(100, 5, 30_000), ago_s=-ON_ITS_WAY_S))

    assert [pace.ask(MODEL, f"more {no}", 1) for no in range(4)] == [0, 0, 0, 0]
    assert pace.ask(MODEL, "the fifth", 1) > 0


def test_news_counts_by_when_it_was_said(pace: Pace) -> None:
    pace.hear(MODEL, said(requests=(100, 0, 1000)))
    pace.hear(MODEL, said(requests=(100, 100, 0), ago_s=5))

    assert pace.ask(MODEL, "one", 1) > 0, "an answer that was late says nothing of now"


def test_a_bucket_that_fills_again_lets_calls_go(pace: Pace) -> None:
    pace.hear(MODEL, said(requests=(1000, 0, 1)))
    wait_s = pace.ask(MODEL, "one", 1)
    until = time.monotonic() + 5
    while wait_s > 0 and time.monotonic() < until:
        wait_s = pace.ask(MODEL, "one", 1)

    assert wait_s == 0


def test_who_is_asked_to_leave_it_alone_does_so_whatever_is_left(pace: Pace) -> None:
    pace.hear(MODEL, said(requests=(100, 100, 0)), hold_s=30)
    assert 29 < pace.ask(MODEL, "one", 1) <= 30
    pace.hear(MODEL, said(), hold_s=10)
    assert pace.ask(MODEL, "one", 1) > 25, "a shorter word does not end it"


def test_each_model_has_a_pace_of_its_own(pace: Pace) -> None:
    pace.hear(MODEL, said(requests=(60, 0, 60)))

    assert pace.ask(MODEL, "one", 1) > 0
    assert pace.ask("gpt-4o", "one", 1) == 0


def test_many_at_once_get_what_is_left_and_no_more(pace: Pace) -> None:
    pace.hear(MODEL, said(requests=(60, 20, 4000)))
    with ThreadPoolExecutor(16) as pool:
        waits = list(pool.map(lambda no: pace.ask(MODEL, str(no), 1), range(64)))

    assert sum(wait_s == 0 for wait_s in waits) == 20


def test_a_wiped_redis_knows_nothing_and_lets_calls_go(pace: Pace, redis: Redis) -> None:
    pace.hear(MODEL, said(requests=(60, 0, 60)))
    redis.flushall()

    assert pace.ask(MODEL, "one", 1) == 0


def test_what_no_answer_says_any_more_is_forgotten_however_often_it_is_asked_for(pace: Pace, redis: Redis) -> None:
    pace.hear(MODEL, said(requests=(60, 60, 0)))
    rates = f"{KEY_PREFIX}pace:{MODEL}"
    assert redis.expire(rates, 100)
    pace.ask(MODEL, "one", 1)

    assert redis.ttl(rates) <= 100


def test_what_is_left_can_be_seen_without_being_taken(pace: Pace) -> None:
    assert pace.left(MODEL) == Headroom(math.inf, math.inf, math.inf)
    pace.hear(MODEL, said(requests=(60, 2, 5800), tokens=(1000, 700, 30_000)))
    for _ in range(2):
        assert pace.left(MODEL) == Headroom(2, 700, 1000)
    pace.ask(MODEL, "one", 400)
    assert pace.left(MODEL) == Headroom(1, 300, 1000)
    pace.hear(MODEL, said(), hold_s=30)
    assert not pace.left(MODEL).has(1)
    assert pace.left("gpt-4o").has(1), "each model has a pace of its own"


def test_what_is_left_of_the_one_rate_that_was_said(pace: Pace) -> None:
    pace.hear(MODEL, said(requests=(60, 2, 5800)))
    pace.hear("gpt-4o", said(tokens=(1000, 700, 30_000)))

    assert pace.left(MODEL) == Headroom(2, math.inf, math.inf)
    assert pace.left("gpt-4o") == Headroom(math.inf, 700, 1000)


def test_what_is_left_is_what_may_be_asked_for(pace: Pace) -> None:
    pace.hear(MODEL, said(tokens=(1000, 1000, 0)))
    headroom = pace.left(MODEL)
    for no, tokens in enumerate((600, 400, 1)):
        had_room = headroom.has(tokens)
        assert had_room is (pace.ask(MODEL, str(no), tokens) == 0)
        if had_room:
            headroom.take(tokens)

    pace.hear("gpt-4o", said(tokens=(1000, 1000, 0)))
    assert pace.left("gpt-4o").has(5000), "one that is larger than the rate goes when the bucket is full"


def test_a_redis_that_is_not_there_is_said_so(pace: Pace) -> None:
    gone = Pace(redis_client(Settings.load(redis_url="redis://127.0.0.1:1/0")))

    with pytest.raises(BrokerUnavailable):
        gone.ask(MODEL, "one", 1)
    with pytest.raises(BrokerUnavailable):
        gone.left(MODEL)
    with pytest.raises(BrokerUnavailable):
        gone.hear(MODEL, said(requests=(60, 0, 60)))
