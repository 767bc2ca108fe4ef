"""Reads from an OpenAI-compatible API's headers when the next call may be made."""

import re
import time
from collections.abc import Mapping
from contextlib import suppress
from math import isfinite

from headrace.domain.limits.rates import ProviderRate, ProviderRates
from headrace.policies.retries import asked_wait_s

#: The longest pause that the API can ask for, in seconds: Headrace's own clients honour as much.
PATIENCE_S = 120.0
#: The longest time until a rate is full again, in seconds, and the largest rate. Rates are by the minute or the day; a
#: longer time is a date, or nonsense.
_LONGEST_S, _MOST = 86_400.0, 10**12
#: As OpenAI writes them, for example `1m26.4s` or `20ms`. Others write seconds alone.
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")
_UNITS_S = (86_400, 3600, 60, 1, 0.001)


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """The pause that the API asks for, in seconds, 0 to `PATIENCE_S`; None when it asks for none.

    Source: RFC 9110, section 10.2.3: seconds or a date; OpenAI's SDK: a value in milliseconds wins.
    """
    with suppress(KeyError, ValueError):
        if isfinite(seconds := float(headers["retry-after-ms"]) / 1000):
            return min(max(0.0, seconds), PATIENCE_S)
    asked_s = asked_wait_s(headers.get("retry-after", ""))
    return None if asked_s is None else min(asked_s, PATIENCE_S)


def rates(headers: Mapping[str, str]) -> ProviderRates | None:
    """The account's remaining rates, as OpenAI's headers report them; None without a report.

    Source: OpenAI's guide "Rate limits", section "Rate limits in headers".
    """
    requests, tokens = _rate(headers, "requests"), _rate(headers, "tokens")
    return None if requests is tokens is None else ProviderRates(time.monotonic(), requests, tokens)


def _rate(headers: Mapping[str, str], kind: str) -> ProviderRate | None:
    try:
        limit, left = (int(headers[f"x-ratelimit-{what}-{kind}"]) for what in ("limit", "remaining"))
        full_in_s = _seconds(headers[f"x-ratelimit-reset-{kind}"])
    except (KeyError, ValueError):
        return None
    return ProviderRate(limit, min(max(left, 0), limit), min(full_in_s, _LONGEST_S)) if 0 < limit <= _MOST else None


def _seconds(text: str) -> float:
    """Raises: ValueError."""
    if text and (found := _DURATION.fullmatch(text)):
        return sum(float(part) * unit for part, unit in zip(found.groups(), _UNITS_S, strict=True) if part)
    seconds = float(text)
    if not isfinite(seconds) or seconds < 0:
        raise ValueError(f"'{text}' is no time to come")
    return seconds
