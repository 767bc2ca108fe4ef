"""Tests with servers that no wheel has: Debian's packages. One that is missing fails the test that asks for it.

Not collected by default: `pytest tests/system`.
"""

import shutil
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.system)


@pytest.fixture(scope="session")
def pgbouncer_path() -> str:
    """The program of Debian's package `pgbouncer`."""
    found = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if found is None:
        pytest.fail("pgbouncer is missing: apt-get install pgbouncer")
    return found
