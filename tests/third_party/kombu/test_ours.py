"""That what runs in this folder is of the kombu that is installed, and tests our classes."""

import importlib
from importlib import metadata
from pathlib import Path

import pytest
from kombu import Connection

from headrace.broker.transport import Channel, SentinelTransport, Transport

RUNS: list[int] = []


@pytest.mark.parametrize("module", ["unit.transport.test_redis", "integration.test_redis"])
def test_what_kombus_tests_derive_and_name_is_ours(
    module: str, monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config
) -> None:
    # As pytest names the modules that it has collected: they are found, and only without them imported.
    monkeypatch.syspath_prepend(pytestconfig.rootpath)
    theirs = importlib.import_module(f"tests.third_party.kombu.t.{module}")
    assert issubclass(theirs.Channel, Channel)
    assert issubclass(theirs.Transport, Transport)


@pytest.mark.parametrize(
    ("scheme", "ours"), [("redis", Transport), ("rediss", Transport), ("sentinel", SentinelTransport)]
)
def test_a_connection_that_names_redis_uses_ours(scheme: str, ours: type[Transport]) -> None:
    assert isinstance(Connection(f"{scheme}://").transport, ours)


def test_they_are_the_tests_of_the_kombu_that_is_installed() -> None:
    readme = Path(__file__).with_name("README.md").read_text()
    assert f"kombu {metadata.version('kombu')}," in readme


@pytest.fixture
def run_no() -> int:
    """Which run of the test this is, from 1 on."""
    RUNS.append(len(RUNS) + 1)
    return RUNS[-1]


@pytest.mark.flaky(reruns=2, reruns_delay=0)
def test_what_is_marked_as_flaky_is_run_until_it_passes(run_no: int) -> None:
    assert run_no == 3, "as it should: it passes the third time"
