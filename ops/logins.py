"""The use case of a login: compares a password, and limits the guesses. Knows no HTTP."""

import ipaddress
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

from headrace.domain.operators import Actor, Operator, Source
from headrace.errors import Refused
from headrace.policies import passwords
from headrace.store import Store, actions, operators
from headrace.store.audit import acting

log = logging.getLogger(__name__)

#: Logins that wait for their turn or have it, of one address and in all. Each holds a thread.
WAITING_PER_ADDRESS, WAITING = 2, 16
#: Factors of the processor time of a comparison: after a wrong password its place stays taken for the first, and the
#: next comparison waits for the second. So guesses from one address get a quarter of one CPU, and those of all get half
#: of one: a comparison takes 32 MiB and a CPU for 0.2 s, which other processes of the host need.
ADDRESS_REST, REST = 6, 1
RETRY_AFTER_S = 2


class LoginsFull(Refused):
    """As many logins wait as may, of this address or of all."""

    code = "logins_full"


class TooManyLogins(Exception):
    """Too many logins with this name have failed lately."""


class Logins:
    """Logs operators in: one comparison at a time, in the order in which they came. Safe to share between threads."""

    def __init__(self, store: Store, pause: Callable[[float], None] = time.sleep) -> None:
        self._store, self._pause = store, pause
        self._turns = ThreadPoolExecutor(1, thread_name_prefix="login")
        self._lock = threading.Lock()
        self._waiting: Counter[str] = Counter()

    def close(self) -> None:
        """Begin no further comparison."""
        self._turns.shutdown(wait=False, cancel_futures=True)

    def check(self, name: str, password: str, address: str | None) -> Operator | None:
        """The operator with this name and password; None if either is wrong.

        An unknown name takes as long as a wrong password, and is limited like it, so that neither reveals which names
        exist.

        Args: address: of the client; None where it is unknown.
        Bound: `WAITING` comparisons and their rests, and after a wrong password the address's.
        Raises: LoginsFull: at once. TooManyLogins. StoreUnavailable.
        """
        network = _network(address)
        with self._lock:
            if self._waiting[network] >= WAITING_PER_ADDRESS:
                raise _full("Other logins from this address are under way.", "address_logins")
            if self._waiting.total() >= WAITING:
                raise _full("Many log in at this moment.", "logins")
            turn = self._turns.submit(self._check, name, password)
            self._waiting[network] += 1
        try:
            operator, took_s = turn.result()
            if operator is None:
                self._pause(ADDRESS_REST * took_s)
            return operator
        finally:
            with self._lock:
                self._waiting[network] -= 1
                if not self._waiting[network]:
                    del self._waiting[network]

    def _check(self, name: str, password: str) -> tuple[Operator | None, float]:
        """The operator, and the processor time of the comparison."""
        with self._store.begin() as db:
            is_allowed = operators.count_try(db, name)
            operator = operators.named(db, name)
        if not is_allowed:
            raise TooManyLogins
        stored = self._nobody if operator is None else operator.password_hash
        # Not the time on the clock, which is longer on a busy host.
        began = time.thread_time()
        is_right = passwords.matches(password, stored)
        took_s = time.thread_time() - began
        if not is_right or operator is None:
            log.warning("login_failed", extra={"is_known": operator is not None})
            self._pause(REST * took_s)
            return None, took_s
        with acting(self._store, Actor(operator.name, Source.PAGES)) as audit:
            actions.log_in(audit, operator)
        return operator, took_s

    @cached_property
    def _nobody(self) -> str:
        """The hash of a random password, for names without an account."""
        return passwords.hashed(passwords.random_password())


def _full(message: str, reason: str) -> LoginsFull:
    return LoginsFull(f"{message} Try again in {RETRY_AFTER_S} s.", reason=reason, retry_after_s=RETRY_AFTER_S)


def _network(address: str | None) -> str:
    """What counts as one address. Of IPv6, a client may choose the last 64 bits freely."""
    try:
        ip = ipaddress.ip_address(address or "")
    except ValueError:
        return str(address)
    if ip.version == 4 or ip.ipv4_mapped:
        return str(ip)
    return str(ipaddress.ip_network((int(ip), 64), strict=False))
