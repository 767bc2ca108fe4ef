"""A month whose unit economics docs/analytics.md works out: ten days, each with one busy hour of one large host.

All requests are alike. Prices, hours and days are then worked out by the product.
"""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import sqlalchemy as sa
from sqlalchemy import Connection

from headrace.config import CostSettings
from headrace.policies.pricing import TokenPrices
from headrace.store import apps, clock, months
from headrace.store.money import cost_hours
from headrace.tables import hosts, own_prices

MONTH, DAYS, HOUR = datetime(2026, 11, 1, tzinfo=UTC), 10, 14
#: Of each day; every 50th request goes to the paid API.
USERS, REQUESTS, PAID_EVERY = 209, 17, 50
PROMPT, OUTPUT = 1000, 200
#: What a saturated host serves in an hour, what the host costs in it, and a request at the paid API.
SATURATED, HOST_USD, API_USD = 4176, Decimal("4.10"), Decimal("0.015")
COSTS = CostSettings()

#: The ids are UUIDv7, as the API makes them.
_LEDGER = sa.text(
    """
    INSERT INTO ledger (at, kind, job_id, attempt, app_id, end_user, pool, model, prompt_tokens, output_tokens,
                        engine_s, usd, api_usd, price_version)
    SELECT at, kind,
           (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0')
            || '7' || substr(md5(no::text), 1, 3) || '8' || substr(md5(no::text), 4, 15))::uuid,
           1, :app, 'user-' || no % :users, 'chat', 'llama-3.1-8b', :prompt, :output, 8,
           CASE kind WHEN 'api' THEN CAST(:api_usd AS numeric) ELSE CAST(:own_usd AS numeric) END, :api_usd,
           CASE kind WHEN 'api' THEN 'openai-1' ELSE :version END
    FROM (SELECT no, CASE WHEN no % :paid_every = 0 THEN 'api' ELSE 'compute' END AS kind,
                 CAST(:begins AS timestamptz) + interval '1 hour' * (no - 1) / :requests AS at
          FROM generate_series(1, :requests) no) drawn
    """
)


def fill(db: Connection) -> None:
    """Write all of it, and close its hours and days."""
    months.make(db, clock.now(db), MONTH)
    app_id = apps.ensure(db, "assistant").id
    work = PROMPT + OUTPUT * int(COSTS.output_weight)
    tokens_per_s = SATURATED * (PROMPT + OUTPUT) / 3600
    prices = TokenPrices.of(HOST_USD, SATURATED * work / 3600, COSTS)
    rate = {"pool": "chat", "instance_type": "large", "usd_per_hour": HOST_USD, "tokens_per_s": tokens_per_s}
    amounts = {name: getattr(prices, name) for name in prices.__dataclass_fields__}
    terms = {**rate, **amounts, "work_per_token": work / (PROMPT + OUTPUT), "at": MONTH}
    version = db.scalar(sa.insert(own_prices).values(terms).returning(own_prices.c.id))
    own_usd = (PROMPT * prices.input_usd_per_mtok + OUTPUT * prices.output_usd_per_mtok) / 1_000_000
    same = {"app": app_id, "users": USERS, "requests": USERS * REQUESTS, "paid_every": PAID_EVERY, "prompt": PROMPT}
    same |= {"output": OUTPUT, "api_usd": API_USD, "own_usd": own_usd, "version": f"hosts-{version}"}
    for day in range(DAYS):
        begins = MONTH + timedelta(days=day, hours=HOUR)
        lease = {"id": f"large-{day}", "pool": "chat", "usd_per_hour": HOST_USD, "end_reason": "scaled_down"}
        times = {"requested_at": begins, "ordered_at": begins, "ready_at": begins}
        db.execute(sa.insert(hosts).values(**lease, **times, ended_at=begins + timedelta(hours=1)))
        db.execute(_LEDGER, same | {"begins": begins})
    while bills := cost_hours.open_bills(db):
        for bill in bills:
            cost_hours.close_hour(db, bill, COSTS)
    while days := cost_hours.open_days(db):
        for day in days:
            cost_hours.close_day(db, day)
