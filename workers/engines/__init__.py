"""Engines by name. An engine's SDK is imported only when the engine is loaded."""

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType

from headrace.config import PoolSettings, Settings
from headrace.errors import ConfigError
from workers.engines.base import Engine

#: The module with each engine's `build(settings, pool) -> Engine`.
ENGINES: Mapping[str, str] = MappingProxyType(
    {
        "vllm": "workers.engines.vllm.engine",
        "openai": "workers.engines.openai.engine",
        "simulator": "workers.engines.simulator.engine",
    }
)


def load(name: str, settings: Settings, pool: PoolSettings) -> Engine:
    """Make the named engine, not started yet. The paid API ignores the pool, because it serves every pool.

    Raises: ConfigError: the name is unknown, or one of the engine's settings is missing or wrong.
    """
    if name not in ENGINES:
        raise ConfigError(f"There is no engine {name!r}; there are {', '.join(ENGINES)}.", param="engine")
    engine: Engine = import_module(ENGINES[name]).build(settings, pool)
    return engine
