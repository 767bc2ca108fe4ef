"""The Prometheus endpoint of a process."""

import logging
import threading
from collections.abc import Sequence
from wsgiref.simple_server import WSGIServer

from prometheus_client import REGISTRY, CollectorRegistry, start_http_server
from prometheus_client.registry import Collector

from headrace.errors import ConfigError

log = logging.getLogger(__name__)


class Endpoint:
    """Serves a process's metrics, and everything else in the registry, over HTTP from `start` to `stop`."""

    def __init__(
        self, collectors: Sequence[Collector], host: str, port: int | None, registry: CollectorRegistry = REGISTRY
    ):
        """Args: port: None serves nothing. registry: the default also holds vLLM's metrics."""
        self._collectors, self._host, self._port, self._registry = collectors, host, port, registry
        self._serving: tuple[WSGIServer, threading.Thread] | None = None

    def start(self) -> None:
        """Start to listen. Raises: ConfigError when the address cannot be bound."""
        if self._port is None:
            return
        try:
            self._serving = start_http_server(self._port, self._host, self._registry)
        except OSError as error:
            message = (
                f"Metrics cannot be served on {self._host}:{self._port} (HEADRACE_METRICS_HOST, HEADRACE_METRICS_PORT):"
                f" {error.strerror}. Each process of a host needs a port of its own."
            )
            raise ConfigError(message, param="metrics_port") from error
        for collector in self._collectors:
            self._registry.register(collector)
        log.info("metrics_served", extra={"host": self._host, "port": self._port})

    def stop(self) -> None:
        """Stop listening. Does nothing before `start`."""
        if self._serving is None:
            return
        (server, thread), self._serving = self._serving, None
        for collector in self._collectors:
            self._registry.unregister(collector)
        server.shutdown()
        server.server_close()
        thread.join()
