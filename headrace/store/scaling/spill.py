"""What a job of a pool costs at the paid API, if jobs may go there."""

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

import sqlalchemy as sa
from sqlalchemy import Connection

from headrace.config import Settings
from headrace.domain.attempts import Usage
from headrace.domain.limits.budgets import SpendingLimits, shortfall
from headrace.domain.queues import OVERFLOW
from headrace.errors import UnknownPrice
from headrace.policies.pricing import cost
from headrace.store.money import budgets, tariffs
from headrace.tables import ledger, workers

#: The newest entries of the ledger, of all pools, in which the pool's are looked for.
ENTRIES = 5_000
#: The age up to which entries count.
SINCE = timedelta(days=7)
#: With fewer paid jobs of the pool, the price list and the pool's mean job count.
ENOUGH_PAID = 20
#: The paid API is closed once its workers have been away for so long. A restart is shorter.
AWAY = timedelta(minutes=5)

NO_LIMITS = SpendingLimits(None, None)


@dataclass(frozen=True, slots=True)
class _MeanJob:
    """The pool's recent jobs. Attributes: paid: how many the paid API answered. paid_usd: their mean price."""

    paid: int
    paid_usd: Decimal | None
    prompt_tokens: float
    output_tokens: float


def job_usd(db: Connection, settings: Settings, pool: str) -> float | None:
    """The mean price of the pool's jobs at the paid API; None if it is unknown or if jobs may not go there.

    They may while a key and a price are set, a worker calls the API, and the budget of all apps together has room for
    a job. An app's own budget opens the API to that app alone, and so replaces no host.
    """
    if settings.openai_api_key is None or not _has_worker(db):
        return None
    job = _mean_job(db, pool)
    try:
        price = tariffs.in_force(db, settings).api_price(settings.pools[pool].model)
    except UnknownPrice:
        return None
    if job is None:
        return None
    usd = job.paid_usd
    if usd is None or job.paid < ENOUGH_PAID:
        usd = cost(price, Usage(round(job.prompt_tokens), round(job.output_tokens))).usd
    balances = budgets.balances(db, settings.budgets)
    # Without any limit the budget is closed, too.
    lack = shortfall(usd, balances.used_usd(""), NO_LIMITS, balances.together)
    return float(usd) if lack is None else None


def _has_worker(db: Connection) -> bool:
    seen = (workers.c.pool == OVERFLOW, workers.c.lease_until > sa.func.now() - AWAY)
    return bool(db.scalar(sa.select(sa.select(workers.c.id).where(*seen).exists())))


def _mean_job(db: Connection, pool: str) -> _MeanJob | None:
    """The pool's jobs among the newest entries; None without any."""
    newest = sa.select(ledger).order_by(ledger.c.id.desc()).limit(ENTRIES).subquery().c
    is_paid = newest.kind == "api"
    means = sa.select(
        sa.func.count().filter(is_paid),
        sa.func.avg(newest.usd).filter(is_paid),
        sa.func.avg(newest.prompt_tokens),
        sa.func.avg(newest.output_tokens),
    ).where(newest.pool == pool, newest.kind.in_(("compute", "api")), newest.at > sa.func.now() - SINCE)
    paid, paid_usd, prompt_tokens, output_tokens = db.execute(means).one()
    return None if prompt_tokens is None else _MeanJob(paid, paid_usd, float(prompt_tokens), float(output_tokens))
