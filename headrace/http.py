"""Parts of HTTP that processes share: ASGI's types, the shapes of errors, metrics, lines. Knows no framework."""

import io
import math
import re
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from headrace import errors
from headrace.errors import HeadraceError
from headrace.metrics import Counts, Durations

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


def lines_of(parts: Iterable[bytes], limit: float = math.inf) -> Iterator[bytes]:
    """The lines of a body that comes in parts, each with its line feed; the last one may lack it.

    Text would also break at U+2028 and others, which JSON may contain: so do `str.splitlines` and the `iter_lines` of
    HTTP clients.
    Args: limit: of a line that has more bytes, a piece that has more as well is enough.
    """
    begun, size = list[bytes](), 0
    for part in parts:
        *ends, rest = part.split(b"\n")
        for end in ends:
            # Joined once: to add each part to a line copies the whole of it each time.
            yield b"".join((*begun, end, b"\n"))
            begun, size = [], 0
        if rest and size <= limit:
            begun.append(rest)
            size += len(rest)
    if begun:
        yield b"".join(begun)


#: Bytes of the headers that are parsed here or by Werkzeug, some of them in quadratic time. Of 1 KiB none takes 0.2 ms.
#: `web` parses no cookies.
PARSED_BYTES: Mapping[bytes, int] = {
    **dict.fromkeys((b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since", b"if-range"), 1024),
    **dict.fromkeys((b"range", b"content-type", b"content-encoding", b"prefer", b"x-forwarded-for"), 1024),
}


def check_headers(headers: Iterable[tuple[bytes, bytes]], bounds: Mapping[bytes, int] = PARSED_BYTES) -> None:
    """Check the lengths of the headers that are parsed; those of one name are measured together.

    Args: headers: with names in lower case. bounds: the most bytes of each. Raises: HeaderTooLarge.
    """
    sizes: dict[bytes, int] = {}
    for name, value in headers:
        if (most := bounds.get(name)) is not None:
            sizes[name] = sizes.get(name, 0) + len(value)
            if sizes[name] > most:
                raise errors.HeaderTooLarge(f"The header '{name.decode()}' is longer than {most} bytes.")


def environ_of(scope: Scope, address: str, body: bytes = b"") -> dict[str, Any]:
    """The request as WSGI has it (PEP 3333), so that Flask can answer it."""
    server = scope.get("server") or ("localhost", 80)
    environ = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": "",
        "PATH_INFO": scope["path"].encode().decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "REMOTE_ADDR": address,
        "SERVER_NAME": server[0],
        "SERVER_PORT": str(server[1]),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope["scheme"],
        "wsgi.input": io.BytesIO(body),
        # It ends where the body ends, also of one that came in chunks.
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for name, value in _joined(scope["headers"]):
        environ[name] = value
    return environ | {"CONTENT_LENGTH": str(len(body))}


def _joined(headers: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[str, str]]:
    """Each header under its name in WSGI, those of one name joined. A name with `_` could pass for another."""
    found: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        if b"_" not in name:
            found.setdefault(name.lower(), []).append(value)
    for name, values in found.items():
        text = name.decode("latin-1").upper().replace("-", "_")
        joined = (b"; " if name == b"cookie" else b", ").join(values).decode("latin-1")
        yield text if text in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{text}", joined


#: Seconds until a client should retry when a server is down.
RETRY_AFTER_S = 2


@dataclass(frozen=True, slots=True)
class Shape:
    """The answer to one class of errors."""

    status: int
    type: str
    headers: Mapping[str, str] = field(default_factory=dict)


#: The nearest base class of an error decides. The openai SDK retries 408, 409, 429 and 5xx by itself.
SHAPES: Mapping[type[HeadraceError], Shape] = {
    errors.InvalidRequest: Shape(400, "invalid_request_error"),
    errors.ModelNotFound: Shape(404, "invalid_request_error"),
    errors.IdempotencyKeyReused: Shape(422, "idempotency_error"),
    errors.IdempotencyInProgress: Shape(409, "idempotency_error", {"Retry-After": "1"}),
    errors.Unauthenticated: Shape(401, "invalid_request_error", {"WWW-Authenticate": "Bearer"}),
    errors.PermissionDenied: Shape(403, "permission_error"),
    errors.NotFound: Shape(404, "invalid_request_error"),
    # During a deployment: a process of the newer release can serve it.
    errors.PayloadTooNew: Shape(503, "server_error", {"Retry-After": str(RETRY_AFTER_S)}),
    errors.JobNotEnded: Shape(409, "conflict_error", {"Retry-After": "1"}),
    # The rest of the body is not read, so the connection cannot carry another request.
    errors.BodyTimeout: Shape(408, "invalid_request_error", {"Connection": "close"}),
    errors.BodyTooLarge: Shape(413, "invalid_request_error"),
    errors.HeaderTooLarge: Shape(431, "invalid_request_error"),
    errors.UnsupportedEncoding: Shape(415, "invalid_request_error"),
    # Headrace has retried by itself, and the output is paid for: the SDK must not retry.
    errors.Unanswered: Shape(502, "server_error", {"x-should-retry": "false"}),
    errors.JobOverdue: Shape(504, "server_error", {"x-should-retry": "false"}),
    errors.JobCancelled: Shape(409, "conflict_error", {"x-should-retry": "false"}),
    # The job cost nothing, and the queue may be shorter now.
    errors.JobExpired: Shape(503, "server_error", {"Retry-After": str(RETRY_AFTER_S)}),
    # Its own headers say when, or that a retry is useless.
    errors.JobUnserved: Shape(503, "server_error"),
    errors.OverflowUnserved: Shape(503, "server_error"),
    # A retry would wait in vain, too.
    errors.JobHeld: Shape(503, "server_error", {"x-should-retry": "false"}),
    errors.Refused: Shape(429, "rate_limit_error"),
    # OpenAI's type: an app that handles it does not retry at once.
    errors.BudgetExceeded: Shape(429, "insufficient_quota"),
    # The job goes on, so a retry would run it twice.
    errors.WaitTimeout: Shape(504, "server_error", {"x-should-retry": "false"}),
    errors.Unavailable: Shape(503, "server_error", {"Retry-After": str(RETRY_AFTER_S)}),
    # For example, a tokenizer that cannot be loaded now. Operators find the cause in the log and at /readyz.
    errors.ConfigError: Shape(503, "server_error", {"Retry-After": str(RETRY_AFTER_S)}),
    HeadraceError: Shape(500, "server_error"),
}


def shape_of(error: HeadraceError) -> Shape:
    """The table's row for this error."""
    return next(SHAPES[each] for each in type(error).__mro__ if each in SHAPES)


#: The upper bounds of the buckets. The last is the longest `wait`, by default.
BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
#: A request that does not wait and takes longer is slow. One of the bounds.
SLOW_S = 1.0
#: A client may send any word as the method, so others are counted as one.
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER = "other"
#: The route of a path that leads nowhere.
NO_ROUTE = "none"

#: `wait`: the request holds on until a job has ended. `stream`: its time is that to the head of the stream.
RequestKind = Literal["plain", "wait", "stream"]


class RequestMetrics(Collector):
    """Counts from the start of the process. The values of a label are bounded: routes are templates, never paths."""

    def __init__(self, prefix: str) -> None:
        """Args: prefix: of the names, so that each process has its own."""
        about = "Time from a request's head to that of its answer, by how the request is answered."
        labels = ("method", "route", "status", "kind")
        self._requests = Durations(f"{prefix}_request_seconds", about, labels, BOUNDS_S)
        self._refusals = Counts(f"{prefix}_refusals", "Refused requests, by the bound that was met.", ["reason"])

    def note(self, method: str, rule: str | None, status: int, took_s: float, *, kind: RequestKind = "plain") -> None:
        """Count an answered request. Args: rule: the route's template; None where the path leads nowhere."""
        route = NO_ROUTE if rule is None else _route(rule)
        self._requests.add(method if method in METHODS else OTHER, route, str(status), kind, seconds=took_s)

    def note_refusal(self, reason: str) -> None:
        """Count a refused request. Args: reason: the bound that was met."""
        self._refusals.add(reason)

    def totals(self) -> tuple[int, int, int, int]:
        """Since the start: requests, those answered with 5xx, those that do not wait, and the slow ones of these."""
        found = self._requests.snapshot().items()
        total, plain, slow = 0, 0, 0
        failed = sum(sum(counts) for labels, counts in found if labels[2].startswith("5"))
        for (_, route, _, kind), counts in found:
            total += sum(counts)
            if kind == "plain" and route.startswith("/v1/"):
                plain += sum(counts)
                slow += sum(counts[BOUNDS_S.index(SLOW_S) + 1 :])
        return total, failed, plain, slow

    def collect(self) -> Iterator[Metric]:
        """Every metric. Asks no server."""
        yield from self._requests.collect()
        yield from self._refusals.collect()


@cache
def _route(rule: str) -> str:
    """The template as the reference spells it: `/v1/jobs/{public_id}`."""
    return re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule)
