"""What every actuator must do, shown on each of them.

An actuator joins with a class of the shape of `tests.contracts.providers.provider.Provider`, and an entry in PROVIDERS.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from headrace.errors import ActuatorUnavailable
from scheduler.actuators.base import Actuator, HostMachine, HostOrder
from tests.contracts.providers.aws import AutoScaling, Moto
from tests.contracts.providers.cloud import InMemory
from tests.contracts.providers.kubernetes import Cluster
from tests.contracts.providers.local import LocalStack
from tests.contracts.providers.programs import Ec2Cli, MinimalProgram, SshHosts
from tests.contracts.providers.provider import PATIENCE_S, Provider

#: The start of a program, and the pause between two tries.
SLACK_S = 5.0
Make = Callable[[Path, pytest.MonkeyPatch, pytest.FixtureRequest], Provider]
PROVIDERS: dict[str, Make] = {
    "command": lambda folder, _, __: MinimalProgram(folder),
    "command-ec2-cli": lambda folder, _, __: Ec2Cli(folder),
    "command-ssh-hosts": lambda folder, _, __: SshHosts(folder),
    "aws": lambda _, patch, request: AutoScaling(request.getfixturevalue("moto"), patch),
    "kubernetes": lambda folder, _, __: Cluster(folder),
    "local": lambda folder, _, __: LocalStack(folder),
    # Not of the product: what the tests of `move_hosts` break.
    "in-memory": lambda _, __, ___: InMemory(names_hosts=True),
    "in-memory-its-names": lambda _, __, ___: InMemory(names_hosts=False),
}


@pytest.fixture(scope="session")
def moto() -> Iterator[Moto]:
    moto = Moto()
    yield moto
    moto.stop()


@pytest.fixture(params=PROVIDERS)
def provider(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    made = PROVIDERS[request.param](tmp_path, monkeypatch, request)
    yield made
    made.work()
    made.stop()


@pytest.fixture
def actuator(provider: Provider) -> Actuator:
    return provider.actuator()


def hosts(*numbers: int, pool: str = "chat") -> list[HostOrder]:
    return [HostOrder(f"host-{number}", pool) for number in numbers]


def live(machines: Sequence[HostMachine]) -> list[HostMachine]:
    return [machine for machine in machines if not machine.is_ending]


def ids(machines: Sequence[HostMachine]) -> set[str]:
    return {machine.provider_id for machine in live(machines)}


def ordered(actuator: Actuator, *numbers: int) -> list[HostMachine]:
    """Order hosts beside those that are there, and say which machines live now."""
    actuator.order("chat", hosts(*numbers), actuator.machines("chat"))
    return live(actuator.machines("chat"))


def test_at_first_there_is_no_machine(actuator: Actuator) -> None:
    assert actuator.machines("chat") == []


def test_what_was_ordered_is_listed_from_then_on(provider: Provider, actuator: Actuator) -> None:
    accepted = actuator.order("chat", hosts(1, 2, 3), [])
    machines = actuator.machines("chat")

    assert len(machines) == 3
    assert ids(machines) == provider.live("chat")
    assert not any(machine.is_ending for machine in machines)
    named = {machine.host_id for machine in machines}
    assert named == ({"host-1", "host-2", "host-3"} if actuator.names_hosts else {None})
    assert len(accepted) == (3 if actuator.names_hosts else len(accepted))
    assert ids(accepted) <= ids(machines)


def test_an_order_is_accepted_before_another_process_repeats_it(provider: Provider, actuator: Actuator) -> None:
    actuator.order("chat", hosts(1, 2), [])
    before = provider.live("chat")
    # A process that died between the order and its record knows of no machine.
    provider.actuator().order("chat", hosts(1, 2), [])

    assert provider.live("chat") == before
    assert len(before) == 2


def test_a_later_order_adds_to_the_machines(provider: Provider, actuator: Actuator) -> None:
    first = ids(ordered(actuator, 1))
    both = ids(ordered(actuator, 2, 3))

    assert len(both) == 3
    assert first < both == provider.live("chat")


def test_an_order_from_an_old_list_ends_no_machine(provider: Provider, actuator: Actuator) -> None:
    before = ids(ordered(actuator, 1, 2, 3))
    actuator.order("chat", hosts(1), [])

    assert provider.live("chat") == before


def test_nothing_is_ordered_and_nothing_is_released(provider: Provider, actuator: Actuator) -> None:
    before = ids(ordered(actuator, 1))
    actuator.order("chat", [], [])
    actuator.release("chat", [])

    assert provider.live("chat") == before


def test_pools_have_machines_of_their_own(provider: Provider, actuator: Actuator) -> None:
    chat = ids(ordered(actuator, 1))
    actuator.order("code", hosts(2, 3, pool="code"), [])
    code = actuator.machines("code")

    assert (ids(actuator.machines("chat")), len(live(code))) == (chat, 2)
    actuator.release("code", code)
    assert (provider.live("chat"), provider.live("code")) == (chat, set())


@pytest.mark.parametrize("index", [0, 1, 2])
def test_exactly_the_named_machine_is_released(provider: Provider, actuator: Actuator, index: int) -> None:
    machines = ordered(actuator, 1, 2, 3)
    released = machines[index]
    kept = ids(machines) - {released.provider_id}
    actuator.release("chat", [released])

    assert provider.live("chat") == kept
    assert ids(actuator.machines("chat")) == kept


def test_several_machines_are_released_at_once(provider: Provider, actuator: Actuator) -> None:
    machines = ordered(actuator, 1, 2, 3, 4)
    actuator.release("chat", machines[::2])

    assert provider.live("chat") == ids(machines[1::2])


def test_a_release_that_is_repeated_ends_no_other_machine(provider: Provider, actuator: Actuator) -> None:
    machines = ordered(actuator, 1, 2, 3)
    for _ in range(3):
        actuator.release("chat", machines[:1])
    provider.actuator().release("chat", machines[:1])

    assert provider.live("chat") == ids(machines[1:])


def test_an_unknown_machine_is_released_without_an_error(provider: Provider, actuator: Actuator) -> None:
    machines = ordered(actuator, 1, 2)
    unknown = HostMachine("i-0123456789abcdef0", "host-9" if actuator.names_hosts else None)
    actuator.release("chat", [unknown, machines[0]])

    assert provider.live("chat") == ids(machines[1:])


def test_what_ends_is_replaced_by_the_next_order(provider: Provider, actuator: Actuator) -> None:
    machines = ordered(actuator, 1, 2)
    actuator.release("chat", machines[:1])
    after = ordered(actuator, 3)

    assert len(after) == 2
    assert ids(machines[1:]) < ids(after) == provider.live("chat")


def test_draining_marks_end_nothing(provider: Provider, actuator: Actuator) -> None:
    machines = ordered(actuator, 1, 2)
    gone = HostMachine("i-0123456789abcdef0")
    actuator.mark_draining("chat", [*machines, gone])
    actuator.unmark_draining("chat", [*machines[:1], gone])

    assert provider.live("chat") == ids(machines)


def test_half_a_success_is_completed_later(provider: Provider, actuator: Actuator) -> None:
    provider.allow("chat", 2)
    try:
        accepted = actuator.order("chat", hosts(1, 2, 3), [])
    except ActuatorUnavailable:
        accepted = []
    machines = live(actuator.machines("chat"))
    assert len(machines) == len(provider.live("chat")) == 2
    if actuator.names_hosts:
        assert sorted(accepted, key=str) == sorted(machines, key=str)

    provider.allow("chat", 5)
    known = {machine.host_id for machine in machines}
    missing = [order for order in hosts(1, 2, 3) if order.host_id not in known] if actuator.names_hosts else hosts(3)
    actuator.order("chat", missing, machines)
    assert ids(machines) < ids(actuator.machines("chat"))
    assert len(provider.live("chat")) == 3


def test_a_withdrawal_ends_no_machine_whatever_list_it_goes_by(provider: Provider, actuator: Actuator) -> None:
    machines = ordered(actuator, 1, 2)
    for present in (machines, machines[:1], []):
        actuator.withdraw("chat", 0, present)
    assert provider.live("chat") == ids(machines)
    assert len(ordered(actuator, 3)) == 3


def test_a_machine_was_launched_lately_if_the_provider_says_when(actuator: Actuator) -> None:
    machines = ordered(actuator, 1, 2)
    times = actuator.launch_times("chat", [machines[0], HostMachine("i-0123456789abcdef0")])
    assert times.keys() <= {machines[0].provider_id}
    now = datetime.now(UTC)
    assert all(now - timedelta(minutes=5) < at <= now + timedelta(seconds=1) for at in times.values())


def calls(actuator: Actuator, machines: Sequence[HostMachine]) -> list[Callable[[], object]]:
    of_its_names = [
        lambda: actuator.withdraw("chat", 1, machines),
        lambda: actuator.launch_times("chat", machines),
    ]
    return [
        *([] if actuator.names_hosts else of_its_names),
        lambda: actuator.machines("chat"),
        lambda: actuator.order("chat", hosts(2, 3), machines),
        lambda: actuator.release("chat", machines),
    ]


def test_a_provider_that_fails_is_unavailable_and_its_calls_can_be_repeated(
    provider: Provider, actuator: Actuator
) -> None:
    machines = ordered(actuator, 1)
    provider.fail()
    for call in calls(actuator, machines):
        with pytest.raises(ActuatorUnavailable, match=r"\w{3}"):
            call()
    assert provider.live("chat") == ids(machines)

    provider.work()
    for call in calls(actuator, machines):
        call()
    assert len(provider.live("chat")) == 2
    assert not provider.live("chat") & ids(machines)


def test_a_provider_that_hangs_is_unavailable_in_time(provider: Provider, actuator: Actuator) -> None:
    machines = ordered(actuator, 1)
    assert actuator.patience_s >= PATIENCE_S
    provider.hang()
    impatient = provider.actuator(timeout_s=0.5)
    for call in calls(impatient, machines):
        began = time.monotonic()
        with pytest.raises(ActuatorUnavailable):
            call()
        assert time.monotonic() - began < impatient.patience_s + SLACK_S
    provider.work()
    assert provider.live("chat") == ids(machines)


def test_a_count_that_is_wrong_is_not_believed(provider: Provider, actuator: Actuator) -> None:
    machines = ordered(actuator, 1, 2)
    provider.lie()
    try:
        found = ids(actuator.machines("chat"))
    except ActuatorUnavailable:
        found = ids(machines)
    assert found == ids(machines)

    provider.work()
    assert ids(machines) < ids(ordered(actuator, 3)) == provider.live("chat")
    assert len(provider.live("chat")) == 3


def test_one_order_by_many_processes_at_once_is_one_order(provider: Provider) -> None:
    def order(actuator: Actuator) -> None:
        actuator.order("chat", hosts(1, 2, 3), [])

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(order, [provider.actuator() for _ in range(6)]))
    assert len(provider.live("chat")) == 3
    machines = provider.actuator().machines("chat")
    assert ids(machines) == provider.live("chat")


def test_one_release_by_many_processes_at_once_is_one_release(provider: Provider, actuator: Actuator) -> None:
    machines = ordered(actuator, 1, 2, 3)

    def release(actuator: Actuator) -> None:
        # A provider may tell one of them that it is busy ending the machine.
        try:
            actuator.release("chat", machines[:2])
        except ActuatorUnavailable:
            actuator.release("chat", machines[:2])

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(release, [provider.actuator() for _ in range(4)]))
    assert provider.live("chat") == ids(machines[2:])
