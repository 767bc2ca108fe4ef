"""The dashboard of jobs: queues, waits and runs, ends, and money."""

from panels import OF_POOL, OF_QUEUE, QUEUE, Chart, quantile, rate, share

ENDED = "headrace_jobs_ended_total"
COMPARED, WRONG = "headrace_cache_comparisons_total", '{pool=~"$pool", outcome="wrong"}'

QUEUES = [
    Chart(
        "Depth",
        "Jobs that wait in each queue, reservations included.",
        "short",
        [(f"max by (pool, lane) (headrace_queue_depth{OF_QUEUE})", QUEUE)],
    ),
    Chart(
        "Tokens that wait",
        "What the waiting jobs will likely use.",
        "short",
        [(f"max by (pool, lane) (headrace_queue_depth_tokens{OF_QUEUE})", QUEUE)],
    ),
    Chart(
        "Oldest wait",
        "How long the oldest job has been in each queue. Past its max_wait a job expires.",
        "s",
        [
            (f"max by (pool, lane) (headrace_queue_oldest_wait_seconds{OF_QUEUE})", QUEUE),
            ('max by (lane) (headrace_lane_max_wait_seconds{lane=~"$lane"})', "{{lane}}: max_wait_s"),
        ],
    ),
    Chart(
        "Running",
        "Jobs that run, by the queue that they were taken from.",
        "short",
        [(f"max by (pool, lane) (headrace_jobs_running{OF_QUEUE})", QUEUE)],
        is_stacked=True,
    ),
    Chart(
        "Accepted and refused",
        "Jobs a second. The refused ones found no room in the queue, or could not have started in time.",
        "reqps",
        [
            (rate("headrace_jobs_accepted_total", "pool, lane", OF_QUEUE), f"{QUEUE} accepted"),
            (rate("headrace_jobs_refused_total", "pool, lane", OF_QUEUE), f"{QUEUE} refused"),
        ],
    ),
    Chart(
        "Spilled",
        "Jobs a second of each queue that went to the paid API, at the door or later.",
        "reqps",
        [(rate("headrace_jobs_spilled_total", "pool, lane", OF_QUEUE), QUEUE)],
    ),
]

TIMES = [
    Chart(
        "Wait",
        "From acceptance to the first start: what half of the jobs that start wait at most, and 95 % of them.",
        "s",
        [
            (quantile(0.5, "headrace_job_wait_seconds", "pool, lane", OF_QUEUE), f"{QUEUE} p50"),
            (quantile(0.95, "headrace_job_wait_seconds", "pool, lane", OF_QUEUE), f"{QUEUE} p95"),
        ],
    ),
    Chart(
        "Run",
        "From the first start to the end, retries included: half of the jobs that end, and 95 % of them.",
        "s",
        [
            (quantile(0.5, "headrace_job_run_seconds", "pool, lane", OF_QUEUE), f"{QUEUE} p50"),
            (quantile(0.95, "headrace_job_run_seconds", "pool, lane", OF_QUEUE), f"{QUEUE} p95"),
        ],
    ),
    Chart(
        "Starts",
        "Jobs a second that start for the first time.",
        "reqps",
        [(rate("headrace_job_wait_seconds_count", "pool, lane", OF_QUEUE), QUEUE)],
        is_stacked=True,
    ),
]

ENDS = [
    Chart(
        "Ends",
        "Jobs a second by how they end.",
        "reqps",
        [(rate(ENDED, "state", OF_QUEUE), "{{state}}")],
        is_stacked=True,
    ),
    Chart(
        "Share that does not succeed",
        "Of the jobs that end. An app cancels its own jobs.",
        "percentunit",
        [(share(ENDED, '{pool=~"$pool", lane=~"$lane", state!="succeeded"}', OF_QUEUE, "state"), "{{state}}")],
    ),
    Chart(
        "Errors",
        "Jobs a second that fail or expire, by error code. docs/api.md lists the codes.",
        "reqps",
        [(rate(ENDED, "error_code", '{pool=~"$pool", lane=~"$lane", error_code!=""}'), "{{error_code}}")],
    ),
]

CHARGED, OF_API, NO_WASTE = "headrace_charged_usd_total", '{kind="api"}', '{kind!="waste"}'
MONEY = [
    Chart(
        "Budgets used",
        "The spent and reserved share of each budget for the paid API: those of all apps together, and of the apps "
        "those that are used most.",
        "percentunit",
        [
            ("max by (app, period) (headrace_budget_used_ratio)", "{{app}} {{period}}"),
            ("max by (app, period) (headrace_budget_used_up)", "{{app}} {{period}}: used up"),
        ],
    ),
    Chart(
        "USD an hour",
        "What the hosts of each pool cost in the last hour, and what the paid API costs an hour now. Hosts without a "
        "price count 0.",
        "currencyUSD",
        [
            (f"max by (pool) (headrace_hosts_usd_per_hour{OF_POOL})", "{{pool}} hosts"),
            (f"3600 * {rate(CHARGED, '', OF_API)}", "paid API"),
        ],
        is_stacked=True,
    ),
    Chart(
        "USD an hour by app",
        "What each app's jobs are charged an hour now, at their prices: without hosts that were paid for and not used, "
        "and without failed attempts. No name: apps beyond the first 50.",
        "currencyUSD",
        [(f"3600 * {rate(CHARGED, 'app', NO_WASTE)}", "{{app}}")],
        is_stacked=True,
    ),
    Chart(
        "Differences of bills",
        "What the checked bills of hosts and of the paid API and the ledger wrongly differ by, as a part of the bills "
        "of the last 35 days. /ops/bills has the causes.",
        "percentunit",
        [("max by (source) (headrace_bill_difference_ratio)", "{{source}}")],
    ),
]

CACHES = [
    Chart(
        "Served by caches",
        "Jobs a second that were given another job's answer: an identical job's, finished (hit) or in flight (shared), "
        "or that of the same question in other words (semantic).",
        "reqps",
        [(rate("headrace_cache_served_total", "pool, cache", OF_POOL), "{{pool}} {{cache}}")],
        is_stacked=True,
    ),
    Chart(
        "Saved",
        "What the answers that these jobs were given have cost, in USD an hour.",
        "currencyUSD",
        [(f"3600 * {rate('headrace_cache_saved_usd_total', 'pool, cache', OF_POOL)}", "{{pool}} {{cache}}")],
        is_stacked=True,
    ),
    Chart(
        "Wrong answers by meaning",
        "Of the answers that were compared with a job's own: the wrong share. That of rechecks is the error of what is "
        "served; tries test entries that serve nothing yet.",
        "percentunit",
        [
            (
                f"{rate(COMPARED, 'pool, kind', WRONG)} / {rate(COMPARED, 'pool, kind', OF_POOL)}",
                "{{pool}} {{kind}}",
            )
        ],
    ),
    Chart(
        "Entries of the semantic cache",
        "Answered questions, and those under way.",
        "short",
        [(f"max by (pool) (headrace_cache_entries{OF_POOL})", "{{pool}}")],
    ),
]

BATCHES = [
    Chart(
        "Lines of batches",
        "Lines of all open batches: those that wait until their pool's lane has room, and those that have a job.",
        "short",
        [("max by (state) (headrace_batch_lines)", "{{state}}")],
        is_stacked=True,
    ),
    Chart(
        "Open batches",
        "Batches that have not ended, by their state.",
        "short",
        [("max by (state) (headrace_batches)", "{{state}}")],
        is_stacked=True,
    ),
    Chart(
        "Batches at the provider",
        "Batches of the provider's batch tier that have not ended, by their state.",
        "short",
        [("max by (state) (headrace_provider_batches)", "{{state}}")],
        is_stacked=True,
    ),
    Chart(
        "Oldest batch at the provider",
        "Its age. After 26 hours it counts as lost.",
        "s",
        [("max(headrace_provider_batch_oldest_seconds)", "oldest")],
    ),
]

JOBS = [
    *(("Queues", QUEUES), ("Times", TIMES), ("Ends", ENDS), ("Caches", CACHES), ("Batches", BATCHES)),
    ("Money", MONEY),
]
