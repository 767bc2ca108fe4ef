"""How the lanes of a pool share its takes: one rule that workers follow and forecasts assume.

While all lanes have work, 10 of every 16 takes go to `high`, 4 to `normal`, 1 to `low` and 1 to `batch`. The take of a
lane without work goes to the best lane that has work. While `high` is in use and none of its jobs waits, a few slots
are kept for it. Knows no broker.
"""

import math
from collections.abc import Mapping, Sequence

from headrace.domain.queues import Lane

#: How long slots are kept for `high` after its last job, so that its next job need not wait until an answer ends.
#: Longer than the callers of this lane pause.
HIGH_LATELY_S = 60.0
#: An engine with fewer slots keeps none for `high`: the other lanes would starve.
SMALL_BATCH = 4


def kept_slots(max_running: int, high_share: float) -> int:
    """Slots that one engine keeps for `high`. Args: high_share: a share of all slots, `PoolSettings.kv_high_share`."""
    if max_running < SMALL_BATCH:
        return 0
    return min(math.ceil(max_running * high_share), max_running - 1)


def kept_share(max_running: int, high_share: float) -> float:
    """`kept_slots` as a share of the engine's slots."""
    return kept_slots(max_running, high_share) / max_running


def schedule(takes: Mapping[Lane, int]) -> tuple[Lane, ...]:
    """One round of these takes of each lane, spread evenly: smooth weighted round robin, as in nginx."""
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
    """The order of lanes in which to look for a job at a lane's turn: that lane, then the others, best first."""
    return sorted(lanes, key=lambda lane: (lane is not turn, lane.priority))
