"""Which requests for hosts are granted. No process is started."""

import os
from pathlib import Path

import pytest

from headrace.errors import StackError
from headrace.stack.hosts.local_hosts import KEPT_LOGS, HostBounds, HostProcess, LocalHosts
from headrace.stack.hosts.messages import HostAnswer, ListHosts, StartHost, StopHost
from headrace.stack.processes.child import Command
from headrace.stack.processes.roster import MemberState
from headrace.stack.processes.service import Service


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
