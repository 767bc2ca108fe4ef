"""What every test may ask for: one real Postgres and one real Valkey per session, on free ports.

A server that is missing fails the test that asks for it. It is never a reason to skip.
"""

import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from headrace.stack.ports import free_port
from headrace.stack.servers.postgres import Postgres
from headrace.stack.servers.valkey import Valkey

# How long an example takes says something of the machine's load and nothing of the code.
hypothesis.settings.register_profile("headrace", deadline=None)
hypothesis.settings.load_profile("headrace")


def pytest_configure() -> None:
    """A shell starts background jobs, such as the parts of `bin/test`, with Ctrl-C ignored, and so would the tests."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _torch_cache() -> Iterator[None]:
    """Importing torch's compiler makes a cache folder among the temporary files, and leaves it."""
    with tempfile.TemporaryDirectory(prefix="headrace-test-") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", folder)
        yield


@pytest.fixture(scope="session")
def database_url() -> Iterator[str]:
    """An empty database on a real Postgres."""
    with tempfile.TemporaryDirectory(prefix="headrace-test-") as folder:
        postgres = Postgres(Path(folder, "postgres"), free_port())
        with postgres.running():
            yield postgres.url


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """An empty, real Valkey."""
    with tempfile.TemporaryDirectory(prefix="headrace-test-") as folder:
        valkey = Valkey(Path(folder, "valkey"), free_port())
        with valkey.running():
            yield valkey.url
