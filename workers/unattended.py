"""The end of an ordered host when no control process is left to end it: it would be billed for as long as nobody looks.

Off without the operator's program. It looks at what Postgres knows, so that it works whatever becomes of Redis.
"""

import logging
import os
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

from headrace.config import Settings
from headrace.errors import LockHeld, StoreUnavailable
from headrace.store import Store, clock, locks
from headrace.store.fleet import decisions, hosts

log = logging.getLogger(__name__)

#: Seconds between two looks.
LOOK_EVERY_S = 10.0
#: Seconds that `end` waits for a look.
END_TIMEOUT_S = 5.0


@dataclass(slots=True)
class Unattended:
    """Looks after one worker's host until `end`.

    Attributes:
        leave: ends this process without an error.
        unseen_s: how long no control process has shown itself; None while that is unknown.
    """

    settings: Settings
    store: Store
    pool: str
    leave: Callable[[], object]
    unseen_s: float | None = None
    _ended: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def begin(self) -> None:
        """Start looking."""
        self._thread = threading.Thread(target=self._look_until_ended, name="unattended", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Stop looking. Does nothing before `begin`."""
        self._ended.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(END_TIMEOUT_S)

    def _look_until_ended(self) -> None:
        while not self._ended.wait(LOOK_EVERY_S):
            try:
                self.look()
            except (StoreUnavailable, LockHeld) as error:
                log.warning("control_not_looked_for", extra={"pool": self.pool, "error": str(error)})
            except Exception:
                # A fault here must not end the thread: the host would stay.
                log.exception("control_watch_fault", extra={"pool": self.pool})

    def look(self) -> None:
        """Note how long no control process was seen; drain the host, or end it, if that is too long.

        Raises: StoreUnavailable. LockHeld: another host of the pool leaves just now.
        """
        scaling, name = self.settings.scaling.of_pool(self.pool), self.settings.host_id
        after = timedelta(seconds=scaling.unattended.after_s)
        with self.store.begin() as db:
            seen_at = decisions.control_seen_at(db)
            unseen = None if seen_at is None else clock.now(db) - seen_at
            self.unseen_s = None if unseen is None else unseen.total_seconds()
            if scaling.mode != "active" or not scaling.unattended.argv or unseen is None or unseen < after:
                return
            # One host at a time, so that no two leave where one may.
            locks.take(db, f"leave.{self.pool}")
            is_leaving = hosts.leave_unattended(db, self.pool, name, scaling.min_hosts, after)
            ends = hosts.ends_unattended(db, self.pool, name)
        if is_leaving:
            log.warning("host_leaves_unattended", extra={"pool": self.pool, "host": name, "unseen_s": self.unseen_s})
        elif ends and self._end_machine():
            self.leave()

    def _end_machine(self) -> bool:
        """Run the operator's program. Returns: whether it went well; if not, the next look runs it again."""
        unattended, began = self.settings.scaling.unattended, time.monotonic()
        about = {"HEADRACE_HOST_ID": self.settings.host_id, "HEADRACE_POOL": self.pool}
        # The program gets the environment as it is, as an actuator's does.
        env = {**os.environ, **about}  # noqa: TID251
        try:
            ended = subprocess.run(
                unattended.argv, env=env, timeout=unattended.timeout_s, capture_output=True, text=True, errors="replace"
            )
            error = "" if ended.returncode == 0 else f"status {ended.returncode}: {ended.stderr[-300:]}"
        except (OSError, subprocess.TimeoutExpired) as failed:
            error = str(failed)
        facts = {"host": self.settings.host_id, "seconds": round(time.monotonic() - began, 1), "error": error}
        log.log(logging.ERROR if error else logging.WARNING, "unattended_host_ended", extra=facts)
        return not error
