"""How many hosts a load needs (square-root staffing), and how many of them pay.

Halfin and Whitt, "Heavy-traffic limits for queues with many exponential servers" (Operations Research 29, 1981): of
R busy servers on average, R + beta x sqrt(R) servers keep the share of arrivals that wait constant at any scale. Here a
server is a slot: one of the jobs that a host runs at once.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from headrace.config import ScalingSettings
from headrace.domain.scaling import PoolHosts


def hosts_for(tokens_per_s: float, hosts: PoolHosts, beta: float, upper_tokens_per_s: float | None = None) -> float:
    """The hosts that a load needs, not rounded. `hosts.tokens_per_s` must be known.

    Two margins cover what is uncertain: the chance in the arrivals, and the error of the forecast. They are
    independent, so their squares add up, as variances do. Without known slots the first margin is left out.

    Args: upper_tokens_per_s: the load up to which hosts are to suffice; by default the expected one.
    """
    assert hosts.tokens_per_s is not None
    needed = max(tokens_per_s, 0.0) / hosts.tokens_per_s
    error = 0.0 if upper_tokens_per_s is None else max(upper_tokens_per_s, 0.0) / hosts.tokens_per_s - needed
    chance = beta * math.sqrt(needed / hosts.slots_per_host) if hosts.slots_per_host else 0.0
    return needed + (math.hypot(error, chance) if error > 0 else error + chance)


# What hosts are worth: the price of a host against the price of the jobs that it serves.
#
# A host too many costs its price. A missing host costs what its jobs cost elsewhere: their price at the paid API, or
# that of a refusal. The cheapest number of hosts covers the demand up to a quantile, the newsvendor's critical ratio:
# 1 - price of a host / value of what a busy host serves (Arrow, Harris and Marschak, "Optimal Inventory Policy",
# Econometrica 19, 1951).

#: However cheap a host is, it must be used for the rest of the time.
MOST_QUANTILE = 0.9
#: How long a host lasts, in windows: its start, in which it serves nothing, is paid for in that time.
LIFE_WINDOWS = 6.0
#: How finely a forecast's errors are looked at, to weigh how often one more host would be used.
QUANTILES = 20
#: The share of the paid API's limit that is counted on.
SPILL_SHARE = 0.8


@dataclass(frozen=True, slots=True)
class Worth:
    """Up to which quantile of the demand hosts pay.

    Attributes:
        spilling: of demand that the paid API would take otherwise; None if it takes none.
        refusing: of demand that would be refused otherwise.
        spill_tokens_per_s: demand that the paid API can be counted on to take; None: all.

    A quantile of 0 or less: no host pays.
    """

    spilling: float | None
    refusing: float
    spill_tokens_per_s: float | None = None

    @classmethod
    def of(cls, job_tokens: float, hosts: PoolHosts, policy: ScalingSettings) -> Self:
        """What hosts are worth now. If the price of a host is unknown, prices do not matter.

        Args: job_tokens: the tokens of a mean job; 0 if unknown.
        """
        if hosts.usd_per_hour is None or not job_tokens or not hosts.tokens_per_s:
            return cls(None, MOST_QUANTILE)
        price_usd = hosts.usd_per_hour * (1 + hosts.provision_s / (LIFE_WINDOWS * policy.window_s))
        jobs_per_hour = 3600 * hosts.tokens_per_s / job_tokens
        refusal_usd = float(policy.refused_job_usd)
        if hosts.spill_usd is None:
            return cls(None, _critical(price_usd, jobs_per_hour * refusal_usd))
        limit = hosts.spill_tokens_per_s
        return cls(
            _critical(price_usd, jobs_per_hour * hosts.spill_usd),
            _critical(price_usd, jobs_per_hour * max(refusal_usd, hosts.spill_usd)),
            None if limit is None else SPILL_SHARE * limit,
        )

    @property
    def hosts_pay(self) -> bool:
        """Whether a host is worth its price for any demand, the part that the paid API would take included."""
        return (self.refusing if self.spilling is None else self.spilling) > 0

    def hosts_for(self, rate: float, upper: Callable[[float], float], hosts: PoolHosts, beta: float) -> float:
        """The hosts that pay, not rounded.

        Args: upper: the tokens per second that are not exceeded with a given probability.
        """
        needed = 0.0
        if self.spilling is not None:
            if self.spilling > 0:
                needed = hosts_for(rate, hosts, beta, _covered(upper, 1 - self.spilling, hosts))
            if self.spill_tokens_per_s is None:
                return needed
        if self.refusing > 0:
            spilt = self.spill_tokens_per_s or 0.0
            needed = max(
                needed, hosts_for(rate - spilt, hosts, beta, _covered(upper, 1 - self.refusing, hosts) - spilt)
            )
        return needed


def _critical(price_usd: float, value_usd: float) -> float:
    """The critical ratio, both figures per hour."""
    return min(1 - price_usd / value_usd, MOST_QUANTILE) if value_usd > 0 else 0.0


def _covered(upper: Callable[[float], float], least_use: float, hosts: PoolHosts) -> float:
    """The load up to which hosts pay: one more host would be used less than `least_use` of the time.

    Of each possible outcome, a host beyond x is used for the part between x and x + 1, in hosts. The use grows in
    straight lines as x falls from the largest outcome, so that x is found on the way.
    """
    host_rate = hosts.tokens_per_s or 1.0
    outcomes = [upper((step + 0.5) / QUANTILES) / host_rate for step in range(QUANTILES)]
    bends = [(outcome, 1) for outcome in outcomes] + [(outcome - 1, -1) for outcome in outcomes]
    used, slope, x = 0.0, 0, max(outcomes)
    for bend, change in sorted(bends, reverse=True):
        rest = least_use * QUANTILES - used
        if slope * (x - bend) >= rest:
            return max(x - rest / slope, 0.0) * host_rate if slope else x * host_rate
        used, slope, x = used + slope * (x - bend), slope + change, bend
    return max(x, 0.0) * host_rate
