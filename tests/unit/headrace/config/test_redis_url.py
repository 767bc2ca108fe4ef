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


@pytest.mark.parametrize(
    "url",
    [
        "sentinel://:secret@one:26379/0",
        "sentinel://:secret@one:26379/0?master_name=",
        "sentinel://:secret@one:26379/0?master_name=jobs&more=1",
        "sentinel://:secret@one:port/0?master_name=jobs",
        "sentinel://:secret@one,,two/0?master_name=jobs",
        "sentinel://:secret@one/first?master_name=jobs",
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
