from pathlib import Path

import pytest

from headrace.config import PROJECT_ROOT, Settings
from headrace.errors import ConfigError
from headrace.jobs import Lane


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_URL", "REDIS_URL", "OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    for name in ("STATE", "ENGINE", "MODEL", "MODEL_DIR", "LEASE_S", "CONFIG"):
        monkeypatch.delenv(f"HEADRACE_{name}", raising=False)


def write(folder: Path, text: str) -> str:
    path = folder / "headrace.toml"
    path.write_text(text)
    return str(path)


def test_laptop_needs_no_setting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HEADRACE_CONFIG", write(tmp_path, ""))

    settings = Settings.load()

    assert settings.lane(Lane.BATCH).max_wait_s == 24 * 3600
    assert settings.state_dir == PROJECT_ROOT / ".headrace"
    assert settings.openai_api_key is None


def test_settings_file_that_is_named_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_CONFIG", "/nowhere/headrace.toml")

    with pytest.raises(ConfigError, match=r"/nowhere/headrace\.toml"):
        Settings.load()


def test_committed_file_is_valid() -> None:
    settings = Settings.load()

    assert set(settings.lanes) == set(Lane)
    assert "gpt-4o-mini" in settings.prices


def test_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_CONFIG", write(tmp_path, "lease_s = 7\nmax_attempts = 9"))
    monkeypatch.setenv("HEADRACE_LEASE_S", "4")

    settings = Settings.load()

    assert (settings.lease_s, settings.max_attempts) == (4, 9)


def test_model_and_engine_of_the_first_pool_can_be_overridden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_MODEL", "some/model")
    monkeypatch.setenv("HEADRACE_ENGINE", "simulator")

    pool = Settings.load().pools["chat"]

    assert (pool.model, pool.engine, pool.max_running) == ("some/model", "simulator", 32)


def test_an_empty_variable_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "")
    monkeypatch.setenv("HEADRACE_CONFIG", "")

    settings = Settings.load()

    assert settings.openai_api_key is None
    assert "gpt-4o-mini" in settings.prices


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("lease_s = -1", "lease_s"),
        ("[pools.chat]\nmax_running = 0", "pools.chat.max_running"),
        ("[pools.chat]\nmax_runing = 3", "pools.chat.max_runing"),
        ("[lanes.urgent]\ndepth_cap = 1", "urgent"),
        ("[prices.m]\ninput_usd_per_mtok = -1", "input_usd_per_mtok"),
        ("lease_s =", "not valid TOML"),
    ],
)
def test_wrong_setting_is_named(text: str, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_CONFIG", write(tmp_path, text))

    with pytest.raises(ConfigError, match=named):
        Settings.load()


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary")
    monkeypatch.setenv("HEADRACE_PEPPER", "canary-pepper")

    assert "canary" not in repr(Settings.load())
