"""Takes a mechanism away, for a counter-proof: `SOAK_OFF` names it, and this folder is on PYTHONPATH, and nowhere else.

Python runs this at its start. `fence`: what a worker writes holds, even if another has the job, so an end is written
over another. `followers`: neither the sweep nor a reader finds the jobs whose leader has ended.
"""

import os

if os.environ.get("SOAK_OFF") == "fence":  # noqa: TID251 - no setting: the product knows nothing of it.
    from uuid import UUID

    from headrace.store import sql

    text_of = sql.text_of

    def unfenced(name: str, month: tuple[UUID, UUID] | None = None) -> str:
        """The statement; that of an end without the conditions on the job's state and claim."""
        text = text_of(name, month)
        if name == "finish":
            head, _, tail = text.partition("AND jobs.state || '' = 'running'")
            text = head + tail[tail.index("RETURNING") :]
        return text

    sql.text_of = unfenced

if os.environ.get("SOAK_OFF") == "followers":  # noqa: TID251 - as above.
    from typing import Any

    from headrace.store.cache import exact_cache

    def none(db: Any, *conditions: Any) -> list[Any]:
        """No follower."""
        return []

    exact_cache.of_ended_leaders = none
