from pathlib import Path

import pytest

from headrace.config import Settings
from headrace.errors import ConfigError
from headrace.stack.hosts.scale import MAX_HOSTS, ScaleOptions, scaled, variables

SOCKET = Path("/state/hosts.sock")


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A settings file with two pools."""
    file = tmp_path / "headrace.toml"
    file.write_text("""
        [pools.chat]
        model = "chat-model"
        [pools.code]
        model = "code-model"
        [[scaling.events]]
        name = "morning"
        weekdays = ["mon"]
        from = 09:00:00
        to = 11:00:00
        hosts = 3
    """)
    monkeypatch.setenv("HEADRACE_CONFIG", str(file))
    return file


def test_the_autoscaler_acts_through_the_socket_and_keeps_one_host(config: Path) -> None:
    scaling = scaled(Settings.load(), ScaleOptions(provision_s=10.0), SOCKET).scaling
    assert (scaling.mode, scaling.actuator) == ("active", "local")
    assert (scaling.local.socket, scaling.local.provision_s) == (str(SOCKET), 10.0)
    assert scaling.of_pool("chat").min_hosts >= 1


def test_the_limit_is_the_option_or_else_the_settings_or_else_small(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def limit(max_hosts: int | None) -> int:
        return scaled(Settings.load(), ScaleOptions(max_hosts), SOCKET).scaling.of_pool("chat").max_hosts

    assert (limit(None), limit(7)) == (MAX_HOSTS, 7)
    monkeypatch.setenv("HEADRACE_SCALING__MAX_HOSTS", "9")
    assert (limit(None), limit(7)) == (9, 7)
    monkeypatch.setenv("HEADRACE_SCALING__POOLS__CHAT__MAX_HOSTS", "11")
    assert (limit(None), limit(7)) == (11, 7)


def test_a_limit_below_the_fewest_hosts_is_refused(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_SCALING__MIN_HOSTS", "5")
    assert scaled(Settings.load(), ScaleOptions(), SOCKET).scaling.of_pool("chat").max_hosts == 5
    with pytest.raises(ConfigError, match=r"max_hosts of pool 'chat' \(3\) is below min_hosts \(5\)"):
        scaled(Settings.load(), ScaleOptions(3), SOCKET)


@pytest.mark.parametrize("max_hosts", [1, 3])
def test_the_option_limits_the_fewest_hosts_where_the_settings_have_none(config: Path, max_hosts: int) -> None:
    scaling = scaled(Settings.load(), ScaleOptions(max_hosts), SOCKET).scaling.of_pool("chat")
    assert (scaling.min_hosts, scaling.max_hosts) == (min(max_hosts, Settings.load().scaling.min_hosts), max_hosts)


def test_no_host_is_wanted_of_a_pool_that_is_not_served_here(config: Path) -> None:
    code = scaled(Settings.load(), ScaleOptions(), SOCKET).scaling.of_pool("code")
    assert code.min_hosts == code.max_hosts == code.fixed_hosts == 0


def test_processes_read_the_same_settings_whatever_the_environment_said(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inherited = {
        "HEADRACE_CONFIG": str(config),
        "HEADRACE_SCALING__POOLS__CHAT__MAX_HOSTS": "11",
        "HEADRACE_SCALING__MODE": "advisory",
        "headrace_scaling__window_s": "300",
    }
    for name, value in inherited.items():
        monkeypatch.setenv(name, value)
    settings = scaled(Settings.load(), ScaleOptions(3, 10.0), SOCKET)

    given = variables(settings, inherited)
    for name in inherited:
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)

    assert Settings.load().scaling == settings.scaling
    assert Settings.load().scaling.window_s == 300
