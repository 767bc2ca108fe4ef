"""The settings of the autoscaler: what is refused, with the name of the setting and the remedy."""

from typing import Any

import pytest
from pydantic import ValidationError

from headrace.config import HostTypeSettings, ScalingEvent, ScalingSettings, Settings
from headrace.errors import ConfigError

WEEKLY = {"name": "peak", "weekdays": ["mon"], "from": "09:00", "to": "11:00"}
ONCE = {"name": "launch", "starts_at": "2026-12-01T09:00:00Z", "ends_at": "2026-12-01T12:00:00Z"}


@pytest.mark.parametrize("event", [{**WEEKLY, "jobs_per_s": 7, "zone": "Europe/Berlin"}, {**ONCE, "hosts": 4}])
def test_an_event_is_weekly_or_happens_once(event: dict[str, Any]) -> None:
    assert ScalingEvent.model_validate(event).name == event["name"]


@pytest.mark.parametrize(
    ("event", "why"),
    [
        ({"name": "peak", "hosts": 4}, "'weekdays', 'from' and 'to', or 'starts_at' and 'ends_at'"),
        ({**WEEKLY, **ONCE, "hosts": 4}, "'weekdays', 'from' and 'to', or 'starts_at' and 'ends_at'"),
        ({**WEEKLY}, "either 'jobs_per_s' or 'hosts'"),
        ({**WEEKLY, "hosts": 4, "jobs_per_s": 7}, "either 'jobs_per_s' or 'hosts'"),
        ({**WEEKLY, "hosts": 4, "zone": "Berlin"}, "'Berlin' is not a time zone"),
        ({**ONCE, "hosts": 4, "ends_at": "2026-12-01T08:00:00Z"}, "'ends_at' must be after 'starts_at'"),
        ({**ONCE, "hosts": 4, "starts_at": "2026-12-01T09:00:00"}, "need a UTC offset"),
    ],
)
def test_an_event_that_says_too_little_or_too_much_is_refused(event: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        ScalingEvent.model_validate(event)


@pytest.mark.parametrize(
    ("scaling", "why"),
    [
        ({"mode": "active"}, "mode 'active' needs an 'actuator'"),
        ({"min_hosts": 4, "max_hosts": 3}, r"max_hosts \(3\) is below min_hosts \(4\)"),
        ({"pools": {"chat": {"max_hosts": 1}}}, r"max_hosts of pool 'chat' \(1\) is below min_hosts \(2\)"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(scaling: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        ScalingSettings.model_validate(scaling)


def test_a_pools_own_settings_take_the_place_of_the_common_ones() -> None:
    events = [{**ONCE, "hosts": 4, "pool": "chat"}, {**WEEKLY, "hosts": 4}, {**ONCE, "hosts": 4, "pool": "fast"}]
    scaling = ScalingSettings.model_validate({"pools": {"chat": {"max_hosts": 5}}, "events": events})

    chat = scaling.of_pool("chat")

    assert (chat.min_hosts, chat.max_hosts) == (2, 5)
    assert [event.name for event in chat.events] == ["launch", "peak"]
    assert scaling.of_pool("fast").max_hosts == 20


@pytest.mark.parametrize(
    ("scaling", "why"),
    [
        ({"pools": {"chit": {}}}, "names pool 'chit'; the pools with hosts of their own: chat"),
        ({"events": [{**ONCE, "hosts": 4, "pool": "chit"}]}, "names pool 'chit'"),
        ({"host_type": "a100"}, r"add \[hosts.a100\] with its usd_per_hour"),
        ({"pools": {"chat": {"host_type": "a100"}}}, r"add \[hosts.a100\]"),
    ],
)
def test_a_name_that_nothing_has_is_refused(scaling: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        ScalingSettings.model_validate(scaling).check(["chat"], ["h100"])


@pytest.mark.parametrize(
    "host",
    [
        *({"usd_per_hour": usd} for usd in ("-1", "1e9", "NaN", "Infinity")),
        *({"usd_per_hour": "4.10", "tokens_per_s": rate} for rate in (0, 1e-7, 1e300, float("inf"), float("nan"))),
    ],
    ids=str,
)
def test_a_host_that_no_price_can_follow_from_is_refused(host: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        HostTypeSettings.model_validate(host)


@pytest.mark.parametrize(
    ("variable", "value", "why"),
    [
        ("HEADRACE_SCALING__HOST_TYPE", "a100", r"add \[hosts.a100\]"),
        ("HEADRACE_SCALING__POOLS__CHIT__MAX_HOSTS", "3", "names pool 'chit'"),
    ],
)
def test_a_process_does_not_start_with_such_a_name(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, why: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=why):
        Settings.load()
