"""Settings: read once, from the environment and one `headrace.toml`, here and nowhere else.

The environment wins over the file. Every value has a default that works on a laptop.
"""

import os
import socket
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import AliasChoices, BeforeValidator, Field, SecretStr, ValidationError, create_model
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from headrace.config.hosts import HostTypeSettings, OwnedHostSettings, check_hosts
from headrace.config.pools import PoolSettings, Price, SimulatorSettings, check_pools
from headrace.config.rules import RuleSettings, check_rules
from headrace.config.scaling import ScalingEvent, ScalingSettings
from headrace.config.sections import (
    BudgetSettings,
    CorsSettings,
    CostSettings,
    LaneSettings,
    OpsSettings,
    OverflowSettings,
    WebhookSettings,
    built_in_lanes,
    with_built_in,
)
from headrace.config.variables import check_names, named_error
from headrace.domain.apps import KEY_PREFIX
from headrace.domain.queues import Lane, Route
from headrace.errors import ConfigError, did_you_mean
from headrace.installed import place, plugins
from headrace.setting_types import FOREVER, Days, DaysOrForever, Positive, PositiveInt, Section

S = TypeVar("S", bound=Section)

__all__ = [
    "PROJECT_ROOT",
    "BudgetSettings",
    "CostSettings",
    "HostTypeSettings",
    "LaneSettings",
    "OverflowSettings",
    "OwnedHostSettings",
    "PoolSettings",
    "Price",
    "ScalingEvent",
    "ScalingSettings",
    "Settings",
    "SimulatorSettings",
    "WebhookSettings",
]

#: The pepper where none is set. Everyone can read it here, so that it protects nothing.
NO_PEPPER = "development"

PROJECT_ROOT = Path(__file__).resolve().parents[2]


class ConfigPath(BaseSettings):
    """`HEADRACE_CONFIG`: where the settings file is; the checkout's own by default."""

    model_config = SettingsConfigDict(env_prefix="HEADRACE_", env_ignore_empty=True, extra="ignore")

    config: Path = PROJECT_ROOT / "headrace.toml"


def toml_source(settings: type[BaseSettings]) -> TomlConfigSettingsSource:
    """Read the file. Raises: ConfigError: the named file is absent, or it sets a name that no setting has."""
    named = ConfigPath()
    if "config" in named.model_fields_set and not named.config.is_file():
        raise ConfigError(f"HEADRACE_CONFIG names {named.config}, where there is no file.", param="config")
    file = TomlConfigSettingsSource(settings, toml_file=named.config)
    for name in file.toml_data:
        if name not in settings.model_fields:
            hint = did_you_mean(name, settings.model_fields)
            if not hint and isinstance(file.toml_data[name], dict):
                hint = f" If it is a plugin's, add '{name}' to plugins/__init__.py."
            raise ConfigError(f"{named.config} sets '{name}', which is no setting.{hint}", param=name)
    return file


def _server(url: str) -> tuple[str | None, int]:
    """The host and the port of a URL; one name for all of loopback."""
    parts = urlsplit(url)
    host = "127.0.0.1" if parts.hostname in ("localhost", "::1") else parts.hostname
    return host, parts.port or (443 if parts.scheme == "https" else 80)


def _check_retention(keep_texts_days: int | None, keep_jobs_months: int | None) -> None:
    """Raises: ConfigError: no month with texts is ever detached, and these texts never go."""
    if keep_texts_days is None and keep_jobs_months is not None:
        message = (
            f"keep_texts_days = '{FOREVER}' and keep_jobs_months = {keep_jobs_months} exclude each other: the app of a "
            "job in a detached month could not delete the job's texts any more. Set keep_texts_days to a number of "
            "days, or remove keep_jobs_months."
        )
        raise ConfigError(message, param="keep_jobs_months")


class CoreSettings(BaseSettings):
    """Everything that can be set, whole and checked.

    `headrace settings --page` makes docs/settings.md from the `Attributes:` of this class and of each section's class.

    Attributes:
        database_url: Postgres 16 or newer. `postgresql://USER:PASSWORD@HOST1:PORT1,HOST2:PORT2/NAME` names a primary
            with its standbys: the host that takes writes is used. Without it `headrace up` starts an embedded Postgres.
        release_database_url: where migrations run; by default at `DATABASE_URL`. Set it where `DATABASE_URL` leads to
            PgBouncer: migrations need Postgres itself.
        redis_url: Redis 6.2 or newer, or Valkey. Without it `headrace up` starts an embedded Valkey.
            `sentinel://:PASSWORD@HOST1:26379,HOST2:26379/0?master_name=NAME` asks the Sentinels for the master. The
            password is the servers'; `&sentinel_password=` is for Sentinels that have one. `rediss://` and
            `sentinels://` use TLS, with redis-py's `ssl_ca_certs` and so on.
        openai_api_key: the paid API's key. Without it no job is sent there. If neither this variable nor that of
            `openai_base_url` is set, the SDK's `OPENAI_API_KEY` and `OPENAI_BASE_URL` are read, in which a key of
            Headrace is refused.
        openai_base_url: the URL of any OpenAI-compatible API; by default OpenAI's. Headrace's own address is refused.
        state_dir: the folder in which the one-machine stack keeps data, logs and models.
        model: overrides the `model` of the served pool.
        model_dir: overrides the `model_dir` of the served pool.
        engine: overrides the `engine` of the served pool.
        pool: the pool that a GPU worker serves; by default the file's first.
        host_id: names this worker's host. The workers of one host share it; by default the machine's name.
        hosts: the types of worker hosts.
        owned_hosts: machines that you own or rent for good.
        rules: which pools can answer a job of the model `auto`.
        pepper: keys the HMAC under which API keys are stored. `headrace up` makes a random one and keeps it; elsewhere
            `web` does not start without one. A new pepper voids every key that is not stored under `old_pepper`.
        old_pepper: the previous pepper. While it is set, keys that are stored under it stay valid.
        url: where the terminal client finds the API, with or without `/v1`. Set it together with `api_key`; without it,
            the client uses the stack that runs on this machine.
        api_key: the terminal client's key; without it, that of the stack that runs on this machine.
        prices: your price of a model of the paid API, such as `[prices."gpt-4o-mini"]`. It overrides the list price
            that `headrace prices take` stored. A model without either is never used.
        body_limit_bytes: a larger request body is refused with 413.
        bodies_in_flight_bytes: the most that one API process holds at once of request bodies above 64 KiB; more are
            refused with 429. One app may hold half.
        body_grace_s: how far a client may fall behind 64 KiB/s. One that sends a body more slowly gets a 408. A file
            or results that it takes more slowly break off.
        calls_per_minute: how often one app may call one API process, accepted submits aside, unless the app has a
            limit of its own. A body counts as one call more for each 4 KiB. The bucket holds 10 seconds' worth.
        wait_limit_s: how long a synchronous request waits for its answer, and the longest `wait=` of a long poll. The
            default is a little less than the 600 s after which the openai SDK gives up, and sends its request again.
        wait_slots: long polls and synchronous requests that one API process holds open. One more long poll is
            answered at once, as its job stands; one more synchronous request is refused with 429. Above 2,000 with
            `stream_slots` together, raise the Procfile's `--backpressure` with them.
        stream_slots: event streams that one API process holds open; one more is refused with 429.
        keep_alive_s: how long an open stream may be silent before a comment shows whether its reader is still there.
        lease_s: how long a worker may be silent before its jobs go back to the queue.
        lease_renew_every_s: how often a worker renews its lease.
        max_attempts: how often one job is started before it fails.
        confine_s: how long an app is confined to one job at a time in a pool, after two of its prompts have killed
            engines there within an hour. 0: never.
        drain_s: how long a worker lets its running jobs finish after SIGTERM before it hands them back.
        hung_after_s: how long a process of `headrace up` may give no sign of life, while most others give theirs,
            before it is killed and started again. Below 10 it counts as 10. 0: never.
        reservation_ttl_s: how long admission holds a place for a job that is not inserted yet.
        publish_grace_s: how long a queued job may have no message before `publish_due` pushes one.
        sweep_every_s: the pause between two sweeps.
        observe_every_s: how often the queues are sampled.
        autoscale_every_s: how often the autoscaler decides.
        sample_every_s: how often a worker samples its engine.
        keep_samples_days: how long samples of workers, counts of refusals and scaling decisions are kept. Samples of
            queues are kept for a day, their minutes for a week and their hours for a year.
        keep_texts_days: how long after a job's end its texts are kept; 'forever': until its app deletes them.
        keep_jobs_months: whole months of jobs that stay attached beside the present one, and longer while they have
            texts; by default all. It cannot be set while texts are kept 'forever'.
        keep_deliveries_days: how long after its end a webhook's delivery is kept, delivered or failed. A receiver that
            answered 410 gets nothing for as long.
        metrics_host: the address on which a worker, `web` or `control` serves Prometheus.
        metrics_port: the port on which it does; by default it does not. Each process of a host needs a port of its own;
            `headrace up` chooses free ones.
        failpoint: the process exits at the named point, as if killed. For crash tests only.
    """

    model_config = SettingsConfigDict(
        env_prefix="HEADRACE_",
        env_nested_delimiter="__",
        env_ignore_empty=True,  # An empty variable is how a shell, or compose, says "none".
        frozen=True,
        extra="ignore",
        populate_by_name=True,
        allow_inf_nan=False,
    )

    database_url: str = Field("postgresql+psycopg://headrace@127.0.0.1:5432/headrace", validation_alias="DATABASE_URL")
    release_database_url: str | None = None
    redis_url: str = Field("redis://127.0.0.1:6379/0", validation_alias="REDIS_URL")
    openai_api_key: SecretStr | None = Field(
        None, validation_alias=AliasChoices("HEADRACE_OPENAI_API_KEY", "OPENAI_API_KEY")
    )
    openai_base_url: str | None = Field(
        None, validation_alias=AliasChoices("HEADRACE_OPENAI_BASE_URL", "OPENAI_BASE_URL"), pattern="^https?://"
    )
    state_dir: Path = Field(PROJECT_ROOT / ".headrace", validation_alias="HEADRACE_STATE")
    model: str | None = None
    model_dir: Path | None = None
    engine: Literal["vllm", "simulator", "openai"] | None = None
    pool: str = ""
    host_id: str = ""
    pepper: SecretStr = SecretStr(NO_PEPPER)
    old_pepper: SecretStr | None = None
    url: str = "http://127.0.0.1:8000"
    api_key: SecretStr | None = None

    pools: dict[str, PoolSettings] = Field(default_factory=lambda: {"chat": PoolSettings()})
    lanes: Annotated[dict[Lane, LaneSettings], BeforeValidator(with_built_in)] = Field(default_factory=built_in_lanes)
    overflow: OverflowSettings = OverflowSettings()
    budgets: BudgetSettings = BudgetSettings()
    simulator: SimulatorSettings = SimulatorSettings()
    prices: dict[str, Price] = Field(default_factory=dict)
    costs: CostSettings = CostSettings()
    webhooks: WebhookSettings = WebhookSettings()
    cors: CorsSettings = CorsSettings()
    ops: OpsSettings = OpsSettings()
    scaling: ScalingSettings = ScalingSettings()
    hosts: dict[str, HostTypeSettings] = Field(default_factory=dict)
    owned_hosts: tuple[OwnedHostSettings, ...] = ()
    rules: dict[str, RuleSettings] = Field(default_factory=dict)

    body_limit_bytes: PositiveInt = 8 * 1024 * 1024
    bodies_in_flight_bytes: PositiveInt = 64 * 1024 * 1024
    body_grace_s: Positive = 10.0
    calls_per_minute: PositiveInt = 30_000
    wait_limit_s: Positive = 590.0
    wait_slots: PositiveInt = 1000
    stream_slots: PositiveInt = 1000
    keep_alive_s: Positive = 10.0
    lease_s: Positive = 10.0
    lease_renew_every_s: Positive = 1.0
    max_attempts: PositiveInt = 3
    confine_s: Annotated[float, Field(ge=0)] = 3600.0
    drain_s: Annotated[float, Field(ge=0)] = 10.0
    hung_after_s: Annotated[float, Field(ge=0)] = 60.0
    reservation_ttl_s: Positive = 30.0
    publish_grace_s: Positive = 2.0
    sweep_every_s: Positive = 1.0
    observe_every_s: Positive = 5.0
    autoscale_every_s: Positive = 30.0
    sample_every_s: Positive = 5.0
    keep_samples_days: Days = 30
    keep_texts_days: DaysOrForever = 30
    keep_jobs_months: PositiveInt | None = None
    keep_deliveries_days: Days = 30
    metrics_host: str = "127.0.0.1"
    metrics_port: Annotated[int, Field(ge=1, le=65_535)] | None = None
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
        """Arguments win over the environment, the environment over the file.

        If Headrace's own key or URL of the paid API is set, the SDK's two are not read: its own key must not go to the
        SDK's address.
        """
        assert isinstance(env_settings, EnvSettingsSource)
        if {"headrace_openai_api_key", "headrace_openai_base_url"} & env_settings.env_vars.keys():
            others = env_settings.env_vars.items()
            env_settings.env_vars = {name: value for name, value in others if not name.startswith("openai_")}
        return init_settings, env_settings, toml_source(settings_cls)

    @classmethod
    def load(cls, **overrides: Any) -> Self:
        """Read the environment and `headrace.toml`. Raises: ConfigError that names the setting."""
        check_names(os.environ, cls)
        try:
            return cls(**overrides)._with_served_pool()
        except ValidationError as error:
            raise named_error(error, cls) from error
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{ConfigPath().config} is not valid TOML: {error}.") from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"{ConfigPath().config} is not in UTF-8: save it again as text in UTF-8.") from error

    def _with_served_pool(self) -> Self:
        """Settle this host's name and the pool served here; the environment's model and engine override the pool's."""
        name = self.pool or next(iter(self.pools), "")
        if name not in self.pools:
            listed = ", ".join(self.pools) or "none"
            raise ConfigError(f"HEADRACE_POOL names '{name}'; the pools in headrace.toml: {listed}.", param="pool")
        given = {"model": self.model, "model_dir": self.model_dir, "engine": self.engine}
        changes = {key: value for key, value in given.items() if value is not None}
        try:
            served = self.pools[name].changed(changes)
        except ValidationError as error:
            message = (
                f"Pool '{name}' cannot be served with HEADRACE_{{MODEL,MODEL_DIR,ENGINE}}: {error.errors()[0]['msg']}."
            )
            raise ConfigError(message, param=f"pools.{name}") from error
        pools = {**self.pools, name: served}
        # A pool that is the paid API's is answered by its own model there, unless `models` says otherwise.
        models = {pool.model: pool.model for pool in pools.values() if pool.is_paid} | self.overflow.models
        overflow = self.overflow.model_copy(update={"models": models})
        if strange := overflow.effort_models - {overflow.model, *models.values()}:
            message = f"No job is answered by {', '.join(sorted(strange))}: name 'model', or one that 'models' maps to."
            raise ConfigError(message, param="overflow.effort_models")
        host_id = self.host_id or socket.gethostname()
        own = [each for each, pool in pools.items() if not pool.is_paid]
        self.scaling.check(own, self.hosts)
        check_hosts(self.hosts, self.owned_hosts, {each: self.scaling.of_pool(each).host_type for each in own})
        check_pools(pools)
        check_rules(self.rules, pools)
        _check_retention(self.keep_texts_days, self.keep_jobs_months)
        return self.model_copy(update={"pool": name, "pools": pools, "overflow": overflow, "host_id": host_id})

    def of(self, section: type[S]) -> S:
        """A plugin's section. Args: section: its class, as the plugin declares it."""
        found: S = getattr(self, _NAMES[section])
        return found

    def check_pepper(self) -> None:
        """Raises: ConfigError: no pepper is set, or the one that everyone knows. `headrace up` makes one of its own."""
        if self.pepper.get_secret_value() == NO_PEPPER:
            message = (
                "HEADRACE_PEPPER is not set: API keys would be stored under a pepper that everyone knows. Set it to a "
                "long random text ('openssl rand -hex 32'), the same for 'web' and for 'headrace keys', and keep it."
            )
            raise ConfigError(message, param="pepper")

    @property
    def peppers(self) -> tuple[str, ...]:
        """The peppers under which a key may be stored, the newest first."""
        old = () if self.old_pepper is None else (self.old_pepper.get_secret_value(),)
        return (self.pepper.get_secret_value(), *old)

    def check_budget_webhook(self) -> None:
        """Raises: ConfigError: the operator's webhook has nothing to be signed with."""
        if self.budgets.webhook_url is not None and self.budgets.webhook_secret is None:
            message = (
                "budgets.webhook_url is set, and nothing to sign it with: set HEADRACE_BUDGETS__WEBHOOK_SECRET to "
                "'whsec_' and 24 to 64 random bytes in base64, for the 'webhooks' workers."
            )
            raise ConfigError(message, param="budgets.webhook_secret")

    def check_paid_api(self, own_url: str | None = None) -> None:
        """Check that the paid API is another server than this one.

        Clients of Headrace export `OPENAI_BASE_URL` and `OPENAI_API_KEY` for the SDK. A stack that starts in their
        shell would take itself for the paid API. The key of another Headrace is taken from its own variable alone.

        Args: own_url: where the API listens; by default `url`, if it is set.

        Raises: ConfigError.
        """
        remedy = (
            "Unset OPENAI_API_KEY and OPENAI_BASE_URL in this shell, or set HEADRACE_OPENAI_API_KEY and "
            "HEADRACE_OPENAI_BASE_URL: if one of these is set, the SDK's are not read."
        )
        key = self.openai_api_key and self.openai_api_key.get_secret_value()
        if key and key.startswith(KEY_PREFIX) and key == os.environ.get("OPENAI_API_KEY"):
            message = (
                f"The paid API's key (OPENAI_API_KEY) begins with '{KEY_PREFIX}': it is a key of Headrace. {remedy}"
            )
            raise ConfigError(message, param="OPENAI_API_KEY")
        own_url = own_url or (self.url if "url" in self.model_fields_set else None)
        if own_url and self.openai_base_url and _server(own_url) == _server(self.openai_base_url):
            message = f"The paid API's address (OPENAI_BASE_URL={self.openai_base_url}) is Headrace's own. {remedy}"
            raise ConfigError(message, param="OPENAI_BASE_URL")

    def check_paid_pools(self) -> None:
        """Raises: ConfigError: the paid API alone answers a pool, and has no key."""
        for name in self.paid_pools:
            if self.openai_api_key is None:
                message = f"The paid API alone answers pool '{name}' (engine 'openai'): set OPENAI_API_KEY."
                raise ConfigError(message, param="OPENAI_API_KEY")

    @property
    def served_pool(self) -> PoolSettings:
        """The pool that is served here."""
        return self.pools[self.pool or next(iter(self.pools))]

    @property
    def own_pools(self) -> tuple[str, ...]:
        """The pools that Headrace's own workers answer."""
        return tuple(name for name, pool in self.pools.items() if not pool.is_paid)

    @property
    def paid_pools(self) -> tuple[str, ...]:
        """The pools that the paid API alone answers."""
        return tuple(name for name, pool in self.pools.items() if pool.is_paid)

    def max_run_s(self, route: Route) -> float:
        """How long an attempt may run on a worker of this process: one of overflow runs every pool's."""
        if route is Route.POOL:
            return self.served_pool.max_run_s
        return max(pool.max_run_s for pool in self.pools.values())

    def lane(self, lane: Lane, pool: str | None = None) -> LaneSettings:
        """This lane's settings, the built-in ones where the file has none. Args: pool: by its own `lanes`, if any."""
        common = self.lanes.get(lane) or built_in_lanes()[lane]
        of_pool = self.pools.get(pool) if pool else None
        return common if of_pool is None else of_pool.lane(lane, common)


#: The sections of plugins, by their classes, with their names.
_NAMES: dict[type[Section], str] = {place(each.settings): each.name for each in plugins() if each.settings is not None}

if TYPE_CHECKING:
    Settings = CoreSettings
else:
    _OF_PLUGINS = {name: (section, section()) for section, name in _NAMES.items()}
    #: The core's settings with a section for each plugin that has one.
    Settings = create_model("Settings", __base__=CoreSettings, __doc__=CoreSettings.__doc__, **_OF_PLUGINS)
