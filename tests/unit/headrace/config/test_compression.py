"""The settings of compression, and what is said of wrong ones."""

from pathlib import Path

import pytest

from headrace.config import Settings
from headrace.errors import ConfigError

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


def load(folder: Path, chat: str = "", paid: str = "", vectors: str = "") -> Settings:
    path = folder / "headrace.toml"
    path.write_text(POOLS.format(chat, paid, vectors))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADRACE_CONFIG", str(path))
        return Settings.load()


def test_it_is_off_by_default_and_follows_the_file(tmp_path: Path) -> None:
    assert load(tmp_path).pools["chat"].compress == "off"

    settings = load(
        tmp_path,
        'compress = "surprise"\ncompress_by = "fast"\ncompress_to = 0.3\ncompress_also = ["system"]',
        'compress = "plain"\ncompress_by = "fast"',
    )

    chat = settings.pools["chat"]
    assert (chat.compress, chat.compress_by, chat.compress_to, chat.compress_also) == (
        *("surprise", "fast", 0.3),
        ("system",),
    )
    assert settings.pools["paid"].compress_by == "fast"


@pytest.mark.parametrize(
    ("chat", "named"),
    [
        ('compress = "zip"', r"pools\.chat\.compress"),
        ('compress = "surprise"', r"pools\.chat.*compress_by"),
        ("compress_to = 0", r"pools\.chat\.compress_to"),
        ('compress_also = ["tools"]', r"pools\.chat\.compress_also"),
        ('compress_by = "large"', r"pools\.chat\.compress_by.*chat, fast, paid, vectors"),
        ('compress_by = "paid"', r"pools\.chat\.compress_by.*paid API"),
        ('compress_by = "vectors"', r"pools\.chat\.compress_by.*embeddings"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, chat: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        load(tmp_path, chat)


def test_a_pool_of_embeddings_has_nothing_to_compress(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"pools\.vectors.*compress"):
        load(tmp_path, vectors='compress = "plain"')
