"""How connections are made, without making one."""

import pytest
import sqlalchemy as sa
from psycopg import OperationalError
from redis.connection import SSLConnection

from headrace import connections
from headrace.broker.messages import make_celery
from headrace.broker.transport import SentinelChannel
from headrace.config import Settings
from headrace.connections.redis import DroppedSentinelSslConnection, redis_client
from headrace.errors import ConfigError


def test_errors_of_statements_do_not_quote_prompts_and_answers() -> None:
    engine = connections.postgres(Settings.load(database_url="postgresql://u@127.0.0.1:1/d"))

    assert engine.hide_parameters


@pytest.mark.parametrize("url", ["junk", "mysql://u:secret@h/d", ""])
def test_address_of_another_kind_is_a_wrong_setting_and_is_not_repeated(url: str) -> None:
    settings = Settings.load(database_url=url, redis_url=url)

    with pytest.raises(ConfigError, match="DATABASE_URL must") as database:
        connections.postgres(settings)
    with pytest.raises(ConfigError, match="REDIS_URL must") as redis:
        redis_client(settings)
    assert "secret" not in f"{database.value}{redis.value}"


#: Of what is asked of libpq, the address.
ADDRESS = ("user", "password", "host", "port", "dbname", "sslmode")
SEVERAL = {"user": "u", "password": "p@", "host": "a,b", "port": "1,2", "dbname": "d"}


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("postgresql://u:p%40@a:1/d", {**SEVERAL, "host": "a", "port": "1"}),
        ("postgresql://u:p%40@a:1,b:2/d", SEVERAL),
        ("postgresql+psycopg://u:p%40@a:1,b:2/d", SEVERAL),
        ("postgresql+psycopg://u:p%40@/d?host=a:1&host=b:2", SEVERAL),
        ("postgresql://u:p%40@a:1,b:2/d?sslmode=require", {**SEVERAL, "sslmode": "require"}),
        ("postgresql://u@[::1]:1,[::2]:2/d", {"user": "u", "host": "::1,::2", "port": "1,2", "dbname": "d"}),
        ("postgresql://u@%2Frun%2Fpostgres/d", {"user": "u", "host": "/run/postgres", "dbname": "d"}),
    ],
)
def test_several_hosts_may_be_named_in_either_form_and_the_one_that_takes_writes_is_used(
    url: str, address: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, object] = {}

    def connect(**parameters: object) -> None:
        asked.update(parameters)
        raise OperationalError("refused")

    monkeypatch.setattr("headrace.connections.Patient.connect", connect)
    with pytest.raises(sa.exc.OperationalError):
        connections.postgres(Settings.load(database_url=url)).connect()

    assert {name: asked[name] for name in ADDRESS if name in asked} == address
    assert asked["target_session_attrs"] == "read-write"


@pytest.mark.parametrize(
    "url",
    [
        *("postgresql://u:secret@a:x/d", "postgresql://u:secret@a:0/d", "postgresql://u:secret@a:65536/d"),
        *(
            "postgresql://u:secret@a:1,b:x/d",
            "postgresql://u:secret@/d?host=a,b&port=1,2,3",
            "postgresql://u:secret%@a/d",
        ),
    ],
)
def test_address_that_libpq_cannot_use_is_refused_before_the_first_connection(url: str) -> None:
    with pytest.raises(ConfigError, match=r"DATABASE_URL must .*HOST1:PORT1,HOST2:PORT2") as refused:
        connections.postgres(Settings.load(database_url=url))
    assert "secret" not in str(refused.value)


def test_one_url_has_every_connection_to_sentinels_and_servers_encrypted() -> None:
    url = "sentinels://:p@one,two/0?master_name=jobs&ssl_ca_certs=ca.pem&ssl_certfile=me.pem"
    settings = Settings.load(redis_url=url)
    asked = {"ssl_cert_reqs": "required", "ssl_ca_certs": "ca.pem", "ssl_certfile": "me.pem"}

    pool = redis_client(settings).connection_pool
    celery = make_celery("test", settings)
    connection = celery.connection()

    assert pool.connection_class is SentinelChannel.connection_class_ssl is DroppedSentinelSslConnection
    assert asked.items() <= pool.connection_kwargs.items()
    for each in pool.sentinel_manager.sentinels:
        assert each.connection_pool.connection_class is SSLConnection
        assert asked.items() <= each.connection_pool.connection_kwargs.items()
    assert connection.ssl == asked, "what kombu gives to the class of its channel"
    assert connection.transport_options["sentinels"].tls == asked, "what the channel gives to the Sentinels"
