"""Takes a mechanism away, for a counter-proof: `SOAK_OFF` names it, and this folder is on PYTHONPATH, and nowhere else.

Python runs this at its start. `fence`: what a worker writes holds whoever has the job, so an end is written over
another. `followers`: neither the sweep nor a reader finds the jobs whose leader has ended.
"""

import os

if os.environ.get("SOAK_OFF") == "fence":  # noqa: TID251 - no setting: the product knows nothing of it.
    from typing import Any

    from headrace.domain.states import JobState
    from headrace.store.attempts import statements
    from headrace.store.jobs import transitions
    from headrace.tables import jobs

    moving = statements.moving

    def from_any(sources: object, target: JobState, *conditions: Any, **values: Any) -> Any:
        """The transition, from whatever state."""
        return moving(list(JobState), target, *conditions, **values)

    transitions.check_transition = lambda source, target: None
    statements.moving = from_any
    statements._held = lambda given: (jobs.c.id == given.job_id,)
    # In place: others have taken it over by now.
    ends = {target: statements.StatementByMonth.of(statements._finish(target)) for target in statements.FINISH}
    statements.FINISH.update(ends)

if os.environ.get("SOAK_OFF") == "followers":  # noqa: TID251 - as above.
    from typing import Any

    from headrace.store.jobs import followers

    def none(db: Any, *conditions: Any) -> list[Any]:
        """No follower."""
        return []

    followers.of_ended_leaders = none
