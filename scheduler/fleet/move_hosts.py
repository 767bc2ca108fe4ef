"""Move hosts: make a pool's machines what its leases say. Knows neither Celery nor why a host is wanted.

`autoscale` writes leases, which say what is wanted. This sweep calls the provider, outside any transaction, and writes
what came of it. Every step can be repeated: whatever a crash, a hung call or a lie of the provider leaves behind, the
next sweep compares leases and machines again.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TypeVar
from uuid import UUID

from sqlalchemy import Connection

from headrace.domain.hosts import HostEnd, HostWork
from headrace.domain.ids import new_id
from headrace.errors import ActuatorUnavailable, StoreUnavailable
from headrace.store import clock
from headrace.store.fleet import actors, decisions, hosts
from headrace.store.fleet.hosts import HostPrice
from headrace.store.fleet.provisioning import write_off
from scheduler.actuators.base import Actuator, HostMachine
from scheduler.deps import ControlDeps
from scheduler.fleet.pace import CallPace, DrainHints, Timing
from scheduler.fleet.plan import Plan, Terms, is_urgent, late, machine_names, plan

log = logging.getLogger(__name__)

#: The process exits there in a crash test: leases say what is wanted, and the provider does not know it yet; or the
#: provider does, and no lease says so.
FAILPOINT_INTENDED = "move_hosts.intended"
FAILPOINT_ORDERED = "move_hosts.ordered"

T = TypeVar("T")


class _Superseded(Exception):
    """A call took longer than the claim: another process may be at work, so this one must not go on."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """The pool's hosts as Postgres knows them."""

    hosts: Sequence[HostWork]
    terms: Terms


class HostMover:
    """Moves the hosts of one pool. Each pool has its own, so that a provider that hangs delays no other pool.

    Attributes:
        holder: names it in its claims.
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
            if not actors.claim(db, self._pool, self.holder, self._claim_s):
                return 0
        try:
            return self._move()
        except _Superseded:
            log.warning("host_mover_superseded", extra={"pool": self._pool})
            return 0
        finally:
            with suppress(StoreUnavailable), self._deps.store.begin() as db:
                actors.give_up(db, self._pool, self.holder)

    def _move(self) -> int:
        seen = self._read()
        if not self._pace.may_look(is_urgent=is_urgent(seen.hosts, seen.terms)):
            return 0
        self._pace.looked()
        unmoved = [host.lease.id for host in seen.hosts if host.lease.ordered_at is None or host.lease.drain_at]
        machines = self._call(unmoved, lambda: self._actuator.machines(self._pool))
        if machines is None:
            return self._write_unlisted(seen)
        planned = self._plan(seen, machines)
        moved = self._write(planned, machines) + self._order(planned, machines) + self._release(planned)
        self._hint(planned)
        if not self._pace.is_failing():
            self._pace.went_well()
        return moved

    def _read(self) -> _Seen:
        settings = self._deps.settings
        with self._deps.store.begin() as db:
            ready = hosts.note_ready(db, self._pool)
            work, strays, now = hosts.work(db, self._pool), hosts.strays(db, self._pool), clock.now(db)
            patience = {each: write_off(db, settings, each) for each in {host.lease.instance_type for host in work}}
        self._log("host_ready", ready)
        terms = Terms(
            now=now,
            names_hosts=self._actuator.names_hosts,
            drain_host=timedelta(seconds=settings.scaling.drain_host_s),
            write_off=patience,
            stray=frozenset(stray.name for stray in strays),
        )
        return _Seen(work, terms)

    def _plan(self, seen: _Seen, machines: Sequence[HostMachine]) -> Plan:
        names = [name for machine in machines for name in machine_names(machine)]
        live = {name for machine in machines if not machine.is_ending for name in machine_names(machine)}
        gone = [host.lease.id for host in seen.hosts if not host.workers and not host.lease.names & live]
        self._missing = {host_id: self._missing.get(host_id, seen.terms.now) for host_id in gone}
        with self._writing() as db:
            ended = frozenset(hosts.ended_names(db, self._pool, names))
        return plan(seen.hosts, machines, replace(seen.terms, ended=ended, missing=self._missing))

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

    def _write_unlisted(self, seen: _Seen) -> int:
        """Write what is known without the provider's list."""
        with self._writing() as db:
            given_up = _drain(db, late(seen.hosts, seen.terms))
            # If the provider names machines, a new one may be the machine of a lease: only its list would tell.
            adopted = self._adopt(db, ()) if self._actuator.names_hosts else []
        self._log("host_adopted", adopted)
        self._log("host_given_up", given_up)
        return 0

    def _adopt(self, db: Connection, machines: Sequence[HostMachine]) -> list[str]:
        known = {name: machine.provider_id for machine in machines for name in machine_names(machine)}
        price = HostPrice.of(self._deps.settings, self._pool)
        strays = hosts.strays(db, self._pool)
        adopted = [hosts.adopt(db, self._pool, stray, price, known.get(stray.name)) for stray in strays]
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
            if not actors.hold(db, self._pool, self.holder, self._claim_s):
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
