"""Actuators by name. An actuator's SDK is imported only when the actuator is loaded."""

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType

from headrace.config import Settings
from headrace.errors import ConfigError
from scheduler.actuators.base import Actuator

#: The module with each actuator's `build(settings) -> Actuator`.
ACTUATORS: Mapping[str, str] = MappingProxyType(
    {
        "local": "scheduler.actuators.local",
        "command": "scheduler.actuators.command",
        "aws": "scheduler.actuators.aws",
        "kubernetes": "scheduler.actuators.kubernetes",
    }
)


def load(settings: Settings) -> Actuator:
    """Make the actuator that `[scaling] actuator` names. It calls no provider yet.

    Raises: ConfigError: none is named, one of its settings is missing or wrong, or its SDK is not installed.
    """
    name = settings.scaling.actuator
    if name is None:
        raise ConfigError(f"[scaling] names no actuator; there are {', '.join(ACTUATORS)}.", param="scaling.actuator")
    try:
        module = import_module(ACTUATORS[name])
    except ModuleNotFoundError as missing:
        raise ConfigError(
            f"The actuator '{name}' needs the package '{missing.name}', which is not installed.",
            param="scaling.actuator",
        ) from missing
    actuator: Actuator = module.build(settings)
    return actuator
