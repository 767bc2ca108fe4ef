"""Operators' passwords: made, hashed and compared. Pure."""

import base64
import hashlib
import hmac
import secrets

from headrace.errors import InvalidRequest

#: The shortest and the longest password.
CHARS_MIN, CHARS_MAX = 12, 200
#: The cost of scrypt, as OWASP advises: N = 2^15, r = 8, p = 3. One hash takes 32 MiB and about 0.2 s.
COST, BLOCK, PARALLEL = 2**15, 8, 3
_MEMORY_BYTES = 64 * 2**20
_SALT_BYTES = 16
_KIND = "scrypt"


def random_password() -> str:
    """A random password of 24 characters."""
    return secrets.token_urlsafe(18)


def hashed(password: str) -> str:
    """The stored form of a password: its salted scrypt hash, with the cost. Raises: InvalidRequest."""
    if not CHARS_MIN <= len(password) <= CHARS_MAX:
        raise InvalidRequest(f"A password has {CHARS_MIN} to {CHARS_MAX} characters.", param="password")
    salt = secrets.token_bytes(_SALT_BYTES)
    return "$".join((_KIND, f"{COST}:{BLOCK}:{PARALLEL}", _text(salt), _text(_digest(password, salt))))


def matches(password: str, stored: str) -> bool:
    """Whether this is the password of the stored hash."""
    kind, _, salt, digest = stored.split("$")
    if kind != _KIND or len(password) > CHARS_MAX:
        return False
    return hmac.compare_digest(_digest(password, base64.b64decode(salt)), base64.b64decode(digest))


def _digest(password: str, salt: bytes) -> bytes:
    # An unpaired surrogate, which a browser may send, has no UTF-8.
    data = password.encode(errors="surrogatepass")
    return hashlib.scrypt(data, salt=salt, n=COST, r=BLOCK, p=PARALLEL, maxmem=_MEMORY_BYTES)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
