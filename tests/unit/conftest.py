"""Unit tests open no connection: one that tries to fails."""

import sys
from collections.abc import Iterator
from typing import Any

import pytest

_is_shut = False


def _refuse(event: str, args: tuple[Any, ...]) -> None:
    # An address of the internet is a tuple; one of a Unix socket is a path.
    if _is_shut and event == "socket.connect" and isinstance(args[1], tuple):
        raise RuntimeError(f"A unit test opens no connection, as to {args[1]}. It belongs into tests/integration.")


# A hook cannot be taken away again.
sys.addaudithook(_refuse)


@pytest.fixture(autouse=True)
def no_connections() -> Iterator[None]:
    global _is_shut
    _is_shut = True
    yield
    _is_shut = False
