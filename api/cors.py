"""Cross-origin requests: which web pages may call the API from a browser. Without a setting, none may. Pure.

Keys are sent in a header, not in a cookie, so a page can only use a key that it has.
"""

from collections.abc import Collection

from api.call import Call

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


def cors_headers(origins: Collection[str], call: Call) -> dict[str, str]:
    """The headers by which a browser lets pages of these origins read the reply; none for other pages."""
    origin = call.headers.get("Origin")
    # A cache must not give one origin the reply to another.
    headers = {} if ANY in origins else {"Vary": "Origin"}
    if origin is None or not (ANY in origins or origin in origins):
        return headers
    headers["Access-Control-Allow-Origin"] = ANY if ANY in origins else origin
    headers["Access-Control-Expose-Headers"] = EXPOSED
    if call.method == "OPTIONS" and call.headers.get("Access-Control-Request-Method") is not None:
        headers["Access-Control-Allow-Methods"] = METHODS
        headers["Access-Control-Allow-Headers"] = call.headers.get("Access-Control-Request-Headers") or ALLOWED
        headers["Access-Control-Max-Age"] = str(MAX_AGE_S)
    return headers
