"""The sections of `headrace.toml` beside the pools: lanes, overflow, budgets, webhooks, scaling."""

import base64
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator

from headrace.config.values import Positive, PositiveInt, Section, Share
from headrace.domain.queues import Lane


class LaneSettings(Section):
    """One lane.

    Attributes:
        max_wait_s: default for the job's `max_wait`.
        interactive_max_wait_s: the same for a job whose caller waits for the answer or streams it, never more than
            `max_wait_s`; None: `max_wait_s`.
        depth_cap: jobs a queue of this lane holds before new ones are refused.
        backlog_cap_tokens: likewise in tokens, prompts and the most output of all that wait.
        takes: of as many takes as all lanes' `takes` add up to, those that are this lane's while all have work.
    """

    max_wait_s: Positive = 600.0
    interactive_max_wait_s: Positive | None = None
    depth_cap: PositiveInt = 500
    backlog_cap_tokens: PositiveInt = 1_000_000
    takes: PositiveInt = 1

    def default_max_wait_s(self, *, is_interactive: bool) -> float:
        """The `max_wait` of a job that gives none. Args: is_interactive: its caller waits or streams."""
        if is_interactive and self.interactive_max_wait_s is not None:
            return min(self.interactive_max_wait_s, self.max_wait_s)
        return self.max_wait_s


def built_in_lanes() -> dict[Lane, LaneSettings]:
    """Every lane as it is where the file says nothing."""
    return {
        Lane.HIGH: LaneSettings(interactive_max_wait_s=30, takes=10),
        Lane.NORMAL: LaneSettings(interactive_max_wait_s=30, takes=4),
        Lane.LOW: LaneSettings(max_wait_s=4 * 3600),
        Lane.BATCH: LaneSettings(max_wait_s=24 * 3600),
    }


class OverflowSettings(Section):
    """The paid API. It is used only when an API key is set.

    Attributes:
        model: what answers a job that spilled over, unless `models` maps its own model to another.
        effort_models: those of its models that can be told how much to think; jobs go to the others without that.
        max_running: calls in flight in one overflow worker.
        timeout_s: silence of the API after which a call is given up.
        spill_depth: jobs in a queue of ours from which on new ones that may go to the paid API go there first.
        spill_kv_use: share of a pool's KV cache in use from which on they do, once a whole batch waits as well.
        back_at: share of these at which they come back: less, so that they do not go to and fro.
        spill_before_s: a job that may go there and still waits so long before its `start_by` does, into a free call;
            none does in the first half of its wait. 0 for none.
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
    """What all apps together may spend at the paid API; an app's own budget is set with `headrace apps`.

    Attributes:
        day_usd, month_usd: in a day and in a month of UTC; None for no limit. Without either, and without stored
            limits (`headrace budgets set`, which win), nothing is sent there but for apps with a budget of their own.
        webhook_url: told when a budget, an app's or that of all together, comes to a threshold; None for nobody.
        webhook_secret: what that is signed with: `whsec_` and 24 to 64 bytes in base64; only webhook workers need it.
        webhook_secret_old: while that is rotated, the one before, which signs too.
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


class WebhookSettings(Section):
    """Delivery of webhooks.

    Attributes:
        timeout_s: for one request as a whole, from the name's look-up to the answer's headers.
        max_running: requests in flight in one webhook worker.
        max_running_per_app, max_running_per_receiver: of these, the most of one app, and to one host and port.
        retry_delays_s: pause before each further try; after the last the delivery has failed.
            Default: the example schedule of the Standard Webhooks specification, about 3 days.
        allow_private: True permits receivers on loopback and private networks, and plain http. For development only.
    """

    timeout_s: Positive = 15.0
    max_running: PositiveInt = 64
    max_running_per_app: PositiveInt = 16
    max_running_per_receiver: PositiveInt = 8
    retry_delays_s: tuple[float, ...] = (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
    allow_private: bool = False


class ScalingSettings(Section):
    """The reactive autoscaling policy's thresholds.

    Attributes:
        mode: `advisory` writes decisions and moves nothing.
        min_hosts, max_hosts: bounds of what is decided.
        up_depth: jobs waiting in a pool's queues above which hosts are added.
        up_load, down_load: share of the running slots in use above which hosts are added, and below which one goes.
        up_step, down_step: hosts in one decision.
        cooldown_s: pause between two decisions about one pool.
        stale_after_s: older observations decide nothing.
    """

    mode: Literal["advisory"] = "advisory"
    min_hosts: Annotated[int, Field(ge=0)] = 2
    max_hosts: PositiveInt = 20
    up_depth: PositiveInt = 100
    up_load: Share = 0.80
    down_load: Share = 0.30
    up_step: PositiveInt = 2
    down_step: PositiveInt = 1
    cooldown_s: Positive = 300.0
    stale_after_s: Positive = 60.0
