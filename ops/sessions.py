"""Sessions of operators, in a signed cookie. Each request reads the operator anew, so that changes act at once."""

import hashlib
import ipaddress
import time
from uuid import UUID

from flask import Flask, request, session
from flask.sessions import SecureCookieSessionInterface

from headrace.domain.operators.accounts import Operator
from headrace.store import Store, operators

#: Where the pages are, and the cookie is sent.
PATH = "/ops"
COOKIE = "headrace_ops"
#: A session ends this long after its login, whatever it did.
SESSION_S = 12 * 3600


class LoopbackSessions(SecureCookieSessionInterface):
    """Sends cookies over TLS only, unless the browser is on this machine."""

    def get_cookie_secure(self, app: Flask) -> bool:
        """Whether the cookie is for TLS only."""
        return not _is_loopback(request.host)


def _is_loopback(host: str) -> bool:
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


def begin(operator: Operator) -> None:
    """Begin the operator's session. Nothing of the session before the login is kept."""
    session.clear()
    session.update(operator=operator.id.hex, stamp=_stamp(operator), began=int(time.time()))


def end() -> None:
    """End the session."""
    session.clear()


def current(store: Store) -> Operator | None:
    """The operator of this request; None without a session, or when it has ended. Raises: StoreUnavailable."""
    if not session.get("operator") or not 0 <= time.time() - session.get("began", 0) < SESSION_S:
        return None
    with store.autocommit() as db:
        operator = operators.find(db, UUID(hex=session["operator"]))
    return operator if operator is not None and _stamp(operator) == session.get("stamp") else None


def _stamp(operator: Operator) -> str:
    """Changes with the password, so that a new password ends the sessions of the old one."""
    return hashlib.sha256(operator.password_hash.encode()).hexdigest()[:16]
