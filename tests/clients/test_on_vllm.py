"""Tools, structured output and streams of the clients in docs/clients.md, with the demo's model in vLLM."""

from collections.abc import Callable

import pytest

from tests.clients.catalogue import CLIENTS, Client
from tests.clients.conftest import Outcomes

CELLS = [(client, cell) for client in CLIENTS for cell in client.on_vllm]


@pytest.mark.parametrize(("client", "cell"), CELLS, ids=lambda each: getattr(each, "name", each))
def test_a_cell(client: Client, cell: str, outcomes_on_vllm: Callable[[Client], Outcomes]) -> None:
    assert (error := outcomes_on_vllm(client)[cell]) is None, error
