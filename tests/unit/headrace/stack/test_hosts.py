"""The hosts of one machine: the settings that `--scale` makes, and which requests are granted. Starts no process."""

import os
from pathlib import Path

import pytest

from headrace.config import Settings
from headrace.errors import ConfigError, StackError
from headrace.stack.child import Command
from headrace.stack.hosts import (
    KEPT_LOGS,
    MAX_HOSTS,
    HostAnswer,
    HostBounds,
    HostProcess,
    ListHosts,
    LocalHosts,
    ScaleOptions,
    StartHost,
    StopHost,
    scaled,
    scaling_variables,
)
from headrace.stack.services import MemberState, Service

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

    given = scaling_variables(settings, inherited)
    for name in inherited:
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)

    assert Settings.load().scaling == settings.scaling
    assert Settings.load().scaling.window_s == 300


def make_service(process: HostProcess) -> Service:
    return Service(Command(process.name, ("true",), {"HOST": process.host_id}, Path("/")))


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def hosts(tmp_path: Path, said: list[str]) -> LocalHosts:
    return LocalHosts(HostBounds(("chat", "math"), 3, 10.0, 20_464, tmp_path), make_service, said.append)


def start(hosts: LocalHosts, host_id: str) -> HostAnswer:
    return hosts.answer(StartHost(pool="chat", host_id=host_id))


def stop(hosts: LocalHosts, host_id: str) -> HostAnswer:
    return hosts.answer(StopHost(pool="chat", host_id=host_id))


def listed(hosts: LocalHosts) -> dict[str, MemberState]:
    return {host.host_id: host.state for host in hosts.answer(ListHosts(pool="chat")).hosts}


def test_one_host_is_there_from_the_beginning_under_an_id_of_its_own(hosts: LocalHosts, tmp_path: Path) -> None:
    [service] = hosts.roster.first
    [host_id] = listed(hosts)
    assert service.name == f"gpu@{host_id}"
    assert service.command.env["HOST"] == host_id
    [other] = listed(LocalHosts(HostBounds(("chat", "math"), 3, 10.0, 20_464, tmp_path), make_service, print))
    assert other != host_id


def test_a_started_host_is_on_its_way_at_once_and_is_said_to_be(hosts: LocalHosts, said: list[str]) -> None:
    [host] = start(hosts, "h-1").hosts
    assert (host.host_id, host.state) == ("h-1", MemberState.WAITING)
    assert listed(hosts)["h-1"] is MemberState.WAITING
    assert said == ["gpu@h-1 is ordered; it starts in 10 s"]


def test_a_host_is_started_once_and_stopped_once(hosts: LocalHosts, said: list[str]) -> None:
    assert start(hosts, "h-1") == start(hosts, "h-1")
    assert len(listed(hosts)) == 2
    assert stop(hosts, "h-1") == stop(hosts, "h-1")
    assert listed(hosts)["h-1"] is MemberState.STOPPING
    # Nor does an order that comes late bring back what was stopped.
    assert start(hosts, "h-1").hosts[0].state is MemberState.STOPPING
    assert said[1:] == ["stopping gpu@h-1"]


def test_a_host_that_is_unknown_is_stopped_already(hosts: LocalHosts) -> None:
    assert stop(hosts, "h-9") == HostAnswer(hosts=())


def test_no_more_hosts_than_allowed_and_those_that_stop_count(hosts: LocalHosts) -> None:
    start(hosts, "h-1")
    start(hosts, "h-2")
    stop(hosts, "h-1")
    with pytest.raises(StackError, match=r"3 hosts run, start or stop .* no more than 3 may.*--max-hosts"):
        start(hosts, "h-3")
    assert "h-3" not in listed(hosts)
    # One that exists is no further one.
    start(hosts, "h-2")


def test_a_pool_that_is_not_served_has_no_hosts_here(hosts: LocalHosts) -> None:
    assert hosts.answer(ListHosts(pool="code")) == HostAnswer(hosts=())
    with pytest.raises(StackError, match="no hosts of pool 'code', only of: chat, math"):
        hosts.answer(StartHost(pool="code", host_id="h-1"))


def test_pools_have_hosts_of_their_own_and_share_the_limit(hosts: LocalHosts) -> None:
    start(hosts, "h-1")
    hosts.answer(StartHost(pool="math", host_id="h-2"))
    assert [host.host_id for host in hosts.answer(ListHosts(pool="math")).hosts] == ["h-2"]
    assert "h-2" not in listed(hosts)

    assert stop(hosts, "h-2") == HostAnswer(hosts=())
    assert hosts.answer(ListHosts(pool="math")).hosts[0].state is MemberState.WAITING
    with pytest.raises(StackError, match="Host h-2 serves another pool than 'chat'"):
        start(hosts, "h-2")
    with pytest.raises(StackError, match="no more than 3 may"):
        hosts.answer(StartHost(pool="math", host_id="h-3"))


def test_no_two_hosts_are_promised_one_metrics_port(hosts: LocalHosts) -> None:
    start(hosts, "h-1")
    start(hosts, "h-2")
    assert len(set(hosts.metrics_ports.values())) == 3
    assert hosts.metrics_ports.keys() == {f"gpu@{host_id}" for host_id in listed(hosts)}


def test_only_the_last_logs_of_ended_hosts_are_kept(hosts: LocalHosts, tmp_path: Path) -> None:
    start(hosts, "h-1")
    for number in range(KEPT_LOGS + 5):
        log = tmp_path / f"gpu@old-{number}.log"
        log.touch()
        os.utime(log, (number, number))
    for name in ("gpu@h-1.log", "web.log"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (0, 0))

    [first] = hosts.roster.first
    first.after_stop()

    assert not (tmp_path / "gpu@old-4.log").exists()
    assert (tmp_path / "gpu@old-5.log").exists()
    assert (tmp_path / "gpu@h-1.log").exists()
    assert (tmp_path / "web.log").exists()
