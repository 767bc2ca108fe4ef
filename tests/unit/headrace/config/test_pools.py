"""What is said of wrong settings of pools: the pool that a semantic cache names, and compression."""

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


def test_a_semantic_cache_is_off_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_a_wrong_name_of_a_cache_s_pool_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, param: str, told: str
) -> None:
    with pytest.raises(ConfigError, match=told) as raised:
        load(tmp_path, monkeypatch, text)
    assert raised.value.param == param


POOLS = """
[pools.chat]
model = "large"
{}
[pools.fast]
model = "small"
[pools.paid]
model = "gpt"
engine = "openai"
{}
[pools.vectors]
model = "minilm"
serves = "embeddings"
engine = "simulator"
{}
"""


def load_pools(folder: Path, chat: str = "", paid: str = "", vectors: str = "") -> Settings:
    path = folder / "headrace.toml"
    path.write_text(POOLS.format(chat, paid, vectors))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADRACE_CONFIG", str(path))
        return Settings.load()


def test_it_is_off_by_default_and_follows_the_file(tmp_path: Path) -> None:
    assert load_pools(tmp_path).pools["chat"].compress == "off"

    settings = load_pools(tmp_path, 'compress = "plain"\ncompress_also = ["system"]', 'compress = "plain"')

    chat = settings.pools["chat"]
    assert (chat.compress, chat.compress_also) == ("plain", ("system",))
    assert settings.pools["paid"].compress == "plain"


@pytest.mark.parametrize(
    ("chat", "named"),
    [
        ('compress = "zip"', r"pools\.chat\.compress"),
        (
            'compress_by = "fast"\ncompress = "surprise"',
            r"pools\.chat\.compress .*removed, and only 'plain' is left.*'surprise'",
        ),
        ("compress_to = 0.5", r"pools\.chat\.compress_to"),
        ('compress_by = "fast"', r"pools\.chat\.compress_by"),
        ("compress_within_s = 1", r"pools\.chat\.compress_within_s"),
        ('compress_also = ["tools"]', r"pools\.chat\.compress_also"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, chat: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        load_pools(tmp_path, chat)


def test_a_pool_of_embeddings_has_nothing_to_compress(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"pools\.vectors.*compress"):
        load_pools(tmp_path, vectors='compress = "plain"')
