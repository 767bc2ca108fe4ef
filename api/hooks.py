"""What a plugin brings to the web process: its `web.py` has `make(core: WebCore) -> WebPart`."""

from collections.abc import Callable
from dataclasses import dataclass

from flask import Blueprint
from pydantic import BaseModel
from redis import Redis

from api.door.drafts import BeforeBid
from headrace.broker.admission import Admission
from headrace.config import Settings
from headrace.store import Store


@dataclass(frozen=True, slots=True)
class WebCore:
    """What plugins may use from the start; views find the rest by `api.calls.parts`."""

    settings: Settings
    store: Store
    redis: Redis
    admission: Admission


@dataclass(frozen=True, slots=True)
class Webhook:
    """An event that an app may get. Attributes: data: the content of its `data`."""

    event: str
    about: str
    data: type[BaseModel]


@dataclass(frozen=True, slots=True, kw_only=True)
class WebPart:
    """A plugin's part of the web process. A plugin that keeps more makes a class of its own from this one.

    Attributes:
        blueprints: its routes, which the reference shows after the core's.
        webhooks: the events that it sends to apps.
        before_bid: see `api.door.drafts.BeforeBid`.
        close: called at the end of the process.
    """

    blueprints: tuple[Blueprint, ...] = ()
    webhooks: tuple[Webhook, ...] = ()
    before_bid: BeforeBid | None = None
    close: Callable[[], object] | None = None
