"""The autoscaler's settings on one machine, where worker processes take the place of hosts. Starts nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from headrace.config import ScalingSettings, Settings
from headrace.errors import ConfigError

#: The limit where neither the operator nor the settings file sets one: hosts of one machine share its memory.
MAX_HOSTS = 4
_VARIABLE = "HEADRACE_SCALING"


@dataclass(frozen=True, slots=True)
class ScaleOptions:
    """The options of `headrace up --scale`.

    Attributes:
        max_hosts: the most hosts; None for the settings' own limit, or MAX_HOSTS where they have none.
        provision_s: how long a host waits before its process starts; None for the settings' own value.
    """

    max_hosts: int | None = None
    provision_s: float | None = None


def scaled(settings: Settings, options: ScaleOptions, socket: Path) -> Settings:
    """Settings with which the autoscaler asks this socket for hosts of the served pool. Raises: ConfigError."""
    given, pool = settings.scaling, settings.pool
    own = given.of_pool(pool)
    min_hosts = max(1, own.min_hosts)
    max_hosts = options.max_hosts or (own.max_hosts if _sets(given, pool, "max_hosts") else max(MAX_HOSTS, min_hosts))
    if not _sets(given, pool, "min_hosts"):
        # The default is for hosts that can fail one by one, which the workers of one machine do not.
        min_hosts = min(min_hosts, max_hosts)
    provision_s = given.local.provision_s if options.provision_s is None else options.provision_s
    changed = given.model_dump(by_alias=True)
    changed |= {
        "mode": "active",
        "actuator": "local",
        "local": {"socket": str(socket), "provision_s": provision_s},
        "pools": _without_others(changed["pools"], settings)
        | {pool: changed["pools"].get(pool, {}) | {"min_hosts": min_hosts, "max_hosts": max_hosts}},
    }
    try:
        return settings.model_copy(update={"scaling": ScalingSettings.model_validate(changed)})
    except ValidationError as error:
        raise ConfigError(f"Setting scaling: {error.errors()[0]['msg']}.", param="scaling") from error


def _sets(given: ScalingSettings, pool: str, name: str) -> bool:
    """Whether the operator has set this for the pool or for all pools."""
    of_pool = given.pools.get(pool)
    return name in given.model_fields_set or (of_pool is not None and getattr(of_pool, name) is not None)


def variables(settings: Settings, inherited: Mapping[str, str]) -> dict[str, str]:
    """The environment, with all of the autoscaler's settings in place of those that it inherited."""
    rest = {name: value for name, value in inherited.items() if not name.upper().startswith(_VARIABLE)}
    return rest | {_VARIABLE: settings.scaling.model_dump_json(by_alias=True, exclude_none=True)}


def _without_others(pools: Mapping[str, Mapping[str, object]], settings: Settings) -> dict[str, Mapping[str, object]]:
    """The settings of the other pools: they have no host here, so the autoscaler must want none."""
    none: dict[str, object] = dict.fromkeys(("min_hosts", "max_hosts", "fixed_hosts"), 0)
    return {name: {**pools.get(name, {}), **none} for name in settings.own_pools if name != settings.pool}
