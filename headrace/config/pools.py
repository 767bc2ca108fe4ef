"""The pools of `headrace.toml`, the prices of tokens, and the simulator that a pool may run."""

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from headrace.config.sections import LaneSettings, PoolLaneSettings
from headrace.domain.answers import MOST_LOGPROBS
from headrace.domain.prompts.compression import CompressPart
from headrace.domain.queues import OVERFLOW, Lane
from headrace.errors import ConfigError
from headrace.setting_types import Positive, PositiveInt, Section, Share


class Price(Section):
    """A price list of one model.

    Attributes:
        input_usd_per_mtok: the price of a prompt's tokens.
        output_usd_per_mtok: the price of an answer's tokens.
        cached_input_usd_per_mtok: the price of prompt tokens that the provider had in its cache; by default the same
            as other prompt tokens.
        tiers: what a call costs in the provider's other service tiers, as a factor of the price: `{ flex = "0.5" }`.
            If it has others than `batch`, every call names its tier, and jobs of `low` and `batch` that have time go to
            `flex`. `batch` is the price of the provider's batches: see `batches.provider_tier`.
        source: where the figure comes from, with its date.
        version: what the ledger calls this price; change it with the price.
    """

    input_usd_per_mtok: Annotated[Decimal, Field(ge=0)]
    output_usd_per_mtok: Annotated[Decimal, Field(ge=0)]
    cached_input_usd_per_mtok: Annotated[Decimal, Field(ge=0)] | None = None
    tiers: dict[str, Annotated[Decimal, Field(ge=0)]] = Field(default_factory=dict)
    source: str
    version: str


#: A pool's name is part of entries in Redis, where a space ends it, of a shell's line, and of a log file's name.
_POOL_NAME = re.compile(r"\w[\w.:-]{0,62}")

#: A year, in seconds. The search for an answer reads the index of each month in this time.
CACHE_LIMIT_S = 366 * 86_400

#: Used until `headrace.toml` says what a host really costs per token.
DEFAULT_OWN_PRICE = Price(
    input_usd_per_mtok=Decimal("0.05"),
    output_usd_per_mtok=Decimal("0.20"),
    version="default-2026-11",
    source="a placeholder: [hosts.TYPE] has no price, or the rate of its hosts is unknown",
)


#: A look-up that takes longer lags behind its load: no job should wait for it.
MOST_HOLD_S = 2.0


class SemanticCacheSettings(Section):
    """The semantic cache of a pool: a finished answer also serves jobs that ask the same in other words.

    Attributes:
        pool: the pool of an embedding model, whose workers do the look-ups. Without it there is no semantic cache.
        max_error: the share of the answers served by it that may be wrong. `headrace apps limit` sets it for one app.
        record: an app's tries with all its entries count for each, so that an entry needs few of its own. Without
            it each entry counts by itself.
        hold_s: how long a worker of this pool waits for a new job's look-up before it starts the job. 0: a free engine
            starts at once.
        shadow: nothing is served. Each answer that would have been is compared with the job's own, and counted.
    """

    pool: str | None = None
    max_error: Annotated[float, Field(gt=0, lt=1)] = 0.01
    record: bool = True
    hold_s: Annotated[float, Field(ge=0, le=MOST_HOLD_S)] = 0.0
    shadow: bool = False


DEFAULT_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
#: The chat templates that Headrace ships, by name, each with its model, whose own template has no word for tools.
SHIPPED_TEMPLATES: Mapping[str, str] = {"smollm2": DEFAULT_MODEL}


class PoolSettings(Section):
    """A group of identical GPU workers that serve one model; or a model that the paid API alone answers.

    Attributes:
        model: the name that requests use: a Hugging Face id or a folder, or the paid API's name of its model.
        served_names: further names that requests can use for `model`. What follows its last slash is one by itself,
            where no other model has it.
        model_dir: a folder with the weights and the tokenizer; by default `model` comes from the hub's cache.
        engine: what answers: `vllm`; `openai`, the paid API, without a GPU worker; or `simulator`, for load and fault
            tests, which says so in its answers.
        serves: what its jobs are: `prompts`, which a model answers, or `embeddings`, for which an embedding model makes
            vectors.
        max_model_tokens: prompt plus output of one job, or one input of an embedding. Without it the model's own limit
            holds, which is also the default of a pool of the paid API's and of one that serves embeddings.
        default_max_tokens: the bound of an answer whose job gives no `max_tokens`; less if the prompt leaves less of
            `max_model_tokens`.
        max_running: jobs that run at once in one engine (vLLM's `max_num_seqs`); also inputs in one step of an
            embedding model.
        max_run_s: how long one attempt may run before it is aborted and its job fails.
        kv_cache_mib: the size of the KV cache, of each GPU or of a CPU. By default a GPU's free memory
            (`gpu_memory_utilization`), and 512 on a CPU.
        kv_admission: what must fit into the KV cache before the engine gets a job. `expected`: the expected length of
            all running jobs. `worst_case`: the longest answer of each, which never preempts a job and leaves most of
            the cache empty. `open`: nothing; vLLM decides.
        kv_high_share: the part of the KV cache that only jobs of `high` may use; while that lane is in use, also the
            part of the engine's slots.
        shared_prefix_cache: whether a prompt may use what the engine's KV cache keeps of another app's prompts that
            begin alike. It saves time, and lets an app find out what others asked ([gpu.md](gpu.md#the-prefix-cache)).
        adapters: LoRA adapters of the model, by the names that requests use as `model`: a folder or a Hugging Face id
            each.
        reasoning_parser: the vLLM parser of a model that thinks before it answers, such as `qwen3`.
        tool_parser: the vLLM parser that reads the model's calls of tools, such as `hermes` or `qwen3_coder`. Without
            it a vLLM pool refuses `tools`.
        tool_strict_level: vLLM's `--tool-strict-level`. `parameter`: arguments keep to their schema as if every tool
            had `strict: true`. `function`: calls keep to their format, whatever `tool_choice` is. By default the
            request decides.
        chat_template: a file with a chat template, in place of the model's own; or `smollm2`, which Headrace ships:
            that model's own, with tools.
        engine_options: engine arguments of vLLM, such as `tensor_parallel_size`; [gpu.md](gpu.md) says which for
            what.
        drain_jobs_per_s: how fast one worker is assumed to finish jobs until a rate was measured.
        latency_goal_s: how long a caller who waits or streams may wait for the whole answer, from its acceptance. A job
            that would likely miss this is refused, or sent to the paid API, at once. It also bounds
            `interactive_max_wait_s` in this pool. By default there is no goal.
        lanes: a lane of this pool, in place of the same settings of `[lanes.NAME]`. What is left out is as there.
        price: what a token costs on this pool's own hosts, until that is measured: see `[hosts.NAME]`.
        cache_s: for how many seconds a finished answer serves identical jobs of its app ([caching.md](caching.md)). 0:
            never. `headrace apps limit` sets it for one app.
        single_flight: identical jobs of one app that are under way at the same time share one attempt
            ([caching.md](caching.md#single-flight)).
        semantic_cache: whether its answers also serve jobs that ask the same in other words, for `cache_s`
            ([caching.md](caching.md#by-meaning)).
        compress: how the prompts of its jobs are made shorter before an engine gets them, where a request does not say
            otherwise ([compression.md](compression.md)). `plain` drops repetitions and white space.
        compress_also: what is compressed beside earlier turns: the `system` prompt, or the `last_turn` of the user.
        cache_sampled: jobs with neither `temperature` 0 nor a `seed` share answers too. Without it they do so only
            if they ask for it.
    """

    model: str = DEFAULT_MODEL
    served_names: tuple[str, ...] = ()
    model_dir: Path | None = None
    engine: Literal["vllm", "simulator", "openai"] = "vllm"
    serves: Literal["prompts", "embeddings"] = "prompts"
    max_model_tokens: PositiveInt | None = 2048
    default_max_tokens: PositiveInt = 1024
    max_running: PositiveInt = 32
    max_run_s: Positive = 900.0
    kv_cache_mib: PositiveInt | None = None
    kv_admission: Literal["expected", "worst_case", "open"] = "expected"
    kv_high_share: Share = 0.05
    shared_prefix_cache: bool = False
    adapters: dict[str, str] = Field(default_factory=dict)
    reasoning_parser: str | None = None
    tool_parser: str | None = None
    tool_strict_level: Literal["function", "parameter"] | None = None
    chat_template: str | None = None
    engine_options: dict[str, Any] = Field(default_factory=dict)
    drain_jobs_per_s: Positive = 2.0
    latency_goal_s: Positive | None = None
    lanes: dict[Lane, PoolLaneSettings] = Field(default_factory=dict)
    price: Price = DEFAULT_OWN_PRICE
    cache_s: Annotated[float, Field(ge=0, le=CACHE_LIMIT_S)] = 0.0
    single_flight: bool = False
    cache_sampled: bool = False
    semantic_cache: SemanticCacheSettings = SemanticCacheSettings()
    compress: Literal["off", "plain"] = "off"
    compress_also: tuple[CompressPart, ...] = ()

    @field_validator("compress", mode="before")
    @classmethod
    def _surprise_was_removed(cls, method: Any) -> Any:
        if method == "surprise":
            raise ValueError("this method was removed, and only 'plain' is left: set 'plain', or remove the setting")
        return method

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
    def _the_paid_api_and_an_embedding_model_know_their_own_limit(cls, given: Any) -> Any:
        """The default is a laptop's. A shipped template and the parser beside it are for its model's prompts."""
        if isinstance(given, Mapping) and (given.get("engine") == "openai" or given.get("serves") == "embeddings"):
            return {"max_model_tokens": None, **_without_shipped_template(given)}
        return given

    @model_validator(mode="after")
    def _the_paid_api_has_no_engine_of_ours(self) -> Self:
        of_ours = (
            *("adapters", "engine_options", "reasoning_parser", "tool_parser", "tool_strict_level", "chat_template"),
        )
        if self.is_paid and (given := [name for name in of_ours if getattr(self, name)]):
            raise ValueError(f"'{given[0]}' is for a pool with workers of its own; the engine is 'openai'")
        return self

    @model_validator(mode="after")
    def _the_paid_api_has_the_queues_of_all_pools(self) -> Self:
        what = "is for a pool with workers of its own, and the engine is 'openai', whose queues all pools share"
        if self.is_paid and self.lanes:
            raise ValueError(f"'lanes' {what}: remove 'lanes', or set [lanes]")
        if self.is_paid and self.latency_goal_s is not None:
            raise ValueError(f"'latency_goal_s' {what}: remove 'latency_goal_s'")
        return self

    @model_validator(mode="after")
    def _an_embedding_model_makes_no_text(self) -> Self:
        of_prompts = self.adapters or self.reasoning_parser or self.tool_parser or self.chat_template
        if self.is_embedding and (self.is_paid or of_prompts):
            raise ValueError(
                "a pool that serves 'embeddings' has no 'adapters', no 'reasoning_parser', no 'tool_parser', no "
                "'chat_template', and its own engine"
            )
        return self

    @model_validator(mode="after")
    def _only_prompts_are_compressed(self) -> Self:
        if self.is_embedding and self.compress != "off":
            raise ValueError("a pool that serves 'embeddings' has no prompts: remove 'compress'")
        return self

    def changed(self, changes: Mapping[str, Any]) -> Self:
        """The pool with another model, folder or engine. Raises: ValidationError."""
        given = self.model_dump(exclude_unset=True)
        is_other = changes.get("model", self.model) != self.model or changes.get("engine") == "openai"
        if is_other:
            given = dict(_without_shipped_template(given))
        return type(self)(**{**given, **changes})

    @property
    def is_embedding(self) -> bool:
        """True when its model makes vectors."""
        return self.serves == "embeddings"

    @property
    def is_paid(self) -> bool:
        """True when the paid API alone answers it."""
        return self.engine == "openai"

    def lane(self, lane: Lane, common: LaneSettings) -> LaneSettings:
        """A lane's settings in this pool. Args: common: those of `[lanes]`."""
        settings = self.lanes[lane].over(common) if lane in self.lanes else common
        if self.latency_goal_s is None:
            return settings
        within_s = min(settings.default_max_wait_s(is_interactive=True), self.latency_goal_s)
        return settings.model_copy(update={"interactive_max_wait_s": within_s})

    @property
    def most_logprobs(self) -> int:
        """The most alternatives to a token that can be asked for: as many as vLLM's own option lets through."""
        given = int(self.engine_options.get("max_logprobs", MOST_LOGPROBS))
        return min(given, MOST_LOGPROBS) if given >= 0 else MOST_LOGPROBS  # -1 is no bound.


def _without_shipped_template(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """A pool's settings without a template of Headrace's, which is for one model alone, and the parser beside it."""
    if given.get("chat_template") not in SHIPPED_TEMPLATES:
        return given
    return {name: value for name, value in given.items() if name not in ("chat_template", "tool_parser")}


class SimulatorSettings(Section):
    """The calibration of the simulator engine, which makes its answers up.

    Attributes:
        load_s: how long its start takes.
        prefill_tokens_per_s: how fast it reads a prompt; requests do not slow each other down.
        decode_tokens_per_s: how fast it writes an answer.
        output_tokens: the length of an answer, unless the job's `max_tokens` is less.
        reasoning_tokens: the length of what is thought before the answer; 0: nothing.
        kv_tokens: the size of the KV cache.
        kv_block_tokens: the size of one of its blocks.
        fault: what goes wrong: an error (`fault`), a rejected prompt (`reject`) or the engine's death (`die`).
        fault_every: every n-th request meets `fault`; 0: none does.
        poison: a prompt that contains this text kills the engine; empty: no prompt does.
        declines: a prompt that contains this text gets a refusal as its answer; empty: none does.
        unsure: the answer to a prompt that contains this text has tokens of a log probability of -4, instead of -1;
            empty: no answer does.
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
    declines: str = ""
    unsure: str = ""


def check_pools(pools: Mapping[str, PoolSettings]) -> None:
    """Check the pools' own names, and those of other pools that they name. Raises: ConfigError."""
    _check_pool_names(pools)
    _check_semantic_caches(pools)


def _check_pool_names(names: Iterable[str]) -> None:
    """Raises: ConfigError."""
    for name in names:
        if name == OVERFLOW:
            message = f"No pool can be named '{name}', as the queues of the paid API are: give it another name."
            raise ConfigError(message, param=f"pools.{name}")
        if not _POOL_NAME.fullmatch(name):
            message = (
                f"No pool can be named '{name}': a name has up to 63 letters, digits and the characters . _ : -, and "
                "begins with a letter or a digit."
            )
            raise ConfigError(message, param=f"pools.{name}")


def _check_semantic_caches(pools: Mapping[str, PoolSettings]) -> None:
    """Check the pools that the caches name. Raises: ConfigError: one is no pool of an embedding model."""
    for name, pool in pools.items():
        named, where = pool.semantic_cache.pool, f"pools.{name}.semantic_cache"
        if named is None:
            continue
        if pool.is_embedding:
            message = f"Pool '{name}' serves embeddings, which no semantic cache serves: remove [{where}]."
            raise ConfigError(message, param=where)
        if named not in pools:
            message = f"[{where}] names pool '{named}'; the pools: {', '.join(pools)}. Correct the name."
            raise ConfigError(message, param=f"{where}.pool")
        if not pools[named].is_embedding:
            message = f"[{where}] names pool '{named}', which answers prompts: name one with serves = 'embeddings'."
            raise ConfigError(message, param=f"{where}.pool")
