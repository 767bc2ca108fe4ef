"""The ledger beside bills from outside, by day, pool and name. The checks of a day replace the earlier ones."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from headrace.config import Price
from headrace.errors import InvalidRequest
from headrace.policies.host_bills import split
from headrace.policies.pricing import PER_MTOK, USD_DIGITS
from headrace.store import clock, locks
from headrace.store.money.host_hours import SETTLE, HostTerms, bill_again
from plugins.bills.checks import HARMLESS, BillLine, BillSource, Charge, Checked, OutsideBill, check
from plugins.bills.tables import bill_checks, bills

#: The day that the provider adds to the name of a model that answers.
_DATED = re.compile(r"-\d{4}-\d{2}-\d{2}$")
#: The weights of tokens of a model without a price: the usual ones of providers.
_WEIGHTS = (Decimal(1), Decimal("0.5"), Decimal(4))
#: Differences are reported so long after their day.
REPORTED = timedelta(days=35)
_QUANTITY_DIGITS = Decimal("0.000001")


@dataclass(frozen=True, slots=True)
class PoolCheck:
    """A pool's part of what the ledger and a bill have, with why it differs.

    Attributes:
        pool: empty where the ledger has none: the bill alone has it.
        kind: the type of the machine; None for the paid API.
        checked: the whole of its name and day, or the pool's part.
    """

    source: BillSource
    pool: str
    kind: str | None
    checked: Checked


@dataclass(frozen=True, slots=True)
class _Own:
    """What the ledger has of one name, day and pool."""

    day: date
    name: str
    pool: str
    kind: str | None
    quantity: Decimal
    usd: Decimal


def reconcile_bill(db: Connection, bill: OutsideBill, terms: HostTerms, prices: Mapping[str, Price]) -> list[PoolCheck]:
    """Compare a bill with the ledger over the bill's days, and keep the result.

    The machines are billed again first, so that leases count that were corrected after an earlier check.

    Args: prices: of the paid API.
    Raises: InvalidRequest: no day of the bill is over.
    """
    today = (clock.now(db) - SETTLE).astimezone(UTC).date()
    lines = [line for line in bill.lines if line.day < today]
    bill = replace(bill, lines=lines, listed=[day for day in bill.listed if day < today])
    if not bill.lines:
        raise InvalidRequest(
            f"{bill.file} has no day that is over: the ledger closes a day five minutes after its end."
        )
    first, last = bill.days
    span = {
        "since": datetime.combine(first, time(), UTC),
        "until": datetime.combine(last, time(), UTC) + timedelta(days=1),
    }
    if bill.source is BillSource.HOSTS:
        # The sweep bills them too.
        locks.wait(db, "close_hours")
        bill_again(db, terms, span["since"])
    own, names = _hosts(db, bill, span) if bill.source is BillSource.HOSTS else _api(db, prices, span)
    lines = [replace(line, name=names.get(line.name) or _undated(line.name, names)) for line in bill.lines]
    units = {model: price.input_usd_per_mtok / PER_MTOK for model, price in prices.items()}
    found = _by_pool(bill, own, lines, check(bill.source, _ledger(own), _billed(lines, prices), units))
    _save(db, bill, found, span)
    return found


def _undated(name: str, names: Mapping[str, str]) -> str:
    plain = _DATED.sub("", name)
    return plain if plain in names.values() else name


def _hosts(db: Connection, bill: OutsideBill, span: Mapping[str, datetime]) -> tuple[list[_Own], dict[str, str]]:
    """The billed hours of machines; and of each name of a machine, the one that its hours have."""
    listed = {line.name for line in bill.lines}
    rows = db.execute(_HOSTS, span).all()
    names = {name: row.machine for row in rows for name in (row.machine, *(row.names or ()))}
    on_it = {names.get(name, name) for name in listed}
    own = [
        _Own(row.day, row.machine, row.pool, row.instance_type, row.hours, row.usd)
        for row in rows
        # A provider does not bill machines that the operator owns, unless it says so.
        if (not row.is_owned or row.machine in on_it) and (not bill.types or row.instance_type in bill.types)
    ]
    return own, names


def _api(
    db: Connection, prices: Mapping[str, Price], span: Mapping[str, datetime]
) -> tuple[list[_Own], dict[str, str]]:
    rows = db.execute(_API, span).all()
    known = {row.model for row in rows if row.model} | prices.keys()
    models = {name: plain if (plain := _DATED.sub("", name)) in known else name for name in known}
    own = [
        _Own(
            row.day,
            models.get(row.model, row.model or ""),
            row.pool or "",
            None,
            _weigh(row, prices.get(row.model)),
            row.usd,
        )
        for row in rows
    ]
    return own, models


def _weigh(tokens: Any, price: Price | None) -> Decimal:
    """Tokens in those of a prompt: each kind by its price."""
    plain, cached, output = _WEIGHTS
    if price is not None and price.input_usd_per_mtok:
        listed = price.cached_input_usd_per_mtok
        cached = plain if listed is None else listed / price.input_usd_per_mtok
        output = price.output_usd_per_mtok / price.input_usd_per_mtok
    uncached = tokens.prompt_tokens - tokens.cached_tokens
    return Decimal(uncached * plain + tokens.cached_tokens * cached + tokens.output_tokens * output)


def _ledger(own: Iterable[_Own]) -> dict[tuple[str, date], Charge]:
    sums: defaultdict[tuple[str, date], Charge] = defaultdict(lambda: Charge(Decimal(), Decimal()))
    for each in own:
        before = sums[each.name, each.day]
        sums[each.name, each.day] = Charge(before.quantity + each.quantity, (before.usd or Decimal()) + each.usd)
    return dict(sums)


def _billed(lines: Iterable[BillLine], prices: Mapping[str, Price]) -> dict[tuple[str, date], Charge]:
    """The bill by name and day, with what is on it twice."""
    sums: dict[tuple[str, date], Charge] = {}
    seen: set[BillLine] = set()
    for line in lines:
        quantity = line.hours or _weigh(line, prices.get(line.name))
        before = sums.get((line.name, line.day), Charge(Decimal(), None))
        usd = before.usd if line.usd is None else (before.usd or Decimal()) + line.usd
        doubled = before.doubled + (quantity if line in seen else 0)
        sums[line.name, line.day] = Charge(before.quantity + quantity, usd, doubled)
        seen.add(line)
    return sums


def _by_pool(
    bill: OutsideBill, own: Sequence[_Own], lines: Iterable[BillLine], checked: Iterable[Checked]
) -> list[PoolCheck]:
    """The checks, each shared by the pools as the ledger shares what it has of that name and day."""
    weights: defaultdict[tuple[str, date], defaultdict[str, Decimal]] = defaultdict(lambda: defaultdict(Decimal))
    kinds = {line.name: line.kind for line in lines} | {each.name: each.kind for each in own}
    for each in own:
        weights[each.name, each.day][each.pool] += each.usd or each.quantity
    found = []
    for whole in checked:
        of_pools = weights.get((whole.name, whole.day)) or {"": Decimal(1)}
        parts = {
            name: _split(getattr(whole, name), of_pools, digits)
            for digits, of_kind in ((USD_DIGITS, "usd"), (_QUANTITY_DIGITS, "quantity"))
            for name in (f"ledger_{of_kind}", f"billed_{of_kind}")
        }
        for pool in of_pools:
            of_pool = {name: amounts[pool] for name, amounts in parts.items()}
            part = Checked(whole.day, whole.name, whole.cause, **of_pool)
            found.append(PoolCheck(bill.source, pool, kinds.get(whole.name), part))
    return found


def _split(amount: Decimal, weights: Mapping[str, Decimal], digits: Decimal) -> dict[str, Decimal]:
    even = weights if sum(weights.values()) > 0 else dict.fromkeys(weights, Decimal(1))
    return split(round(amount, -digits.as_tuple().exponent), even, digits)  # type: ignore[operator]


def _save(db: Connection, bill: OutsideBill, found: Sequence[PoolCheck], span: Mapping[str, datetime]) -> None:
    row = bill_checks.c
    of_days = (row.source == bill.source, row.day >= span["since"], row.day < span["until"])
    of_types = [row.kind.in_(bill.types)] if bill.types else []
    db.execute(sa.delete(bill_checks).where(*of_days, *of_types))
    first, last = bill.days
    sums = {f"{side}_usd": sum(getattr(each.checked, f"{side}_usd") for each in found) for side in ("ledger", "billed")}
    about = {"source": bill.source, "file": bill.file, "lines": len(bill.lines), "first_day": first, "last_day": last}
    bill_id = db.scalar(sa.insert(bills).values(**about, **sums).returning(bills.c.id))
    rows = [
        {
            **{"source": each.source, "pool": each.pool, "kind": each.kind, "bill_id": bill_id},
            **{"day": datetime.combine(each.checked.day, time(), UTC), "name": each.checked.name},
            **{"cause": each.checked.cause, "ledger_usd": each.checked.ledger_usd},
            **{"billed_usd": each.checked.billed_usd, "ledger_quantity": each.checked.ledger_quantity},
            "billed_quantity": each.checked.billed_quantity,
        }
        for each in found
    ]
    db.execute(sa.insert(bill_checks), rows)


def difference_shares(db: Connection) -> dict[str, Decimal]:
    """The differences of each source within `REPORTED`, as a part of its bills; see `policies.bill_checks.share`."""
    row = bill_checks.c
    wrong = sa.func.sum(sa.func.abs(row.billed_usd - row.ledger_usd)).filter(row.cause.not_in(HARMLESS))
    sums = sa.select(row.source, sa.func.coalesce(wrong, 0).label("wrong"), sa.func.sum(row.billed_usd).label("billed"))
    lately = sums.where(row.day > sa.func.now() - REPORTED).group_by(row.source)
    return {
        each.source: each.wrong / abs(each.billed) if each.billed else Decimal(each.wrong != 0)
        for each in db.execute(lately)
    }


@dataclass(frozen=True, slots=True)
class BillDifference:
    """A row of the view `bill_differences`."""

    day: datetime
    source: str
    pool: str | None
    name: str
    kind: str | None
    cause: str
    ledger_usd: Decimal
    billed_usd: Decimal
    difference_usd: Decimal
    ledger_quantity: Decimal
    billed_quantity: Decimal
    bill_id: int


@dataclass(frozen=True, slots=True)
class BillSum:
    """What a source billed in a time, beside the ledger."""

    source: str
    first_day: datetime
    last_day: datetime
    ledger_usd: Decimal
    billed_usd: Decimal


def sums(db: Connection, since: datetime, until: datetime) -> list[BillSum]:
    """What was billed and checked in this time, by source."""
    return [BillSum(**row._mapping) for row in db.execute(_SUMS, {"since": since, "until": until})]


def differences(db: Connection, since: datetime, until: datetime, limit: int) -> list[BillDifference]:
    """The differences in this time, those that someone has to look into first, and of these the largest."""
    values = {"since": since, "until": until, "most": limit, "harmless": [str(each) for each in HARMLESS]}
    return [BillDifference(**row._mapping) for row in db.execute(_DIFFERENCES, values)]


_HOSTS = sa.text(
    """
    SELECT CAST(timezone('UTC', hour) AS date) AS day, machine, pool, max(instance_type) AS instance_type,
           bool_or(is_owned) AS is_owned, sum(host_s) / 3600 AS hours, sum(bill_usd) AS usd,
           (SELECT array_agg(DISTINCT name)
            FROM hosts h, unnest(ARRAY[h.id, h.provider_id]) name
            WHERE machine IN (h.id, h.provider_id) AND name IS NOT NULL) AS names
    FROM host_hours
    WHERE hour >= :since AND hour < :until
    GROUP BY 1, machine, pool
    HAVING sum(host_s) > 0 OR sum(bill_usd) > 0
    """
)
_API = sa.text(
    """
    SELECT CAST(timezone('UTC', l.at) AS date) AS day, l.model, l.pool, sum(l.prompt_tokens) AS prompt_tokens,
           sum(l.cached_tokens) AS cached_tokens, sum(l.output_tokens) AS output_tokens, sum(l.usd) AS usd
    FROM ledger l
    WHERE l.at >= :since AND l.at < :until AND (l.kind = 'api' OR (l.kind = 'waste' AND (
          -- Of a provider's batch: without a job, or with an attempt that was handed back.
          l.price_version LIKE '%/batch' OR EXISTS (
              SELECT FROM attempts a WHERE a.job_id = l.job_id AND a.number = l.attempt AND a.engine = 'openai'))))
    GROUP BY 1, l.model, l.pool
    """
)
_SUMS = sa.text(
    """
    SELECT source, min(day) AS first_day, max(day) AS last_day, sum(ledger_usd) AS ledger_usd,
           sum(billed_usd) AS billed_usd
    FROM bill_differences
    WHERE day >= :since AND day < :until
    GROUP BY source
    ORDER BY source
    """
)
_DIFFERENCES = sa.text(
    """
    SELECT day, source, pool, name, kind, cause, ledger_usd, billed_usd, difference_usd, ledger_quantity,
           billed_quantity, bill_id
    FROM bill_differences
    WHERE day >= :since AND day < :until AND cause <> 'none'
    ORDER BY cause = ANY (:harmless), abs(difference_usd) DESC, day, name, pool
    LIMIT :most
    """
)
