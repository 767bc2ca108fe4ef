"""A pool's LoRA adapters, found before the engine starts. Does not import vllm."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.connections import model_files
from headrace.errors import ConfigError, PromptRejected

#: Values that vLLM accepts as the highest rank. Source: `MaxLoRARanks` of its `config/lora.py`.
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
#: The most adapters in one batch. Each takes its own GPU memory, for the highest rank.
MOST_IN_BATCH = 8


@dataclass(frozen=True, slots=True)
class Adapter:
    """One adapter, as a folder.

    Attributes:
        number: identifies the adapter in vLLM while this process lives.
        rank: the rank of its matrices.
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

    Raises:
        ConfigError: a place holds no adapter. `param` names the setting.
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


def no_such_adapter(name: str) -> PromptRejected:
    """The error of a job whose adapter was removed from the settings after the job was accepted."""
    return PromptRejected(f"The adapter '{name}' is not served here any more.", param="model")


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
