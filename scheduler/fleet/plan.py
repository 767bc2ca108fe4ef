"""What must happen to a pool's hosts now, from their leases and from what the provider lists. Pure.

Level-triggered: it looks at how things stand, not at what happened. So a step that a crash, an outage or a lie of the
provider has undone is planned again.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self

from headrace.domain.hosts import HostEnd, HostState, HostWork
from scheduler.actuators.base import Actuator, HostMachine, HostOrder

#: How long a host may have neither a live worker nor a machine in the provider's list before its lease ends. A worker
#: that starts again, or a list with a gap, ends none.
MISSING = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class FleetTerms:
    """What a plan goes by, beside hosts and machines.

    Attributes:
        names_hosts: see `Actuator`.
        drain_host: how long a draining host may finish its jobs.
        write_off: how long a host may take to become ready, by its instance type.
        ended: names of machines whose leases have ended.
        stray: hosts with live workers and without a lease.
        missing: since when a host has had neither a worker nor a machine.
    """

    now: datetime
    names_hosts: bool
    drain_host: timedelta
    write_off: Mapping[str | None, timedelta]
    ended: frozenset[str] = frozenset()
    stray: frozenset[str] = frozenset()
    missing: Mapping[str, datetime] | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What must happen.

    Attributes:
        named: the provider's names of hosts that were not known to exist: `{id: provider_id}`.
        drain: hosts that must end, and why: those that never came, and those that fell silent.
        end: leases of hosts that are gone.
        order: hosts without a machine.
        release: machines to end, by the ids of their hosts.
        orphans: machines of ended leases, which must not exist.
        unclaimed: machines without a lease and without a live worker.
        draining: machines that will be released.
        serving: machines that will not.
    """

    named: Mapping[str, str]
    drain: Mapping[str, HostEnd]
    end: tuple[str, ...]
    order: tuple[HostOrder, ...]
    release: Mapping[str, HostMachine]
    orphans: tuple[HostMachine, ...]
    unclaimed: tuple[HostMachine, ...]
    draining: tuple[HostMachine, ...]
    serving: tuple[HostMachine, ...]


def is_urgent(hosts: Sequence[HostWork], terms: FleetTerms) -> bool:
    """Whether a host is to be ordered, released or adopted now, and not only looked after."""
    leases = [host.lease for host in hosts]
    is_wanted = any(lease.ordered_at is None and lease.drain_at is None for lease in leases)
    is_due = any(
        host.lease.drain_at is not None and host.lease.released_at is None and is_done(host, terms) for host in hosts
    )
    return is_wanted or is_due or bool(terms.stray or late(hosts, terms))


def late(hosts: Sequence[HostWork], terms: FleetTerms) -> dict[str, HostEnd]:
    """The hosts that must end because they never became ready, or because their workers fell silent for as long."""
    found = {}
    for host in hosts:
        lease, patience = host.lease, terms.write_off[host.lease.instance_type]
        if lease.state is HostState.REQUESTED and terms.now - lease.requested_at > patience:
            found[lease.id] = HostEnd.WRITTEN_OFF
        if lease.state is HostState.READY and host.is_silent and _is_long_silent(host, terms.now, patience):
            found[lease.id] = HostEnd.GONE
    return found


def _is_long_silent(host: HostWork, now: datetime, patience: timedelta) -> bool:
    return host.seen_at is None or now - host.seen_at > patience


def plan(hosts: Sequence[HostWork], machines: Sequence[HostMachine], terms: FleetTerms) -> Plan:
    """Plan for the hosts that have not ended, and for all machines that the provider lists."""
    found = match(hosts, machines, terms)
    live = {host_id: machine for host_id, machine in found.items() if not machine.is_ending}
    by_id = {host.lease.id: host for host in hosts}
    drain = late(hosts, terms)
    draining = {host_id: live[host_id] for host_id in live if by_id[host_id].lease.drain_at is not None}
    taken = {machine.provider_id for machine in found.values()}
    free = [machine for machine in machines if machine.provider_id not in taken and not machine.is_ending]
    workless = [machine for machine in free if not machine_names(machine) & terms.stray]
    return Plan(
        named={
            host_id: machine.provider_id
            for host_id, machine in found.items()
            if by_id[host_id].lease.provider_id is None
        },
        drain=drain,
        end=tuple(host.lease.id for host in hosts if host.lease.id not in live and _is_gone(host, terms)),
        order=tuple(
            HostOrder(host.lease.id, host.lease.pool, host.lease.instance_type)
            for host in hosts
            if host.lease.id not in found and host.lease.id not in drain and _is_awaited(host)
        ),
        release={host_id: machine for host_id, machine in draining.items() if is_done(by_id[host_id], terms)},
        orphans=tuple(machine for machine in workless if machine_names(machine) & terms.ended),
        unclaimed=tuple(machine for machine in workless if not machine_names(machine) & terms.ended),
        draining=tuple(draining.values()),
        serving=tuple(machine for host_id, machine in live.items() if host_id not in draining),
    )


def match(hosts: Sequence[HostWork], machines: Sequence[HostMachine], terms: FleetTerms) -> dict[str, HostMachine]:
    """The machine of each host that has one, by the host's id.

    A provider that names machines itself does not say which order a new machine is for. They are given to the hosts
    without one: first to those that are still wanted, then to those whose order was accepted, the oldest first.
    """
    # Those that end come first, so that a live one of the same name takes their place.
    by_name: dict[str, HostMachine] = {}
    for machine in sorted(machines, key=lambda each: not each.is_ending):
        by_name |= dict.fromkeys(machine_names(machine), machine)
    found = {}
    for host in hosts:
        for name in sorted(host.lease.names & by_name.keys()):
            found[host.lease.id] = by_name[name]
    if terms.names_hosts:
        return found
    taken = {machine.provider_id for machine in found.values()} | terms.ended
    new = [machine for machine in machines if machine.provider_id not in taken and not machine.is_ending]
    nameless = [host for host in hosts if host.lease.provider_id is None and not host.lease.is_adopted]
    nameless.sort(key=lambda host: (host.lease.drain_at is not None, host.lease.ordered_at is None))
    return found | {host.lease.id: machine for host, machine in zip(nameless, new, strict=False)}


def is_done(host: HostWork, terms: FleetTerms) -> bool:
    """A draining host may be released: nothing runs on it, or its time is over."""
    assert host.lease.drain_at is not None
    return host.is_idle or terms.now - host.lease.drain_at >= terms.drain_host


def _is_gone(host: HostWork, terms: FleetTerms) -> bool:
    """Whether the lease of a host without a machine ends. A live worker proves that its host exists."""
    lease = host.lease
    if host.workers:
        return False
    if lease.drain_at is not None:
        # A provider that names machines itself may still start one for this order: it is ended when it comes.
        is_coming = lease.ordered_at is not None and lease.provider_id is None and lease.ready_at is None
        # The patience with others may have grown since this one was written off.
        is_written_off = lease.end_reason is HostEnd.WRITTEN_OFF
        is_late = is_written_off or terms.now - lease.requested_at > terms.write_off[lease.instance_type]
        return terms.names_hosts or not is_coming or is_late
    if lease.provider_id is None and lease.ready_at is None:
        return False
    since = (terms.missing or {}).get(lease.id)
    return since is not None and terms.now - since >= MISSING


def _is_awaited(host: HostWork) -> bool:
    lease = host.lease
    return lease.state is HostState.REQUESTED and lease.provider_id is None and not lease.is_adopted


def machine_names(machine: HostMachine) -> frozenset[str]:
    """What workers may call this machine."""
    return frozenset({machine.provider_id} if machine.host_id is None else {machine.provider_id, machine.host_id})


# How often a provider is asked, and what it was told of draining machines.

_NEVER = -float("inf")


@dataclass(frozen=True, slots=True)
class Timing:
    """The times of a `HostMover`.

    Attributes:
        look_every_s: how often machines are listed while nothing is to be ordered or ended.
        retry_s: the pause after a call that failed; it doubles up to `longest_retry_s`.
        claim_s: how long the claim of a process that died, or hangs in a call, keeps others away.
    """

    look_every_s: float = 5.0
    retry_s: float = 1.0
    longest_retry_s: float = 60.0
    claim_s: float = 120.0

    @classmethod
    def of(cls, actuator: Actuator) -> Self:
        """The times of movers that use this actuator."""
        # A process that still holds its claim after twice the time in which a request fails is dead, or hangs.
        return cls(claim_s=2 * actuator.patience_s)


class CallPace:
    """When the provider may be asked next."""

    def __init__(self, timing: Timing, clock: Callable[[], float] = time.monotonic) -> None:
        self._timing, self._clock = timing, clock
        self._failures = 0
        self._next_call = self._next_look = _NEVER

    def may_look(self, *, is_urgent: bool) -> bool:
        """Whether the machines may be listed now. Nothing is urgent enough to shorten the pause after a failure."""
        at = self._clock()
        return at >= self._next_call and (is_urgent or at >= self._next_look)

    def looked(self) -> None:
        """Note that the machines were listed."""
        self._next_look = self._clock() + self._timing.look_every_s

    def failed(self) -> None:
        """Note a call that failed, or that did only a part."""
        pause_s = min(self._timing.retry_s * 2**self._failures, self._timing.longest_retry_s)
        self._next_call = self._clock() + pause_s
        self._failures = min(self._failures + 1, 16)

    def went_well(self) -> None:
        """Note a sweep without a failed call."""
        self._failures = 0

    def is_failing(self) -> bool:
        """Whether the pause after a failure lasts."""
        return self._clock() < self._next_call


class DrainHints:
    """Which machines the provider knows to drain. A new process tells it all again."""

    def __init__(self) -> None:
        self._told: dict[str, bool] = {}

    def news(
        self, draining: Sequence[HostMachine], serving: Sequence[HostMachine]
    ) -> tuple[list[HostMachine], list[HostMachine]]:
        """The machines to mark, and those to unmark: the ones of which the provider does not know it."""
        told = self._told
        return (
            [machine for machine in draining if told.get(machine.provider_id) is not True],
            [machine for machine in serving if told.get(machine.provider_id) is not False],
        )

    def note(self, draining: Sequence[HostMachine], serving: Sequence[HostMachine]) -> None:
        """Note what the provider was told; machines that are gone are forgotten."""
        self._told = {each.provider_id: True for each in draining} | {each.provider_id: False for each in serving}
