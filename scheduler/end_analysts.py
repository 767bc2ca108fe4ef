"""The sweep of the analysts' sessions: what lasts too long is ended, whatever limits the session has set itself."""

import logging

from headrace.store import analyst
from scheduler.deps import ControlDeps

log = logging.getLogger(__name__)


class AnalystsEnder:
    """Ends sessions of the roles that `headrace analyst` made."""

    def __init__(self, deps: ControlDeps) -> None:
        self._deps = deps
        self._told: frozenset[str] = frozenset()

    def __call__(self) -> int:
        """End the sessions that `analyst.end_sessions` finds. Two processes may do so at once.

        Bound: one sweep after the limit.
        Returns: sessions that were ended.
        Raises: StoreUnavailable.
        """
        with self._deps.store.begin() as db:
            ended = analyst.end_sessions(db)
            beyond = frozenset(analyst.out_of_reach(db))
        for row in ended:
            facts = {"role": row.role, "pid": row.pid, "transaction_s": row.seconds and round(float(row.seconds), 1)}
            log.warning("analyst_ended", extra=facts)
        for role in sorted(beyond - self._told):
            log.warning("analyst_out_of_reach", extra={"role": role, "remedy": "run 'headrace analyst' again"})
        self._told = beyond
        return len(ended)
