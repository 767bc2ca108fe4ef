"""`REDIS_URL`: its forms, and what is none."""

import pytest

from headrace.config.redis_url import RedisUrl
from headrace.errors import ConfigError


def test_a_server_is_named_as_ever() -> None:
    where = RedisUrl.parse("redis://:p%40ss@example:7000/3")
    assert (where.url, where.sentinels) == ("redis://:p%40ss@example:7000/3", None)
    assert where.shown == "example:7000"
    assert "p%40ss" not in repr(where)


def test_sentinels_are_named_in_one_url() -> None:
    where = RedisUrl.parse("sentinel://bob:p%40ss@one:1,two,[::1]:3/5?master_name=jobs&sentinel_password=other")
    assert where.sentinels is not None
    assert where.sentinels.addresses == (("one", 1), ("two", 26_379), ("::1", 3))
    assert (where.sentinels.master_name, where.sentinels.password) == ("jobs", "other")
    assert (where.username, where.password, where.db) == ("bob", "p@ss", 5)
    assert where.url == "sentinel://bob:p%40ss@one:1/5", "what kombu and Flower read"
    assert "p@ss" not in repr(where)
    assert "other" not in repr(where)
    assert where.sentinels.__json__() == ["one:1", "two:26379", "::1:3"]
    assert (where.tls, where.sentinels.tls) == (None, None)


def test_sentinels_with_tls_take_the_parameters_of_redis_py_for_themselves_and_the_servers() -> None:
    where = RedisUrl.parse(
        "sentinels://:p@one,two/0?master_name=jobs&ssl_ca_certs=%2Fetc%2Fca.pem&ssl_check_hostname=false"
    )
    assert where.sentinels is not None
    assert where.sentinels.addresses == (("one", 26_379), ("two", 26_379))
    assert where.url == "sentinel://:p@one:26379/0", "kombu and Flower know no other scheme"
    assert where.tls == {"ssl_cert_reqs": "required", "ssl_ca_certs": "/etc/ca.pem", "ssl_check_hostname": False}
    assert where.sentinels.tls == where.tls


@pytest.mark.parametrize("url", ["rediss://example/0", "sentinels://one/0?master_name=jobs"])
def test_tls_checks_the_certificate_unless_the_url_says_otherwise(url: str) -> None:
    assert RedisUrl.parse(url).tls == {"ssl_cert_reqs": "required"}


@pytest.mark.parametrize(
    "url",
    [
        "sentinel://:secret@one:26379/0",
        "sentinel://:secret@one:26379/0?master_name=",
        "sentinel://:secret@one:26379/0?master_name=jobs&more=1",
        "sentinel://:secret@one:port/0?master_name=jobs",
        "sentinel://:secret@one,,two/0?master_name=jobs",
        "sentinel://:secret@one/first?master_name=jobs",
        "sentinel://:secret@one:26379/0?master_name=jobs&ssl_ca_certs=ca.pem",
        "sentinels://:secret@one:26379/0",
        "sentinels://:secret@one:26379/0?master_name=jobs&ssl_more=1",
        "sentinels://:secret@one:26379/0?master_name=jobs&ssl_cert_reqs=some",
        "sentinels://:secret@one:26379/0?master_name=jobs&ssl_keyfile=key.pem",
        "redis://:secret@one:port/0",
        "redis://:sec@ret@one:70000/0",
        "unix:///secret",
    ],
)
def test_what_is_none_of_the_forms_is_refused_with_all_of_them_and_without_the_password(url: str) -> None:
    with pytest.raises(ConfigError, match="sentinel://:PASSWORD@HOST1:26379,HOST2:26379") as error:
        RedisUrl.parse(url)
    assert "secret" not in str(error.value)
    assert error.value.param == "redis_url"
