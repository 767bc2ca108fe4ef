"""The tables; `migrations/` creates them. Times are `timestamptz`, money is USD, ids are UUIDv7 that Headrace makes."""

from headrace.installed import parts
from headrace.tables.clients import (
    api_keys,
    apps,
    audit_log,
    budget_limits,
    budgets,
    failed_logins,
    idempotency_keys,
    operators,
    unsettled_calls,
)
from headrace.tables.columns import USD, metadata
from headrace.tables.costs import (
    charge_days,
    closed_days,
    cost_days,
    cost_hours,
    host_hours,
    label_days,
    label_keys,
    list_prices,
    own_prices,
    user_days,
)
from headrace.tables.fleet import (
    decisions,
    host_actors,
    hosts,
    locks,
    plugin_versions,
    processes,
    queue_rollups,
    queue_samples,
    refusals,
    scaling_alerts,
    worker_samples,
    workers,
)
from headrace.tables.work import (
    BY_MONTH,
    attempts,
    cache_entries,
    cache_matches,
    confinements,
    deliveries,
    gone_receivers,
    job_retries,
    job_texts,
    jobs,
    ledger,
    paused_receivers,
    poison_prompts,
    poison_strikes,
)

#: Their modules add their tables to `metadata`.
OF_PLUGINS = parts("tables")
