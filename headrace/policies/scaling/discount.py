"""Which refused jobs are demand that hosts are ordered for, and what decisions say of the others. Pure.

A refusal costs its caller nothing, so that one app that asks in a loop could order every host. Two rules bound it: the
same request counts once in a minute (`api.door.refusals` recognises it), and, while others have work, an app counts for
no more than a multiple of what it was served.
"""

from collections.abc import Mapping
from uuid import UUID

from headrace.config import ScalingSettings
from headrace.domain.scaling import DemandHistory
from headrace.policies.scaling.bounds import since

#: The hour of which an app's service is the mean, in windows of the policy.
SERVED_WINDOWS = 6


def counted_shares(
    refused: Mapping[UUID, float], served: Mapping[UUID, float], seconds: float, multiple: float
) -> dict[UUID, float]:
    """By app, the share of its refused tokens that counts as demand for a pool.

    Args:
        refused: tokens of each app's jobs that the pool's queues refused within `seconds`.
        served: the tokens per second that the pool served each app with lately.
    """
    apps = refused.keys() | served.keys()
    shares = {}
    for app_id, tokens in refused.items():
        most = multiple * served.get(app_id, 0.0) * seconds
        has_company = bool(apps - {app_id})
        shares[app_id] = most / tokens if has_company and tokens > most else 1.0
    return shares


def discounted_words(history: DemandHistory, policy: ScalingSettings) -> str:
    """What of the window's refused jobs did not count, for a decision's reason; empty if all did."""
    moments = since(history, policy.window_s) if history.moments else []
    jobs = sum(moment.discounted_jobs for moment in moments)
    tokens = sum(moment.discounted_tokens for moment in moments)
    if not jobs:
        return ""
    return f"; {jobs:,} refused jobs of {tokens:,} tokens are repeats or excess, and do not count"
