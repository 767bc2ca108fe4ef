"""Where a job may go, and why. Other packages import from here: a name may move to another module of this package."""

from headrace.policies.routing.latency import LatencyGoal
from headrace.policies.routing.queues import Conditions, Pressure, candidates, route_of, spill_reason

__all__ = ["Conditions", "LatencyGoal", "Pressure", "candidates", "route_of", "spill_reason"]
