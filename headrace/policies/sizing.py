"""How much KV cache fits on a GPU beside a model, and how many jobs that serves. Pure.

The bytes per token and the blocks of a pool of known size are exact. All times, and the memory that an engine needs
beside weights and KV cache, are estimates: the engine measures its own when it starts.
"""

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from headrace.config import PoolSettings
from headrace.domain.shapes import WEIGHT_BYTES, ModelShape
from headrace.errors import ConfigError

GIB = 2**30
#: The share of a GPU's memory that vLLM uses by default. Source: its engine argument `gpu_memory_utilization`.
GPU_SHARE = 0.92
#: The most tokens in one step, and sequences in one batch, of an engine on a GPU. Source: vLLM's own defaults.
STEP_TOKENS = 8192
BATCH = 256
#: An estimate for the CUDA context, library workspaces and captured graphs, which no configuration states.
FIXED_BYTES = int(1.2 * GIB)


@dataclass(frozen=True, slots=True)
class Gpu:
    """One accelerator: its memory as the driver reports it, its bandwidth, and its dense 16-bit operations a second."""

    memory_bytes: int
    bytes_per_s: float
    flops: float


def _gpu(mib: int, gb_per_s: float, tflops: float) -> Gpu:
    return Gpu(mib * 2**20, gb_per_s * 1e9, tflops * 1e12)


#: Keys are the names that clouds use. Source: NVIDIA's data sheets; memory as `nvidia-smi` shows it.
GPUS: Mapping[str, Gpu] = {
    "t4": _gpu(15360, 320, 65),
    "l4": _gpu(23034, 300, 121),
    "a10g": _gpu(23028, 600, 70),
    "rtx4090": _gpu(24564, 1008, 165),
    "l40s": _gpu(46068, 864, 362),
    "a100-40": _gpu(40960, 1555, 312),
    "a100-80": _gpu(81920, 2039, 312),
    "h100": _gpu(81559, 3350, 989),
    "h200": _gpu(143771, 4800, 989),
    "b200": _gpu(183359, 8000, 2250),
}


@dataclass(frozen=True, slots=True)
class Serving:
    """How a model is served.

    Attributes:
        gpus: GPUs that share one engine, each with an equal part of every layer (tensor parallel).
        quantisation: how the weights are quantised; None: as published.
        kv_cache_bytes: the KV cache of each GPU; `gpu_share` then has no effect. None: the rest of that share.
    """

    gpus: int = 1
    gpu_share: float = GPU_SHARE
    kv_dtype: str = "bf16"
    quantisation: str | None = None
    block_tokens: int = 16
    max_running: int = BATCH
    kv_cache_bytes: int | None = None


#: By vLLM engine argument: the field of `Serving`, and its type.
_ARGUMENTS: Mapping[str, tuple[str, type[int | float]]] = {
    "tensor_parallel_size": ("gpus", int),
    "gpu_memory_utilization": ("gpu_share", float),
    "block_size": ("block_tokens", int),
    "max_num_seqs": ("max_running", int),
}


def as_served(shape: ModelShape, serving: Serving, pool: PoolSettings) -> tuple[ModelShape, Serving]:
    """Apply a pool's settings to the model and to how it is served.

    Raises: ConfigError: one of its `engine_options` has a value that sizing cannot use.
    """
    options = pool.engine_options
    found: dict[str, Any] = {"max_running": pool.max_running}
    for argument, (name, kind) in _ARGUMENTS.items():
        if argument in options:
            found[name] = _number(options, argument, kind)
    # For other names, the published weights are already quantised.
    if (quantisation := str(options.get("quantization"))) in WEIGHT_BYTES:
        found["quantisation"] = quantisation
    longest = _number(options, "max_model_len", int) if "max_model_len" in options else pool.max_model_tokens
    if longest is not None:
        shape = replace(shape, max_model_tokens=int(longest))
    return shape, replace(serving, kv_dtype=_kv_dtype(str(options.get("kv_cache_dtype", "auto"))), **found)


def _number(options: Mapping[str, Any], argument: str, kind: type[int | float]) -> int | float:
    with suppress(TypeError, ValueError, OverflowError):
        if (number := kind(options[argument])) > 0:
            return number
    param = f"engine_options.{argument}"
    raise ConfigError(f"{param} is no number above 0: {options[argument]!r}.", param=param)


def _kv_dtype(name: str) -> str:
    """Headrace's name for a vLLM cache type; `auto` is the model's own 16-bit type."""
    if name in ("auto", "bfloat16", "float16"):
        return "bf16"
    if name.startswith("fp8"):
        return "fp8"
    message = f"What a token takes of a KV cache of '{name}' is not known here: name the model instead of its pool."
    raise ConfigError(message, param="engine_options.kv_cache_dtype")


@dataclass(frozen=True, slots=True)
class KvPool:
    """The KV cache of one engine; bytes are per GPU.

    Attributes: blocks: number of blocks; vLLM never hands out one of them.
    """

    total_bytes: int
    bytes_per_token: int
    block_tokens: int

    @property
    def blocks(self) -> int:
        """Counted as vLLM does. Source: `get_num_blocks` in its `v1/core/kv_cache_utils.py`."""
        return self.total_bytes // (self.bytes_per_token * self.block_tokens)

    @property
    def tokens(self) -> int:
        """Tokens that jobs can fill."""
        return max(0, self.blocks - 1) * self.block_tokens

    def sequences(self, tokens: int) -> int:
        """How many sequences of this length fit at once."""
        return max(0, self.blocks - 1) // math.ceil(tokens / self.block_tokens)


@dataclass(frozen=True, slots=True)
class SizingPlan:
    """The memory plan of each of an engine's GPUs, in bytes."""

    weight_bytes: int
    other_bytes: int
    pool: KvPool


def plan(shape: ModelShape, gpu: Gpu, serving: Serving) -> SizingPlan:
    """Plan the GPUs' memory: weights, the engine's working memory, and a KV cache of the given size or in the rest.

    Raises: ConfigError if the given cache does not fit, or no block of one does.
    """
    weights = shape.weight_bytes(serving.quantisation) // serving.gpus
    other = FIXED_BYTES + _step_bytes(shape, serving)
    given = serving.kv_cache_bytes
    room = int(gpu.memory_bytes * serving.gpu_share) if given is None else gpu.memory_bytes
    per_token = shape.kv_bytes_per_token(serving.kv_dtype, serving.gpus)
    rest = max(0, room - weights - other)
    pool = KvPool(rest if given is None else given, per_token, serving.block_tokens)
    if pool.tokens == 0 or pool.total_bytes > rest:
        cache = "" if given is None else f" and its KV cache of {given / GIB:.1f} GiB (kv_cache_mib)"
        raise ConfigError(
            f"It does not fit: the engine has {room / GIB:.1f} GiB of a GPU, its weights take {weights / GIB:.1f} and "
            f"a step about {other / GIB:.1f}{cache}. Take a larger GPU, more of them, or smaller weights.",
            param="gpu",
        )
    return SizingPlan(weights, other, pool)


def _step_bytes(shape: ModelShape, serving: Serving) -> int:
    """Temporary memory of one full step: the larger of the widest layer's vectors and two copies of the logits."""
    vectors = STEP_TOKENS * (2 * shape.intermediate // serving.gpus + 4 * shape.hidden) * 2
    scores = serving.max_running * shape.vocabulary * 4 * 2
    return max(vectors, scores)


@dataclass(frozen=True, slots=True)
class Rate:
    """The hardware's upper bound for jobs of one length; real engines reach about half to two thirds of it.

    Attributes:
        step_s: seconds of one step, which gives each of them one token.
        first_token_s: time to first token of a job that runs alone.
    """

    running: int
    step_s: float
    first_token_s: float
    tokens_per_s: float
    jobs_per_s: float


@dataclass(frozen=True, slots=True)
class JobSize:
    """The tokens of a typical job."""

    prompt_tokens: int
    output_tokens: int


def rate(shape: ModelShape, gpu: Gpu, serving: Serving, pool: KvPool, job: JobSize) -> Rate:
    """The speed of a full batch of such jobs: a roofline of memory traffic and arithmetic.

    A step reads the weights once and the KV cache of all its sequences. It computes two operations per active parameter
    and sequence. The slower of the two is the step's time. Prompts are computed in between. Raises: ConfigError if one
    job does not fit. Source: Williams, Waterman, Patterson: Roofline, CACM 2009.
    """
    prompt_tokens, output_tokens = job.prompt_tokens, job.output_tokens
    running = min(serving.max_running, pool.sequences(prompt_tokens + output_tokens))
    if running == 0:
        raise ConfigError(
            f"A job of {prompt_tokens + output_tokens} tokens does not fit: the pool has {pool.tokens}.", param="prompt"
        )
    bytes_per_s, flops = gpu.bytes_per_s * serving.gpus, gpu.flops * serving.gpus
    cached_bytes = running * (prompt_tokens + output_tokens / 2) * shape.kv_bytes_per_token(serving.kv_dtype)
    reading_s = (shape.weight_bytes_read(running, serving.quantisation) + cached_bytes) / bytes_per_s
    step_s = max(reading_s, 2 * shape.active_params * running / flops)
    prompt_s = 2 * shape.active_params * prompt_tokens / flops
    first_token_s = max(prompt_s, shape.weight_bytes_read(prompt_tokens, serving.quantisation) / bytes_per_s)
    jobs_per_s = running / (output_tokens * step_s + running * prompt_s)
    return Rate(running, step_s, first_token_s, jobs_per_s * output_tokens, jobs_per_s)
