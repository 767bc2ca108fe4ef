"""The settings of the autoscaler: its policy, its calendar of known peaks, and its actuators."""

from collections.abc import Collection
from datetime import datetime, time
from decimal import Decimal
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, field_validator, model_validator

from headrace.errors import ConfigError
from headrace.setting_types import Positive, PositiveInt, Section, Share

Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


class ScalingEvent(Section):
    """A known peak: weekly at fixed hours, or once.

    Attributes:
        name: what decisions call the peak.
        pool: the pool that it concerns; by default every pool.
        weekdays: a weekly peak's days. Set `from` and `to` with them.
        from_time: a weekly peak's start of day, written `from`.
        to_time: its end of day, written `to`. An end that is not after the start is on the next day.
        zone: the time zone of `from` and `to`, such as `Europe/Berlin`.
        starts_at: the start of a peak that happens once, with its UTC offset.
        ends_at: its end.
        jobs_per_s: the expected rate of new jobs.
        hosts: the number of hosts to have, in place of a rate.
    """

    name: str
    pool: str | None = None
    weekdays: tuple[Weekday, ...] = ()
    from_time: Annotated[time | None, Field(alias="from")] = None
    to_time: Annotated[time | None, Field(alias="to")] = None
    zone: str = "UTC"
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    jobs_per_s: Positive | None = None
    hosts: PositiveInt | None = None

    @field_validator("zone")
    @classmethod
    def _exists(cls, zone: str) -> str:
        try:
            ZoneInfo(zone)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError(f"'{zone}' is not a time zone of the IANA database, such as 'Europe/Berlin'") from error
        return zone

    @model_validator(mode="after")
    def _is_weekly_or_once(self) -> Self:
        weekly = (bool(self.weekdays), self.from_time is not None, self.to_time is not None)
        once = (self.starts_at is not None, self.ends_at is not None)
        if not ((all(weekly) and not any(once)) or (all(once) and not any(weekly))):
            raise ValueError("an event has 'weekdays', 'from' and 'to', or 'starts_at' and 'ends_at'")
        if self.starts_at is not None and self.ends_at is not None:
            if self.starts_at.tzinfo is None or self.ends_at.tzinfo is None:
                raise ValueError("'starts_at' and 'ends_at' need a UTC offset, such as 2026-12-01T09:00:00Z")
            if self.ends_at <= self.starts_at:
                raise ValueError("'ends_at' must be after 'starts_at'")
        if (self.jobs_per_s is None) == (self.hosts is None):
            raise ValueError("an event has either 'jobs_per_s' or 'hosts'")
        return self


class PoolScaling(Section):
    """What one pool has in place of the common settings of `[scaling]`.

    Attributes:
        min_hosts: the fewest hosts of this pool.
        max_hosts: the most hosts of this pool.
        fixed_hosts: the number of its hosts under the policy `fixed`.
        host_type: the type of its hosts: a NAME of `[hosts.NAME]`.
    """

    min_hosts: Annotated[int, Field(ge=0)] | None = None
    max_hosts: Annotated[int, Field(ge=0)] | None = None
    fixed_hosts: Annotated[int, Field(ge=0)] | None = None
    host_type: str | None = None


class CommandSettings(Section):
    """The operator's own program, which starts and ends hosts.

    Attributes:
        argv: the program and its arguments. It gets one JSON request on its standard input.
        timeout_s: the program is killed after this time, and the call is repeated later.
    """

    argv: tuple[str, ...] = ()
    timeout_s: Positive = 60.0


class AwsSettings(Section):
    """EC2 Auto Scaling groups.

    Attributes:
        groups: the Auto Scaling group of each pool.
        region: the groups' region; by default the one of the AWS configuration.
        endpoint_url: another URL of the API, for tests.
        timeout_s: how long a request may wait for a connection, and then for its answer. It is made twice at most.
    """

    groups: dict[str, str] = Field(default_factory=dict)
    region: str | None = None
    endpoint_url: str | None = None
    timeout_s: Positive = 10.0


class KubernetesSettings(Section):
    """Deployments of a Kubernetes cluster.

    Attributes:
        deployments: the Deployment of each pool.
        namespace: the namespace of the Deployments.
        kubeconfig: a kubeconfig file; by default the service account of the pod, or else the user's own file.
        timeout_s: how long a request may take.
    """

    deployments: dict[str, str] = Field(default_factory=dict)
    namespace: str = "default"
    kubeconfig: str | None = None
    timeout_s: Positive = 10.0


class UnattendedSettings(Section):
    """What an ordered host does when no control process is left to end it.

    Attributes:
        argv: your own program, which ends the machine that it runs on, and its arguments. The worker runs it, with
            `HEADRACE_HOST_ID` and `HEADRACE_POOL` in its environment. Without one, no host ends itself.
        after_s: how long the host must have been idle, and no control process seen. It never goes below `min_hosts`.
        timeout_s: the program is killed after this time, and run again later.
    """

    argv: tuple[str, ...] = ()
    after_s: Positive = 1800.0
    timeout_s: Positive = 60.0


class LocalSettings(Section):
    """Worker processes of one machine, each of which counts as a host. `headrace up --scale` sets this.

    Attributes:
        socket: the Unix socket of the supervisor that starts and stops the processes.
        provision_s: how long the supervisor waits before it starts a process, so that a host takes as long as a real
            one.
    """

    socket: str | None = None
    provision_s: Annotated[float, Field(ge=0)] = 0.0


class ScalingSettings(Section):
    """The autoscaler. It decides every `autoscale_every_s` how many hosts each pool should have.

    Attributes:
        mode: `advisory` writes decisions and moves no host; `active` carries them out through `actuator`.
        policy: `predictive` orders hosts for the load expected when they will be ready; `reactive` compares depth and
            load with thresholds; `schedule` follows `events` alone; `fixed` keeps `fixed_hosts`.
        actuator: what starts and ends hosts: `local`, `command`, `aws` or `kubernetes`.
        min_hosts: the fewest hosts of a pool.
        max_hosts: the most hosts of a pool.
        fixed_hosts: the number of hosts under the policy `fixed`; by default `min_hosts`.
        host_type: the type of a pool's hosts: a NAME of `[hosts.NAME]`. Without one, the price of a host is unknown,
            and decisions ignore prices.
        up_depth: `reactive` adds hosts while more jobs than this wait in a pool's queues.
        up_load: it adds hosts above this share of running slots in use.
        down_load: it removes hosts below this share of running slots in use.
        up_step: hosts that one of its decisions adds.
        down_step: hosts that one of its decisions removes.
        cooldown_s: its pause between two changes of one pool.
        stale_after_s: observations that are older decide nothing.
        window_s: the time constant of `predictive`: how far back it looks for a trend, and the time of which most must
            show low demand before a host is removed.
        staffing_beta: the safety margin of `predictive`, in square roots of the expected number of busy slots. Higher
            means shorter waits and a higher bill.
        refused_multiple: an app whose jobs are refused counts as demand for at most this multiple of what it was served
            in the last hour, while other apps have work. The launch of an app that grows by more than this at
            once is followed in steps; more lets one app that asks in a loop order more hosts.
        refused_job_usd: what a refused job costs you. Jobs that may not go to the paid API justify hosts by it.
        drain_host_s: how long a host that is to be removed may finish its running jobs. What still runs then is handed
            back to its queue.
        overflow_share: an alert is raised when the paid API answered more than this share of a pool's jobs within an
            hour.
        events: known peaks.
        pools: settings of single pools.
        command: the actuator `command`.
        aws: the actuator `aws`.
        kubernetes: the actuator `kubernetes`.
        local: the actuator `local`.
        unattended: how ordered hosts end themselves when no control process is left.
    """

    mode: Literal["advisory", "active"] = "advisory"
    policy: Literal["predictive", "reactive", "schedule", "fixed"] = "predictive"
    actuator: Literal["local", "command", "aws", "kubernetes"] | None = None
    min_hosts: Annotated[int, Field(ge=0)] = 2
    max_hosts: Annotated[int, Field(ge=0)] = 20
    fixed_hosts: Annotated[int, Field(ge=0)] | None = None
    host_type: str | None = None
    up_depth: PositiveInt = 100
    up_load: Share = 0.80
    down_load: Share = 0.30
    up_step: PositiveInt = 2
    down_step: PositiveInt = 1
    cooldown_s: Positive = 300.0
    stale_after_s: Positive = 60.0
    window_s: Positive = 600.0
    staffing_beta: Annotated[float, Field(ge=0)] = 0.5
    refused_multiple: Annotated[float, Field(ge=0)] = 10.0
    refused_job_usd: Annotated[Decimal, Field(ge=0)] = Decimal("0.015")
    drain_host_s: Annotated[float, Field(ge=0)] = 900.0
    overflow_share: Share = 0.5
    events: tuple[ScalingEvent, ...] = ()
    pools: dict[str, PoolScaling] = Field(default_factory=dict)
    command: CommandSettings = CommandSettings()
    aws: AwsSettings = AwsSettings()
    kubernetes: KubernetesSettings = KubernetesSettings()
    local: LocalSettings = LocalSettings()
    unattended: UnattendedSettings = UnattendedSettings()

    @model_validator(mode="after")
    def _can_act(self) -> Self:
        if self.mode == "active" and self.actuator is None:
            raise ValueError("mode 'active' needs an 'actuator': local, command, aws or kubernetes")
        for pool in ("", *self.pools):
            of_pool = self.of_pool(pool)
            if of_pool.max_hosts < of_pool.min_hosts:
                where = f" of pool '{pool}'" if pool else ""
                raise ValueError(f"max_hosts{where} ({of_pool.max_hosts}) is below min_hosts ({of_pool.min_hosts})")
        return self

    def of_pool(self, pool: str) -> Self:
        """These settings with those of one pool in their place, and with its events alone."""
        own = self.pools.get(pool, PoolScaling())
        changes = {name: value for name, value in own if value is not None}
        events = tuple(event for event in self.events if event.pool in (None, pool))
        return self.model_copy(update={**changes, "events": events, "pools": {}})

    def check(self, pools: Collection[str], host_types: Collection[str]) -> None:
        """Check the names in these settings. Raises: ConfigError: one of them names no pool, or no host type.

        Args:
            pools: the pools that have hosts of their own.
            host_types: the NAMEs of `[hosts.NAME]`.
        """
        for pool in sorted({*self.pools, *(event.pool for event in self.events if event.pool)} - set(pools)):
            known = ", ".join(pools) or "none"
            message = f"[scaling] names pool '{pool}'; the pools with hosts of their own: {known}."
            raise ConfigError(message, param="scaling.pools")
        named = {self.host_type, *(pool.host_type for pool in self.pools.values())} - {None, *host_types}
        for host_type in named:
            message = f"[scaling] names host type '{host_type}': add [hosts.{host_type}] with its usd_per_hour."
            raise ConfigError(message, param="scaling.host_type")
