"""An app's rates as headers, in OpenAI's spelling, and its confinement."""

from collections.abc import Mapping
from datetime import UTC, datetime

from headrace.domain.limits.rates import RatesLeft


def rate_headers(rates: RatesLeft) -> Mapping[str, str]:
    """`x-ratelimit-*` for each limited rate; nothing for the others."""
    headers = {}
    for name, rate in (("requests", rates.requests), ("tokens", rates.tokens), ("calls", rates.calls)):
        if rate is not None:
            headers[f"x-ratelimit-limit-{name}"] = str(rate.limit)
            headers[f"x-ratelimit-remaining-{name}"] = str(max(0, rate.left))
            headers[f"x-ratelimit-reset-{name}"] = duration(rate.full_in_s)
    return headers


def confined_header(until: datetime) -> Mapping[str, str]:
    """Until when the app's jobs in the pool run one at a time."""
    return {"x-headrace-confined-until": f"{until.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"}


def duration(seconds: float) -> str:
    """A duration in OpenAI's spelling: `120ms`, `7.66s`, `6m0s`."""
    milliseconds = round(seconds * 1000)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(round(seconds, 2), 60)
    return f"{minutes:.0f}m{rest:g}s" if minutes else f"{rest:g}s"
