"""kombu's own tests of its Redis transport, with Headrace's channel and transport in the place of kombu's."""

import socket
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import kombu.transport
import pytest
from _pytest.runner import runtestprotocol
from kombu.transport import redis as kombu_redis
from kombu.utils import eventio
from redis import Redis

from headrace.broker.transport import Channel, SentinelChannel, SentinelTransport, Transport
from headrace.connections.redis import DroppedSentinelSslConnection


@contextmanager
def ours() -> Iterator[pytest.MonkeyPatch]:
    """Our classes stand where kombu's are looked up by name, until the block ends."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kombu_redis, "Channel", Channel)
        patch.setattr(kombu_redis, "Transport", Transport)
        patch.setattr(kombu_redis, "SentinelChannel", SentinelChannel)
        patch.setattr(kombu_redis, "SentinelTransport", SentinelTransport)
        # A test compares the class by this name with the channel's.
        patch.setattr(kombu_redis, "SentinelManagedSSLConnection", DroppedSentinelSslConnection)
        # Names of transports that were resolved before point to kombu's.
        patch.setattr(kombu.transport, "_transport_cache", {})
        # test_redis.py replaces it when it is imported, and never puts it back.
        patch.setattr(eventio, "poll", eventio.poll)
        yield patch


def pytest_configure(config: pytest.Config) -> None:
    for mark in ("ensured_modules", "env", "flaky", "replace_module_value"):
        config.addinivalue_line("markers", f"{mark}: of kombu's tests")


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The modules are imported here: what they derive from `redis.Channel` derives from ours."""
    with ours():
        return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Run a test that kombu marks as flaky anew when it fails, as often as the mark allows, and say so each time.

    As pytest-rerunfailures does it, which kombu has for that: its outcome is that of its last run.
    """
    flaky = item.get_closest_marker("flaky")
    if flaky is None:
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    reports = runtestprotocol(item, log=False, nextitem=nextitem)
    for rerun in range(1, flaky.kwargs["reruns"] + 1):
        failed = next((report for report in reports if report.failed), None)
        if failed is None:
            break
        say(item.config, f"{item.nodeid} failed, and is run anew ({rerun}):\n{failed.longreprtext}")
        threading.Event().wait(flaky.kwargs["reruns_delay"])
        reports = runtestprotocol(item, log=False, nextitem=nextitem)
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def say(config: pytest.Config, text: str) -> None:
    """Write it among the outcomes."""
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    if terminal is not None:
        terminal.ensure_newline()
        terminal.write_line(text)


def ends_with_its_sockets(pump: Callable[..., None]) -> Callable[..., None]:
    """The thread of kombu's proxy ends quietly when its sockets are closed under it, wherever it is by then.

    kombu's own catches that in `recv` alone and closes the sockets while `select` waits for them, which now and then
    ends in an error that nobody handles.
    """

    def quiet(*args: Any) -> None:
        with suppress(OSError, ValueError):  # `select` on a closed socket: a bad descriptor, or a negative one
            pump(*args)

    return quiet


def accepts_until_closed(proxy: Any) -> None:
    """The other thread of kombu's proxy, which ends as quietly.

    kombu's own ends in an error that nobody handles where the server cannot be reached, and what it accepts while the
    proxy is closed stays open, until the garbage collector complains of it during another test.
    """
    with suppress(OSError):  # of `accept`: the listener is closed
        while True:
            client, _ = proxy.listener.accept()
            try:
                server = socket.create_connection(proxy.upstream)
            except OSError:
                client.close()
                continue
            frozen = threading.Event()
            proxy._pairs.append((client, server, frozen))
            if proxy._closed.is_set():
                client.close()
                server.close()
                return
            threading.Thread(target=proxy._pump, args=(client, server, frozen), daemon=True).start()


@pytest.fixture(autouse=True)
def _in_place(request: pytest.FixtureRequest) -> Iterator[None]:
    with ours() as patch:
        # test_redis.py means to replace it before kombu.transport.redis is imported, which is long done.
        patch.setattr(kombu_redis, "poll", getattr(request.module, "_poll", kombu_redis.poll))
        if proxy := getattr(request.module, "_FreezableProxy", None):
            patch.setattr(proxy, "_pump", ends_with_its_sockets(proxy._pump))
            patch.setattr(proxy, "_accept", accepts_until_closed)
        # What kombu marks so wants a server.
        if request.node.get_closest_marker("env"):
            url = request.getfixturevalue("redis_url")
            server = urlsplit(url)
            patch.setenv("REDIS_HOST", server.hostname)
            patch.setenv("REDIS_6379_TCP", str(server.port))
            # They know of no password.
            with Redis.from_url(url) as client:
                client.flushall()
                client.config_set("requirepass", "")
                yield
                client.config_set("requirepass", server.password or "")
        else:
            yield
