"""One POST to a webhook's receiver, which ends at its deadline whatever the receiver does.

`requests` applies its time-outs to each read, so a receiver that sends a byte now and then never exceeds one. Nothing
interrupts the resolver either. So each POST runs in a thread of its own. At the deadline its socket is shut down, which
ends the thread. A thread that is still in the resolver or in `connect` ends by their own time-outs; the try does not
wait for it.

Never follows a redirect, and never uses a proxy from the environment. Never connects to a private address, except in
development: the library checks the very address that it connects to.
"""

import logging
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import requests
from AntiSSRF import AntiSSRFError, AntiSSRFPolicy, PolicyConfigOptions
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection

from headrace.config import WebhookSettings
from headrace.errors import DeliveryFailed

log = logging.getLogger(__name__)

#: Seconds for the TCP handshake.
CONNECT_TIMEOUT_S = 5.0

#: Called with each connection before anything is sent on it.
Hold = Callable[[socket.socket], None]


@dataclass(frozen=True, slots=True)
class WebhookResponse:
    """A receiver's answer.

    Attributes: retry_after: its Retry-After header; empty when it sent none.
    """

    status: int
    retry_after: str


class Post:
    """One POST under way. Made for one use."""

    def __init__(
        self,
        session: Callable[[Hold], requests.Session],
        url: str,
        body: bytes,
        headers: Mapping[str, str],
        deadline_s: float,
    ) -> None:
        """Send nothing yet.

        Args: deadline_s: seconds for everything: name resolution, the connection, TLS, and the answer's headers.
        """
        self._session, self._url, self._body, self._headers = session, url, body, headers
        self._deadline_s = deadline_s
        self._decided = threading.Event()
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._outcome: WebhookResponse | DeliveryFailed | None = None

    def run(self, ended: Callable[[], None] = lambda: None) -> WebhookResponse:
        """Send it and return the answer. Raises: DeliveryFailed, at the deadline at the latest.

        Args: ended: called when the thread has ended, which may be after this returns.
        """
        thread = threading.Thread(target=self._send, args=(ended,), name="webhook-post", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            ended()
            raise
        if not self._decided.wait(self._deadline_s):
            self.give_up(f"The webhook's receiver did not answer within {self._deadline_s:g} s.")
        if isinstance(self._outcome, WebhookResponse):
            return self._outcome
        assert self._outcome is not None
        raise self._outcome

    def give_up(self, why: str) -> None:
        """End it now, from any thread, unless it has ended."""
        self._decide(DeliveryFailed(why))
        with self._lock:
            if self._socket is not None:
                with suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)

    def hold(self, connected: socket.socket) -> None:
        """Remember the connection, to shut it down. Raises: TimeoutError: the POST has been given up."""
        with self._lock:
            if self._decided.is_set():
                connected.close()
                raise TimeoutError
            # A duplicate, because TLS detaches the socket itself.
            self._socket = connected.dup()

    def _decide(self, outcome: WebhookResponse | DeliveryFailed) -> None:
        """Set the outcome. Only the first one counts."""
        with self._lock:
            if not self._decided.is_set():
                self._outcome = outcome
                self._decided.set()

    def _send(self, ended: Callable[[], None]) -> None:
        try:
            self._decide(self._answer())
        except AntiSSRFError:
            self._decide(DeliveryFailed("The webhook's address is not allowed."))
        except Exception as error:
            # Every error of requests is an OSError, and a bad URL raises a ValueError. The check of the address passes
            # on the resolver's own errors, which are one of the two.
            if not isinstance(error, OSError | ValueError):
                log.exception("webhook_post_fault")
            self._decide(DeliveryFailed(f"No answer from the webhook's receiver: {type(error).__name__}."))
        finally:
            with self._lock:
                if self._socket is not None:
                    self._socket.close()
                    self._socket = None
            ended()

    def _answer(self) -> WebhookResponse:
        # Streamed and never read: the receiver's body is not needed, and may be endless.
        with (
            self._session(self.hold) as session,
            session.post(
                self._url,
                data=self._body,
                headers=self._headers,
                timeout=(min(CONNECT_TIMEOUT_S, self._deadline_s), self._deadline_s),
                allow_redirects=False,
                stream=True,
            ) as response,
        ):
            return WebhookResponse(response.status_code, response.headers.get("retry-after", ""))


class _HttpConnection(HTTPConnection):
    """Hands its socket to `hold` before anything is sent."""

    def __init__(self, hold: Hold, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._hold = hold

    def _new_conn(self) -> socket.socket:
        connected = super()._new_conn()
        self._hold(connected)
        return connected


class _HttpsConnection(_HttpConnection, HTTPSConnection):
    """The same over TLS."""


def _pool(kind: Callable[..., Any], connection: Callable[..., object], *args: Any, **kwargs: Any) -> Any:
    pool = kind(*args, **kwargs)
    pool.ConnectionCls = connection
    return pool


def make_session(settings: WebhookSettings, hold: Hold) -> requests.Session:
    """A session for one POST. It never connects to a private network, unless `allow_private` is set."""
    if settings.allow_private:
        session = requests.Session()
    else:
        policy = AntiSSRFPolicy(PolicyConfigOptions.EXTERNAL_ONLY_LATEST)
        policy.add_xff_header = False
        session = policy.get_antissrf_session()
    session.trust_env = False
    for adapter in session.adapters.values():
        assert isinstance(adapter, HTTPAdapter)
        adapter.poolmanager.pool_classes_by_scheme = {
            "http": partial(_pool, HTTPConnectionPool, partial(_HttpConnection, hold)),
            "https": partial(_pool, HTTPSConnectionPool, partial(_HttpsConnection, hold)),
        }
    return session
