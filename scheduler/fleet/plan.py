"""What must happen to a pool's hosts now, from their leases and from what the provider lists. Pure.

Level-triggered: it looks at how things stand, not at what happened. So a step that a crash, an outage or a lie of the
provider has undone is planned again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from headrace.domain.hosts import HostEnd, HostState, HostWork
from scheduler.actuators.base import HostMachine, HostOrder

#: How long a host may have neither a live worker nor a machine in the provider's list before its lease ends. A worker
#: that starts again, or a list with a gap, ends none.
MISSING = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Terms:
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
        draining: machines that will be released.
        serving: machines that will not.
    """

    named: Mapping[str, str]
    drain: Mapping[str, HostEnd]
    end: tuple[str, ...]
    order: tuple[HostOrder, ...]
    release: Mapping[str, HostMachine]
    orphans: tuple[HostMachine, ...]
    draining: tuple[HostMachine, ...]
    serving: tuple[HostMachine, ...]


def is_urgent(hosts: Sequence[HostWork], terms: Terms) -> bool:
    """Whether a host is to be ordered, released or adopted now, and not only looked after."""
    leases = [host.lease for host in hosts]
    is_wanted = any(lease.ordered_at is None and lease.drain_at is None for lease in leases)
    is_due = any(
        host.lease.drain_at is not None and host.lease.released_at is None and is_done(host, terms) for host in hosts
    )
    return is_wanted or is_due or bool(terms.stray or late(hosts, terms))


def late(hosts: Sequence[HostWork], terms: Terms) -> dict[str, HostEnd]:
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


def plan(hosts: Sequence[HostWork], machines: Sequence[HostMachine], terms: Terms) -> Plan:
    """Plan for the hosts that have not ended, and for all machines that the provider lists."""
    found = match(hosts, machines, terms)
    live = {host_id: machine for host_id, machine in found.items() if not machine.is_ending}
    by_id = {host.lease.id: host for host in hosts}
    drain = late(hosts, terms)
    draining = {host_id: live[host_id] for host_id in live if by_id[host_id].lease.drain_at is not None}
    taken = {machine.provider_id for machine in found.values()}
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
        orphans=tuple(
            machine
            for machine in machines
            if machine.provider_id not in taken and not machine.is_ending and _is_orphan(machine, terms)
        ),
        draining=tuple(draining.values()),
        serving=tuple(machine for host_id, machine in live.items() if host_id not in draining),
    )


def match(hosts: Sequence[HostWork], machines: Sequence[HostMachine], terms: Terms) -> dict[str, HostMachine]:
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


def is_done(host: HostWork, terms: Terms) -> bool:
    """A draining host may be released: nothing runs on it, or its time is over."""
    assert host.lease.drain_at is not None
    return host.is_idle or terms.now - host.lease.drain_at >= terms.drain_host


def _is_gone(host: HostWork, terms: Terms) -> bool:
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


def _is_orphan(machine: HostMachine, terms: Terms) -> bool:
    names = machine_names(machine)
    return bool(names & terms.ended) and not names & terms.stray


def machine_names(machine: HostMachine) -> frozenset[str]:
    """What workers may call this machine."""
    return frozenset({machine.provider_id} if machine.host_id is None else {machine.provider_id, machine.host_id})
