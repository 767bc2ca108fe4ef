"""The dashboard of the processes: HTTP, webhooks, sweeps and servers."""

from panels import Chart, quantile, rate, share

PLAIN = '{kind="plain"}'
REQUESTS = "headrace_http_request_seconds"
TRIES = "headrace_webhook_tries_total"

HTTP = [
    Chart(
        "Requests",
        "Requests a second by status.",
        "reqps",
        [(rate(f"{REQUESTS}_count", "status"), "{{status}}")],
        is_stacked=True,
    ),
    Chart(
        "Time to answer",
        "What 95 % of the requests of each route take at most. Long polls and streams are left out.",
        "s",
        [(quantile(0.95, REQUESTS, "method, route", PLAIN), "{{method}} {{route}}")],
    ),
    Chart(
        "Share of errors",
        "Of all requests: 4xx is the client's error, 429 a refusal, 5xx ours.",
        "percentunit",
        [
            (share(f"{REQUESTS}_count", '{status=~"4..", status!="429"}', ""), "4xx but 429"),
            (share(f"{REQUESTS}_count", '{status="429"}', ""), "429"),
            (share(f"{REQUESTS}_count", '{status=~"5.."}', ""), "5xx"),
        ],
    ),
    Chart(
        "Refusals",
        "Requests a second that are refused, by the bound that was met. docs/api.md lists the reasons.",
        "reqps",
        [(rate("headrace_http_refusals_total", "reason"), "{{reason}}")],
    ),
    Chart(
        "Waits and streams",
        "Long polls, synchronous requests and streams that are open, and how many may be.",
        "short",
        [
            ("sum by (kind) (headrace_http_open)", "{{kind}} open"),
            ("sum by (kind) (headrace_http_slots)", "{{kind}} slots"),
        ],
    ),
    Chart(
        "Operators' pages",
        "Requests a second by status, and those that are refused, by the bound that was met. Many refusals: a flood.",
        "reqps",
        [
            (rate("headrace_ops_request_seconds_count", "status"), "{{status}}"),
            (rate("headrace_ops_refusals_total", "reason"), "refused: {{reason}}"),
        ],
    ),
]

WEBHOOKS = [
    Chart(
        "Tries",
        "Tries a second by outcome: failed ones are tried again.",
        "reqps",
        [(rate(TRIES, "outcome"), "{{outcome}}")],
        is_stacked=True,
    ),
    Chart(
        "Due",
        "Deliveries that are due and not begun, and tries that hold a slot.",
        "short",
        [("max(headrace_webhooks_due)", "due"), ("sum(headrace_webhooks_running)", "running")],
    ),
    Chart(
        "Late",
        "How late the oldest delivery is that is due.",
        "s",
        [("max(headrace_webhooks_late_seconds)", "late")],
    ),
]

CONTROL = [
    Chart(
        "Sweeps",
        "How long ago each sweep of control and plugins came to its end, where that was last, and its interval.",
        "s",
        [
            ("time() - max by (sweep) (headrace_sweep_done_timestamp_seconds)", "{{sweep}}"),
            ("max by (sweep) (headrace_sweep_interval_seconds)", "interval of {{sweep}}"),
        ],
    ),
    Chart(
        "Runs of sweeps",
        "Runs a second by outcome. Of several control processes each skips the runs in which another one works.",
        "reqps",
        [(rate("headrace_sweep_runs_total", "outcome"), "{{outcome}}")],
    ),
    Chart(
        "Sample of the queues",
        "How long ago the queues were last sampled.",
        "s",
        [("time() - max(headrace_observed_timestamp_seconds)", "age")],
    ),
]

PROCESS = [
    Chart(
        "Up",
        "1 for each process that answers Prometheus, and each server that answers the control process.",
        "short",
        [
            ('up{job="headrace"}', "{{instance}}"),
            ("min by (server) (headrace_server_up)", "{{server}}"),
        ],
    ),
    Chart(
        "Postgres is blocked",
        "Sessions of Postgres that have held locks for long which others wait for. The overview at /ops names them.",
        "short",
        [("max(headrace_postgres_blockers)", "sessions")],
    ),
    Chart(
        "Signs of life",
        "Processes by their own signs of life in Postgres: live, lost or stopped in the last hour.",
        "short",
        [("max by (kind, state) (headrace_processes)", "{{kind}} {{state}}")],
    ),
    Chart(
        "Memory",
        "Resident memory of each process.",
        "bytes",
        [('process_resident_memory_bytes{job="headrace"}', "{{instance}}")],
    ),
    Chart(
        "Processor",
        "Processor cores that each process uses.",
        "short",
        [('rate(process_cpu_seconds_total{job="headrace"}[$__rate_interval])', "{{instance}}")],
    ),
]

PROCESSES = [("HTTP", HTTP), ("Webhooks", WEBHOOKS), ("Control", CONTROL), ("Processes", PROCESS)]
