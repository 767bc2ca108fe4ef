"""Three months of two apps: what the answers of docs/questions.md are drawn from. The same rows each time.

The rows of jobs, attempts and charges are drawn by chance from a fixed seed. Prices, hours and days are then worked out
by the product: `TokenPrices`, `cost_hours` and `cost_days`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection

from headrace.config import CostSettings
from headrace.domain.ids import oldest_id
from headrace.policies.pricing import TokenPrices
from headrace.store import apps as app_store
from headrace.store import clock, months
from headrace.store.money import cost_hours
from headrace.tables import apps, attempts, hosts, jobs, ledger, own_prices, refusals

#: The first ten days of three months, from 8 to 18 UTC; of each month, the users of `support`.
MONTHS = (
    (datetime(2026, 8, 1, tzinfo=UTC), 20),
    (datetime(2026, 9, 1, tzinfo=UTC), 40),
    (datetime(2026, 10, 1, tzinfo=UTC), 80),
)
DAYS, FIRST_HOUR, LAST_HOUR = 10, 8, 18
#: A small host, and what it serves.
USD_PER_HOUR, TOKENS_PER_S, WORK_PER_TOKEN = Decimal("0.04"), 25.0, 1.5
#: USD per 1,000,000 tokens: prompt, cached, answer.
Price = tuple[Decimal, Decimal, Decimal]
API: Price = Decimal("2.50"), Decimal("1.25"), Decimal("10")
MODEL, WORKER = "llama-3.1-8b", UUID(int=0xA1)
COSTS = CostSettings(label_keys=("feature",))
#: What an app's requests are for, one in five each; one request in nine does not say.
FEATURES = {"support": ("chat", "chat", "chat", "search", "summary"), "reports": ("report",) * 5}


@dataclass(frozen=True, slots=True)
class Request:
    """One job to be."""

    app: str
    end_user: str | None
    lane: str
    at: datetime


def fill(db: Connection) -> None:
    """Write all of it, and close its hours and days."""
    months.make(db, clock.now(db), MONTHS[0][0])
    cost_hours.set_label_keys(db, COSTS.label_keys)
    ids = {name: app_store.ensure(db, name).id for name in ("support", "reports")}
    db.execute(sa.update(apps).where(apps.c.name == "support").values(month_usd=Decimal("1.00")))
    prices = TokenPrices.of(USD_PER_HOUR, TOKENS_PER_S * WORK_PER_TOKEN, COSTS)
    rate = {"pool": "chat", "instance_type": "small", "usd_per_hour": USD_PER_HOUR, "tokens_per_s": TOKENS_PER_S}
    amounts = {name: getattr(prices, name) for name in prices.__dataclass_fields__}
    terms = {**rate, **amounts, "work_per_token": WORK_PER_TOKEN, "at": MONTHS[0][0]}
    version = db.scalar(sa.insert(own_prices).values(terms).returning(own_prices.c.id))
    db.execute(sa.insert(hosts), list(_leases()))
    own = (prices.input_usd_per_mtok, prices.cached_input_usd_per_mtok, prices.output_usd_per_mtok)
    drawn = Draw(Random(17), ids, {f"hosts-{version}": own, "openai-1": API})
    for number, request in enumerate(sorted(_requests(drawn.chance), key=lambda each: each.at)):
        drawn.add(number, request)
    db.execute(sa.insert(jobs), drawn.jobs)
    db.execute(sa.insert(attempts), drawn.attempts)
    db.execute(sa.insert(ledger), drawn.ledger)
    db.execute(sa.insert(refusals), list(_refusals(Random(18), ids["support"])))
    while bills := cost_hours.open_bills(db):
        for bill in bills:
            cost_hours.close_hour(db, bill, COSTS)
    while days := cost_hours.open_days(db):
        for day in days:
            cost_hours.close_day(db, day)


def _leases() -> Iterator[dict[str, Any]]:
    """A host for each working day, and in the last month one more from 9 to 12."""
    for month, _ in MONTHS:
        for day in range(DAYS):
            spans = [(FIRST_HOUR, LAST_HOUR)] + ([(9, 12)] if month == MONTHS[-1][0] else [])
            for number, (begins, ends) in enumerate(spans):
                at = month + timedelta(days=day, hours=begins)
                times = {"requested_at": at, "ordered_at": at, "ready_at": at + timedelta(minutes=4)}
                row = {"id": f"small-{at:%m%d}-{number}", "pool": "chat", "usd_per_hour": USD_PER_HOUR, **times}
                yield {**row, "ended_at": month + timedelta(days=day, hours=ends), "end_reason": "scaled_down"}


def _refusals(chance: Random, app_id: UUID) -> Iterator[dict[str, Any]]:
    """On the fifth of the last month, the queues of `support` are full from 10 to 12; some requests are sent again."""
    for minute in range(0, 120, 5):
        at = MONTHS[-1][0] + timedelta(days=4, hours=10, minutes=minute)
        for lane, reason, most in (("high", "wait", 3), ("normal", "depth", 9)):
            row = {"minute": at, "app_id": app_id, "queue": f"chat.{lane}", "reason": reason}
            for is_repeat in (False, True):
                jobs = chance.randint(0, most)
                if jobs:
                    yield {**row, "is_repeat": is_repeat, "jobs": jobs, "tokens": 900 * jobs}


def _requests(chance: Random) -> Iterator[Request]:
    """Users of `support` ask two to five times on their active days; `reports` sends a batch at noon."""
    for month, users in MONTHS:
        for day in range(DAYS):
            noon = month + timedelta(days=day, hours=12)
            active = chance.sample(range(users), round(users * chance.uniform(0.4, 1)))
            for user in active:
                for _ in range(chance.randint(2, 5)):
                    hour = chance.triangular(FIRST_HOUR + 0.1, LAST_HOUR - 0.1, 10.5)
                    lane = "high" if chance.random() < 0.3 else "normal"
                    yield Request("support", f"user-{user:03}", lane, month + timedelta(days=day, hours=hour))
            for _ in range(40):
                yield Request("reports", None, "batch", noon + timedelta(minutes=chance.uniform(0, 240)))


class Draw:
    """The rows of jobs, one after the other."""

    def __init__(self, chance: Random, ids: dict[str, UUID], prices: dict[str, Price]) -> None:
        self.chance = chance
        self.jobs: list[dict[str, Any]] = []
        self.attempts: list[dict[str, Any]] = []
        self.ledger: list[dict[str, Any]] = []
        self._ids, self._prices = ids, prices
        self._own, self._api = prices

    def add(self, number: int, request: Request) -> None:
        """Draw what becomes of a job: most succeed on own hosts, and some at the paid API; few fail or expire."""
        chance, is_busy = self.chance, 9 <= request.at.hour < 12
        prompt, output = 20 + int(chance.expovariate(1 / 880)), 5 + int(chance.expovariate(1 / 195))
        cached = prompt // 3 if chance.random() < 0.5 else 0
        fate, is_paid = chance.random(), request.lane != "batch" and chance.random() < (0.12 if is_busy else 0.02)
        wait_s = chance.expovariate(1 / (6 if is_busy else 1.5)) * (20 if request.lane == "batch" else 1)
        started, run_s = request.at + timedelta(seconds=wait_s), output / (60 if is_paid else 25)
        ended, job_id = (
            started + timedelta(seconds=run_s),
            UUID(int=oldest_id(request.at).int | 7 << 76 | 1 << 63 | number),
        )
        state = "expired" if fate < 0.004 else "failed" if fate < 0.01 else "succeeded"
        lost = state == "succeeded" and not is_paid and chance.random() < 0.01
        route, usual = "overflow" if is_paid else "pool", {"prompt_tokens": prompt, "cached_tokens": cached}
        job = {"id": job_id, "app_id": self._ids[request.app], "state": state, "lane": request.lane, "pool": "chat"}
        job |= {"queue": f"{'overflow' if is_paid else 'chat'}.{request.lane}", "route": route, "route_reason": "drawn"}
        job |= {"overflow": "allow", "model_requested": MODEL, "background": True, "max_tokens": 2048}
        job |= {"prompt_tokens": prompt, "end_user": request.end_user, "created_at": request.at, "attempt": 1 + lost}
        job |= {"start_by": request.at + timedelta(minutes=10), "started_at": started, "ended_at": ended}
        job |= {"error_code": "engine_fault" if state == "failed" else None}
        job |= {"metadata": {"feature": FEATURES[request.app][number % 5]} if number % 9 else {}}
        if state == "expired":
            self.jobs.append(job | {"attempt": 0, "started_at": None})
            return
        self.jobs.append(job)
        charge = {"job_id": job_id, "app_id": job["app_id"], "end_user": request.end_user, "pool": "chat", "at": ended}
        if lost:
            self._try(job_id, 1, "lost", started, is_paid)
            waste = {"prompt_tokens": prompt, "cached_tokens": 0, "output_tokens": output // 2}
            self._charge(charge | waste, "waste", 1, self._own)
        self._try(job_id, job["attempt"], state, started, is_paid)
        kind = "waste" if state == "failed" else "api" if is_paid else "compute"
        self._charge(
            charge | usual | {"output_tokens": output}, kind, job["attempt"], self._api if is_paid else self._own
        )

    def _try(self, job_id: UUID, number: int, outcome: str, started: datetime, is_paid: bool) -> None:
        first_token_s = self.chance.gauss(0.6, 0.1) if is_paid else 0.05 + self.chance.expovariate(1 / 0.25)
        row = {"job_id": job_id, "number": number, "worker_id": WORKER, "started_at": started, "outcome": outcome}
        engine = "openai" if is_paid else "vllm"
        self.attempts.append({**row, "engine": engine, "first_token_s": abs(first_token_s)})

    def _charge(self, row: dict[str, Any], kind: str, attempt: int, version: str) -> None:
        usd, api_usd = _usd(row, self._prices[version]), None if kind == "waste" else _usd(row, API)
        facts = {"kind": kind, "attempt": attempt, "model": MODEL, "engine_s": row["output_tokens"] / 25}
        self.ledger.append({**row, **facts, "usd": usd, "api_usd": api_usd, "price_version": version})


def _usd(row: dict[str, Any], price: Price) -> Decimal:
    counts = row["prompt_tokens"] - row["cached_tokens"], row["cached_tokens"], row["output_tokens"]
    return sum(count * usd for count, usd in zip(counts, price, strict=True)) / Decimal(1_000_000)
