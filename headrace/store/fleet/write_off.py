"""How long a host may take to become ready before it is written off."""

from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy import Connection

from headrace.config import HostTypeSettings, Settings
from headrace.tables import hosts

#: A host may take so much longer than 99 % of its type did.
FACTOR = 1.5
#: With fewer measured hosts the type's `provision_s` is used.
ENOUGH = 10
#: The newest hosts that are measured.
NEWEST = 200


def write_off(db: Connection, settings: Settings, instance_type: str | None) -> timedelta:
    """The time after which a host of this type that is not ready yet never will be."""
    took_s = sa.func.extract("epoch", hosts.c.ready_at - hosts.c.requested_at)
    is_measured = (
        hosts.c.ready_at.is_not(None),
        ~hosts.c.is_adopted,
        hosts.c.instance_type.is_not_distinct_from(instance_type),
    )
    newest = (
        sa.select(took_s.label("took_s"))
        .where(*is_measured)
        .order_by(hosts.c.requested_at.desc())
        .limit(NEWEST)
        .subquery()
    )
    longest = sa.func.percentile_cont(0.99).within_group(newest.c.took_s)
    count, p99_s = db.execute(sa.select(sa.func.count(), longest).select_from(newest)).one()
    set_s = settings.hosts[instance_type].provision_s if instance_type in settings.hosts else _DEFAULT_S
    return timedelta(seconds=FACTOR * (float(p99_s) if count >= ENOUGH else set_s))


_DEFAULT_S: float = HostTypeSettings.model_fields["provision_s"].default
