"""The pool that a semantic cache names is one of an embedding model."""

from pathlib import Path

import pytest

from headrace.config import Settings
from headrace.errors import ConfigError

EMBED = '[pools.embed]\nserves = "embeddings"\nmodel = "minilm"\n'


def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> Settings:
    path = tmp_path / "headrace.toml"
    path.write_text(text)
    monkeypatch.setenv("HEADRACE_CONFIG", str(path))
    return Settings.load()


def test_it_is_off_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(tmp_path, monkeypatch, '[pools.chat]\nmodel = "m"\n')
    assert settings.pools["chat"].semantic_cache.pool is None


def test_a_pool_names_the_pool_that_looks_its_jobs_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = f'[pools.chat]\nmodel = "m"\ncache_s = 60\n[pools.chat.semantic_cache]\npool = "embed"\n{EMBED}'
    monkeypatch.setenv("HEADRACE_POOLS__CHAT__SEMANTIC_CACHE__MAX_ERROR", "0.05")
    cache = load(tmp_path, monkeypatch, text).pools["chat"].semantic_cache
    assert (cache.pool, cache.max_error, cache.shadow, cache.hold_s) == ("embed", 0.05, False, 0.0)


@pytest.mark.parametrize(
    ("text", "param", "told"),
    [
        (f'[pools.chat.semantic_cache]\npool = "embd"\n{EMBED}', "pools.chat.semantic_cache.pool", "chat, embed"),
        (f'[pools.chat.semantic_cache]\npool = "chat"\n{EMBED}', "pools.chat.semantic_cache.pool", "serves ="),
        (
            f'[pools.chat]\nmodel = "m"\n{EMBED}[pools.embed.semantic_cache]\npool = "embed"\n',
            "pools.embed.semantic_cache",
            "remove",
        ),
    ],
)
def test_a_wrong_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, param: str, told: str
) -> None:
    with pytest.raises(ConfigError, match=told) as raised:
        load(tmp_path, monkeypatch, text)
    assert raised.value.param == param
