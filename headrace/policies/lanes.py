"""How the lanes of a pool share its takes: one rule for workers, which follow it, and forecasts, which reckon with it.

Of every 16 takes with work in all lanes, 10 go to `high`, 4 to `normal`, 1 to `low` and 1 to `batch`; the take of a
lane without work goes to the best lane that has some. A few slots stay free of the other lanes while `high` is in use
and has no job waiting. Knows no broker.
"""

import math
from collections.abc import Mapping, Sequence

from headrace.domain.queues import Lane

#: How long after a job of `high` slots are kept for the next one, so that it need not wait for an answer to end. Longer
#: than callers of such a lane pause.
HIGH_LATELY_S = 60.0
#: An engine with fewer slots keeps none: the other lanes would stand still.
SMALL_BATCH = 4


def kept_slots(max_running: int, high_share: float) -> int:
    """Slots of one engine that it keeps for `high`. Args: high_share: of them, as `PoolSettings.kv_high_share`."""
    if max_running < SMALL_BATCH:
        return 0
    return min(math.ceil(max_running * high_share), max_running - 1)


def kept_share(max_running: int, high_share: float) -> float:
    """Likewise, as a share of its slots."""
    return kept_slots(max_running, high_share) / max_running


def schedule(takes: Mapping[Lane, int]) -> tuple[Lane, ...]:
    """One round of takes, each lane's spread evenly over it: smooth weighted round robin, as in nginx.

    Args:
        takes: of each lane, in one round.
    """
    total = sum(takes.values())
    credit = dict.fromkeys(takes, 0)
    order = []
    for _ in range(total):
        for lane, weight in takes.items():
            credit[lane] += weight
        chosen = max(credit, key=lambda lane: (credit[lane], -lane.priority))
        credit[chosen] -= total
        order.append(chosen)
    return tuple(order)


def preference(turn: Lane, lanes: Sequence[Lane]) -> list[Lane]:
    """Where to look for a job at a lane's turn: in that lane, then in the others, best first."""
    return sorted(lanes, key=lambda lane: (lane is not turn, lane.priority))
