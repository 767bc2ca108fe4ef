"""The leases of hosts: of hosts that run, of hosts that are wanted, and of pools that were removed.

In the mode `active`, `HostMover` makes a pool's machines what its leases say; `autoscale` writes them. In the mode
`advisory` an operator, or another system, starts and ends the machines, and `note_hosts` keeps leases of those that
workers show, so that their hours are billed. `PoolRetirer` ends what is left of pools that were removed.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TypeVar
from uuid import UUID

from sqlalchemy import Connection

from headrace.domain.hosts import HostEnd, HostWork
from headrace.domain.ids import new_id
from headrace.errors import ActuatorUnavailable, StoreUnavailable
from headrace.store import clock, locks
from headrace.store.fleet import decisions, hosts
from headrace.store.fleet.decisions import AlertKey
from headrace.store.fleet.hosts import HostPrice, StrayHost, endable, is_served_elsewhere, removed_notice, removed_pools
from headrace.store.scaling.capacity import write_off
from scheduler.actuators.base import Actuator, HostMachine
from scheduler.deps import ControlDeps
from scheduler.fleet.plan import CallPace, DrainHints, FleetTerms, Plan, Timing, is_urgent, late, machine_names, plan
from scheduler.fleet.watch_scaling import UNCLAIMED, Condition, log_alerts, note_conditions

log = logging.getLogger(__name__)

#: A lease ends after its workers were silent for so long, as of their last sign of life: a worker may start again.
SILENT = timedelta(seconds=60)


def note_hosts(deps: ControlDeps, pool: str) -> int:
    """Give a lease to each host whose workers live, and end the leases of those whose workers do not.

    Bound: one sweep, and for an end `SILENT`.
    Returns: leases that began or ended.
    """
    with deps.store.begin() as db:
        locks.take(db, f"note_hosts.{pool}")
        found = [hosts.adopt(db, pool, stray, price, None) for stray, price in _priced_strays(deps, db, pool)]
        adopted = [host_id for host_id in found if host_id is not None]
        hosts.note_ready(db, pool)
        ended = hosts.end_silent(db, pool, SILENT)
    for event, ids in (("host_adopted", adopted), ("host_ended", ended)):
        for host_id in ids:
            log.info(event, extra={"pool": pool, "host": host_id})
    return len(adopted) + len(ended)


def _priced_strays(deps: ControlDeps, db: Connection, pool: str) -> list[tuple[StrayHost, HostPrice]]:
    now = clock.now(db)
    return [(stray, HostPrice.of_machine(deps.settings, pool, stray.name, now)) for stray in hosts.strays(db, pool)]


#: The process exits there in a crash test: leases say what is wanted, and the provider does not know it yet; or the
#: provider does, and no lease says so.
FAILPOINT_INTENDED = "move_hosts.intended"
FAILPOINT_ORDERED = "move_hosts.ordered"

T = TypeVar("T")


class _Superseded(Exception):
    """A call took longer than the claim: another process may be at work, so this one must not go on."""


class HostMover:
    """Moves the hosts of one pool. Each pool has its own, so that a provider that hangs delays no other pool.

    It calls the provider outside any transaction, and writes what came of it. Every step can be repeated: whatever a
    crash, a hung call or a lie of the provider leaves behind, the next sweep compares leases and machines again.

    Attributes: holder: names it in its claims.
    """

    def __init__(
        self,
        deps: ControlDeps,
        actuator: Actuator,
        pool: str,
        timing: Timing,
        fail_at: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._deps, self._actuator, self._pool = deps, actuator, pool
        self._claim_s, self._fail_at = timing.claim_s, fail_at
        self.holder: UUID = new_id()
        self._pace, self._hints = CallPace(timing), DrainHints()
        #: Since when a host has had neither a live worker nor a machine in the list.
        self._missing: dict[str, datetime] = {}

    def __call__(self) -> int:
        """Compare leases with machines; order, adopt, release and end what differs.

        Bound: one sweep; after a failed call its pause; after a crash, or while another process hangs in a call,
        `Timing.claim_s`.
        Returns: hosts that were ordered, released or ended.
        Raises: StoreUnavailable.
        """
        with self._deps.store.begin() as db:
            if not hosts.claim_pool(db, self._pool, self.holder, self._claim_s):
                return 0
        try:
            return self._move()
        except _Superseded:
            log.warning("host_mover_superseded", extra={"pool": self._pool})
            return 0
        finally:
            with suppress(StoreUnavailable), self._deps.store.begin() as db:
                hosts.give_up_pool(db, self._pool, self.holder)

    def _move(self) -> int:
        work, terms = self._read()
        if not self._pace.may_look(is_urgent=is_urgent(work, terms)):
            return 0
        self._pace.looked()
        unmoved = [host.lease.id for host in work if host.lease.ordered_at is None or host.lease.drain_at]
        machines = self._call(unmoved, lambda: self._actuator.machines(self._pool))
        if machines is None:
            return self._write_unlisted(work, terms)
        planned = self._plan(work, terms, machines)
        moved = self._write(planned, machines)
        if not self._actuator.names_hosts:
            self._call([], lambda: self._withdraw(planned, machines))
        moved += self._order(planned, machines) + self._release(planned)
        self._hint(planned)
        self._look_after(planned.unclaimed)
        if not self._pace.is_failing():
            self._pace.went_well()
        return moved

    def _read(self) -> tuple[Sequence[HostWork], FleetTerms]:
        """The pool's hosts as Postgres knows them."""
        settings = self._deps.settings
        with self._deps.store.begin() as db:
            ready = hosts.note_ready(db, self._pool)
            work, strays, now = hosts.work(db, self._pool), hosts.strays(db, self._pool), clock.now(db)
            patience = {each: write_off(db, settings, each) for each in {host.lease.instance_type for host in work}}
        self._log("host_ready", ready)
        terms = FleetTerms(
            now=now,
            names_hosts=self._actuator.names_hosts,
            drain_host=timedelta(seconds=settings.scaling.drain_host_s),
            write_off=patience,
            stray=frozenset(stray.name for stray in strays),
        )
        return work, terms

    def _plan(self, work: Sequence[HostWork], terms: FleetTerms, machines: Sequence[HostMachine]) -> Plan:
        names = [name for machine in machines for name in machine_names(machine)]
        live = {name for machine in machines if not machine.is_ending for name in machine_names(machine)}
        gone = [host.lease.id for host in work if not host.workers and not host.lease.names & live]
        self._missing = {host_id: self._missing.get(host_id, terms.now) for host_id in gone}
        with self._writing() as db:
            ended = frozenset(hosts.ended_names(db, self._pool, names))
        return plan(work, machines, replace(terms, ended=ended, missing=self._missing))

    def _write(self, planned: Plan, machines: Sequence[HostMachine]) -> int:
        """Write what the list of machines shows; returns how many leases ended."""
        with self._writing() as db:
            hosts.note_provider_ids(db, planned.named)
            given_up = _drain(db, planned.drain)
            ended = hosts.end(db, planned.end, HostEnd.GONE)
            adopted = self._adopt(db, machines)
            decisions.apply_ordered(db, self._pool)
        self._log("host_ended", ended)
        self._log("host_adopted", adopted)
        self._log("host_given_up", given_up)
        return len(ended)

    def _write_unlisted(self, work: Sequence[HostWork], terms: FleetTerms) -> int:
        """Write what is known without the provider's list."""
        with self._writing() as db:
            given_up = _drain(db, late(work, terms))
            # If the provider names machines, a new one may be the machine of a lease: only its list would tell.
            adopted = self._adopt(db, ()) if self._actuator.names_hosts else []
        self._log("host_adopted", adopted)
        self._log("host_given_up", given_up)
        return 0

    def _adopt(self, db: Connection, machines: Sequence[HostMachine]) -> list[str]:
        known = {name: machine.provider_id for machine in machines for name in machine_names(machine)}
        strays = _priced_strays(self._deps, db, self._pool)
        adopted = [hosts.adopt(db, self._pool, stray, price, known.get(stray.name)) for stray, price in strays]
        return [host_id for host_id in adopted if host_id is not None]

    def _order(self, planned: Plan, machines: Sequence[HostMachine]) -> int:
        if not planned.order:
            return 0
        ids = [order.host_id for order in planned.order]
        self._fail_at(FAILPOINT_INTENDED)
        made = self._call(ids, lambda: self._actuator.order(self._pool, planned.order, machines))
        self._fail_at(FAILPOINT_ORDERED)
        if made is None:
            return 0
        named = {machine.host_id: machine.provider_id for machine in made if machine.host_id}
        accepted = [host_id for host_id in ids if host_id in named] if self._actuator.names_hosts else ids
        refused = [host_id for host_id in ids if host_id not in accepted]
        with self._writing() as db:
            hosts.note_provider_ids(db, {host_id: named[host_id] for host_id in accepted if host_id in named})
            hosts.note_ordered(db, accepted)
            decisions.note_call(db, accepted, None)
            decisions.note_call(db, refused, f"The provider accepted {len(accepted)} of {len(ids)} orders.")
            decisions.apply_ordered(db, self._pool)
        self._log("host_ordered", accepted)
        if refused:
            self._pace.failed()
            self._log("host_refused", refused)
        return len(accepted)

    def _release(self, planned: Plan) -> int:
        if not planned.release and not planned.orphans:
            return 0
        with self._writing() as db:
            # A host that was called back meanwhile is kept.
            due = hosts.note_released(db, list(planned.release))
        machines = [planned.release[host_id] for host_id in due] + list(planned.orphans)
        if not machines or not self._call(due, lambda: self._release_all(machines)):
            return 0
        with self._writing() as db:
            decisions.note_call(db, due, None)
        self._log("host_released", [*due, *(machine.provider_id for machine in planned.orphans)])
        return len(machines)

    def _release_all(self, machines: Sequence[HostMachine]) -> bool:
        self._actuator.release(self._pool, machines)
        return True

    def _withdraw(self, planned: Plan, machines: Sequence[HostMachine]) -> bool:
        self._actuator.withdraw(self._pool, len(planned.order), machines)
        return True

    def _look_after(self, unclaimed: Sequence[HostMachine]) -> None:
        """Have the machines ended that came too late for their orders, and alert the operator to the others.

        The next sweep ends them, as machines of ended leases, unless a worker of theirs lives by then. The others are
        never touched: someone else may have started them.
        """
        launched = self._launch_times(unclaimed) if unclaimed else {}
        settings = self._deps.settings
        with self._writing() as db:
            patience = write_off(db, settings, HostPrice.of(settings, self._pool).instance_type)
            overdue = {name: at for name, at in launched.items() if clock.now(db) - at > patience}
            named = hosts.name_late(db, self._pool, overdue)
            ours = hosts.ended_names(db, self._pool, list(overdue))
            others = [each.provider_id for each in unclaimed if each.provider_id not in ours]
            before = [key for key in decisions.lasting_alerts(db) if (key.kind, key.pool) == (UNCLAIMED, self._pool)]
            conditions = [self._unclaimed(name, launched.get(name), patience) for name in others]
            alerts = note_conditions(db, self._deps, conditions, before)
        self._log("host_came_late", named)
        log_alerts(alerts)

    def _unclaimed(self, name: str, launched_at: datetime | None, patience: timedelta) -> Condition:
        facts = {"launched_at": launched_at.isoformat() if launched_at else None}
        return Condition(AlertKey(UNCLAIMED, self._pool, name), facts, lasts=patience)

    def _launch_times(self, machines: Sequence[HostMachine]) -> Mapping[str, datetime]:
        try:
            return self._actuator.launch_times(self._pool, machines)
        except ActuatorUnavailable as error:
            log.warning("provider_failed", extra={"pool": self._pool, "error": str(error)})
            return {}

    def _hint(self, planned: Plan) -> None:
        """Tell the provider which machines drain, so that it takes no other one. It matters to no lease."""
        mark, unmark = self._hints.news(planned.draining, planned.serving)
        try:
            if mark:
                self._actuator.mark_draining(self._pool, mark)
            if unmark:
                self._actuator.unmark_draining(self._pool, unmark)
        except ActuatorUnavailable as error:
            self._pace.failed()
            log.warning("provider_failed", extra={"pool": self._pool, "error": str(error)})
            return
        self._hints.note(planned.draining, planned.serving)

    def _call(self, ids: Sequence[str], call: Callable[[], T]) -> T | None:
        """Call the provider; None if that failed, which the decisions of these hosts then say."""
        try:
            answer = call()
        except ActuatorUnavailable as error:
            self._deps.tallies.calls.add(self._pool, "failed")
            self._pace.failed()
            log.warning("provider_failed", extra={"pool": self._pool, "error": str(error), "hosts": list(ids)})
            with self._writing() as db:
                decisions.note_call(db, ids, str(error))
            return None
        self._deps.tallies.calls.add(self._pool, "answered")
        return answer

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """A transaction that keeps the claim. Raises: _Superseded: it is lost. StoreUnavailable."""
        with self._deps.store.begin() as db:
            if not hosts.hold_pool(db, self._pool, self.holder, self._claim_s):
                raise _Superseded
            yield db

    def _log(self, event: str, ids: Sequence[str]) -> None:
        for host_id in ids:
            log.info(event, extra={"pool": self._pool, "host": host_id})


def _drain(db: Connection, reasons: Mapping[str, HostEnd]) -> list[str]:
    return [
        host_id
        for reason in sorted(set(reasons.values()))
        for host_id in hosts.drain(db, [each for each in reasons if reasons[each] is reason], reason)
    ]


#: A pool is retired if no other process has looked after it for both of these: a time, and intervals of the autoscaler.
#: While processes are restarted one by one, another one may have settings with the pool: older or newer ones.
UNSERVED = timedelta(seconds=60)
UNSERVED_INTERVALS = 3


class PoolRetirer:
    """Ends the leases of removed pools. In the mode `active` it drains and ends their machines too.

    The leases are billed until they end, and no other sweep looks at such a pool.
    """

    def __init__(self, deps: ControlDeps, make_mover: Callable[[str], HostMover] | None = None) -> None:
        """Args: make_mover: makes the mover of a pool; None in the mode `advisory`, in which nothing is moved."""
        self._deps, self._make_mover = deps, make_mover
        self._holder: UUID = new_id()
        self._movers: dict[str, HostMover] = {}
        self._told: set[str] = set()

    def __call__(self) -> int:
        """Retire each removed pool that has leases.

        Bound: `UNSERVED`, then as `note_hosts` or `HostMover`.
        Returns: leases or hosts that were ended, drained or moved.
        Raises: StoreUnavailable.
        """
        with self._deps.store.begin() as db:
            pools = removed_pools(db, self._deps.settings.own_pools)
        for pool in sorted(set(pools) - self._told):
            log.warning(
                "pool_removed", extra={"pool": pool, "notice": removed_notice(pool, self._deps.settings.scaling.mode)}
            )
        self._told = set(pools)
        self._movers = {pool: mover for pool, mover in self._movers.items() if pool in pools}
        return sum(self._retire(pool) for pool in pools)

    def _retire(self, pool: str) -> int:
        if self._make_mover is not None and pool not in self._movers:
            self._movers[pool] = self._make_mover(pool)
        mover = self._movers.get(pool)
        within = max(UNSERVED, UNSERVED_INTERVALS * timedelta(seconds=self._deps.settings.autoscale_every_s))
        with self._deps.store.begin() as db:
            is_served = is_served_elsewhere(db, pool, mover.holder if mover else self._holder, within)
            # Where machines are moved, only the provider's list shows that a machine is gone.
            ended = hosts.end_silent(db, pool, SILENT, unordered_only=is_served or mover is not None)
            drains = mover is not None and not is_served
            # As after a decision: if the pool returns to the settings, the autoscaler may call them back.
            drained = hosts.drain(db, endable(db, pool), HostEnd.SCALED_DOWN) if drains else []
        for event, ids in (("host_ended", ended), ("host_drained", drained)):
            for host_id in ids:
                log.info(event, extra={"pool": pool, "host": host_id})
        return len(ended) + len(drained) + (mover() if mover is not None and drains else 0)
