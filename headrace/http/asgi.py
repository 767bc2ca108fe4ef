"""ASGI's types, and its requests as WSGI has them."""

import io
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


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
