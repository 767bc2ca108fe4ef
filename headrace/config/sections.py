"""The sections of `headrace.toml` beside the pools, and what all sections are made from."""

import base64
import ipaddress
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, SecretStr, field_validator

from headrace.domain.queues import Lane
from headrace.setting_types import Positive, PositiveInt, Section, Share, WithinAYear


class CorsSettings(Section):
    """Which web pages may call the API from a browser.

    Attributes:
        origins: the pages' origins, such as `https://app.example.com`; `*` for every page. By default no page may. All
            visitors of a page can read its key.
    """

    origins: tuple[Annotated[str, Field(pattern=r"^(\*|https?://[^/\s]+)$")], ...] = ()


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as error:
        raise ValueError(f"an IP address or a network such as 10.0.0.0/8, not '{text}' ({error})") from error


class OpsSettings(Section):
    """The process that serves the operators' pages.

    Attributes:
        proxies: addresses or networks of the proxies in front of it, such as `10.0.0.0/8`. Their `X-Forwarded-For`
            names the client, by whose address logins are limited. Without it, all clients of a proxy share its limits.
    """

    proxies: tuple[Annotated[str, AfterValidator(_network)], ...] = ()


class LaneSettings(Section):
    """One lane: `high`, `normal`, `low` or `batch`.

    Attributes:
        max_wait_s: the `max_wait` of a job that gives none: how long it may wait for its first start.
        interactive_max_wait_s: the same for a job whose caller waits for the answer or streams it, never more than
            `max_wait_s`; by default `max_wait_s`.
        depth_cap: jobs that wait in a queue of this lane before new ones are refused.
        backlog_cap_tokens: tokens that wait before new jobs are refused: the prompts, and the longest answers allowed.
        takes: the lane's weight. While all lanes have work, a lane gets this part of the sum of all `takes`.
    """

    max_wait_s: WithinAYear = 600.0
    interactive_max_wait_s: WithinAYear | None = None
    depth_cap: PositiveInt = 500
    backlog_cap_tokens: PositiveInt = 1_000_000
    takes: PositiveInt = 1

    def default_max_wait_s(self, *, is_interactive: bool) -> float:
        """The `max_wait` of a job that gives none. Args: is_interactive: its caller waits or streams."""
        if is_interactive and self.interactive_max_wait_s is not None:
            return min(self.interactive_max_wait_s, self.max_wait_s)
        return self.max_wait_s


class PoolLaneSettings(Section):
    """What one lane of a pool has in place of the same setting of `[lanes.NAME]`.

    Attributes:
        max_wait_s: the `max_wait` of a job that gives none.
        interactive_max_wait_s: the same for a job whose caller waits for the answer or streams it.
        depth_cap: jobs that wait in this queue before new ones are refused.
        backlog_cap_tokens: tokens that wait in this queue before new jobs are refused.
        takes: the lane's weight among the lanes of this pool.
    """

    max_wait_s: WithinAYear | None = None
    interactive_max_wait_s: WithinAYear | None = None
    depth_cap: PositiveInt | None = None
    backlog_cap_tokens: PositiveInt | None = None
    takes: PositiveInt | None = None

    def over(self, common: LaneSettings) -> LaneSettings:
        """The lane's settings in this pool. Args: common: those of `[lanes]`."""
        return common.model_copy(update={name: value for name, value in self if value is not None})


def built_in_lanes() -> dict[Lane, LaneSettings]:
    """Every lane as it is where the file says nothing."""
    return {
        Lane.HIGH: LaneSettings(interactive_max_wait_s=30, takes=10),
        Lane.NORMAL: LaneSettings(interactive_max_wait_s=30, takes=4),
        Lane.LOW: LaneSettings(max_wait_s=4 * 3600),
        Lane.BATCH: LaneSettings(max_wait_s=24 * 3600),
    }


def with_built_in(lanes: Any) -> Any:
    """Give a lane that is set in part the rest of its own defaults. Leaves what is no table to pydantic."""
    if not isinstance(lanes, Mapping):
        return lanes
    known = {str(lane): settings for lane, settings in built_in_lanes().items()}
    return {
        name: {**known[name].model_dump(), **given} if name in known and isinstance(given, Mapping) else given
        for name, given in lanes.items()
    }


class OverflowSettings(Section):
    """The paid API. It is used only when its key is set and a budget exists.

    Attributes:
        model: the paid model that answers a job that spills, unless `models` maps its own model to another.
        models: which paid model answers which of your own models.
        effort_models: the paid models that accept `reasoning_effort`; a job goes to the others without it.
        max_running: calls in flight in one overflow worker.
        timeout_s: a call is given up after the API was silent for so long.
        spill_depth: jobs in a queue and in the lanes above it, beyond those that free slots take at once, from which on
            new ones go to the paid API first. Jobs that cost less there than on another host do so earlier.
        spill_kv_use: they also do while this share of the pool's KV cache is in use and a whole batch waits.
        back_at: new jobs come back to their own queue below this share of `spill_depth` and `spill_kv_use`, so that
            the switch does not flap.
        spill_before_s: a waiting job spills so long before its `max_wait` ends, if a call is free, and never in the
            first half of its wait. 0: waiting jobs do not spill.
    """

    model: str = "gpt-4o-mini"
    models: dict[str, str] = Field(default_factory=dict)
    effort_models: frozenset[str] = frozenset()
    max_running: PositiveInt = 32
    timeout_s: Positive = 60.0
    spill_depth: PositiveInt = 200
    spill_kv_use: Share = 0.85
    back_at: Share = 0.8
    spill_before_s: Annotated[float, Field(ge=0)] = 5.0

    def paid_model(self, model: str) -> str:
        """What answers a job of `model` there."""
        return self.models.get(model, self.model)

    def has_effort(self, model: str) -> bool:
        """Whether that can be told how much to think."""
        return self.paid_model(model) in self.effort_models


class BudgetSettings(Section):
    """What all apps together may spend at the paid API. `headrace apps limit` sets the budget of one app.

    Attributes:
        day_usd: the limit of a day in UTC. A limit that `headrace budgets set` has stored wins. Without any limit
            nothing is sent to the paid API, except for apps with a budget of their own.
        month_usd: the limit of a month in UTC.
        webhook_url: gets a webhook when a budget, of an app or of all together, reaches 80 or 100 %, and the alerts of
            the autoscaler.
        webhook_secret: signs that webhook: `whsec_` and 24 to 64 bytes in base64. Only `webhooks` workers need it.
        webhook_secret_old: the previous secret. While it is set, each such webhook has two signatures.
    """

    day_usd: Annotated[Decimal, Field(ge=0)] | None = None
    month_usd: Annotated[Decimal, Field(ge=0)] | None = None
    webhook_url: Annotated[str, Field(pattern="^https?://")] | None = None
    webhook_secret: SecretStr | None = None
    webhook_secret_old: SecretStr | None = None

    @field_validator("webhook_secret", "webhook_secret_old")
    @classmethod
    def _can_sign(cls, secret: SecretStr | None) -> SecretStr | None:
        prefix, key = (secret.get_secret_value() if secret else "").partition("_")[::2]
        try:
            is_good = prefix == "whsec" and 24 <= len(base64.b64decode(key, validate=True)) <= 64
        except ValueError:
            is_good = False
        if secret is not None and not is_good:
            raise ValueError("a secret is 'whsec_' and 24 to 64 random bytes in base64")
        return secret


#: A key of an app's metadata that a query string can name.
LabelKey = Annotated[str, Field(pattern="^[A-Za-z0-9_-]{1,64}$")]


class CostSettings(Section):
    """How the bill of own hosts is shared by the requests that they served. Takes effect for hours that are not closed.

    Attributes:
        weigh_by: what a request's work is measured in. `tokens`: those of its prompt and its answer, by the weights
            below. `kv`: tokens held in the KV cache, times seconds, which is truer where long contexts fill the cache.
        cached_weight: the work of a prompt's token that was in the engine's prefix cache, in tokens of a prompt.
        output_weight: the work of an answer's token. Engines need, and providers charge, about four times as much.
        label_keys: keys of `metadata` by which costs are split, five at most, such as `feature`. Their values become
            readable for analysts. Only the first 64 characters of a value count.
    """

    weigh_by: Literal["tokens", "kv"] = "tokens"
    cached_weight: Annotated[Decimal, Field(ge=0, lt=100_000, decimal_places=4)] = Decimal("0.1")
    output_weight: Annotated[Decimal, Field(ge=0, lt=100_000, decimal_places=4)] = Decimal(4)
    label_keys: Annotated[tuple[LabelKey, ...], Field(max_length=5)] = ()

    @field_validator("label_keys")
    @classmethod
    def _differ(cls, keys: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(keys)) < len(keys):
            raise ValueError("a key is named twice")
        return keys

    @property
    def weights(self) -> dict[str, Any]:
        """What work is measured in, by the names of the columns that keep it."""
        return self.model_dump(exclude={"label_keys"})


class WebhookSettings(Section):
    """Delivery of webhooks.

    Attributes:
        timeout_s: one request as a whole, from the name's look-up to the answer's headers.
        max_running: requests in flight in one webhooks worker.
        max_running_per_app: of these, the most of one app.
        max_running_per_receiver: of these, the most to one host and port. Each worker counts for itself, so a receiver
            gets up to this many requests at once from each.
        retry_delays_s: the pause before each further try; after the last one the delivery has failed. The default is
            the example schedule of the Standard Webhooks specification, about 3 days.
        allow_private: permits receivers on loopback and private networks, and plain http. For development only;
            `bin/demo` sets it for itself.
    """

    timeout_s: Positive = 15.0
    max_running: PositiveInt = 64
    max_running_per_app: PositiveInt = 16
    max_running_per_receiver: PositiveInt = 8
    retry_delays_s: tuple[float, ...] = (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
    allow_private: bool = False
