"""How long hosts of an instance type take from their order to their first ready worker, and may take."""

from dataclasses import dataclass, replace
from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy import Connection

from headrace.config import HostTypeSettings, Settings
from headrace.domain.hosts import HostEnd
from headrace.tables import hosts

#: A host that takes so much longer than 99 % of its type did is written off.
WRITE_OFF_FACTOR = 1.5
#: The time doubles for each order in a row of which no host came, at most so often.
MOST_DOUBLINGS = 3
#: With fewer measured hosts the settings' time is used.
ENOUGH = 10
#: The newest hosts that are measured.
NEWEST = 200
#: How long a local process takes to start and to load a small model, beyond `scaling.local.provision_s`.
LOCAL_START_S = 15.0
_DEFAULT_S: float = HostTypeSettings.model_fields["provision_s"].default


@dataclass(frozen=True, slots=True)
class Provisioning:
    """The times that 50, 90 and 99 % of the hosts meet, in seconds.

    Attributes:
        count: the hosts that were measured. With fewer than `ENOUGH`, the times are the settings', and 99 % are taken
            to need as long as the slowest of them did, so that a time that is set too low writes no host off.
    """

    count: int
    p50_s: float
    p90_s: float
    p99_s: float


def provisioning(db: Connection, settings: Settings, instance_type: str | None) -> Provisioning:
    """The times of the type's newest ordered hosts; of the settings until enough were measured.

    Adopted hosts do not count: their lease began when they were found.
    """
    took_s = sa.func.extract("epoch", hosts.c.ready_at - hosts.c.requested_at)
    is_of_type = hosts.c.instance_type.is_not_distinct_from(instance_type)
    measured = sa.select(took_s.label("took_s")).where(is_of_type, hosts.c.ready_at.is_not(None), ~hosts.c.is_adopted)
    newest = measured.order_by(hosts.c.requested_at.desc()).limit(NEWEST).subquery()
    times = sa.func.percentile_cont(sa.literal([0.5, 0.9, 0.99], sa.ARRAY(sa.Float))).within_group(newest.c.took_s)
    count, quantiles = db.execute(sa.select(sa.func.count(), times).select_from(newest)).one()
    if count >= ENOUGH:
        p50_s, p90_s, p99_s = map(float, quantiles)
        return Provisioning(count, p50_s=p50_s, p90_s=p90_s, p99_s=p99_s)
    known = _as_set(count, settings, instance_type)
    return replace(known, p99_s=max(known.p99_s, float(quantiles[-1]))) if count else known


def _as_set(count: int, settings: Settings, instance_type: str | None) -> Provisioning:
    if instance_type in settings.hosts:
        set_s = settings.hosts[instance_type].provision_s
        return Provisioning(count, set_s, set_s, set_s)
    if instance_type is None and settings.scaling.actuator == "local":
        local_s = settings.scaling.local.provision_s + LOCAL_START_S
        # A large model may load for minutes, and a host that is written off too early ends.
        return Provisioning(count, local_s, local_s, max(local_s, _DEFAULT_S))
    return Provisioning(count, _DEFAULT_S, _DEFAULT_S, _DEFAULT_S)


def write_off(db: Connection, settings: Settings, instance_type: str | None) -> timedelta:
    """The time after which a host of this type that is not ready yet never will be.

    A host that is written off is ended, so it is never measured. If hosts take longer than they used to, or than
    `provision_s` says, all would be written off forever: that is why the time grows until one comes.
    """
    doublings = min(_failed_orders(db, instance_type), MOST_DOUBLINGS)
    return timedelta(seconds=WRITE_OFF_FACTOR * provisioning(db, settings, instance_type).p99_s * 2**doublings)


def _failed_orders(db: Connection, instance_type: str | None) -> int:
    """The orders whose hosts were written off since the last of which one came. Hosts of an order share their time."""
    is_of_type = (hosts.c.instance_type.is_not_distinct_from(instance_type), ~hosts.c.is_adopted)
    came_at = sa.select(sa.func.max(hosts.c.requested_at)).where(*is_of_type, hosts.c.ready_at.is_not(None))
    is_later = hosts.c.requested_at > sa.func.coalesce(came_at.scalar_subquery(), sa.text("'-infinity'::timestamptz"))
    failed = sa.select(sa.func.count(hosts.c.requested_at.distinct())).where(
        *is_of_type, is_later, hosts.c.ready_at.is_(None), hosts.c.end_reason == HostEnd.WRITTEN_OFF
    )
    return db.scalar(failed) or 0
