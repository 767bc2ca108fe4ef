"""docs/clients.md says what tests/clients runs."""

import pytest

from headrace.config import PROJECT_ROOT
from tests.clients.catalogue import CLIENTS, COLUMNS, Client
from tests.clients.page import PAGE, page


def test_the_page_is_made_from_the_catalogue() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run bin/headrace python -m tests.clients.page"


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_a_client_has_a_lock_and_known_cells(client: Client) -> None:
    assert client.cells.keys() <= COLUMNS.keys()
    assert set(client.on_vllm) <= client.cells.keys()
    if client.lock is None:
        return
    locked = {
        "python": PROJECT_ROOT / "requirements" / "clients" / f"{client.lock}.txt",
        "node": PROJECT_ROOT / "tests" / "clients" / "node" / client.lock / "package-lock.json",
    }
    assert locked[client.runtime].is_file()
