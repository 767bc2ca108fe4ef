"""Takes the fence away, for a counter-proof: `SOAK_OFF=fence` and this folder on PYTHONPATH, and nowhere else.

Python runs this at its start. What a worker writes then holds whoever has the job: an end is written over another.
"""

import os

if os.environ.get("SOAK_OFF") == "fence":  # noqa: TID251 - no setting: the product knows nothing of it.
    import sqlalchemy as sa

    from headrace import jobs as _jobs
    from headrace.store import attempt_statements as _statements
    from headrace.store import transitions as _transitions
    from headrace.tables import jobs

    _transitions.check_transition = lambda source, target: None
    _statements._HELD = (jobs.c.id == sa.bindparam("given_job_id", type_=jobs.c.id.type),)
    _moving = _statements.moving

    def _from_any(sources: object, target: object, *conditions: object, **values: object) -> object:
        return _moving(list(_jobs.JobState), target, *conditions, **values)

    _statements.moving = _from_any
    # In place: others have taken it over by now.
    _statements.FINISH.update({target: _statements._finish(target) for target in _statements.FINISH})
