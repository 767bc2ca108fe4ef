"""`REDIS_URL`, taken apart: one server, or the Sentinels that know which server of a group takes writes. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from headrace.errors import ConfigError

SENTINEL_PORT = 26_379
_SENTINEL_OPTIONS = frozenset({"master_name", "sentinel_password"})
#: redis-py's TLS options. `ssl_password` is left out: Celery shows a worker's options to every operator.
_TLS_OPTIONS = frozenset(
    {"ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname"}
)
#: What redis-py reads as false.
_FALSE = frozenset({"0", "F", "FALSE", "N", "NO"})
_FORMS = (
    "REDIS_URL must be like redis://:PASSWORD@HOST:PORT/0, or rediss:// for TLS, or"
    " sentinel://:PASSWORD@HOST1:26379,HOST2:26379,HOST3:26379/0?master_name=NAME, or sentinels:// for TLS, with "
    + ", ".join(f"&{name}=" for name in sorted(_TLS_OPTIONS))
    + ". Write %40 for an @ in a password."
)


@dataclass(frozen=True, slots=True)
class Sentinels:
    """Where to ask for the master of a group.

    Attributes:
        addresses: host and port of each, in the order in which they are asked.
        master_name: what they call the group.
        password: their own; None where they ask for none.
        tls: options of the connections to them, by redis-py's names; None without TLS.
    """

    addresses: tuple[tuple[str, int], ...]
    master_name: str
    password: str | None = field(default=None, repr=False)
    tls: Mapping[str, Any] | None = None

    def __json__(self) -> list[str]:
        """What Celery's `inspect stats` and Flower show."""
        return [f"{host}:{port}" for host, port in self.addresses]


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """Where Redis is.

    Attributes:
        url: as kombu, redis-py and Flower read it; of several Sentinels it names the first.
        shown: the same for people, without a password.
        username, password: of the servers.
        db: the number of the database.
        sentinels: None where the URL names the server itself.
        tls: options of the connections to the server, by redis-py's names; None without TLS. The query of a `rediss://`
            URL is left in `url`, where kombu and redis-py read it.
    """

    url: str = field(repr=False)
    shown: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    db: int = 0
    sentinels: Sentinels | None = None
    tls: Mapping[str, Any] | None = None

    @classmethod
    def parse(cls, url: str) -> Self:
        """Take a URL apart. Raises: ConfigError, which does not repeat the URL: there is a password in it."""
        try:
            if url.startswith(("sentinel://", "sentinels://")):
                return cls._of_sentinels(url)
            if url.startswith(("redis://", "rediss://")):
                return cls._of_server(url)
        except ValueError:
            pass
        raise ConfigError(_FORMS, param="redis_url") from None

    @classmethod
    def _of_server(cls, url: str) -> Self:
        parts = urlsplit(url)
        shown = f"{parts.hostname or 'localhost'}:{parts.port or 6379}"
        username, password = (unquote(each) if each else None for each in (parts.username, parts.password))
        tls = _tls({}) if parts.scheme == "rediss" else None
        return cls(url, shown, username, password, tls=tls)

    @classmethod
    def _of_sentinels(cls, url: str) -> Self:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, strict_parsing=True))
        login, _, hosts = parts.netloc.rpartition("@")
        username, _, password = login.partition(":")
        addresses = tuple(map(_address, hosts.split(",")))
        is_tls = parts.scheme == "sentinels"
        known = _SENTINEL_OPTIONS | _TLS_OPTIONS if is_tls else _SENTINEL_OPTIONS
        if not {"master_name"} <= options.keys() <= known:
            raise ValueError
        tls = _tls(options) if is_tls else None
        db = int(parts.path.strip("/") or 0)
        host, port = addresses[0]
        return cls(
            url=f"sentinel://{login and login + '@'}{quote(host)}:{port}/{db}",
            shown=f"{options['master_name']} by the Sentinels {hosts}",
            username=unquote(username) or None,
            password=unquote(password) or None,
            db=db,
            sentinels=Sentinels(addresses, options["master_name"], options.get("sentinel_password"), tls),
            tls=tls,
        )


def _address(text: str) -> tuple[str, int]:
    """`HOST` or `HOST:PORT`. Raises: ValueError."""
    parts = urlsplit(f"//{text}")
    if not parts.hostname or parts.path:
        raise ValueError
    return parts.hostname, parts.port or SENTINEL_PORT


def _tls(options: Mapping[str, str]) -> dict[str, Any]:
    """The TLS options, as redis-py takes them. The certificate is checked unless they say otherwise.

    Raises: ValueError; also for a key without its certificate, with which each connection would fail by a TypeError.
    """
    tls: dict[str, Any] = {"ssl_cert_reqs": "required"}
    tls |= {name: value for name, value in options.items() if name in _TLS_OPTIONS}
    if "ssl_check_hostname" in tls:
        tls["ssl_check_hostname"] = tls["ssl_check_hostname"].upper() not in _FALSE
    if tls["ssl_cert_reqs"] not in ("none", "optional", "required"):
        raise ValueError
    if "ssl_keyfile" in tls and "ssl_certfile" not in tls:
        raise ValueError
    return tls
