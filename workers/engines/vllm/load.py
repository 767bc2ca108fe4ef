"""Starts an `AsyncLLM` with a pool's settings, and connects its statistics."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from headrace.config import PoolSettings
from headrace.errors import ConfigError, EngineUnavailable
from workers.engines.adapters import Adapter
from workers.engines.vllm.options import blamed, checked
from workers.engines.vllm.reading import check_parsers
from workers.engines.vllm.settings import arguments, environment
from workers.engines.vllm.stats import Tally

#: Seconds for which running requests go on at a stop, and in a core after a SIGTERM to the whole process group.
DRAIN_S = 60


def _stat_logger(tally: Tally) -> type:
    """The class that vLLM instantiates for its core and calls after each step. Its Prometheus metrics stay on."""
    from vllm.v1.metrics.loggers import StatLoggerBase

    class StatLogger(StatLoggerBase):  # type: ignore[misc]
        def __init__(self, vllm_config: Any, engine_index: int = 0) -> None: ...

        def record(self, scheduler_stats: Any, iteration_stats: Any, *_: Any, **__: Any) -> None:
            tally.record(scheduler_stats, iteration_stats)

        def log_engine_initialized(self) -> None: ...

    return StatLogger


def import_vllm(pool: PoolSettings, scratch: Path) -> None:
    """Import vLLM in its environment. A failure shows again in `load`.

    Call it first, from a frame that names no engine. Something in vLLM keeps the frames of its first import and every
    object that they name, so an engine named there would stay in memory forever.
    """
    with environment(pool, scratch), suppress(Exception):
        import vllm.v1.engine.async_llm  # noqa: F401


def load(pool: PoolSettings, scratch: Path, where: str, adapters: Mapping[str, Adapter], tally: Tally) -> Any:
    """Start an AsyncLLM. Raises: ConfigError that names the setting below `where`; EngineUnavailable."""
    with environment(pool, scratch):
        try:
            from vllm import AsyncEngineArgs, envs
            from vllm.v1.engine.async_llm import AsyncLLM

            envs.disable_envs_cache()  # An earlier engine had another folder.
            # Check the options before the weights load, which takes minutes.
            options = checked(pool.engine_options, fields(AsyncEngineArgs), f"{where}.engine_options")
            given = {"shutdown_timeout": DRAIN_S, **arguments(pool, adapters.values()), **options}
            engine_args = AsyncEngineArgs(**given)
            if pool.reasoning_parser or pool.tool_parser:
                check_parsers(pool, engine_args.create_model_config(), where)
            llm = AsyncLLM.from_engine_args(engine_args, stat_loggers=[_stat_logger(tally)])
            envs.enable_envs_cache()  # Without the cache, vLLM reads the environment for each token.
            return llm
        except ValidationError as error:
            option = blamed(error, pool.engine_options)
            param = f"{where}.engine_options.{option}" if option else where
            raise ConfigError(f"vLLM refuses {param}: {error.errors()[0]['msg']}", param=param) from error
        except (ValueError, TypeError, ImportError) as error:
            raise ConfigError(f"vLLM cannot be started with these settings: {error}", param=where) from error
        except (RuntimeError, OSError) as error:
            raise EngineUnavailable(f"vLLM did not start: {error}") from error
