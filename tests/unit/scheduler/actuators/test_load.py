import sys
from types import ModuleType
from typing import get_args

import pytest

from headrace.config import ScalingSettings, Settings
from headrace.errors import ConfigError
from scheduler.actuators import ACTUATORS, load


def test_the_settings_and_the_loader_know_the_same_actuators() -> None:
    literal, _ = get_args(ScalingSettings.model_fields["actuator"].annotation)
    assert get_args(literal) == tuple(ACTUATORS)


def test_without_an_actuator_none_is_loaded() -> None:
    with pytest.raises(ConfigError, match="names no actuator; there are local, command, aws, kubernetes"):
        load(Settings())


def test_a_missing_sdk_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    # None in sys.modules makes an import fail as it does where a package is not installed.
    monkeypatch.setitem(sys.modules, "boto3", None)  # type: ignore[arg-type]
    monkeypatch.delitem(sys.modules, "scheduler.actuators.aws", raising=False)
    with pytest.raises(ConfigError, match=r"The actuator 'aws' needs the package '.+', which is not installed"):
        load(Settings(scaling=ScalingSettings(actuator="aws")))


def test_the_named_actuator_is_built_with_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(scaling=ScalingSettings(actuator="local"))
    module = ModuleType("scheduler.actuators.local")
    module.build = lambda given: ("built", given)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "scheduler.actuators.local", module)
    assert load(settings) == ("built", settings)
