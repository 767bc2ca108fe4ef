"""What operators type, as it is understood."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import click
import pytest

from headrace.cli import parameters
from headrace.cli.access.apps import apps
from headrace.domain.queues import Lane

CONTEXT, PARAMETER = click.Context(apps), click.Option(["--it"])


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (parameters.app_name, " shop ", "shop"),
        (parameters.app_name, "Küche 7", "Küche 7"),
        (parameters.app_name, None, None),
        (parameters.limit, "1", 1),
        (parameters.limit, "2147483647", 2_147_483_647),
        (parameters.limit, "none", "none"),
        (parameters.limit, None, None),
        (parameters.usd, "0", Decimal(0)),
        (parameters.usd, "12.50", Decimal("12.5")),
        (parameters.usd, "999999999.999999999", Decimal("999999999.999999999")),
        (parameters.usd, "none", "none"),
        (parameters.usd, None, None),
        (parameters.share, "0", 0.0),
        (parameters.share, "0.005", 0.005),
        (parameters.share, "none", "none"),
        (parameters.share, None, None),
        (parameters.lanes, "high", {Lane.HIGH}),
        (parameters.lanes, "normal, high,high", {Lane.HIGH, Lane.NORMAL}),
        (parameters.lanes, "none", "none"),
        (parameters.lanes, None, None),
        (parameters.later, "2030-01-01T22:00", "2030-01-01T22:00:00+00:00"),
        (parameters.later, "2030-01-01T22:00+02:00", "2030-01-01T20:00:00+00:00"),
        (parameters.later, None, None),
        (parameters.note, None, None),
    ],
)
def test_a_value_is_read(read: Any, text: str | None, value: object) -> None:
    assert read(CONTEXT, PARAMETER, text) == value


@pytest.mark.parametrize(
    ("read", "text"),
    [
        *((parameters.app_name, text) for text in ("", "  ", "a\nb", "a\0b", "\udcff", "x" * 101)),
        *(
            (parameters.usd, text)
            for text in ("", "-1", "1e3", "inf", "nan", "1.", "1.0000000001", "1234567890", "1,5")
        ),
        *(
            (parameters.limit, text)
            for text in ("", "0", "-1", "1.5", "1e3", "2147483648", "9" * 5000, "1\n", "\u0661")
        ),
        *((parameters.share, text) for text in ("", "1", "-0.1", "nan", "inf", "1%", "0,5")),
        *((parameters.later, text) for text in ("", "soon", "2x", "2030-13-01")),
        *((parameters.note, text) for text in ("", "x", "=", "no-plugin=x")),
        *((parameters.lanes, text) for text in ("", "high,", "HIGH", "top", "high;normal", "none,high")),
    ],
)
def test_what_cannot_be_meant_is_refused(read: Any, text: str) -> None:
    with pytest.raises(click.BadParameter):
        read(CONTEXT, PARAMETER, text)


@pytest.mark.parametrize(("text", "delay"), [("90m", timedelta(minutes=90)), ("2h", timedelta(hours=2))])
def test_a_delay_counts_from_now(text: str, delay: timedelta) -> None:
    before = datetime.now(UTC)
    at = parameters.later(CONTEXT, PARAMETER, text)
    assert at is not None
    assert before + delay <= datetime.fromisoformat(at) <= datetime.now(UTC) + delay
