"""Hosts: machines, or locally processes, that the autoscaler orders, drains and ends. One lease for each, by pool."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum


class HostState(StrEnum):
    """Where a host stands in its life."""

    REQUESTED = "requested"
    READY = "ready"
    DRAINING = "draining"
    ENDED = "ended"


class HostEnd(StrEnum):
    """Why a host ended.

    SCALED_DOWN: a decision removed it. BY_HAND: an operator drained it. GONE: its machine or its last worker
    disappeared. WRITTEN_OFF: it never became ready. UNATTENDED: it was idle, and no control process was left to end it.
    """

    SCALED_DOWN = "scaled_down"
    BY_HAND = "by_hand"
    GONE = "gone"
    WRITTEN_OFF = "written_off"
    UNATTENDED = "unattended"


@dataclass(frozen=True, slots=True)
class HostCounts:
    """How many hosts a pool has in each state.

    Attributes:
        ready: with a live worker, and not draining. A host without a lease counts too.
        requested: ordered, and without a worker so far. Those that were written off do not count.
        draining: they take no more jobs. They have a worker, or can be called back.
    """

    ready: int = 0
    requested: int = 0
    draining: int = 0


@dataclass(frozen=True, slots=True)
class HostLease:
    """One host's life in one pool. See `headrace.tables.hosts`.

    Attributes:
        id: names it in `HEADRACE_HOST_ID`, where the provider lets us choose that; otherwise workers name the host by
            its `provider_id`.
        instance_type: a NAME of `[hosts.NAME]`; None if the pool has none.
        usd_per_hour: the machine's price when the lease began.
        provider_id: the provider's name of it; None until the provider has named one.
        requested_at: when a decision ordered it, or when an unordered host was first seen.
        ordered_at: when the provider accepted the order; of an adopted host, when its first worker started. The bill
            begins here.
        ready_at: when its first worker was ready.
        drain_at: when its draining began.
        released_at: when the provider was first asked to end it. From then on it cannot be called back.
        ended_at: when the provider had ended it; of an adopted host without a provider, the last sign of its workers.
            The bill ends here.
        end_reason: a `HostEnd`; set when its draining begins or when it ends.
        is_adopted: no decision ordered it. It was found by its worker.
    """

    id: str
    pool: str
    requested_at: datetime
    instance_type: str | None = None
    usd_per_hour: Decimal | None = None
    provider_id: str | None = None
    ordered_at: datetime | None = None
    ready_at: datetime | None = None
    drain_at: datetime | None = None
    ended_at: datetime | None = None
    end_reason: HostEnd | None = None
    is_adopted: bool = False
    released_at: datetime | None = None

    @property
    def state(self) -> HostState:
        """Where it stands."""
        if self.ended_at is not None:
            return HostState.ENDED
        if self.drain_at is not None:
            return HostState.DRAINING
        return HostState.READY if self.ready_at is not None else HostState.REQUESTED

    def usd(self, now: datetime) -> Decimal | None:
        """What it has cost so far, to the cent of a cent; None if its price is unknown."""
        if self.usd_per_hour is None:
            return None
        if self.ordered_at is None:
            return Decimal(0)
        paid = max((self.ended_at or now) - self.ordered_at, timedelta())
        return round(self.usd_per_hour * Decimal(paid / timedelta(hours=1)), 4)

    @property
    def names(self) -> frozenset[str]:
        """What its workers may call it."""
        return frozenset({self.id, self.provider_id} - {None})  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class HostWork:
    """A host that has not ended, and what its live workers do.

    Attributes:
        workers: live ones.
        ready: those that take jobs.
        draining: those that have heard that it drains.
        running: jobs that run on it.
        tokens_left: tokens that these may still make, at most.
        seen_at: when the last lease of its workers ends or ended; None: they were silent for the last hour.
    """

    lease: HostLease
    workers: int = 0
    ready: int = 0
    draining: int = 0
    running: int = 0
    tokens_left: int = 0
    seen_at: datetime | None = None

    @property
    def is_silent(self) -> bool:
        """It has served, and none of its workers lives."""
        return self.lease.ready_at is not None and self.workers == 0

    @property
    def is_idle(self) -> bool:
        """Nothing runs on it, and no worker of it will take a job."""
        return self.running == 0 and self.draining == self.workers
