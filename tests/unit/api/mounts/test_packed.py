"""A gzip is unpacked up to a limit, whatever it would become."""

import gzip

import pytest

from api.mounts.body import unpacked
from headrace.errors import InvalidRequest


@pytest.mark.parametrize("size", [0, 1, 1000])
def test_a_gzip_is_unpacked(size: int) -> None:
    assert unpacked(gzip.compress(b"x" * size), 1000) == b"x" * size


def test_no_more_is_unpacked_than_shows_that_it_is_too_much() -> None:
    assert len(unpacked(gzip.compress(b"x" * 50_000_000), 1000)) == 1001


@pytest.mark.parametrize("raw", [b"", b"{}", gzip.compress(b"{}")[:-1], gzip.compress(b"{}") + b"more"])
def test_what_is_no_whole_gzip_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidRequest) as raised:
        unpacked(raw, 1000)
    assert raised.value.code == "invalid_encoding"
