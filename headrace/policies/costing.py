"""What a request on own hosts really cost: its price, and its share of the hours that hosts were paid for and not used.

Standard costing with an idle variance: the price of a request does not depend on who else was served in that hour, and
the rest of the hosts' bill is shared by work. OpenCost allocates idle machines likewise.
"""

from dataclasses import dataclass
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal, localcontext

from headrace.config import CostSettings, Price

#: The ledger's amounts have so many decimals, and the rates more, so that no request's share is rounded up.
USD_DIGITS = Decimal(1).scaleb(-9)
RATE_DIGITS = Decimal(1).scaleb(-18)
#: A new price that differs by less from the present one is not worth a row.
CHANGE = Decimal("0.05")
#: Digits that any bill, divided by any amount of work, needs.
PRECISION = 60


@dataclass(frozen=True, slots=True)
class HourRates:
    """How the bill of one pool's hosts for one hour is shared by the requests that ended in it.

    Attributes:
        factor: of each request's price, the part that the bill covers. Below 1 only where the prices add up to more
            than the bill: then nothing was idle, and each request costs less than its price.
        idle_usd_per_work: for each unit of work, the share of the part of the bill that no price covers.
    """

    factor: Decimal
    idle_usd_per_work: Decimal

    @classmethod
    def of(cls, bill_usd: Decimal, priced_usd: Decimal, work: Decimal) -> "HourRates":
        """The rates of an hour.

        Both are rounded down, so that the shares never exceed the bill. What is left is the platform's.

        Args:
            bill_usd: the bill of the pool's hosts.
            priced_usd: the prices of the hour's requests, and of the attempts that were wasted.
            work: of the requests.
        """
        with localcontext(prec=PRECISION, rounding=ROUND_DOWN):
            if priced_usd > bill_usd:
                return cls((bill_usd / priced_usd).quantize(RATE_DIGITS), Decimal(0))
            idle = ((bill_usd - priced_usd) / work).quantize(RATE_DIGITS) if work > 0 else Decimal(0)
            return cls(Decimal(1), idle)

    def share(self, usd: Decimal, work: Decimal = Decimal(0)) -> Decimal:
        """What a request of this price and this work costs in full. Postgres's `full_usd` computes the same."""
        with localcontext(prec=PRECISION, rounding=ROUND_DOWN):
            return (usd * self.factor).quantize(USD_DIGITS) + (work * self.idle_usd_per_work).quantize(USD_DIGITS)


@dataclass(frozen=True, slots=True)
class TokenPrices:
    """What tokens cost on a saturated host, in USD per million: the marginal cost of a request."""

    input_usd_per_mtok: Decimal
    cached_input_usd_per_mtok: Decimal
    output_usd_per_mtok: Decimal

    @classmethod
    def of(cls, usd_per_hour: Decimal, work_per_s: float, costs: CostSettings) -> "TokenPrices":
        """The prices at which the requests of a saturated host pay for exactly the host.

        Args: work_per_s: of one host; see `CostSettings` for what work is. Above 0.
        """
        with localcontext(prec=PRECISION, rounding=ROUND_HALF_UP):
            unit = usd_per_hour / 3600 / Decimal(work_per_s) * 1_000_000
            return cls(
                input_usd_per_mtok=unit.quantize(USD_DIGITS),
                cached_input_usd_per_mtok=(costs.cached_weight * unit).quantize(USD_DIGITS),
                output_usd_per_mtok=(costs.output_weight * unit).quantize(USD_DIGITS),
            )

    def differ_from(self, other: Price) -> bool:
        """Whether any of these differs by more than `CHANGE` of the other's."""
        pairs = ((getattr(self, name), getattr(other, name)) for name in self.__dataclass_fields__)
        return any(abs(mine - theirs) > CHANGE * theirs for mine, theirs in pairs)
