"""docs/clients.md says what tests/clients runs."""

import pytest

from headrace.config import PROJECT_ROOT
from tests.clients.catalogue import CLIENTS, COLUMNS, EXAMPLES, Client
from tests.clients.page import PAGE, page


def test_the_page_is_made_from_the_catalogue() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run bin/headrace python -m tests.clients.page"


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_a_client_has_a_lock_and_known_cells(client: Client) -> None:
    assert set(client.cells) <= COLUMNS.keys()
    # Each client that has tools, or structured output, has an example; instructor's tools are structured output.
    shown = {name for name in EXAMPLES if name in client.cells} - ({"tools"} if client.name == "instructor" else set())
    assert {f"example_{name}" for name in shown} == set(client.examples)
    assert set(client.on_vllm) <= set(client.cells)
    if client.lock is None:
        return
    locked = {
        "python": PROJECT_ROOT / "requirements" / "clients" / f"{client.lock}.txt",
        "node": PROJECT_ROOT / "tests" / "clients" / "node" / client.lock / "package-lock.json",
    }
    assert locked[client.runtime].is_file()
