"""Every SQL statement, one module per noun. Callers open a transaction with `Store.begin` and pass it down.

Postgres is the truth. Times are the database's own clock, so that hosts whose clocks differ agree.
"""

from headrace.store import (
    apps,
    attempts,
    budgets,
    deliveries,
    idempotency,
    insertion,
    jobs,
    keys,
    losses,
    observations,
    outbox,
    overview,
    poison,
    queued,
    reservations,
    retries,
    texts,
    workers,
)
from headrace.store.session import Store

__all__ = [
    "Store",
    "apps",
    "attempts",
    "budgets",
    "deliveries",
    "idempotency",
    "insertion",
    "jobs",
    "keys",
    "losses",
    "observations",
    "outbox",
    "overview",
    "poison",
    "queued",
    "reservations",
    "retries",
    "texts",
    "workers",
]
