"""The settings of worker hosts: their types, and the machines that the operator owns."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from headrace.errors import ConfigError
from headrace.setting_types import Positive, Section

Usd = Annotated[Decimal, Field(ge=0, lt=10_000_000)]


class HostTypeSettings(Section):
    """A kind of worker host: what it costs and what it does.

    Attributes:
        usd_per_hour: the price of one such host, from its order to its end.
        provision_s: the time from an order to the first ready worker, until enough hosts of the type were measured.
        tokens_per_s: the tokens of jobs (prompts and answers) that one saturated host serves per second, until the rate
            was measured.
        shares: the parts of a host's bill that its pools pay, such as `{ chat = 0.9, embed = 0.1 }`, if it serves
            several; by default each pool pays by what it used.
    """

    usd_per_hour: Annotated[Decimal, Field(ge=0, lt=100_000)]
    provision_s: Positive = 300.0
    tokens_per_s: Annotated[float, Field(ge=0.1, le=1e9)] | None = None
    shares: dict[str, Annotated[Decimal, Field(ge=0, le=1)]] = Field(default_factory=dict)

    @field_validator("shares")
    @classmethod
    def _has_a_share(cls, shares: dict[str, Decimal]) -> dict[str, Decimal]:
        if shares and not any(shares.values()):
            raise ValueError("one of the shares must be above 0")
        return shares


class OwnedHostSettings(Section):
    """A machine that costs the same whether its workers run or not. It is billed by the calendar.

    Its price is `usd_per_hour`, `usd_per_month`, or the sum of its parts: the purchase, power and the rack. Without any
    of these it is its type's.

    Attributes:
        name: the `HEADRACE_HOST_ID` of its workers.
        type: its type: a NAME of `[hosts.NAME]`.
        since: from when on it costs, with its UTC offset.
        until: until when; by default it still does. End a machine by it: a deleted table takes its last week out of the
            bill.
        pools: the pools that pay hours in which it runs no worker; by default those whose `host_type` is its type.
        usd_per_hour: its price for each hour.
        usd_per_month: its price for each calendar month of UTC, divided by the month's hours.
        purchase_usd: what it cost to buy, spread evenly over `purchase_months`.
        purchase_months: the months after `since` over which the purchase is spread; afterwards it costs nothing more.
        power_kw: the power that it draws, around the clock.
        usd_per_kwh: the price of power.
        rack_usd_per_month: the price of its place, network and upkeep for each calendar month.
    """

    name: Annotated[str, Field(min_length=1)]
    type: str
    since: datetime
    until: datetime | None = None
    pools: tuple[str, ...] = ()
    usd_per_hour: Usd | None = None
    usd_per_month: Usd | None = None
    purchase_usd: Usd | None = None
    purchase_months: Annotated[int, Field(gt=0, le=1200)] | None = None
    power_kw: Usd | None = None
    usd_per_kwh: Usd | None = None
    rack_usd_per_month: Usd | None = None

    @model_validator(mode="after")
    def _has_one_price(self) -> Self:
        if self.since.tzinfo is None or (self.until is not None and self.until.tzinfo is None):
            raise ValueError("'since' and 'until' need a UTC offset, such as 2026-12-01T00:00:00Z")
        if self.since.year < 2000:
            raise ValueError("'since' must be in 2000 or later")
        if self.until is not None and self.until <= self.since:
            raise ValueError("'until' must be after 'since'")
        for one, other in (("purchase_usd", "purchase_months"), ("power_kw", "usd_per_kwh")):
            if (getattr(self, one) is None) != (getattr(self, other) is None):
                raise ValueError(f"'{one}' and '{other}' are set together")
        parts = (self.purchase_usd, self.power_kw, self.rack_usd_per_month)
        given = [self.usd_per_hour is not None, self.usd_per_month is not None, any(each is not None for each in parts)]
        if sum(given) > 1:
            raise ValueError("a machine has 'usd_per_hour', 'usd_per_month', or a price made of its parts")
        return self


def check_hosts(
    types: Mapping[str, HostTypeSettings],
    owned: Sequence[OwnedHostSettings],
    type_of_pool: Mapping[str, str | None],
) -> None:
    """Raises: ConfigError: a name in these tables names nothing, or names two machines.

    Args: type_of_pool: the type of the hosts of each pool that has hosts of its own.
    """
    for name, each in types.items():
        _check_pools(f"hosts.{name}.shares", each.shares, type_of_pool)
    for number, host in enumerate(owned):
        where = f"owned_hosts.{number}"
        if host.type not in types:
            message = f"[[owned_hosts]] '{host.name}' has the type '{host.type}': add [hosts.{host.type}]."
            raise ConfigError(message, param=f"{where}.type")
        if host.name in {other.name for other in owned[:number]}:
            raise ConfigError(
                f"[[owned_hosts]] has '{host.name}' twice: a machine has one bill.", param=f"{where}.name"
            )
        _check_pools(f"{where}.pools", host.pools, type_of_pool)
        if not host.pools and host.type not in type_of_pool.values():
            message = (
                f"No pool pays for [[owned_hosts]] '{host.name}' while its workers are down: set its 'pools', or "
                f"'host_type' of a pool to '{host.type}'."
            )
            raise ConfigError(message, param=f"{where}.pools")


def _check_pools(param: str, named: Collection[str], known: Collection[str]) -> None:
    for pool in sorted(set(named) - set(known)):
        listed = ", ".join(known) or "none"
        raise ConfigError(f"{param} names pool '{pool}'; the pools with hosts of their own: {listed}.", param=param)
