"""The dashboard of the fleet: hosts, scaling, workers and engines."""

from panels import OF_POOL, Chart, rate

HOSTS = [
    Chart(
        "Hosts",
        "Hosts by state, and how many the last decision wants.",
        "short",
        [
            (f"max by (pool, state) (headrace_hosts{OF_POOL})", "{{pool}} {{state}}"),
            (f"max by (pool) (headrace_hosts_wanted{OF_POOL})", "{{pool}} wanted"),
        ],
    ),
    Chart(
        "Decisions",
        "Decisions of the autoscaler in each step of the chart, by what they do. Most hold.",
        "short",
        [
            (
                f"sum by (pool, action) (increase(headrace_scaling_decisions_total{OF_POOL}[$__rate_interval]))",
                "{{pool}} {{action}}",
            )
        ],
        is_stacked=True,
    ),
    Chart(
        "Calls of the provider",
        "Calls in each step of the chart. A failed one is tried again.",
        "short",
        [
            (
                f"sum by (pool, outcome) (increase(headrace_provider_calls_total{OF_POOL}[$__rate_interval]))",
                "{{pool}} {{outcome}}",
            )
        ],
    ),
]

WORKERS = [
    Chart(
        "Workers",
        "Workers that take jobs, and that drain; apps whose prompts killed engines.",
        "short",
        [
            (f"sum by (pool) (headrace_worker_ready{OF_POOL})", "{{pool}} ready"),
            (f"sum by (pool) (headrace_worker_draining{OF_POOL})", "{{pool}} draining"),
            (f"max by (pool) (headrace_confined_apps{OF_POOL})", "{{pool}} confined apps"),
        ],
    ),
    Chart(
        "Control unseen",
        "Seconds since a control process last showed itself, as the workers see it.",
        "s",
        [(f"max by (pool) (headrace_control_unseen_seconds{OF_POOL})", "{{pool}}")],
    ),
    Chart(
        "Unread prompts",
        "Jobs that workers handed back because a newer release wrote their prompts, or failed as malformed.",
        "short",
        [
            (
                f"sum by (pool, code) (increase(headrace_payloads_unread_total{OF_POOL}[$__rate_interval]))",
                "{{pool}} {{code}}",
            )
        ],
    ),
    Chart(
        "Attempts and requests",
        "Attempts that the workers run; requests in the engines' batches, and those that wait in the engines.",
        "short",
        [
            (f"sum by (pool) (headrace_worker_running{OF_POOL})", "{{pool}} attempts"),
            (f"sum by (pool) (headrace_engine_running{OF_POOL})", "{{pool}} in batches"),
            (f"sum by (pool) (headrace_engine_waiting{OF_POOL})", "{{pool}} waiting in engines"),
        ],
    ),
    Chart(
        "Tokens",
        "Tokens a second: prompts read, cached ones included, and tokens produced.",
        "short",
        [
            (rate("headrace_prompt_tokens_total", "pool", OF_POOL), "{{pool}} prompt"),
            (rate("headrace_output_tokens_total", "pool", OF_POOL), "{{pool}} output"),
        ],
    ),
    Chart(
        "First token",
        "Mean time from the engine's acceptance of a request to its first token.",
        "s",
        [
            (
                f"{rate('headrace_first_token_seconds_sum', 'pool', OF_POOL)}"
                f" / {rate('headrace_first_token_seconds_count', 'pool', OF_POOL)}",
                "{{pool}}",
            )
        ],
    ),
    Chart(
        "Steps",
        "Steps a second of all engines of the pool.",
        "short",
        [(rate("headrace_engine_steps_total", "pool", OF_POOL), "{{pool}}")],
    ),
    Chart(
        "Unchecked answers",
        "Answers of a cascade a second whose JSON could not be checked, and passed.",
        "short",
        [(rate("headrace_unchecked_answers_total", "pool", OF_POOL), "{{pool}}")],
    ),
]

KV_CACHE = [
    Chart(
        "KV cache",
        "Share of the KV blocks in use now, and expected at the peak. Mean of the pool's workers.",
        "percentunit",
        [
            (f"avg by (pool) (headrace_kv_used_ratio{OF_POOL})", "{{pool}} used"),
            (f"avg by (pool) (headrace_kv_reserved_ratio{OF_POOL})", "{{pool}} reserved"),
        ],
    ),
    Chart(
        "Preemptions",
        "Requests a second that lost their KV blocks to others, and are computed twice.",
        "reqps",
        [(rate("headrace_preemptions_total", "pool", OF_POOL), "{{pool}}")],
    ),
    Chart(
        "Headroom",
        "Standard deviations that the KV ledger leaves free. It learns them from preemptions.",
        "short",
        [(f"max by (pool) (headrace_ledger_headroom{OF_POOL})", "{{pool}}")],
    ),
]

GPUS = [
    Chart(
        "GPUs",
        "Share of the time in which the GPUs ran a kernel, and share of their memory that is taken, by their driver. "
        "Mean of the pool's workers. Absent without a GPU.",
        "percentunit",
        [
            (f"avg by (pool) (headrace_gpu_busy_ratio{OF_POOL})", "{{pool}} busy"),
            (f"avg by (pool) (headrace_gpu_memory_used_ratio{OF_POOL})", "{{pool}} memory"),
        ],
    ),
    Chart(
        "Power",
        "Power of the pool's GPUs.",
        "watt",
        [(f"sum by (pool) (headrace_gpu_watts{OF_POOL})", "{{pool}}")],
    ),
]

FLEET = [("Hosts", HOSTS), ("Workers", WORKERS), ("KV cache", KV_CACHE), ("GPUs", GPUS)]
