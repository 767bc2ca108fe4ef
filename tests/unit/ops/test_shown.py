"""How the pages show values."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from ops import shown


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (None, "-"),
        (Decimal("1.5"), "1.50"),
        (Decimal("0.00000123"), "0.000001"),
        (Decimal("1234.5678"), "1,234.57"),
        (Decimal("0.0040"), "0.004"),
        (Decimal("-9.6957"), "-9.70"),
        (Decimal(0), "0.00"),
    ],
)
def test_an_amount_has_cents_or_what_it_needs(amount: Decimal | None, text: str) -> None:
    assert shown.usd(amount) == text


@pytest.mark.parametrize(
    ("length", "text"),
    [
        (None, "-"),
        (0.25, "0.2 s"),
        (42.0, "42 s"),
        (300, "5 min"),
        (timedelta(hours=5), "5 h"),
        (timedelta(days=3), "3 d"),
    ],
)
def test_a_length_has_one_unit(length: float | timedelta | None, text: str) -> None:
    assert shown.seconds(length) == text


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("https://user:secret@hooks.example.com:8443/secret?token=secret#secret", "https://hooks.example.com:8443/…"),
        ("http://[::1]/x", "http://[::1]/…"),
        ("http://[", "-"),
        ("secret", "://-/…"),
    ],
)
def test_the_origin_of_a_url_has_no_secret(url: str, text: str) -> None:
    assert shown.origin(url) == text


def test_a_time_is_in_utc_and_in_a_machine_s_words_too() -> None:
    at = datetime(2026, 3, 1, 8, 30, tzinfo=UTC)
    assert shown.time(at) == '<time datetime="2026-03-01T08:30:00+00:00">2026-03-01 08:30:00</time>'
