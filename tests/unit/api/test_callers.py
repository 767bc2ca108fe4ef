"""The rate of an app's calls: a bucket for each app in a process, of which accepted submits use nothing."""

from types import SimpleNamespace
from typing import cast

import pytest

from api.auth import Authenticator
from api.callers import CALL_BYTES, HOLDS_S, Callers, CallRates, calls_of
from headrace.domain.apps import App, AppLimits, Scope
from headrace.domain.ids import new_id
from headrace.domain.limits.rates import RateLeft, RatesLeft
from headrace.errors import AppLimited, PermissionDenied

#: A call a second, and a bucket of ten.
LIMIT = 60
SHOP, OTHER = (App(new_id(), name, "whsec_test") for name in ("shop", "other"))


@pytest.fixture
def clock() -> SimpleNamespace:
    return SimpleNamespace(now_s=1000.0)


@pytest.fixture
def rates(clock: SimpleNamespace) -> CallRates:
    return CallRates(LIMIT, lambda: clock.now_s)


def use(rates: CallRates, app: App, number: int) -> None:
    for _ in range(number):
        rates.use(app)


def test_an_app_that_used_its_calls_up_is_refused_and_no_other(rates: CallRates, clock: SimpleNamespace) -> None:
    use(rates, SHOP, 10)
    with pytest.raises(AppLimited, match="60 calls a minute") as refused:
        rates.use(SHOP)
    assert (refused.value.reason, refused.value.retry_after_s) == ("calls_per_minute", 1)
    assert RatesLeft.of(refused.value.rates_left) == RatesLeft(calls=RateLeft(LIMIT, 0, HOLDS_S))
    use(rates, OTHER, 10)
    clock.now_s += 3
    use(rates, SHOP, 3)
    with pytest.raises(AppLimited):
        rates.use(SHOP)


def test_an_apps_own_limit_replaces_that_of_all(rates: CallRates) -> None:
    more = App(new_id(), "more", "whsec_test", AppLimits(calls_per_minute=600))
    use(rates, more, 100)
    less = App(new_id(), "less", "whsec_test", AppLimits(calls_per_minute=1))
    rates.use(less)
    with pytest.raises(AppLimited) as refused:
        rates.use(less)
    assert refused.value.retry_after_s == 60


def test_polls_keep_no_submit_out_and_refused_submits_do(rates: CallRates, clock: SimpleNamespace) -> None:
    use(rates, SHOP, 10)
    rates.check(SHOP)
    rates.charge(SHOP, 2)
    with pytest.raises(AppLimited) as refused:
        rates.check(SHOP)
    assert refused.value.retry_after_s == 2
    clock.now_s += 2
    rates.check(SHOP)


def test_the_largest_body_keeps_an_app_out_for_a_minute_at_most(rates: CallRates, clock: SimpleNamespace) -> None:
    assert (calls_of(100), calls_of(CALL_BYTES), calls_of(2**23)) == (0, 1, 2048)
    rates.charge(SHOP, calls_of(2**23))
    with pytest.raises(AppLimited) as refused:
        rates.check(SHOP)
    assert refused.value.retry_after_s == 60
    clock.now_s += 60
    rates.check(SHOP)


def test_a_key_that_may_not_submit_uses_a_call(rates: CallRates) -> None:
    reader = App(SHOP.id, "shop", "whsec_test", scopes=frozenset({Scope.READ}))
    callers = Callers(cast(Authenticator, None), rates)
    for _ in range(10):
        with pytest.raises(PermissionDenied):
            callers.admit(reader, "POST", submits=True)
    with pytest.raises(AppLimited):
        callers.admit(reader, "POST", submits=True)
