"""What machines cost by the calendar, and how the pools on one machine share its bill. Pure."""

from calendar import monthrange
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal, localcontext
from itertools import chain

from headrace.config import OwnedHostSettings
from headrace.domain.hosts import HostLease
from headrace.policies.pricing import PRECISION, RATE_DIGITS

HOUR_S = 3600


@dataclass(frozen=True, slots=True)
class PricedSpan:
    """A time in which a machine has one price."""

    began_at: datetime
    ended_at: datetime
    usd_per_hour: Decimal


def priced_spans(host: OwnedHostSettings, type_usd_per_hour: Decimal, until: datetime) -> Iterator[PricedSpan]:
    """The prices of an owned machine from `since` to its end, or to `until` if that is earlier.

    A price for a month is divided by that month's hours, so that a whole month costs it to the last digit.

    Args: type_usd_per_hour: what it costs if it has no price of its own.
    """
    since, end = host.since.astimezone(UTC), min(host.until or until, until).astimezone(UTC)
    bought_until = None if host.purchase_months is None else _months_after(since, host.purchase_months)
    began = since
    while began < end:
        month = began.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        next_month = _months_after(month, 1)
        ends = [end, next_month] + ([bought_until] if bought_until is not None and bought_until > began else [])
        with localcontext(prec=PRECISION):
            hourly = _hourly(host, type_usd_per_hour) + _per_month(host) * HOUR_S / _seconds(next_month - month)
            if host.purchase_usd is not None and bought_until is not None and began < bought_until:
                hourly += host.purchase_usd * HOUR_S / _seconds(bought_until - since)
        yield PricedSpan(began, min(ends), hourly)
        began = min(ends)


def _hourly(host: OwnedHostSettings, type_usd_per_hour: Decimal) -> Decimal:
    parts = (host.usd_per_month, host.purchase_usd, host.power_kw, host.rack_usd_per_month)
    if host.usd_per_hour is not None:
        return host.usd_per_hour
    if all(part is None for part in parts):
        return type_usd_per_hour
    return (host.power_kw or Decimal()) * (host.usd_per_kwh or Decimal())


def _per_month(host: OwnedHostSettings) -> Decimal:
    return (host.usd_per_month or Decimal()) + (host.rack_usd_per_month or Decimal())


def _months_after(at: datetime, months: int) -> datetime:
    year, month = divmod(at.year * 12 + at.month - 1 + months, 12)
    return at.replace(year=year, month=month + 1, day=min(at.day, monthrange(year, month + 1)[1]))


def _seconds(time: timedelta) -> Decimal:
    return Decimal(time // timedelta(microseconds=1)) / 1_000_000


def machines_of(leases: Sequence[HostLease]) -> list[list[HostLease]]:
    """The leases of each machine: those that share a name, directly or through others."""
    found: list[list[HostLease]] = []
    for lease in leases:
        same = [machine for machine in found if any(lease.names & other.names for other in machine)]
        found = [machine for machine in found if machine not in same] + [[*chain(*same), lease]]
    return found


def lease_spans(leases: Sequence[HostLease], until: datetime) -> Iterator[PricedSpan]:
    """When a machine was billed, by its leases, without the times that have no price."""
    ordered = sorted((lease for lease in leases if lease.ordered_at), key=lambda lease: (lease.ordered_at, lease.id))
    life: list[HostLease] = []
    for lease in [*ordered, None]:
        if life and (lease is None or lease.ordered_at > max(_stopped(each, until) for each in life)):  # type: ignore[operator]
            first = min(life, key=lambda each: (each.usd_per_hour is None, each.is_adopted, each.ordered_at, each.id))
            if first.usd_per_hour is not None and life[0].ordered_at is not None:
                stopped = max(_stopped(each, until) for each in life)
                yield PricedSpan(life[0].ordered_at, stopped, first.usd_per_hour)
            life = []
        life += [lease] if lease is not None else []


def _stopped(lease: HostLease, until: datetime) -> datetime:
    return min(lease.ended_at or until, until)


@dataclass(frozen=True, slots=True)
class PoolUse:
    """What a pool did on a machine in an hour.

    Attributes:
        leased_s: how long it had a lease of the machine.
        used: engine seconds of its attempts, each times the mean weight of its tokens.
    """

    leased_s: Decimal
    used: Decimal = Decimal()


def shares(pools: Mapping[str, PoolUse], fixed: Mapping[str, Decimal]) -> dict[str, Decimal]:
    """The part of a machine's bill that each pool pays. They add up to 1.

    By the fixed shares, if a pool has one; or else by what the pools used; or else by how long they had the machine; or
    else evenly.
    """
    weighed = (
        {pool: fixed.get(pool, Decimal()) for pool in pools},
        {pool: use.used for pool, use in pools.items()},
        {pool: use.leased_s for pool, use in pools.items()},
        dict.fromkeys(pools, Decimal(1)),
    )
    weights = next(each for each in weighed if sum(each.values()) > 0)
    return split(Decimal(1), weights, RATE_DIGITS)


def split(amount: Decimal, weights: Mapping[str, Decimal], digits: Decimal) -> dict[str, Decimal]:
    """Parts of an amount in proportion to weights, which add up to it to the last digit.

    Args: weights: one of them is above 0. digits: the last digit of a part, such as 0.01.
    """
    total = sum(weights.values())
    parts, given, weighed = {}, Decimal(), Decimal()
    with localcontext(prec=PRECISION):
        for name in sorted(weights):
            weighed += weights[name]
            upto = amount if weighed == total else (amount * weighed / total).quantize(digits)
            parts[name], given = upto - given, upto
    return parts


def owners(host: OwnedHostSettings, type_of_pool: Mapping[str, str | None]) -> Collection[str]:
    """The pools that pay an hour in which no pool had the machine."""
    return sorted(host.pools) or sorted(pool for pool, of_type in type_of_pool.items() if of_type == host.type)
