"""The pools of `headrace.toml`, the prices of tokens, and the simulator that a pool may run."""

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from headrace.config.values import Positive, PositiveInt, Section, Share
from headrace.domain.logprobs import MOST_LOGPROBS


class Price(Section):
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


class PoolSettings(Section):
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


class SimulatorSettings(Section):
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
