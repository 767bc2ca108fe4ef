"""Starts an `AsyncLLM` with a pool's settings, with a temporary folder and a tally of its statistics."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields, replace
from io import TextIOWrapper
from pathlib import Path
from typing import Any
from uuid import uuid4

from pydantic import ValidationError

from headrace.config import PoolSettings
from headrace.errors import ConfigError, EngineUnavailable
from workers.engines.base import EngineStats
from workers.engines.vllm.answer import check_parsers
from workers.engines.vllm.options import blamed, checked
from workers.engines.vllm.settings import Adapter, arguments, environment

_PREFIX = "headrace-engine-"
#: A socket's path is limited to about 100 characters, and vLLM adds 37 to the folder's path.
_LONGEST_PATH = 65


class Scratch:
    """A temporary folder that does not outlive its process: the kernel releases its lock even if that is killed."""

    def __init__(self) -> None:
        root = Path(tempfile.gettempdir())
        name = f"{_PREFIX}{uuid4().hex[:12]}"
        self.path = root / name if len(str(root / name)) <= _LONGEST_PATH else Path("/tmp") / name
        self._lock: TextIOWrapper | None = None

    def open(self) -> None:
        """Make the folder, and remove those of dead processes. Safe to call twice."""
        if self._lock is None:
            _sweep(self.path.parent)
            self._lock = _lock_path(self.path).open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.path.mkdir(mode=0o700, exist_ok=True)

    def close(self) -> None:
        """Remove the folder. Safe to call twice."""
        if self._lock is not None:
            shutil.rmtree(self.path, ignore_errors=True)
            _lock_path(self.path).unlink(missing_ok=True)
            self._lock.close()
            self._lock = None


def _lock_path(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def _sweep(root: Path) -> None:
    for path in root.glob(f"{_PREFIX}*.lock"):
        try:
            if path.stat().st_uid != os.getuid():
                continue
            with path.open("r+") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path.with_suffix(""), ignore_errors=True)
                path.unlink(missing_ok=True)
        except OSError:
            continue  # Its process lives, or another one sweeps it right now.


class LoadTally:
    """The engine's stats, over all cores that a worker has had. One thread at a time records; any may read."""

    def __init__(self) -> None:
        # The recording thread replaces the whole object, so that a reader needs no lock.
        self._stats = EngineStats(kv_use=0.0)

    @property
    def stats(self) -> EngineStats:
        """As of the last step."""
        return self._stats

    def emptied(self) -> None:
        """Clear the present load, because the core is gone."""
        self._stats = replace(self._stats, running=0, waiting=0, kv_use=0.0)

    def record(self, scheduler: Any, iteration: Any) -> None:
        """Add what a core reports after a step.

        Args:
            scheduler: vLLM's `SchedulerStats` after the step; None if nothing was scheduled.
            iteration: vLLM's `IterationStats` of the requests that got a token in the step; None if none did.
        """
        now = self._stats
        if scheduler is not None:
            now = _stepped(now, scheduler, is_work=iteration is not None or scheduler.num_running_reqs > 0)
        if iteration is not None:
            now = _made(now, iteration)
        self._stats = now


def _stepped(before: EngineStats, scheduler: Any, *, is_work: bool) -> EngineStats:
    """Args: is_work: False for the step in which a core cleans up after its last request, without a batch."""
    running, kv_use = scheduler.num_running_reqs, scheduler.kv_cache_usage
    return replace(
        before,
        running=running,
        waiting=scheduler.num_waiting_reqs + scheduler.num_skipped_waiting_reqs,
        kv_use=kv_use,
        steps=before.steps + is_work,
        kv_use_sum=before.kv_use_sum + kv_use * is_work,
        running_sum=before.running_sum + running * is_work,
    )


def _made(before: EngineStats, iteration: Any) -> EngineStats:
    first_tokens = iteration.time_to_first_tokens_iter
    return replace(
        before,
        prompt_tokens=before.prompt_tokens + iteration.num_prompt_tokens,
        output_tokens=before.output_tokens + iteration.num_generation_tokens,
        preemptions=before.preemptions + iteration.num_preempted_reqs,
        first_tokens=before.first_tokens + len(first_tokens),
        first_token_s=before.first_token_s + sum(first_tokens),
    )


#: Seconds for which running requests go on at a stop, and in a core after a SIGTERM to the whole process group.
DRAIN_S = 60


def _stat_logger(tally: LoadTally) -> type:
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


def load(pool: PoolSettings, scratch: Path, where: str, adapters: Mapping[str, Adapter], tally: LoadTally) -> Any:
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
