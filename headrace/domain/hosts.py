"""Hosts: machines, or locally processes, that the autoscaler orders, drains and ends. One lease for each."""

from dataclasses import dataclass
from datetime import datetime
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
    disappeared. WRITTEN_OFF: it never became ready.
    """

    SCALED_DOWN = "scaled_down"
    BY_HAND = "by_hand"
    GONE = "gone"
    WRITTEN_OFF = "written_off"


@dataclass(frozen=True, slots=True)
class HostLease:
    """One host's life, as the bill sees it. See `headrace.tables.hosts`.

    Attributes:
        id: names it in `HEADRACE_HOST_ID`, where the provider lets us choose that; otherwise workers name the host by
            its `provider_id`.
        instance_type: a NAME of `[hosts.NAME]`; None if the pool has none.
        usd_per_hour: the type's price when the host was ordered.
        provider_id: the provider's name of it; None until the provider has named one.
        requested_at: when a decision ordered it, or when an unordered host was first seen.
        ordered_at: when the provider accepted the order. The bill begins here.
        ready_at: when its first worker was ready.
        drain_at: when its draining began.
        ended_at: when the provider had ended it. The bill ends here.
        end_reason: a `HostEnd`; set when its draining begins or when it ends.
        is_adopted: nobody ordered it: its worker was just there.
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

    @property
    def state(self) -> HostState:
        """Where it stands."""
        if self.ended_at is not None:
            return HostState.ENDED
        if self.drain_at is not None:
            return HostState.DRAINING
        return HostState.READY if self.ready_at is not None else HostState.REQUESTED
