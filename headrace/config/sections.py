"""The sections of `headrace.toml`: lanes, pools, prices, and what else has more than one value."""

import base64
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from headrace.domain.logprobs import MOST_LOGPROBS
from headrace.domain.queues import Lane

Positive = Annotated[float, Field(gt=0)]
PositiveInt = Annotated[int, Field(gt=0)]
Days = Annotated[int, Field(gt=0, le=10_000)]
Share = Annotated[float, Field(ge=0, le=1)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LaneSettings(_Section):
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


class Price(_Section):
    """USD per 1,000,000 tokens of one model.

    Attributes:
        tiers: what a call costs in the provider's other service tiers, as a factor: `{ flex = "0.5" }`. Where there are
            any, calls name their tier, and a job that has time goes to `flex`.
        source: where the figure comes from, with its date.
        version: what the ledger calls it; change it with the price.
    """

    input_usd_per_mtok: Annotated[Decimal, Field(ge=0)]
    output_usd_per_mtok: Annotated[Decimal, Field(ge=0)]
    cached_input_usd_per_mtok: Annotated[Decimal, Field(ge=0)] | None = None
    tiers: dict[str, Annotated[Decimal, Field(ge=0)]] = Field(default_factory=dict)
    source: str
    version: str


#: Used until `headrace.toml` says what a host really costs per token.
DEFAULT_OWN_PRICE = Price(
    input_usd_per_mtok=Decimal("0.05"),
    output_usd_per_mtok=Decimal("0.20"),
    version="default-2026-11",
    source="a placeholder standard cost: set it to your host's USD per hour over its measured tokens per hour",
)


class PoolSettings(_Section):
    """A group of identical GPU workers that serve one model; or, without any, a model of the paid API's.

    Attributes:
        model: the name that requests use: a Hugging Face id or a folder; the paid API's own name of its model.
        model_dir: a folder with the weights and tokenizer; None to resolve `model` through the hub's cache.
        engine: what answers; `simulator` is for load and fault tests, and says so in its answers; `openai` is the paid
            API alone, by the overflow workers.
        max_model_tokens: prompt plus output of one job; None for the model's own limit, which the paid API looks after
            by itself.
        default_max_tokens: bound of an answer whose job gives no `max_tokens`; less where the prompt leaves less of
            `max_model_tokens`.
        max_running: jobs that run at once in one engine (vLLM's `max_num_seqs`).
        max_run_s: how long one attempt may run before it is aborted, and its job fails.
        kv_cache_mib: size of the KV-cache pool, of each GPU or of a CPU. None: on a GPU what the engine finds free
            (`gpu_memory_utilization`), on a CPU 512.
        kv_admission: what must fit into the KV cache before a job is let into the engine: what is expected of all that
            run (`expected`), the longest answer of each, which never preempts and leaves most of it empty
            (`worst_case`), or nothing, which leaves all to the engine (`open`).
        kv_high_share: of the KV cache, what is kept free of other lanes' jobs for those of `high`; while the lane is in
            use, of the engine's slots as well.
        adapters: LoRA adapters of the model by the names that requests use: a folder or a Hugging Face id each.
        reasoning_parser: by which vLLM tells what the model thinks from what it answers, e.g. `qwen3`; None for a model
            that answers at once.
        engine_options: passed to vLLM's engine arguments as they are.
        drain_jobs_per_s: what one worker is believed to finish before a rate has been measured.
        price: what a token costs on this pool's own hosts.
    """

    model: str = "HuggingFaceTB/SmolLM2-135M-Instruct"
    model_dir: Path | None = None
    engine: Literal["vllm", "simulator", "openai"] = "vllm"
    max_model_tokens: PositiveInt | None = 2048
    default_max_tokens: PositiveInt = 1024
    max_running: PositiveInt = 32
    max_run_s: Positive = 900.0
    kv_cache_mib: PositiveInt | None = None
    kv_admission: Literal["expected", "worst_case", "open"] = "expected"
    kv_high_share: Share = 0.05
    adapters: dict[str, str] = Field(default_factory=dict)
    reasoning_parser: str | None = None
    engine_options: dict[str, Any] = Field(default_factory=dict)
    drain_jobs_per_s: Positive = 2.0
    price: Price = DEFAULT_OWN_PRICE

    @field_validator("engine_options")
    @classmethod
    def _max_logprobs_is_a_number(cls, options: dict[str, Any]) -> dict[str, Any]:
        # Both sides go by it: the worker when it starts its engine, the API when it is asked for more.
        int(options.get("max_logprobs", MOST_LOGPROBS))
        return options

    @model_validator(mode="after")
    def _adapters_have_names_of_their_own(self) -> Self:
        if self.model in self.adapters:
            raise ValueError(f"an adapter has the name of its model, '{self.model}'")
        return self

    @model_validator(mode="before")
    @classmethod
    def _the_paid_api_knows_its_own_limit(cls, given: Any) -> Any:
        """The default is a laptop's."""
        if isinstance(given, Mapping) and given.get("engine") == "openai":
            return {"max_model_tokens": None, **given}
        return given

    @model_validator(mode="after")
    def _the_paid_api_has_no_engine_of_ours(self) -> Self:
        if self.is_paid and (self.adapters or self.engine_options or self.reasoning_parser):
            raise ValueError("'adapters', 'engine_options' and 'reasoning_parser' are vLLM's; the engine is 'openai'")
        return self

    @property
    def is_paid(self) -> bool:
        """True when the paid API alone answers it."""
        return self.engine == "openai"

    @property
    def most_logprobs(self) -> int:
        """The most alternatives to a token that can be asked for: as many as vLLM's own option lets through."""
        given = int(self.engine_options.get("max_logprobs", MOST_LOGPROBS))
        return min(given, MOST_LOGPROBS) if given >= 0 else MOST_LOGPROBS  # -1 is no bound.


class SimulatorSettings(_Section):
    """The simulator engine's calibration.

    Attributes:
        load_s: how long it takes to start.
        prefill_tokens_per_s, decode_tokens_per_s: of one request; requests do not slow each other down.
        output_tokens: length of an answer, unless the job's `max_tokens` is less.
        reasoning_tokens: length of what is thought before it; 0 for nothing.
        kv_tokens, kv_block_tokens: size of the KV cache, and of the blocks it is handed out in.
        fault: what goes wrong: an error, a prompt that is rejected, or the engine's death.
        fault_every: every n-th request meets `fault`; 0 for none.
        poison: a prompt with this text in it kills the engine; empty for none.
    """

    load_s: Annotated[float, Field(ge=0)] = 0.0
    prefill_tokens_per_s: Positive = 8000.0
    decode_tokens_per_s: Positive = 60.0
    output_tokens: PositiveInt = 24
    reasoning_tokens: Annotated[int, Field(ge=0)] = 0
    kv_tokens: PositiveInt = 65_536
    kv_block_tokens: PositiveInt = 16
    fault: Literal["none", "fault", "reject", "die"] = "none"
    fault_every: Annotated[int, Field(ge=0)] = 0
    poison: str = ""


class OverflowSettings(_Section):
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


class BudgetSettings(_Section):
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


class WebhookSettings(_Section):
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


class ScalingSettings(_Section):
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
