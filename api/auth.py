"""Who is calling: an API key's app, remembered for a few seconds so that a request costs no extra query."""

import time

from headrace.errors import Unauthenticated
from headrace.store import Store, apps
from headrace.store.apps import App

#: Seconds a good key is believed without asking; a revoked one works at most this much longer.
KEY_TTL_S = 3.0
#: Ours have 46 characters; what is far longer is not worth a query.
KEY_CHARS_LIMIT = 200


class Authenticator:
    """Checks Authorization headers. Keeps digests, never keys."""

    def __init__(self, store: Store, pepper: str, ttl_s: float = KEY_TTL_S) -> None:
        self._store = store
        self._pepper = pepper
        self._ttl_s = ttl_s
        self._known: dict[bytes, tuple[App, float]] = {}

    def authenticate(self, header: str | None) -> App:
        """The app behind an Authorization header. Raises: Unauthenticated. StoreUnavailable."""
        key = _bearer(header)
        digest = apps.digest(key, self._pepper)
        app, until = self._known.get(digest, (None, 0.0))
        if app is not None and until > time.monotonic():
            return app
        self._known.pop(digest, None)
        with self._store.begin() as db:
            app = apps.authenticate(db, key, self._pepper)
        self._known[digest] = (app, time.monotonic() + self._ttl_s)
        return app


def _bearer(header: str | None) -> str:
    scheme, _, key = (header or "").partition(" ")
    key = key.strip()
    if scheme.lower() != "bearer" or not key:
        raise Unauthenticated("No API key was given. Send it as 'Authorization: Bearer hr-…'.")
    if len(key) > KEY_CHARS_LIMIT or not key.isascii():
        raise Unauthenticated("This API key is not valid: it is not one of ours.")
    return key
