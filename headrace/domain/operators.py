"""Operators: their accounts and rights, the words of the audit log, and times as operators type them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from uuid import UUID


class Right(StrEnum):
    """What an operator may do beyond looking at the pages.

    ACT: retry and cancel jobs, send webhooks again, drain hosts and call them back. MANAGE: change the
    limits and budgets of apps, and revoke keys. TEXTS: read prompts, answers, and the whole URLs of webhooks, which may
    contain secrets.
    """

    ACT = "act"
    MANAGE = "manage"
    TEXTS = "texts"


class Role(StrEnum):
    """A set of rights."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"

    @property
    def rights(self) -> frozenset[Right]:
        return _RIGHTS[self]


_RIGHTS: Mapping[Role, frozenset[Right]] = MappingProxyType(
    {
        Role.VIEWER: frozenset(),
        Role.OPERATOR: frozenset({Right.ACT}),
        Role.ADMIN: frozenset(Right),
    }
)


@dataclass(frozen=True, slots=True)
class Operator:
    """An operator's account.

    Attributes:
        password_hash: see `headrace.policies.passwords`.
    """

    id: UUID
    name: str
    role: Role
    password_hash: str
    created_at: datetime

    def may(self, right: Right) -> bool:
        return right in self.role.rights


class Source(StrEnum):
    """Where an operator acted, and so how sure the actor's name is.

    PAGES: at /ops, after a login with the account's password. CLI: in a terminal that can reach the database; the name
    is that of the operating system's user and host. CELERY: by Flower or `celery control`, which give no name.
    """

    PAGES = "pages"
    CLI = "cli"
    CELERY = "celery"


@dataclass(frozen=True, slots=True)
class Actor:
    name: str
    source: Source


class OperatorAction(StrEnum):
    """What an operator did: the kind of the subject, and a verb. A plugin has its own in `Plugin.actions`."""

    APP_CREATE = "app.create"
    APP_LIMIT = "app.limit"
    APP_RELEASE = "app.release"
    APP_READ_SECRET = "app.read_secret"
    APP_ROTATE_SECRET = "app.rotate_secret"
    KEY_CREATE = "key.create"
    KEY_ROTATE = "key.rotate"
    KEY_EXPIRE = "key.expire"
    KEY_REVOKE = "key.revoke"
    BUDGETS_SET = "budgets.set"
    BUDGETS_UNSET = "budgets.unset"
    PRICES_TAKE = "prices.take"
    JOB_RETRY = "job.retry"
    JOB_CANCEL = "job.cancel"
    JOB_READ_TEXTS = "job.read_texts"
    DELIVERY_RETRY = "delivery.retry"
    RECEIVER_PAUSE = "receiver.pause"
    RECEIVER_RESUME = "receiver.resume"
    HOST_DRAIN = "host.drain"
    HOST_RESUME = "host.resume"
    OPERATOR_CREATE = "operator.create"
    OPERATOR_PASSWORD = "operator.password"
    OPERATOR_ROLE = "operator.role"
    OPERATOR_DELETE = "operator.delete"
    OPERATOR_LOG_IN = "operator.log_in"
    ANALYST_ALLOW = "analyst.allow"


_AGE = re.compile("([0-9]{1,7})([smhd])")
_AGE_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
#: The earliest time that a job's id can hold.
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def read_time(text: str, now: datetime) -> datetime:
    """The time of an age such as `2h`, or of a date with a time, in UTC unless it has an offset. Raises: ValueError."""
    at: datetime | None
    try:
        if age := _AGE.fullmatch(text):
            at = now - timedelta(**{_AGE_UNITS[age[2]]: int(age[1])})
        else:
            at = datetime.fromisoformat(text)
            at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):
        at = None
    if at is None or at < _EPOCH:
        raise ValueError(f"'{text[:40]}' is neither an age, such as 2h or 7d, nor a time like 2026-03-01T08:00.")
    return at
