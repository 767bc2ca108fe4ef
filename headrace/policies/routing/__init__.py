"""Where a job may go, and why. Other packages import queues and goals from here; `rules` is for the model `auto`."""

from headrace.policies.routing.latency import LatencyGoal
from headrace.policies.routing.queues import Conditions, Pressure, candidates, route_of, spill_reason

__all__ = ["Conditions", "LatencyGoal", "Pressure", "candidates", "route_of", "spill_reason"]
