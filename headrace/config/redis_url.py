"""`REDIS_URL`, taken apart: one server, or the Sentinels that know which server of a group takes writes. Pure."""

from dataclasses import dataclass, field
from typing import Self
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from headrace.errors import ConfigError

SENTINEL_PORT = 26_379
_SENTINEL_OPTIONS = frozenset({"master_name", "sentinel_password"})
_FORMS = (
    "REDIS_URL must be like redis://:PASSWORD@HOST:PORT/0, or rediss:// for TLS, or"
    " sentinel://:PASSWORD@HOST1:26379,HOST2:26379,HOST3:26379/0?master_name=NAME."
    " Write %40 for an @ in a password."
)


@dataclass(frozen=True, slots=True)
class Sentinels:
    """Where to ask for the master of a group.

    Attributes:
        addresses: host and port of each, in the order in which they are asked.
        master_name: what they call the group.
        password: their own; None where they ask for none.
    """

    addresses: tuple[tuple[str, int], ...]
    master_name: str
    password: str | None = field(default=None, repr=False)

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
    """

    url: str = field(repr=False)
    shown: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    db: int = 0
    sentinels: Sentinels | None = None

    @property
    def is_tls(self) -> bool:
        """Whether the connection is encrypted."""
        return self.url.startswith("rediss://")

    @classmethod
    def parse(cls, url: str) -> Self:
        """Take a URL apart. Raises: ConfigError, which does not repeat the URL: there is a password in it."""
        try:
            if url.startswith("sentinel://"):
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
        return cls(url, shown, username, password)

    @classmethod
    def _of_sentinels(cls, url: str) -> Self:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, strict_parsing=True))
        login, _, hosts = parts.netloc.rpartition("@")
        username, _, password = login.partition(":")
        addresses = tuple(map(_address, hosts.split(",")))
        if not {"master_name"} <= options.keys() <= _SENTINEL_OPTIONS:
            raise ValueError
        db = int(parts.path.strip("/") or 0)
        host, port = addresses[0]
        return cls(
            url=f"sentinel://{login and login + '@'}{quote(host)}:{port}/{db}",
            shown=f"{options['master_name']} by the Sentinels {hosts}",
            username=unquote(username) or None,
            password=unquote(password) or None,
            db=db,
            sentinels=Sentinels(addresses, options["master_name"], options.get("sentinel_password")),
        )


def _address(text: str) -> tuple[str, int]:
    """`HOST` or `HOST:PORT`. Raises: ValueError."""
    parts = urlsplit(f"//{text}")
    if not parts.hostname or parts.path:
        raise ValueError
    return parts.hostname, parts.port or SENTINEL_PORT
