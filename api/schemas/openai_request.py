"""The shared part of requests to OpenAI's two APIs: the tier that chooses a lane, `job`, and unsupported parameters.

Knows neither Responses nor chat completions.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from api.schemas.fields import (
    CacheField,
    Compress,
    CompressAlso,
    CompressTo,
    Deadline,
    EndUser,
    MaxWait,
    Metadata,
    QualityField,
    Request,
    Temperature,
    TopP,
    Usd,
    WebhookUrl,
    unsupported,
)
from api.schemas.fields.extra_sampling import ExtraSamplingRequest
from api.schemas.job_request import LaneName, OverflowName
from headrace.domain.compression import CompressChoice, compress_choice
from headrace.domain.queues import Lane, Overflow

TIER_LANES: Mapping[str, Lane] = {
    "priority": Lane.HIGH,
    "fast": Lane.HIGH,
    "ultrafast": Lane.HIGH,
    "auto": Lane.NORMAL,
    "default": Lane.NORMAL,
    "scale": Lane.NORMAL,
    "flex": Lane.LOW,
}
LANE_TIERS: Mapping[Lane, str] = {Lane.HIGH: "priority", Lane.NORMAL: "default", Lane.LOW: "flex", Lane.BATCH: "flex"}


#: Items whose types an error names.
MOST_KINDS = 8
#: Parameters whose empty object switches something on, with its defaults.
ASKS_EMPTY = frozenset({"web_search_options"})


class JobOptions(Request):
    """What OpenAI has no word for; the SDK sends it with `extra_body={"job": {...}}`."""

    lane: LaneName | None = Field(None, description="Wins over service_tier.")
    max_wait: MaxWait | None = Field(None, description="Seconds within which it must start, or it expires unpaid.")
    deadline: Deadline | None = Field(None, description="Unix seconds or ISO 8601. Past it the job is aborted.")
    webhook: WebhookUrl | None = Field(None, description="Called once the job has ended, signed with the app's secret.")
    overflow: OverflowName = Field("allow", description="Whether a paid API may answer when the own GPUs are behind.")
    max_cost_usd: Usd | None = Field(None, description="A paid API is used only if it cannot cost more than this.")
    cache: CacheField = None
    compress: Compress = None
    compress_to: CompressTo = None
    compress_also: CompressAlso = None
    quality: QualityField = None

    @property
    def compression(self) -> CompressChoice:
        """What it says of compression."""
        return compress_choice(self.compress, self.compress_to, self.compress_also)


def refuse_unsupported(values: Any, remedies: Mapping[str, str]) -> Any:
    """Drop unsupported parameters that ask for nothing; refuse any other by name.

    An empty list or object, false and 0 ask for nothing. Only in `ASKS_EMPTY` does an empty object ask for something.
    """
    if not isinstance(values, dict):
        return values
    for name, remedy in remedies.items():
        if values.get(name) not in (None, [], {}, False) or (name in ASKS_EMPTY and values.get(name) == {}):
            raise unsupported(name, remedy, _kinds(values[name]))
    return {name: value for name, value in values.items() if name not in remedies}


def _kinds(given: Any) -> str:
    """The types of a list's first items, such as those of `tools`, for a message; empty where they have none."""
    items = given[:MOST_KINDS] if isinstance(given, list) else []
    kinds = {str(each["type"])[:80]: None for each in items if isinstance(each, dict) and "type" in each}
    return f" of type {', '.join(repr(kind) for kind in kinds)}" if kinds else ""


class OpenAIRequest(ExtraSamplingRequest):
    """A prompt, as OpenAI's SDK sends it.

    Attributes:
        UNSUPPORTED: parameters that OpenAI has and this service has not, with what to do instead.
        IGNORED: accepted and not acted on: every answer already is what they ask for, or they are hints.
    """

    UNSUPPORTED: ClassVar[Mapping[str, str]] = {}
    IGNORED: ClassVar[frozenset[str]] = frozenset()

    model: str | None = Field(None, description="A model of GET /v1/models; the first one by default.")
    temperature: Temperature | None = None
    top_p: TopP | None = None
    metadata: Metadata | None = Field(None, description="Up to 16 pairs of your own; returned with the answer.")
    service_tier: Literal["auto", "default", "flex", "scale", "priority", "fast", "ultrafast"] | None = Field(
        None, description="Chooses the lane: priority and fast are high, flex is low, the others are normal."
    )
    safety_identifier: EndUser | None = Field(None, description="Who caused this: costs can be split by it.")
    user: EndUser | None = Field(None, description="The older name of safety_identifier.")
    stream: bool | None = Field(None, description="Server-sent events instead of one answer.")
    job: JobOptions = Field(
        default_factory=lambda: JobOptions.model_validate({}), description="What OpenAI has no word for."
    )
    prompt_cache_key: Any = Field(None, description="Not acted on: prefixes are cached by themselves.")
    prompt_cache_retention: Any = Field(None, description="Not acted on.")

    @model_validator(mode="before")
    @classmethod
    def _refuse_unsupported(cls, values: Any) -> Any:
        return refuse_unsupported(values, cls.UNSUPPORTED)

    @property
    def lane(self) -> Lane:
        """The lane that `job.lane`, or else the tier, asks for."""
        return Lane(self.job.lane) if self.job.lane else TIER_LANES[self.service_tier or "auto"]

    @property
    def lane_param(self) -> str:
        """The field that chose the lane."""
        return "job.lane" if self.job.lane else "service_tier"

    def shared(self) -> dict[str, Any]:
        """The fields of a Draft that both APIs share."""
        return {
            "model": self.model,
            "lane": self.lane,
            "max_wait_s": self.job.max_wait,
            "deadline": self.job.deadline,
            "overflow": Overflow(self.job.overflow),
            "max_cost_usd": self.job.max_cost_usd,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "metadata": self.metadata or {},
            "webhook_url": self.job.webhook,
            "end_user": self.safety_identifier or self.user,
            "stream": bool(self.stream),
            "cache": self.job.cache,
            "extra_sampling": self.extra_sampling,
            "compress": self.job.compression,
            "quality": self.job.quality,
        }
