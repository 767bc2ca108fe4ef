"""Say what each view and each of its columns means: the data dictionary of analysts.

Revision: 0038, after 0037
"""

from alembic import op

revision = "0038"
down_revision = "0037"
branch_labels = None
depends_on = None

ABOUT = {
    "budget_run_rate": "The budgets of the present day and month at the paid API: what is spent, and where it leads.",
    "charges": "One row for each entry of the ledger, with its app, lane and route, and its share of idle hosts.",
    "cost_elasticity": "How the cost of each app grows with active users: a line through the logarithms of its days.",
    "cost_per_day": "The charges of each day of UTC by app, pool, model, lane and route.",
    "cost_per_request": "One row for each job: what it cost, how long it waited and ran, and where it was served.",
    "cost_per_user_day": "The requests of each app that name their end user, by day of UTC.",
    "cost_per_user_month": "The requests of each app that name their end user, by month of UTC.",
    "cost_reconciliation": "Each closed hour: the full cost of its requests and the platform's part against the bill "
    "of its hosts. A difference other than 0 is an error.",
    "gpu_hours": "Each pool and closed hour of UTC: what its hosts cost, and how much was used. The boot is part of "
    "idle_usd.",
    "savings_per_day": "What own hosts saved each day against the paid API's list price for the same tokens.",
    "split_options": "What each month would have cost with a fixed number of hosts, if each hour's requests beyond "
    "what they serve had gone to the paid API; also with half and twice the load, and half and twice the paid API's "
    "price.",
    "split_point": "From how many requests an hour a host is cheaper than the paid API, and how many it served.",
    "waits_per_hour": "How long jobs waited, by the hour of UTC in which they started.",
}
#: What a column means wherever it is called so.
COMMON = {
    "api_usd": "The same tokens at the paid API's list price; NULL: it has none.",
    "app": "The app's name; NULL: the platform.",
    "app_id": "The app's id.",
    "at": "When the entry was written: when the attempt ended.",
    "bill_usd": "The leases of the hosts times their price.",
    "cached_tokens": "Of the prompt's tokens, those that a cache of prefixes had.",
    "day": "Its start, in UTC.",
    "end_user": "The app's own name for its user, from the request; NULL: not named.",
    "engine_s": "Seconds on an engine.",
    "full_usd": "usd, with the share of hosts that were paid for and not used; equals usd until the hour closes.",
    "hour": "Its start, in UTC.",
    "job_id": "The job's UUID; jobs.id.",
    "lane": "high, normal, low or batch.",
    "model": "The model that answered.",
    "month": "Its start, in UTC.",
    "output_tokens": "Tokens of the answers, thoughts included.",
    "platform_usd": "Of the hosts' bill, what no request pays: waste, hours without requests, digits below the last.",
    "pool": "The pool whose hosts serve it, or would have.",
    "prompt_tokens": "Tokens of the prompts, cached ones included.",
    "requests": "Charged ones: a failed or lost attempt is waste, and no request.",
    "route": "pool: own hosts; overflow: the paid API.",
    "usd": "What the app is charged.",
    "usd_per_user": "full_usd over users.",
    "users": "End users with a charge.",
}
COLUMNS = {
    "budget_run_rate": {
        "app": "Whose budget it is; NULL: that of all apps together.",
        "period": "day or month, of UTC.",
        "starts_at": "The period's start.",
        "ends_at": "The period's end.",
        "limit_usd": "The most that may be spent in the period; NULL: no limit.",
        "spent_usd": "Spent since the period's start.",
        "reserved_usd": "What calls under way may cost at most.",
        "used": "spent_usd over limit_usd.",
        "usd_per_day": "The pace since the period's start.",
        "projected_usd": "What will be spent at the period's end at this pace.",
        "used_up_at": "When the limit is reached at this pace; NULL: not in this period.",
    },
    "charges": {
        "id": "The entry's number in the ledger.",
        "kind": "compute: own hosts; api: the paid API; cache: served without computing; waste: a failed or lost "
        "attempt; adjustment: a correction.",
        "usd": "What the app is charged; of waste, what it cost.",
        "price_version": "The price behind usd, such as hosts-7: row 7 of own_prices.",
        "estimated": "The provider did not say what it counted; usd is what it may have charged at most.",
        "is_closed": "full_usd shares the bill of hosts.",
    },
    "cost_elasticity": {
        "days": "Days with a charge that names its end user.",
        "least_users": "Active users on the quietest of them.",
        "most_users": "Active users on the busiest of them.",
        "elasticity": "By how many percent the cost of a day grows for each percent of users. Below 1: users get "
        "cheaper.",
        "r2": "The share of the variance that the line explains, from 0 to 1.",
    },
    "cost_per_day": {"waste_usd": "Failed and lost attempts; not charged to the app."},
    "cost_per_request": {
        "created_at": "When it was accepted.",
        "state": "waiting, queued, running, succeeded, failed, cancelled or expired.",
        "queue": "The queue in which it was last.",
        "model_requested": "The model that the request named.",
        "model_served": "The model that answered; NULL: none did.",
        "attempts": "Starts of the job.",
        "waste_usd": "Failed and lost attempts; not charged to the app.",
        "wait_s": "From acceptance to the first start.",
        "run_s": "From the first start to the end.",
        "ended_at": "When it ended; NULL: it has not.",
        "error_code": "Why it failed.",
        "cost_basis": "hosts: full_usd shares the bill of the hosts; price: only a price is known so far; api: the "
        "provider's list price; cache: served without computing. NULL: nothing was charged.",
        "public_id": "The job's id as apps see it.",
    },
    "cost_per_user_day": {},
    "cost_per_user_month": {
        "elasticity": "By how many percent the cost grew for each percent of users, against the app's month before. "
        "Below 1: users got cheaper."
    },
    "cost_reconciliation": {
        "requests_usd": "The full cost of the hour's requests.",
        "difference_usd": "requests_usd and platform_usd, minus bill_usd.",
    },
    "gpu_hours": {
        "host_hours": "Hours of hosts that the bill covers.",
        "boot_hours": "Those of them before the host was ready.",
        "unpriced_hosts": "Hosts without a price, which the bill does not cover.",
        "used_usd": "The part of the bill that the prices of requests cover.",
        "waste_usd": "The part for failed and lost attempts.",
        "boot_usd": "The part for boot_hours.",
        "idle_usd": "The rest of the bill.",
        "use": "The prices of requests over the bill. Above 1: the prices add up to more than the bill.",
        "closed_at": "When the hour was last closed.",
    },
    "savings_per_day": {
        "saved_usd": "api_usd, minus full_usd and platform_usd. Negative: the paid API would have been cheaper."
    },
    "split_options": {
        "load_factor": "The month's requests times this.",
        "api_price_factor": "The paid API's price times this.",
        "hosts": "So many, from the month's first charge to its last.",
        "own_share": "Of the requests, those that these hosts serve.",
        "hosts_usd": "What the hosts cost, at the pool's last measured price.",
        "api_usd": "What the requests beyond them cost at the paid API.",
        "usd": "Both.",
        "is_cheapest": "The least bill of this month, load and price.",
    },
    "split_point": {
        "usd_per_host_hour": "What an hour of a host cost.",
        "api_usd_per_request": "What the paid API would have charged for a mean request.",
        "requests_per_host_hour": "What an hour of a host served.",
        "break_even_requests_per_host_hour": "A host that serves more of them than this is cheaper.",
        "most_requests_per_host_hour": "What a saturated host serves; NULL: its rate is unknown.",
        "break_even_share": "The break-even over what was served. Below 1: own hosts paid.",
    },
    "waits_per_hour": {
        "requests": "Jobs that started in the hour.",
        **{f"p{number}_wait_s": "From acceptance to the first start." for number in (50, 95, 99)},
        **{
            f"p{number}_first_token_s": "From the start of the last attempt to its first token."
            for number in (50, 95, 99)
        },
    },
}
#: The columns of each view that have their common meaning.
SHARED = {
    "charges": "at job_id app end_user pool model lane route prompt_tokens cached_tokens output_tokens engine_s "
    "full_usd api_usd app_id",
    "cost_elasticity": "app",
    "cost_per_day": "day app pool model lane route requests users prompt_tokens cached_tokens output_tokens usd "
    "full_usd api_usd",
    "cost_per_request": "job_id app end_user lane route prompt_tokens cached_tokens output_tokens engine_s usd api_usd "
    "pool full_usd",
    "cost_per_user_day": "day app users requests full_usd usd_per_user",
    "cost_per_user_month": "month app users requests full_usd usd_per_user",
    "cost_reconciliation": "pool hour bill_usd platform_usd",
    "gpu_hours": "pool hour requests bill_usd platform_usd",
    "savings_per_day": "day pool requests full_usd platform_usd api_usd",
    "split_options": "month pool",
    "split_point": "month pool",
    "waits_per_hour": "hour pool lane",
}


def upgrade() -> None:
    for view, about in ABOUT.items():
        op.execute(f"COMMENT ON VIEW {view} IS {_quoted(about)}")
        shared = {column: COMMON[column] for column in SHARED.get(view, "").split()}
        for column, text in (shared | COLUMNS[view]).items():
            op.execute(f"COMMENT ON COLUMN {view}.{column} IS {_quoted(text)}")


def downgrade() -> None:
    """The views before say less, and nothing rests on it."""


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
