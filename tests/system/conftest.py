"""Tests with servers that no wheel has: Debian's packages. One that is missing fails the test that asks for it.

Not collected by default: `bin/test --system` installs the packages and runs these tests.
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
    return _path_of("pgbouncer", "pgbouncer")


@pytest.fixture(scope="session")
def promtool_path() -> str:
    """The checker of Debian's package `prometheus`."""
    return _path_of("promtool", "prometheus")


@pytest.fixture(scope="session")
def chromium_path() -> str:
    """The browser of Debian's package `chromium`."""
    return _path_of("chromium", "chromium")


@pytest.fixture(scope="session")
def nginx_path() -> str:
    """The server of Debian's package `nginx-light`."""
    return _path_of("nginx", "nginx-light")


@pytest.fixture(scope="session")
def prometheus_path() -> str:
    """The server of Debian's package `prometheus`."""
    return _path_of("prometheus", "prometheus")


@pytest.fixture(scope="session")
def valkey_path() -> str:
    """The server of Debian's package `valkey-server`, which is built with TLS."""
    return _path_of("valkey-server", "valkey-server")


@pytest.fixture(scope="session")
def ceph_paths() -> list[str]:
    """The servers of Debian's packages `ceph-mon`, `ceph-osd` and `radosgw`."""
    return [_path_of(name, name) for name in ("ceph-mon", "ceph-osd", "radosgw")]


def _path_of(program: str, package: str) -> str:
    found = shutil.which(program, path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if found is None:
        pytest.fail(f"{program} is missing: 'bin/test --system' installs Debian's package {package}.")
    return found
