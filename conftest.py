"""What every test may ask for: one real Postgres and one real Valkey per session, on free ports.

A server that is missing fails the test that asks for it. It is never a reason to skip.
"""

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from headrace.stack.ports import free_port
from headrace.stack.postgres import Postgres
from headrace.stack.valkey import Valkey

# How long an example takes says something of the machine's load and nothing of the code.
hypothesis.settings.register_profile("headrace", deadline=None)
hypothesis.settings.load_profile("headrace")


#: Folders of the tests that take longest: they begin first, so that no process is left alone with one of their files.
FIRST = ("e2e", "contracts", "chaos", "clients", "migrations", "third_party", "integration")
#: What names the model of the tests on a GPU.
GPU_MODEL = ("HEADRACE_MODEL", "HEADRACE_MODEL_DIR")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the folders of `FIRST` first, in this order."""
    items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    # `tests/e2e/...`, or `plugins/NAME/tests/e2e/...`.
    parts = item.path.parts
    folder = parts[parts.index("tests", len(item.config.rootpath.parts)) + 1]
    return FIRST.index(folder) if folder in FIRST else len(FIRST)


def pytest_configure(config: pytest.Config) -> None:
    """Clear what a developer's shell would change in the tests.

    Variables of Headrace and of the SDK's clients are unset; tests on a GPU keep the model's. A shell starts background
    jobs, such as the parts of `bin/test`, with Ctrl-C ignored, and so would the tests.
    """
    kept = GPU_MODEL if config.option.markexpr == "gpu" else ()
    for name in os.environ.keys() - set(kept):  # noqa: TID251 - no setting is read.
        if name.startswith(("HEADRACE_", "OPENAI_")) or name in ("DATABASE_URL", "REDIS_URL"):
            del os.environ[name]  # noqa: TID251
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
