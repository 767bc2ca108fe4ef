"""Every SQL statement, one module per noun. Callers open a transaction with `Store.begin` and pass it down.

Postgres is the source of truth. All times are from the database's clock, since the hosts' clocks may differ.
"""

from headrace.store import attempts, jobs
from headrace.store.attempts import escalations, losses
from headrace.store.clients import apps, keys
from headrace.store.fleet import observations, workers
from headrace.store.jobs import confinements, idempotency, insertion, overview, poison, queued, retries, texts
from headrace.store.money import budgets, reservations
from headrace.store.session import Store
from headrace.store.webhooks import deliveries, outbox

__all__ = [
    "Store",
    "apps",
    "attempts",
    "budgets",
    "confinements",
    "deliveries",
    "escalations",
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
