"""Deliveries: webhooks that are due, and how many tries a worker may run at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

#: Sorts before every (app, receiver).
START = (UUID(int=0), "")


@dataclass(frozen=True, slots=True)
class Delivery:
    """One try to send a webhook.

    Attributes:
        app_id: the app that the webhook belongs to; None for the operator's.
        receiver: the host, and the port if the URL names one.
        secrets: each one signs it: the app's secret, and its previous one until that expires; none for the operator's.
        tries: the number of tries, this one included.
        tries_before: how many of `tries` came before an operator's last retry; the schedule ignores these.
        data: the event's content.
        at: when the event happened.
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
        most: maximum number of deliveries in this pull.
        per_app, per_receiver: tries that may run at once for each, running ones included.
        of_app, of_receiver: tries that run now.
        max_tries: a delivery with this many tries fails instead of being pulled.
        lease_s: an unreported try is started again after this time.
        after: the app and receiver at which the last pull ended.
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
    """A delivery that failed without another try: its last try was never reported, or its receiver is gone."""

    id: UUID
    receiver: str
    tries: int
    error: str


@dataclass(frozen=True, slots=True)
class Pulled:
    """The result of one pull.

    Attributes:
        given_up: deliveries that failed without another try.
        is_all: False when more deliveries may be due that could be sent now. A scan of all receivers may take several
            pulls; it returns True once it finds nothing.
        after: where the next pull starts.
    """

    deliveries: Sequence[Delivery] = ()
    given_up: Sequence["GivenUp"] = ()
    is_all: bool = True
    after: tuple[UUID, str] = START


class PausedReceiver(NamedTuple):
    """A receiver that an operator has paused for an app.

    Attributes:
        receiver: the host, and the port if the app's URLs name one.
        operator: who paused it.
        deliveries: those of the app that wait for it.
    """

    app: str
    receiver: str
    since: datetime
    operator: str | None
    deliveries: int


class FailingReceiver(NamedTuple):
    """A receiver with deliveries that have failed and wait for their next try.

    Attributes:
        app: whose they are; None for the operator's.
        origin: the scheme and the receiver of its URLs. The rest may contain a secret.
        tries: of all these deliveries.
        last_error: of one of them.
    """

    app: str | None
    origin: str
    deliveries: int
    tries: int
    last_error: str
