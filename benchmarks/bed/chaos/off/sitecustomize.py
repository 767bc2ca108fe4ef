"""Takes the fence away, for a counter-proof: `SOAK_OFF=fence` and this folder on PYTHONPATH, and nowhere else.

Python runs this at its start. What a worker writes then holds whoever has the job: an end is written over another.
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
    ends = {target: statements.Statement.of(statements._finish(target)) for target in statements.FINISH}
    statements.FINISH.update(ends)
