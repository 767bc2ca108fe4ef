"""Outages: a server or provider that Headrace depends on does not answer."""

from headrace.errors.base import HeadraceError


class Unavailable(HeadraceError):
    """A part of Headrace is down; nothing was lost."""

    code = "unavailable"
    retryable = True


class StoreUnavailable(Unavailable):
    """Postgres does not answer."""

    code = "store_unavailable"


class StoreBusy(StoreUnavailable):
    """Postgres answers, but a row that this statement needs stayed locked, or the statement took too long.

    The same statement about other rows may succeed.
    """


class LockHeld(HeadraceError):
    """Another process does the same work at this moment: this one has nothing to do."""

    code = "lock_held"


class BrokerUnavailable(Unavailable):
    """Redis does not answer."""

    code = "broker_unavailable"


class OverflowUnavailable(Unavailable):
    """The paid API does not let us in just now."""

    code = "overflow_unavailable"


class ActuatorUnavailable(Unavailable):
    """What starts and ends hosts did not do what it was asked to, or not all of it. The call is repeated later."""

    code = "actuator_unavailable"
