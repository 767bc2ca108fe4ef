"""Where a job may go, and why. Other packages import queues and goals from here; `rules` is for the model `auto`."""

from dataclasses import dataclass

from headrace.policies.routing.queues import Conditions, Pressure, candidates, route_of, spill_reason

__all__ = ["Conditions", "LatencyGoal", "Pressure", "candidates", "route_of", "spill_reason"]

#: The share of a goal that the expected latency may take: expectations are means, and the goal is for nearly all
#: callers.
PLANNED_SHARE = 0.8


@dataclass(frozen=True, slots=True)
class LatencyGoal:
    """A pool's goal for one job whose caller waits or streams.

    Attributes:
        pool: its name.
        goal_s: seconds from the job's acceptance to the end of its answer.
        run_s: how long the job will likely run; None while the pool has ended no job lately, which leaves all that is
            planned for the wait.
    """

    pool: str
    goal_s: float
    run_s: float | None = None

    @property
    def planned_s(self) -> float:
        """What the expected latency may be."""
        return self.goal_s * PLANNED_SHARE

    @property
    def start_within_s(self) -> float:
        """Seconds within which the job must start; 0 if it is too late already."""
        return max(0.0, self.planned_s - (self.run_s or 0.0))

    @property
    def miss_reason(self) -> str | None:
        """Why the pool misses its goal even if the job starts at once; None if it does not."""
        if self.run_s is None or self.run_s < self.planned_s:
            return None
        return (
            f"latency goal: the answer would take about {self.run_s:.1f} s, and pool '{self.pool}' accepts up to "
            f"{self.planned_s:.3g} s, {PLANNED_SHARE:.0%} of its goal of {self.goal_s:.3g} s"
        )
