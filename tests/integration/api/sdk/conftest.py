"""The unchanged official SDK, strict response validation on, over a real HTTP server."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from openai import OpenAI

from tests.web import Web


@pytest.fixture
def make_sdk(base_url: str) -> Iterator[Callable[..., OpenAI]]:
    """Makes a client that shows this key; it tries once, unless told otherwise."""
    made: list[OpenAI] = []

    def make(key: str, **options: Any) -> OpenAI:
        options = {"max_retries": 0, "_strict_response_validation": True, **options}
        made.append(OpenAI(api_key=key, base_url=f"{base_url}/v1", **options))
        return made[-1]

    yield make
    for client in made:
        client.close()


@pytest.fixture
def sdk(make_sdk: Callable[..., OpenAI], key: str) -> OpenAI:
    return make_sdk(key)


@pytest.fixture
def calls(web: Web) -> list[str]:
    """Each request that reached the server: its method and path."""
    return web.seen
