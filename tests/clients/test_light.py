"""Each cell of the light clients in docs/clients.md."""

from collections.abc import Callable

import pytest

from tests.clients.catalogue import CLIENTS, Client
from tests.clients.conftest import Outcomes

CELLS = [(client, cell) for client in CLIENTS if client.is_light for cell in (*client.cells, *client.examples)]


@pytest.mark.parametrize(("client", "cell"), CELLS, ids=lambda each: getattr(each, "name", each))
def test_a_cell(client: Client, cell: str, outcomes: Callable[[Client], Outcomes]) -> None:
    assert (error := outcomes(client)[cell]) is None, error
