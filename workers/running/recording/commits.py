"""Commits under way: of claims, whose jobs compute meanwhile, and of ends, whose jobs' threads have gone on.

Nothing of a job leaves the worker before the commit.
"""

import logging
import threading
from collections.abc import Callable
from typing import NamedTuple

from headrace.domain.attempts import Claim
from headrace.errors import StoreUnavailable

log = logging.getLogger(__name__)

#: Is told whether the claim, or the end, is on disk.
Act = Callable[[bool], object]


class Commit:
    """The commit of one transaction, under way or over. Safe for many threads."""

    def __init__(self) -> None:
        """A commit under way, which must end by `succeed` or `fail`."""
        self._lock, self._released = threading.Lock(), threading.Event()
        self._is_over, self._acts = False, list[Act]()
        self._error: BaseException | None = None

    @classmethod
    def done(cls) -> "Commit":
        """A commit that is over."""
        commit = cls()
        commit.succeed()
        return commit

    def succeed(self) -> None:
        """What was written is on disk."""
        self._end(None)

    def fail(self, error: BaseException) -> None:
        """What was written is not on disk, or it is unknown whether it is."""
        self._end(error)

    def then(self, act: Act) -> None:
        """Call `act` once the commit is over, from the thread that ends it; at once if it is over. Must not block."""
        with self._lock:
            if not self._is_over:
                self._acts.append(act)
                return
        act(self._error is None)

    def wait(self) -> None:
        """Wait until the commit is over, and what was to be called then. Postgres's time-outs bound it.

        Raises: StoreUnavailable: the commit has failed.
        """
        self._released.wait()
        if self._error is not None:
            raise StoreUnavailable(f"The claim was not committed: {self._error}") from self._error

    def _end(self, error: BaseException | None) -> None:
        with self._lock:
            self._error, self._is_over = error, True
            acts, self._acts = self._acts, []
        for act in acts:
            try:
                act(error is None)
            except Exception:
                # The other jobs of this commit must hear of it.
                log.exception("commit_fault")
        self._released.set()


#: Of a claim that was on disk when Postgres answered.
ON_DISK = Commit.done()


class Claimed(NamedTuple):
    """A claim, and the commit that puts it on disk."""

    claim: Claim
    commit: Commit
