"""Leases of hosts as operators see and change them, one at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC

import sqlalchemy as sa
from sqlalchemy import Connection

from headrace.domain.hosts import HostEnd, HostState, HostWork
from headrace.domain.operators import OperatorAction
from headrace.errors import InvalidRequest, NotFound, did_you_mean
from headrace.store import audit
from headrace.store.audit import Entry, WantedEntries
from headrace.store.fleet.hosts import lease_of, work
from headrace.tables import decisions, hosts

_IS_LIVE = hosts.c.ended_at.is_(None)
_DEEDS: Mapping[str, str] = {OperatorAction.HOST_DRAIN: "drained", OperatorAction.HOST_RESUME: "called back"}
#: The most rows of the audit log that are read for one list.
MOST_DEEDS = 1_000


@dataclass(frozen=True, slots=True)
class ListedHost:
    """A host, and the decisions behind it.

    Attributes:
        work: of an ended host, only its lease.
        decision_id: the decision that drains or drained it, or else the one that ordered it; None for none.
        reason: that decision's, in words.
        deed: the last drain or call back by an operator, as the audit log has it; None for none.
    """

    work: HostWork
    decision_id: int | None
    reason: str | None
    deed: Entry | None

    @property
    def by_hand(self) -> str | None:
        """The deed in words."""
        if self.deed is None:
            return None
        return f"{_DEEDS[self.deed.action]} by {self.deed.actor} at {self.deed.at.astimezone(UTC):%m-%d %H:%M}"


def live(db: Connection, pool: str | None = None) -> list[ListedHost]:
    """The hosts that have not ended, by pool and then the oldest first. Args: pool: only its hosts; None: all."""
    pools = [pool] if pool is not None else db.scalars(sa.select(hosts.c.pool).where(_IS_LIVE).distinct())
    return _listed(db, [host for name in sorted(pools) for host in work(db, name)])


def ended(db: Connection, pool: str | None, limit: int) -> list[ListedHost]:
    """The hosts that ended last, the newest first."""
    found = sa.select(hosts).where(~_IS_LIVE).order_by(hosts.c.ended_at.desc(), hosts.c.id).limit(limit)
    if pool is not None:
        found = found.where(hosts.c.pool == pool)
    return _listed(db, [HostWork(lease_of(row._mapping)) for row in db.execute(found)])


def had_hosts(db: Connection, pool: str) -> bool:
    """Whether a host of this pool ever had a lease."""
    return bool(db.scalar(sa.select(sa.select(hosts.c.id).where(hosts.c.pool == pool).exists())))


def _listed(db: Connection, found: list[HostWork]) -> list[ListedHost]:
    # By hand without a decision, whichever decision once ordered the host.
    decision = sa.case((hosts.c.drain_at.is_(None), hosts.c.decision_id), else_=hosts.c.drain_decision_id)
    reasons = (
        sa.select(hosts.c.id, decisions.c.id.label("decision_id"), decisions.c.reason)
        .join(decisions, decisions.c.id == decision)
        .where(hosts.c.id.in_([host.lease.id for host in found]))
    )
    why = {row.id: (row.decision_id, row.reason) for row in db.execute(reasons)}
    deeds = _deeds(db, found)
    return [ListedHost(host, *why.get(host.lease.id, (None, None)), deed=deeds.get(host.lease.id)) for host in found]


def _deeds(db: Connection, found: Sequence[HostWork]) -> dict[str, Entry]:
    """The last deed to each host that an operator drained or called back."""
    if not found:
        return {}
    names, since = [host.lease.id for host in found], min(host.lease.requested_at for host in found)
    entries = audit.newest(db, WantedEntries(subjects=names, since=since), MOST_DEEDS)
    return {each.subject: each for each in reversed(entries) if each.action in _DEEDS}


def drain_by_hand(db: Connection, name: str, pool: str | None = None) -> HostWork:
    """Let a host finish what it runs and then end, though no decision says so; the autoscaler does not call it back.

    A host that a decision drains is from now on drained by hand. Returns: the host before the change.
    Raises: NotFound. InvalidRequest: it has ended.
    """
    host = _locked(db, name, pool)
    if host.lease.end_reason is not HostEnd.WRITTEN_OFF:
        values = {"drain_at": sa.func.coalesce(hosts.c.drain_at, sa.func.now()), "end_reason": HostEnd.BY_HAND}
        _change(db, host, {**values, "drain_decision_id": None})
    return host


def resume(db: Connection, name: str, pool: str | None = None) -> HostWork:
    """Let a draining host serve again. Returns: the host before the change.

    Raises: NotFound. InvalidRequest: it has ended, does not drain, or its machine is being ended.
    """
    host = _locked(db, name, pool)
    lease = host.lease
    if lease.state is not HostState.DRAINING:
        raise InvalidRequest(f"Host '{lease.id}' does not drain: it is {lease.state}.")
    if lease.released_at is not None:
        since = f"{lease.released_at:%H:%M:%S} UTC"
        message = f"Host '{lease.id}' cannot be called back: its machine is being ended since {since}."
        raise InvalidRequest(message)
    _change(db, host, {"drain_at": None, "end_reason": None, "drain_decision_id": None})
    return host


def _change(db: Connection, host: HostWork, values: dict[str, object]) -> None:
    db.execute(sa.update(hosts).where(hosts.c.id == host.lease.id).values(values))


def find(db: Connection, name: str, pool: str | None = None) -> HostWork:
    """The host that has not ended of this id, or of this name of its provider.

    Args: pool: whose; None for the only one.
    Raises: NotFound: with the nearest name. InvalidRequest: it has ended, or serves several pools and none is given.
    """
    is_it = sa.or_(hosts.c.id == name, hosts.c.provider_id == name)
    if pool is not None:
        is_it = sa.and_(is_it, hosts.c.pool == pool)
    found = db.execute(sa.select(hosts).where(is_it).order_by(hosts.c.ended_at.desc().nulls_first())).all()
    leases = [lease_of(row._mapping) for row in found]
    current = [lease for lease in leases if lease.ended_at is None]
    if len(current) > 1:
        which = ", ".join(sorted(lease.pool for lease in current))
        raise InvalidRequest(f"Host '{name}' serves several pools: name one of them, {which}.")
    if not current and leases:
        raise InvalidRequest(
            f"Host '{leases[0].id}' ended at {leases[0].ended_at:%Y-%m-%d %H:%M:%S} UTC ({leases[0].end_reason})."
        )
    if not current:
        of_pool = f" of pool '{pool}'" if pool is not None else ""
        raise NotFound(f"There is no host '{name}'{of_pool}{_nearest(db, name)}")
    [lease] = current
    return next(host for host in work(db, lease.pool) if host.lease.id == lease.id)


def _nearest(db: Connection, name: str) -> str:
    """The end of a sentence: which host may be meant."""
    rows = db.execute(sa.select(hosts.c.id, hosts.c.provider_id).where(_IS_LIVE))
    hint = did_you_mean(name, {known for row in rows for known in row if known})
    return f".{hint}" if hint else ". 'headrace hosts' lists them."


def _locked(db: Connection, name: str, pool: str | None) -> HostWork:
    """Like `find`. No other process changes the lease until the transaction ends."""
    lease = find(db, name, pool).lease
    db.execute(sa.select(hosts.c.id).where(hosts.c.id == lease.id).with_for_update())
    return find(db, lease.id, lease.pool)
