"""Deliveries: webhooks that are due, and how many tries a worker may run at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

#: Before every app and receiver.
START = (UUID(int=0), "")


@dataclass(frozen=True, slots=True)
class Delivery:
    """One try at telling a receiver of something.

    Attributes:
        app_id: whose webhook it is; None for the operator's.
        receiver: the host, and the port if the URL names one.
        secrets: each signs it: the app's own, and the one before while that still holds; none for the operator's.
        tries: counts this one.
        tries_before: of these, those before an operator's last retry: the schedule does not count them.
        data: what has happened, and `at` when.
    """

    id: UUID
    app_id: UUID | None
    event: str
    url: str
    receiver: str
    secrets: tuple[str, ...]
    tries: int
    tries_before: int
    data: Mapping[str, Any]
    at: datetime


@dataclass(frozen=True, slots=True)
class Terms:
    """What a worker may pull.

    Attributes:
        most: tries in all.
        per_app, per_receiver: tries that may run at once, with those that do.
        of_app, of_receiver: tries that run.
        max_tries: a delivery that has begun so many is given up instead.
        lease_s: a try that is not reported within this is begun again.
        after: the app and receiver where the last pull ended.
    """

    most: int
    per_app: int
    per_receiver: int
    max_tries: int
    lease_s: float
    of_app: Mapping[UUID | None, int] = field(default_factory=dict)
    of_receiver: Mapping[str, int] = field(default_factory=dict)
    after: tuple[UUID, str] = START


@dataclass(frozen=True, slots=True)
class GivenUp:
    """A delivery that has failed without a try: its last one was never reported, or its receiver is gone."""

    id: UUID
    receiver: str
    tries: int
    error: str


@dataclass(frozen=True, slots=True)
class Pulled:
    """What one pull brought.

    Attributes:
        given_up: deliveries that have failed without a try.
        is_all: False when more may be due that could go now. A scan of all receivers may take several pulls; it ends
            with True once it has found nothing.
        after: where the next pull goes on.
    """

    deliveries: Sequence[Delivery] = ()
    given_up: Sequence["GivenUp"] = ()
    is_all: bool = True
    after: tuple[UUID, str] = START
