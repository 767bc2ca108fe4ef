"""How connections are made, without making one."""

import pytest

from headrace import connections
from headrace.config import Settings
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
        connections.redis(settings)
    assert "secret" not in f"{database.value}{redis.value}"
