"""The tables; `migrations/` creates them. Times are `timestamptz`, money is USD, ids are UUIDv7 that Headrace makes."""

from headrace.tables.clients import api_keys, apps, budget_limits, budgets, idempotency_keys, unsettled_calls
from headrace.tables.columns import USD, metadata
from headrace.tables.costs import closed_days, cost_days, cost_hours, list_prices, own_prices, user_days
from headrace.tables.fleet import (
    decisions,
    host_actors,
    hosts,
    locks,
    queue_rollups,
    queue_samples,
    refusals,
    scaling_alerts,
    worker_samples,
    workers,
)
from headrace.tables.operators import audit_log, failed_logins, operators
from headrace.tables.reuse import cache_entries, cache_matches
from headrace.tables.webhooks import deliveries, gone_receivers
from headrace.tables.work import (
    BY_MONTH,
    attempts,
    confinements,
    job_retries,
    job_texts,
    jobs,
    ledger,
    poison_prompts,
    poison_strikes,
)

__all__ = [
    "BY_MONTH",
    "USD",
    "api_keys",
    "apps",
    "attempts",
    "audit_log",
    "budget_limits",
    "budgets",
    "cache_entries",
    "cache_matches",
    "closed_days",
    "confinements",
    "cost_days",
    "cost_hours",
    "decisions",
    "deliveries",
    "failed_logins",
    "gone_receivers",
    "host_actors",
    "hosts",
    "idempotency_keys",
    "job_retries",
    "job_texts",
    "jobs",
    "ledger",
    "list_prices",
    "locks",
    "metadata",
    "operators",
    "own_prices",
    "poison_prompts",
    "poison_strikes",
    "queue_rollups",
    "queue_samples",
    "refusals",
    "scaling_alerts",
    "unsettled_calls",
    "user_days",
    "worker_samples",
    "workers",
]
