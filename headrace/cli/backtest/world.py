"""The world of a backtest: what a host does and costs, what the paid API takes and costs, and who is turned away."""

from dataclasses import dataclass

#: A token of an answer is as much work as this many tokens of a prompt: about what engines need and providers charge.
OUTPUT_WEIGHT = 4.0
#: How often the pool is observed and a policy decides, in seconds.
TICK_S = 30.0
#: The paid API takes so many seconds of its rate at once.
API_BURST_S = 10.0


@dataclass(frozen=True, slots=True)
class World:
    """The terms of a backtest.

    Attributes:
        usd_per_hour: the price of a host, from its order to the end of its draining.
        slots: requests that a host runs at once. Each slot serves its share of `tokens_per_s`, however busy the others.
        tokens_per_s: the work of a saturated host: a prompt's tokens, plus `OUTPUT_WEIGHT` times the answer's.
        provision_s: the time from an order to the ready host.
        overflow_usd: the price of a request at the paid API.
        overflow_per_s: requests that the paid API takes.
        max_wait_s: a request that would wait longer is not accepted; one that did wait so long expires.
        spill_before_s: a waiting request goes to the paid API so long before it would expire, if there is room.
        min_hosts, max_hosts: the bounds of every policy.
        beta: the safety margin of square-root staffing; see `ScalingSettings.staffing_beta`.
    """

    usd_per_hour: float = 4.10
    slots: int = 20
    tokens_per_s: float = 2324.4
    provision_s: float = 300.0
    overflow_usd: float = 0.015
    overflow_per_s: float = 2.4
    max_wait_s: float = 30.0
    spill_before_s: float = 5.0
    min_hosts: int = 2
    max_hosts: int = 20
    beta: float = 0.5

    @property
    def slot_tokens_per_s(self) -> float:
        """The work of one busy slot."""
        return self.tokens_per_s / self.slots
