"""How long hosts of an instance type take from their order to their first ready worker."""

from dataclasses import dataclass, replace

import sqlalchemy as sa
from sqlalchemy import Connection

from headrace.config import HostTypeSettings, Settings
from headrace.tables import hosts

#: With fewer measured hosts the settings' time is used.
ENOUGH = 10
#: The newest hosts that are measured.
NEWEST = 200
#: How long a local process takes to start and to load a small model, beyond `scaling.local.provision_s`.
LOCAL_START_S = 15.0


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
        return Provisioning(count, *map(float, quantiles))
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


_DEFAULT_S: float = HostTypeSettings.model_fields["provision_s"].default
