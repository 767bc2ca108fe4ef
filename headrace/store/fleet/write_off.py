"""How long a host may take to become ready before it is written off."""

from datetime import timedelta

from sqlalchemy import Connection

from headrace.config import Settings
from headrace.store.fleet.provisioning import provisioning

#: A host may take so much longer than 99 % of its type did.
FACTOR = 1.5


def write_off(db: Connection, settings: Settings, instance_type: str | None) -> timedelta:
    """The time after which a host of this type that is not ready yet never will be."""
    return timedelta(seconds=FACTOR * provisioning(db, settings, instance_type).p99_s)
