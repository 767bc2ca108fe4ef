"""Leases of hosts: one row for each, from its order to its end. `scheduler/fleet/move_hosts.py` calls the provider."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Self
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert

from headrace.config import Settings
from headrace.domain.hosts import HostEnd, HostLease, HostWork
from headrace.domain.ids import new_id
from headrace.policies.host_bills import priced_spans
from headrace.store import clock
from headrace.store.fleet import decisions
from headrace.store.sql import is_one_of
from headrace.store.states import IS_RUNNING
from headrace.tables import host_actors, hosts, jobs, ledger, workers

#: How long the workers' rows count for when a host was last seen.
SEEN = timedelta(hours=1)
#: How long after an order was accepted a machine may be launched for it. The provider has none left of older orders.
LATE = timedelta(days=1)

_LIVE = hosts.c.ended_at.is_(None)
_OF_HOST = sa.and_(workers.c.pool == hosts.c.pool, workers.c.host_id.in_([hosts.c.id, hosts.c.provider_id]))
#: A host that the autoscaler did not order, and that no provider is known to have.
UNORDERED = sa.and_(hosts.c.is_adopted, hosts.c.provider_id.is_(None))
_COLUMNS = tuple(hosts.c[field.name] for field in fields(HostLease))


@dataclass(frozen=True, slots=True)
class HostPrice:
    """What a new lease is billed by: a NAME of `[hosts.NAME]` and its price; both None if the pool has no type."""

    instance_type: str | None = None
    usd_per_hour: Decimal | None = None

    @classmethod
    def of(cls, settings: Settings, pool: str) -> Self:
        """The price of the pool's hosts now."""
        name = settings.scaling.of_pool(pool).host_type
        return cls() if name is None else cls(name, settings.hosts[name].usd_per_hour)

    @classmethod
    def of_machine(cls, settings: Settings, pool: str, name: str, now: datetime) -> Self:
        """The price of the machine of this name: its own if it is an owned one, or else that of the pool's hosts."""
        for host in settings.owned_hosts:
            if host.name == name:
                spans = list(priced_spans(host, settings.hosts[host.type].usd_per_hour, now))
                return cls(host.type, spans[-1].usd_per_hour if spans else None)
        return cls.of(settings, pool)


@dataclass(frozen=True, slots=True)
class StrayHost:
    """A host with live workers and without a lease.

    Attributes:
        name: what its workers call it.
        started_at: when its oldest live worker started.
        is_ready: one of them takes jobs.
    """

    name: str
    started_at: datetime
    is_ready: bool


_MOST_TOKENS = sa.func.sum(jobs.c.max_tokens * sa.func.coalesce(jobs.c.n, 1))


def work(db: Connection, pool: str) -> list[HostWork]:
    """The hosts of a pool that have not ended, with what their workers do, the oldest first."""
    is_live = workers.c.lease_until > sa.func.now()
    of_worker = (jobs.c.worker_id == workers.c.id, IS_RUNNING, is_live)
    running = sa.select(sa.func.count().label("jobs"), _MOST_TOKENS.label("tokens")).where(*of_worker).lateral()
    statement = (
        sa.select(
            *_COLUMNS,
            sa.func.count(workers.c.id).filter(is_live).label("workers"),
            sa.func.count(workers.c.id).filter(is_live, workers.c.ready).label("ready_workers"),
            sa.func.count(workers.c.id).filter(is_live, workers.c.draining).label("draining"),
            sa.cast(sa.func.coalesce(sa.func.sum(running.c.jobs), 0), sa.Integer).label("running"),
            sa.cast(sa.func.coalesce(sa.func.sum(running.c.tokens), 0), sa.BigInteger).label("tokens_left"),
            sa.func.max(workers.c.lease_until).label("seen_at"),
        )
        .outerjoin(workers, sa.and_(_OF_HOST, workers.c.lease_until > sa.func.now() - SEEN))
        .outerjoin(running, sa.true())
        .where(hosts.c.pool == pool, _LIVE)
        .group_by(hosts.c.id)
        .order_by(hosts.c.requested_at, hosts.c.id)
    )
    return [_work(row._mapping) for row in db.execute(statement)]


def _work(row: Mapping[Any, Any]) -> HostWork:
    names = ("workers", "draining", "running", "tokens_left", "seen_at")
    return HostWork(lease_of(row), ready=row["ready_workers"], **{name: row[name] for name in names})


def lease_of(row: Mapping[Any, Any]) -> HostLease:
    """The lease in a row of `hosts`."""
    values = {field.name: row[field.name] for field in fields(HostLease)}
    reason = values["end_reason"]
    return HostLease(**{**values, "end_reason": None if reason is None else HostEnd(reason)})


def strays(db: Connection, pool: str) -> list[StrayHost]:
    """The hosts of the pool's live workers that have no lease, by name."""
    is_leased = (
        sa.select(hosts.c.id)
        .where(hosts.c.pool == workers.c.pool, _LIVE, workers.c.host_id.in_([hosts.c.id, hosts.c.provider_id]))
        .exists()
    )
    statement = (
        sa.select(
            workers.c.host_id.label("name"),
            sa.func.min(workers.c.started_at).label("started_at"),
            sa.func.bool_or(workers.c.ready).label("is_ready"),
        )
        .where(workers.c.pool == pool, workers.c.lease_until > sa.func.now(), ~is_leased)
        .group_by(workers.c.host_id)
        .order_by(workers.c.host_id)
    )
    return [StrayHost(**row._mapping) for row in db.execute(statement)]


def add_orders(db: Connection, pool: str, count: int, price: HostPrice, decision_id: int) -> list[str]:
    """Write the intent to order `count` hosts; returns their ids."""
    ids = [f"host-{new_id().hex[-12:]}" for _ in range(count)]
    of_all = {"pool": pool, "requested_at": sa.func.now(), "decision_id": decision_id, **_billing(price)}
    if ids:
        db.execute(sa.insert(hosts).values([{"id": host_id, **of_all} for host_id in ids]))
    return ids


def adopt(db: Connection, pool: str, stray: StrayHost, price: HostPrice, provider_id: str | None) -> str | None:
    """Give a stray host a lease; returns its id, or None if another process was faster.

    Another lease may have the name already: an ended one, or that of another pool on the same machine. The new one then
    has an id of its own, and the name as its provider's. A machine has one price, that of its lease which is there.

    Args: provider_id: the provider's name of it, if the provider knows it.
    """
    is_there = (_LIVE, sa.or_(hosts.c.id == stray.name, hosts.c.provider_id == stray.name))
    first = sa.select(hosts.c.instance_type, hosts.c.usd_per_hour).where(*is_there, hosts.c.usd_per_hour.is_not(None))
    if there := db.execute(first.order_by(hosts.c.is_adopted, hosts.c.ordered_at, hosts.c.id).limit(1)).first():
        price = HostPrice(there.instance_type, there.usd_per_hour)
    row = {"id": stray.name, "pool": pool, "provider_id": provider_id, "is_adopted": True, **_billing(price)}
    row |= {"requested_at": sa.func.now(), "ordered_at": stray.started_at}
    row["ready_at"] = stray.started_at if stray.is_ready else None
    added: str | None = db.scalar(insert(hosts).values(row).on_conflict_do_nothing().returning(hosts.c.id))
    if added is None and stray.name in {each.name for each in strays(db, pool)}:
        row |= {"id": f"host-{new_id().hex[-12:]}", "provider_id": stray.name}
        added = db.scalar(sa.insert(hosts).values(row).returning(hosts.c.id))
    return added


def _billing(price: HostPrice) -> dict[str, Any]:
    return {"instance_type": price.instance_type, "usd_per_hour": price.usd_per_hour}


def call_back(db: Connection, pool: str, count: int) -> list[str]:
    """Let up to `count` draining hosts serve again; returns their ids.

    Not those that were drained by hand or written off, nor those that the provider was asked to end. The hosts that
    began to drain last come first: most of what they ran still runs.
    """
    is_ours = (hosts.c.pool == pool, _LIVE, hosts.c.drain_at.is_not(None), hosts.c.released_at.is_(None))
    is_ready = (hosts.c.ready_at.is_not(None), hosts.c.end_reason == HostEnd.SCALED_DOWN)
    newest = hosts.c.drain_at.desc(), hosts.c.id
    # A CTE is evaluated once. Postgres may evaluate a subquery that locks again and again, past the limit.
    chosen = sa.select(hosts.c.id).where(*is_ours, *is_ready).order_by(*newest).limit(count).with_for_update().cte()
    called = sa.update(hosts).where(hosts.c.id.in_(sa.select(chosen.c.id)))
    values = {"drain_at": None, "end_reason": None, "drain_decision_id": None}
    return sorted(db.scalars(called.values(values).returning(hosts.c.id)))


def drain(db: Connection, ids: Sequence[str], reason: HostEnd, decision_id: int | None = None) -> list[str]:
    """Let hosts finish what they run, and then end; returns the ids of those that did not drain before.

    Args: decision_id: the decision that drains them; None for none, or by hand.
    """
    values = {"drain_at": sa.func.now(), "end_reason": reason, "drain_decision_id": decision_id}
    drained = sa.update(hosts).where(is_one_of(hosts.c.id, ids), _LIVE, hosts.c.drain_at.is_(None)).values(values)
    return sorted(db.scalars(drained.returning(hosts.c.id)))


def cheapest(db: Connection, pool: str, count: int) -> list[str]:
    """The ids of the `count` hosts that cost least to lose, the cheapest first.

    First those that are not ready, the last ordered first; then those whose running jobs may make the fewest tokens
    yet; among these those whose paid hour ends soonest, and then the oldest. Not those that serve nothing any more, nor
    adopted ones that the provider does not know and so cannot end.
    """
    now = clock.now(db)
    serving = [each for each in work(db, pool) if each.lease.drain_at is None and not each.is_silent]
    endable = [each for each in serving if not (each.lease.is_adopted and each.lease.provider_id is None)]
    return [each.lease.id for each in sorted(endable, key=lambda each: _cost(each, now))[:count]]


def _cost(host: HostWork, now: datetime) -> tuple[float, ...]:
    lease = host.lease
    requested = lease.requested_at.timestamp()
    if lease.ready_at is None:
        return 0, -requested
    paid_s = (now - (lease.ordered_at or lease.requested_at)).total_seconds()
    # Rounded to minutes, so that hosts of one order are the same age.
    return 1, host.tokens_left, -(paid_s % 3600 // 60), requested


def note_released(db: Connection, ids: Sequence[str]) -> list[str]:
    """Note that the provider is asked to end these hosts; returns those that may be: they drain, and have not ended."""
    released_at = sa.func.coalesce(hosts.c.released_at, sa.func.now())
    due = sa.update(hosts).where(is_one_of(hosts.c.id, ids), _LIVE, hosts.c.drain_at.is_not(None))
    return sorted(db.scalars(due.values(released_at=released_at).returning(hosts.c.id)))


def note_ordered(db: Connection, ids: Sequence[str]) -> None:
    """Note that the provider has accepted the orders of these hosts."""
    ordered_at = sa.func.coalesce(hosts.c.ordered_at, sa.func.now())
    db.execute(sa.update(hosts).where(is_one_of(hosts.c.id, ids), _LIVE).values(ordered_at=ordered_at))


def note_provider_ids(db: Connection, names: Mapping[str, str]) -> None:
    """Note the provider's names of hosts: `{id: provider_id}`. A machine exists, so its order was accepted."""
    for host_id, provider_id in names.items():
        nameless = sa.update(hosts).where(hosts.c.id == host_id, _LIVE, hosts.c.provider_id.is_(None))
        db.execute(nameless.values(provider_id=provider_id))
    note_ordered(db, list(names))


def note_ready(db: Connection, pool: str) -> list[str]:
    """Note when the first worker of a host was ready; returns the ids of the hosts that are so now."""
    is_ready = (workers.c.lease_until > sa.func.now(), workers.c.ready)
    due = sa.update(hosts).where(hosts.c.pool == pool, _LIVE, hosts.c.ready_at.is_(None), _OF_HOST, *is_ready)
    return sorted(db.scalars(due.values(ready_at=sa.func.now()).returning(hosts.c.id)))


def ended_names(db: Connection, pool: str, names: Sequence[str]) -> set[str]:
    """The names that belong to ended leases of the pool, as their ids or their provider's."""
    for_each = sa.select(hosts.c.id, hosts.c.provider_id).where(
        hosts.c.pool == pool, ~_LIVE, sa.or_(is_one_of(hosts.c.id, names), is_one_of(hosts.c.provider_id, names))
    )
    return {name for row in db.execute(for_each) for name in row if name in names}


def leave_unattended(db: Connection, pool: str, name: str, min_hosts: int, idle_for: timedelta) -> bool:
    """Let the ordered host of this name drain because no control process is left to end it.

    Returns: False if it must stay: it was in use within `idle_for`, no decision ordered it, or too few others serve.
    """
    serving = [each for each in work(db, pool) if each.lease.drain_at is None and each.ready]
    own = next((each.lease for each in serving if name in each.lease.names and not each.running), None)
    if own is None or own.is_adopted or len(serving) <= min_hosts or _was_used(db, own, idle_for):
        return False
    return bool(drain(db, [own.id], HostEnd.UNATTENDED))


def _was_used(db: Connection, lease: HostLease, within: timedelta) -> bool:
    """Whether the host became ready, or an attempt ended on it, within this time."""
    since = clock.now(db) - within
    used = sa.select(ledger.c.id).where(ledger.c.host_id.in_(lease.names), ledger.c.at > since).exists()
    return (lease.ready_at or since) >= since or bool(db.scalar(sa.select(used)))


def ends_unattended(db: Connection, pool: str, name: str) -> bool:
    """Whether the host of this name drains because no control process was left, and its machine serves nothing more.

    The machine may have workers of other pools.
    """
    found = [each for each in work(db, pool) if name in each.lease.names]
    if not any(each.lease.end_reason is HostEnd.UNATTENDED and not each.running for each in found):
        return False
    others = (workers.c.host_id == name, workers.c.pool != pool, workers.c.lease_until > sa.func.now())
    serving = sa.select(workers.c.id).where(*others, sa.or_(workers.c.ready, workers.c.running > 0)).exists()
    return not db.scalar(sa.select(serving))


def name_late(db: Connection, pool: str, launched: Mapping[str, datetime]) -> list[str]:
    """Give machines that came too late to the ended orders that they were launched for; returns the ids of these.

    An order has one machine at most, which was launched within `LATE` after the provider had accepted the order.

    Args: launched: when each machine was launched, by the provider's name of it.
    """
    named: list[str] = []
    for provider_id, at in sorted(launched.items(), key=lambda each: each[1]):
        unfilled = (hosts.c.pool == pool, ~_LIVE, hosts.c.provider_id.is_(None), ~hosts.c.is_adopted)
        before = (hosts.c.ready_at.is_(None), hosts.c.ordered_at <= at, hosts.c.ordered_at > at - LATE)
        first = sa.select(hosts.c.id).where(*unfilled, *before).order_by(hosts.c.ordered_at, hosts.c.id).limit(1)
        given = sa.update(hosts).where(hosts.c.id == first.scalar_subquery()).values(provider_id=provider_id)
        named += db.scalars(given.returning(hosts.c.id)).all()
    return named


def count_serving(db: Connection, pool: str) -> int:
    """The leases of a pool that are neither ended nor draining, whatever their workers do."""
    serving = (hosts.c.pool == pool, _LIVE, hosts.c.drain_at.is_(None))
    return db.scalar(sa.select(sa.func.count()).where(*serving)) or 0


def has_unaccepted(db: Connection, pool: str) -> bool:
    """Whether the provider has not accepted an order of this pool yet."""
    unaccepted = (hosts.c.pool == pool, _LIVE, hosts.c.drain_at.is_(None), hosts.c.ordered_at.is_(None))
    return bool(db.scalar(sa.select(sa.select(hosts.c.id).where(*unaccepted).exists())))


def end(db: Connection, ids: Sequence[str], reason: HostEnd) -> list[str]:
    """End leases: their machines are gone. Returns their ids. Args: reason: of those that have none yet.

    A host that ended itself while no control process was left has ended with the last sign of its workers.
    """
    is_unattended = hosts.c.end_reason == HostEnd.UNATTENDED
    last_at = sa.func.least(sa.func.greatest(_seen_at(), hosts.c.drain_at), sa.func.now())
    values = {
        "ended_at": sa.case((is_unattended, last_at), else_=sa.func.now()),
        "end_reason": sa.func.coalesce(hosts.c.end_reason, reason),
    }
    ended = sa.update(hosts).where(is_one_of(hosts.c.id, ids), _LIVE).values(values)
    return sorted(db.scalars(ended.returning(hosts.c.id)))


def end_silent(db: Connection, pool: str, silence: timedelta, *, unordered_only: bool = False) -> list[str]:
    """End the leases of hosts whose workers have been silent for so long, as of their last sign of life.

    Returns: their ids. A host that never had a worker stays. An adopted one had: its workers' rows may be deleted.
    """
    seen_at = _seen_at()
    values = {"ended_at": sa.func.greatest(seen_at, hosts.c.ordered_at), "end_reason": HostEnd.GONE}
    is_forgotten = sa.and_(hosts.c.is_adopted, seen_at.is_(None))
    is_silent = sa.or_(seen_at < sa.func.now() - silence, is_forgotten)
    silent = sa.update(hosts).where(hosts.c.pool == pool, _LIVE, is_silent)
    if unordered_only:
        silent = silent.where(UNORDERED)
    return sorted(db.scalars(silent.values(values).returning(hosts.c.id)))


def end_all(db: Connection, pool: str) -> list[str]:
    """End all leases of a pool, as of their last sign of life: it has no machine left. Returns: their ids."""
    last_at = sa.func.greatest(_seen_at(), hosts.c.ordered_at, hosts.c.requested_at)
    reason = sa.func.coalesce(hosts.c.end_reason, HostEnd.GONE)
    ended = sa.update(hosts).where(hosts.c.pool == pool, _LIVE)
    values = {"ended_at": sa.func.least(last_at, sa.func.now()), "end_reason": reason}
    return sorted(db.scalars(ended.values(values).returning(hosts.c.id)))


def _seen_at() -> sa.ScalarSelect[Any]:
    """When the last lease of a host's workers ends or ended."""
    return sa.select(sa.func.max(workers.c.lease_until)).where(_OF_HOST).scalar_subquery()


def removed_pools(db: Connection, own_pools: Collection[str]) -> list[str]:
    """The pools of leases that have not ended, without these, by name."""
    leased = sa.select(hosts.c.pool).where(_LIVE).distinct()
    return sorted(set(db.scalars(leased)) - set(own_pools))


def is_served_elsewhere(db: Connection, pool: str, holder: UUID, within: timedelta) -> bool:
    """Whether another control process looked after the pool within this time.

    Each sweep of a process whose settings have the pool claims it in mode `active`, and each of its decisions is a row
    in any mode. A process that retires the pool claims it too.
    """
    decided_at = decisions.last_at(db, pool)
    is_decided = decided_at is not None and clock.now(db) - decided_at < within
    return is_decided or was_held_by_another(db, pool, holder, within)


def endable(db: Connection, pool: str) -> list[str]:
    """The hosts of a pool that do not drain yet. Not those that no actuator knows and so could end."""
    serving = (hosts.c.pool == pool, _LIVE, hosts.c.drain_at.is_(None), ~UNORDERED)
    return sorted(db.scalars(sa.select(hosts.c.id).where(*serving)))


def removed_notice(pool: str, mode: str) -> str:
    """What happens to the hosts of a removed pool, and what the operator must do. Args: mode: of `[scaling]`."""
    about = f"headrace.toml has no pool '{pool}' with hosts of its own."
    if mode == "active":
        return (
            f"{about} Its hosts drain and are ended. Keep its group or Deployment in the settings until then, and end"
            " machines that the actuator does not know yourself."
        )
    return f"{about} Each lease ends a minute after its workers' last sign of life: end the machines yourself."


def claim_pool(db: Connection, pool: str, holder: UUID, for_s: float) -> bool:
    """Claim the pool, or extend the claim. Does not wait: False while another process holds it."""
    until = sa.func.now() + timedelta(seconds=for_s)
    claimed = insert(host_actors).values(pool=pool, holder=holder, until=until)
    is_free = sa.or_(host_actors.c.holder == holder, host_actors.c.until <= sa.func.now())
    taken = claimed.on_conflict_do_update(
        index_elements=["pool"], set_={"holder": holder, "until": until}, where=is_free
    )
    return db.execute(taken.returning(host_actors.c.pool)).first() is not None


def hold_pool(db: Connection, pool: str, holder: UUID, for_s: float) -> bool:
    """Extend a claim; returns False if it was lost meanwhile, so that the caller may write and call nothing more.

    The claim cannot be lost before the transaction ends.
    """
    mine = (host_actors.c.pool == pool, host_actors.c.holder == holder, host_actors.c.until > sa.func.now())
    held = sa.update(host_actors).where(*mine).values(until=sa.func.now() + timedelta(seconds=for_s))
    return db.execute(held.returning(host_actors.c.pool)).first() is not None


def give_up_pool(db: Connection, pool: str, holder: UUID) -> None:
    """End the claim, so that the next process need not wait."""
    mine = (host_actors.c.pool == pool, host_actors.c.holder == holder)
    db.execute(sa.update(host_actors).where(*mine).values(until=sa.func.now()))


def was_held_by_another(db: Connection, pool: str, holder: UUID, within: timedelta) -> bool:
    """Whether another process held the claim last, and within this time. It need not hold it any more."""
    others = (host_actors.c.pool == pool, host_actors.c.holder != holder, host_actors.c.until > sa.func.now() - within)
    return db.execute(sa.select(host_actors.c.pool).where(*others)).first() is not None
