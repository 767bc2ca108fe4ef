"""The use case of a login: compares a password, and limits the guesses. Knows no HTTP."""

import logging
import threading
from functools import cached_property

from headrace.domain.operators.accounts import Operator
from headrace.errors import Unavailable
from headrace.policies import passwords
from headrace.store import Store, operators

log = logging.getLogger(__name__)

#: Passwords hashed at once. Each takes 32 MiB and a processor for 0.2 s, which the API's requests need too.
HASHES = 2
#: Seconds for which a login waits for its turn.
TURN_S = 5.0


class TooManyLogins(Exception):
    """Too many logins with this name have failed lately."""


class Logins:
    """Logs operators in. Safe to share between threads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._turns = threading.BoundedSemaphore(HASHES)

    def check(self, name: str, password: str) -> Operator | None:
        """The operator with this name and password; None if either is wrong.

        An unknown name takes as long as a wrong password, and is limited like it, so that neither reveals which names
        exist. Raises: TooManyLogins. Unavailable: many log in at once. StoreUnavailable.
        """
        if not self._turns.acquire(timeout=TURN_S):
            raise Unavailable("Many log in at this moment. Try again.")
        try:
            return self._check(name, password)
        finally:
            self._turns.release()

    def _check(self, name: str, password: str) -> Operator | None:
        with self._store.begin() as db:
            is_allowed = operators.count_try(db, name)
            operator = operators.named(db, name)
        if not is_allowed:
            raise TooManyLogins
        stored = self._nobody if operator is None else operator.password_hash
        if not passwords.matches(password, stored) or operator is None:
            log.warning("login_failed", extra={"is_known": operator is not None})
            return None
        with self._store.begin() as db:
            operators.forgive(db, name)
        return operator

    @cached_property
    def _nobody(self) -> str:
        """The hash of a random password, for names without an account."""
        return passwords.hashed(passwords.random_password())
