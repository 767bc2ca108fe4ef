"""Apps, the clients of the API: their limits and their API keys."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Literal, TypedDict, get_args
from uuid import UUID

from headrace.domain.queues import Lane
from headrace.domain.states import JobState

#: The prefix of every API key, so that a leaked key can be recognised.
KEY_PREFIX = "hr-"


class Scope(StrEnum):
    """What an API key may be used for."""

    SUBMIT = "submit"
    READ = "read"


@dataclass(frozen=True, slots=True)
class AppLimits:
    """The limits of one app; None where it has no limit of its own.

    Attributes:
        queued_jobs: its jobs that may wait at once, in all queues together.
        tokens_per_minute: prompt tokens plus `max_tokens` of the jobs it submits.
        day_usd, month_usd: what it may spend at the paid API in a UTC day and in a UTC month.
        calls_per_minute: its calls of a `web` process, accepted submits aside; None for the setting of that name.
    """

    queued_jobs: int | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    day_usd: Decimal | None = None
    month_usd: Decimal | None = None
    calls_per_minute: int | None = None


UNLIMITED = AppLimits()


@dataclass(frozen=True, slots=True)
class App:
    """A client of the API, as authenticated by one of its keys.

    Attributes:
        webhook_secret: signs its webhooks.
        lanes: those it may use; None for all.
        cache_s: how long its answers serve its identical jobs, in seconds; None for the pool's setting, 0 for never.
        scopes: of the key that it called with.
        max_error: the share of answers from the semantic cache that may be wrong; None for the pool's setting, 0 for no
            such answers.
    """

    id: UUID
    name: str
    webhook_secret: str
    limits: AppLimits = UNLIMITED
    lanes: frozenset[Lane] | None = None
    scopes: frozenset[Scope] = frozenset(Scope)
    cache_s: int | None = None
    max_error: float | None = None


class Changes(TypedDict, total=False):
    """New limits, lanes and caching, as in `App`. None removes a limit; an absent key changes nothing."""

    queued_jobs: int | None
    requests_per_minute: int | None
    tokens_per_minute: int | None
    day_usd: Decimal | None
    month_usd: Decimal | None
    calls_per_minute: int | None
    lanes: Iterable[Lane] | None
    cache_s: int | None
    max_error: float | None


@dataclass(frozen=True, slots=True)
class Activity:
    """What an app did in a period.

    Attributes:
        jobs: number of jobs submitted in the period, by their state now; a state without jobs is absent.
        usd: what the app was charged in the period, also for jobs that were submitted earlier.
        refused: number of jobs refused in the period, by their reason; repeats count.
    """

    jobs: Mapping[JobState, int]
    usd: Decimal
    refused: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Confinement:
    """An app's jobs of one pool run one at a time, on one worker, because its prompts killed engines there.

    Attributes:
        held: its jobs that wait for their turn.
    """

    pool: str
    since: datetime
    until: datetime
    reason: str
    held: int = 0


class KeyState(StrEnum):
    LIVE = "live"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """What may be shown of a key once it has been created.

    Attributes:
        app: its app's name.
        hint: the key's first characters.
    """

    id: UUID
    app: str
    hint: str
    scopes: frozenset[Scope]
    state: KeyState
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


#: What an app's usage can be split by, in this order.
UsageGroup = Literal["day", "model", "lane", "end_user"]
USAGE_GROUPS: tuple[UsageGroup, ...] = get_args(UsageGroup)


@dataclass(frozen=True, slots=True)
class UsageSplit:
    """What usage is split by, one group or key at least. Attributes: keys: of metadata."""

    groups: Sequence[UsageGroup]
    keys: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class AppUsage:
    """What one group of an app's requests used.

    Attributes:
        day, model, lane, end_user: of the group; None where usage is not split by it, or the requests have none.
        metadata: values of the keys by which usage is split.
        cached_tokens: part of `prompt_tokens`.
        usd: what the app is charged.
    """

    day: date | None
    model: str | None
    lane: str | None
    end_user: str | None
    metadata: Mapping[str, str | None]
    requests: int
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    usd: Decimal
