"""What operators do, and who they are: the words of the audit log."""

from dataclasses import dataclass
from enum import StrEnum


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
    """The operator who acts."""

    name: str
    source: Source


class Action(StrEnum):
    """What an operator did: the kind of the subject, and a verb."""

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
    HOST_DRAIN = "host.drain"
    HOST_RESUME = "host.resume"
    OPERATOR_CREATE = "operator.create"
    OPERATOR_PASSWORD = "operator.password"
    OPERATOR_ROLE = "operator.role"
    OPERATOR_DELETE = "operator.delete"
    OPERATOR_LOG_IN = "operator.log_in"
    ANALYST_ALLOW = "analyst.allow"
