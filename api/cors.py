"""Cross-origin requests: which web pages may call the API from a browser. Without a setting, none may.

Keys are sent in a header, not in a cookie, so a page can only use a key that it has.
"""

from collections.abc import Sequence
from functools import partial

from flask import Flask, Response, request

#: Lets every page call.
ANY = "*"
#: Seconds for which a browser remembers the answer to a preflight request. Chromium's own limit.
MAX_AGE_S = 7200
METHODS = "GET, POST, DELETE"
#: Headers that a page can send where it does not name them. An SDK sends many of its own.
ALLOWED = "Authorization, Content-Type, Idempotency-Key, Prefer"
#: Headers of answers that a page can read.
EXPOSED = (
    "x-request-id, openai-processing-ms, x-job-id, x-headrace-cost-usd, x-headrace-cache, Idempotent-Replayed, "
    "x-headrace-confined-until, Retry-After, x-should-retry, x-ratelimit-limit-requests, "
    "x-ratelimit-remaining-requests, x-ratelimit-reset-requests, x-ratelimit-limit-tokens, "
    "x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens, x-ratelimit-limit-calls, "
    "x-ratelimit-remaining-calls, x-ratelimit-reset-calls"
)


def register(app: Flask, origins: Sequence[str]) -> None:
    """Let pages of these origins call. Costs a request nothing where there are none."""
    if origins:
        app.after_request(partial(_allow, frozenset(origins)))


def _allow(origins: frozenset[str], response: Response) -> Response:
    origin = request.headers.get("Origin")
    if ANY not in origins:
        # A cache must not give one origin the answer to another.
        response.headers.add("Vary", "Origin")
    if origin is None or not (ANY in origins or origin in origins):
        return response
    response.headers["Access-Control-Allow-Origin"] = ANY if ANY in origins else origin
    response.headers["Access-Control-Expose-Headers"] = EXPOSED
    if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
        wanted = request.headers.get("Access-Control-Request-Headers")
        response.headers["Access-Control-Allow-Methods"] = METHODS
        response.headers["Access-Control-Allow-Headers"] = wanted or ALLOWED
        response.headers["Access-Control-Max-Age"] = str(MAX_AGE_S)
    return response
