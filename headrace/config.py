"""Settings: read once, from the environment and one `headrace.toml`, here and nowhere else.

The environment wins over the file. Every value has a default that works on a laptop.
"""

import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from headrace.errors import ConfigError
from headrace.jobs import Lane

PROJECT_ROOT = Path(__file__).resolve().parent.parent

Positive = Annotated[float, Field(gt=0)]
PositiveInt = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LaneSettings(_Section):
    """One lane.

    Attributes:
        max_wait_s: default for the job's `max_wait`.
        depth_cap: jobs a queue of this lane holds before new ones are refused.
        backlog_cap_tokens: likewise in tokens, prompts and the most output of all that wait.
        takes: of as many takes as all lanes' `takes` add up to, those that are this lane's while all have work.
    """

    max_wait_s: Positive = 30.0
    depth_cap: PositiveInt = 500
    backlog_cap_tokens: PositiveInt = 1_000_000
    takes: PositiveInt = 1


def _lanes() -> dict[Lane, LaneSettings]:
    return {
        Lane.HIGH: LaneSettings(max_wait_s=30, takes=10),
        Lane.NORMAL: LaneSettings(max_wait_s=30, takes=4),
        Lane.LOW: LaneSettings(max_wait_s=4 * 3600),
        Lane.BATCH: LaneSettings(max_wait_s=24 * 3600),
    }


class Price(_Section):
    """USD per 1,000,000 tokens of one model.

    Attributes:
        source: where the figure comes from, with its date.
        version: what the ledger calls it; change it with the price.
    """

    input_usd_per_mtok: Annotated[Decimal, Field(ge=0)]
    output_usd_per_mtok: Annotated[Decimal, Field(ge=0)]
    cached_input_usd_per_mtok: Annotated[Decimal, Field(ge=0)] | None = None
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
    """A group of identical GPU workers that serve one model.

    Attributes:
        model: the name that requests use: a Hugging Face id or a folder.
        model_dir: a folder with the weights and tokenizer; None to resolve `model` through the hub's cache.
        engine: what answers; `simulator` is for load and fault tests, and says so in its answers.
        max_model_tokens: prompt plus output of one job; None for the model's own limit.
        max_running: jobs that run at once in one engine (vLLM's `max_num_seqs`).
        kv_cache_mib: size of the KV-cache pool on a CPU; None lets the engine take what its GPU has left.
        engine_options: passed to vLLM's engine arguments as they are.
        drain_jobs_per_s: what one worker is believed to finish before a rate has been measured.
        price: what a token costs on this pool's own hosts.
    """

    model: str = "HuggingFaceTB/SmolLM2-135M-Instruct"
    model_dir: Path | None = None
    engine: Literal["vllm", "simulator"] = "vllm"
    max_model_tokens: PositiveInt | None = 2048
    max_running: PositiveInt = 32
    kv_cache_mib: PositiveInt | None = 512
    engine_options: dict[str, Any] = Field(default_factory=dict)
    drain_jobs_per_s: Positive = 2.0
    price: Price = DEFAULT_OWN_PRICE


class SimulatorSettings(_Section):
    """The simulator engine's calibration.

    Attributes:
        fault_every: every n-th request meets `fault`; 0 for none.
    """

    load_s: Annotated[float, Field(ge=0)] = 0.0
    prefill_tokens_per_s: Positive = 8000.0
    decode_tokens_per_s: Positive = 60.0
    output_tokens: PositiveInt = 24
    kv_tokens: PositiveInt = 65_536
    kv_block_tokens: PositiveInt = 16
    fault: Literal["none", "fault", "reject", "die"] = "none"
    fault_every: Annotated[int, Field(ge=0)] = 0


class OverflowSettings(_Section):
    """The paid API. It is used only when an API key is set.

    Attributes:
        model: what answers a job that spilled over, unless `models` maps its own model to another.
        max_running: calls in flight in one overflow worker.
        timeout_s: for one call.
    """

    model: str = "gpt-4o-mini"
    models: dict[str, str] = Field(default_factory=dict)
    max_running: PositiveInt = 32
    timeout_s: Positive = 60.0


class WebhookSettings(_Section):
    """Delivery of webhooks.

    Attributes:
        timeout_s: for one request.
        max_running: requests in flight in one webhook worker.
        retry_delays_s: pause before each further try; after the last the delivery has failed.
            Default: the example schedule of the Standard Webhooks specification, about 3 days.
        allow_private: True permits receivers on loopback and private networks, and plain http. For development only.
    """

    timeout_s: Positive = 15.0
    max_running: PositiveInt = 16
    retry_delays_s: tuple[float, ...] = (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
    allow_private: bool = False


class ScalingSettings(_Section):
    """The reactive autoscaling policy's thresholds.

    Attributes:
        mode: `advisory` writes decisions and moves nothing.
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


class Settings(BaseSettings):
    """Everything that can be set, whole and checked.

    Attributes:
        database_url: `DATABASE_URL`.
        redis_url: `REDIS_URL`, the broker and the admission index.
        state_dir: `HEADRACE_STATE`: where the one-machine stack keeps its servers' data and logs.
        model, model_dir, engine: `HEADRACE_MODEL`, `HEADRACE_MODEL_DIR`, `HEADRACE_ENGINE` override the served pool's.
        demo_started_at: when `bin/demo` began, before it installed anything; seconds since 1970.
        pool: `HEADRACE_POOL`: the pool that is served here; the file's first by default.
        pepper: `HEADRACE_PEPPER` keys the HMAC under which API keys are stored. Changing it voids every key.
        url: `HEADRACE_URL`: where the terminal's client commands find the API.
        api_key: `HEADRACE_API_KEY`: the key they show it.
        body_limit_bytes: larger request bodies are refused with 413.
        wait_limit_s: the longest `wait=` of a long poll.
        wait_slots: long polls and synchronous requests that one API process holds open. One more long poll is
            answered at once, as it stands; one more synchronous request is refused.
        stream_slots: event streams that one API process holds open; one more is refused.
            Keep the two together below the process's threads, or what is held open would starve submits.
        keep_alive_s: how long an open stream may be silent before a comment shows whether its reader is still there.
        prices: of the paid API's models. A model without one is never sent there.
        drain_s: how long a worker that is told to stop lets its running jobs finish before it hands them back.
        lease_s: how long a worker may be silent before its jobs go back to the queue.
        max_attempts: starts of one job before it fails.
        reservation_ttl_s: how long admission holds a place for a job that is not inserted yet.
        publish_grace_s: how long a queued job may be missing from its list before `publish_due` adds it again.
        failpoint: the process exits at the named point, as if killed. For crash tests only.
    """

    model_config = SettingsConfigDict(
        env_prefix="HEADRACE_",
        env_nested_delimiter="__",
        env_ignore_empty=True,  # An empty variable is how a shell, or compose, says "none".
        frozen=True,
        extra="ignore",
        populate_by_name=True,
    )

    database_url: str = Field("postgresql+psycopg://headrace@127.0.0.1:5432/headrace", validation_alias="DATABASE_URL")
    redis_url: str = Field("redis://127.0.0.1:6379/0", validation_alias="REDIS_URL")
    openai_api_key: SecretStr | None = Field(None, validation_alias="OPENAI_API_KEY")
    openai_base_url: str | None = Field(None, validation_alias="OPENAI_BASE_URL")
    state_dir: Path = Field(PROJECT_ROOT / ".headrace", validation_alias="HEADRACE_STATE")
    model: str | None = None
    model_dir: Path | None = None
    engine: Literal["vllm", "simulator"] | None = None
    pool: str = ""
    pepper: SecretStr = SecretStr("development")
    url: str = "http://127.0.0.1:8000"
    api_key: SecretStr | None = None
    demo_started_at: float | None = None

    pools: dict[str, PoolSettings] = Field(default_factory=lambda: {"chat": PoolSettings()})
    lanes: dict[Lane, LaneSettings] = Field(default_factory=_lanes)
    overflow: OverflowSettings = OverflowSettings()
    simulator: SimulatorSettings = SimulatorSettings()
    prices: dict[str, Price] = Field(default_factory=dict)
    webhooks: WebhookSettings = WebhookSettings()
    scaling: ScalingSettings = ScalingSettings()

    body_limit_bytes: PositiveInt = 8 * 1024 * 1024
    wait_limit_s: Positive = 60.0
    wait_slots: PositiveInt = 1000
    stream_slots: PositiveInt = 1000
    keep_alive_s: Positive = 10.0
    lease_s: Positive = 10.0
    lease_renew_every_s: Positive = 1.0
    max_attempts: PositiveInt = 3
    drain_s: Annotated[float, Field(ge=0)] = 10.0
    reservation_ttl_s: Positive = 30.0
    publish_grace_s: Positive = 2.0
    sweep_every_s: Positive = 1.0
    observe_every_s: Positive = 5.0
    autoscale_every_s: Positive = 30.0
    failpoint: str | None = None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments win over the environment, the environment over the file."""
        named = _ConfigPath()
        if "config" in named.model_fields_set and not named.config.is_file():
            raise ConfigError(f"HEADRACE_CONFIG names {named.config}, where there is no file.", param="config")
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, toml_file=named.config)

    @classmethod
    def load(cls, **overrides: Any) -> Self:
        """Read the environment and `headrace.toml`. Raises: ConfigError that names the setting."""
        try:
            return cls(**overrides)._with_served_pool()
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(map(str, first["loc"]))
            raise ConfigError(f"Setting {name}: {first['msg']}. Got {first['input']!r}.", param=name) from error
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{_ConfigPath().config} is not valid TOML: {error}.") from error

    def _with_served_pool(self) -> Self:
        """Settle which pool is served here, and let the environment's model and engine override its own."""
        name = self.pool or next(iter(self.pools), "")
        if name not in self.pools:
            listed = ", ".join(self.pools) or "none"
            raise ConfigError(f"HEADRACE_POOL names '{name}'; the pools in headrace.toml: {listed}.", param="pool")
        given = {"model": self.model, "model_dir": self.model_dir, "engine": self.engine}
        changes = {key: value for key, value in given.items() if value is not None}
        served = PoolSettings(**{**self.pools[name].model_dump(), **changes})
        return self.model_copy(update={"pool": name, "pools": {**self.pools, name: served}})

    @property
    def served_pool(self) -> PoolSettings:
        """The pool that is served here."""
        return self.pools[self.pool or next(iter(self.pools))]

    def lane(self, lane: Lane) -> LaneSettings:
        """This lane's settings, the built-in ones where the file has none."""
        return self.lanes.get(lane) or _lanes()[lane]


class _ConfigPath(BaseSettings):
    """`HEADRACE_CONFIG`: where the settings file is; the checkout's own by default."""

    model_config = SettingsConfigDict(env_prefix="HEADRACE_", env_ignore_empty=True, extra="ignore")

    config: Path = PROJECT_ROOT / "headrace.toml"
