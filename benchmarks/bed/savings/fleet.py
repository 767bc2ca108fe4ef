"""A fleet of simulated GPUs behind a real Headrace, with the mechanisms that save work on or off by settings.

Each pool has one worker process, which stands for all GPUs of the pool: it has their slots together.
"""

import json
import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bed import minilm
from bed.testbed import Testbed, patched, wait_until
from headrace.config import PoolSettings
from headrace.domain.queues import books_key

#: What saves work, in the order in which a request meets it, and what switches it on for a pool. The semantic cache
#: needs `cache_s` too: without `cache` both are off.
SWITCHES: Mapping[str, Mapping[str, Any]] = {
    "cache": {"cache_s": 3600},
    "flight": {"single_flight": True},
    "semantic": {"semantic_cache": {"pool": "embed", "hold_s": 0.3}},
    "routing": {},
    "compression": {"compress": "plain"},
}
#: Those that this checkout has.
MECHANISMS = tuple(name for name, switch in SWITCHES.items() if switch.keys() <= PoolSettings.model_fields.keys())
LARGE, SMALL = "large-model", "small-model"
#: GPUs of the fleet. With routing one of them serves the small model, without it all serve the large one.
GPUS, SMALL_GPUS = 8, 1
#: Of one GPU: answers at once, and the tokens a second at which each is read and written. A real GPU has some five
#: times the slots at these rates: the fleet is scaled down, so that two processor cores can carry its users.
LARGE_GPU = {"slots": 6, "prefill": 8000, "decode": 60}
#: A model of a tenth of the weights: four times as fast, and three times the slots in the memory that is left.
SMALL_GPU = {"slots": 18, "prefill": 32_000, "decode": 240}
#: Every answer has as many tokens.
ANSWER_TOKENS, MAX_TOKENS = 160, 256
#: USD per 1,000,000 tokens, prompt and answer.
PRICES = {LARGE: ("0.05", "0.20"), SMALL: ("0.005", "0.02")}
WITHOUT = ("gpu", "overflow", "webhooks", "flower")
KNOWN = Path(__file__).parent / "known"
#: How many times as fast the fleet is while it works off a past.
FAST = 100
#: The longest time in which jobs end once no more come, and in which they are looked up.
ENDED_WITHIN_S, LOOKED_UP_WITHIN_S = 120.0, 300.0


def capacity_per_s(prompt_tokens: int) -> float:
    """The jobs a second that the fleet can answer if all its GPUs serve the large model."""
    seconds = prompt_tokens / LARGE_GPU["prefill"] + ANSWER_TOKENS / LARGE_GPU["decode"]
    return GPUS * LARGE_GPU["slots"] / seconds


def settings_of(on: Collection[str]) -> dict[str, str]:
    """The settings of a stack with these mechanisms, as an environment."""
    shared: dict[str, Any] = {key: value for name in on for key, value in SWITCHES[name].items()}
    pools = {"chat": _pool(LARGE, LARGE_GPU, GPUS - (SMALL_GPUS if "routing" in on else 0)) | shared}
    rules = {}
    if "routing" in on:
        pools["fast"] = _pool(SMALL, SMALL_GPU, SMALL_GPUS) | shared
        rules = {"simple": {"tasks": ["simple"], "pools": ["fast"]}, "rest": {"pools": ["chat"]}}
    if "semantic" in on:
        pools["embed"] = {"model": minilm.MODEL, "model_dir": str(minilm.weights()), "serves": "embeddings"}
    return {
        "HEADRACE_POOLS": json.dumps(pools),
        "HEADRACE_RULES": json.dumps(rules),
        "HEADRACE_SIMULATOR__OUTPUT_TOKENS": str(ANSWER_TOKENS),
        "HEADRACE_SIMULATOR__KV_TOKENS": str(1_000_000),
        "HEADRACE_OBSERVE_EVERY_S": "1",
    }


def _pool(model: str, gpu: Mapping[str, int], number: int) -> dict[str, Any]:
    prompt_usd, answer_usd = PRICES[model]
    return {
        "model": model,
        "engine": "simulator",
        "max_running": number * gpu["slots"],
        "drain_jobs_per_s": number * gpu["slots"] * gpu["decode"] / ANSWER_TOKENS,
        "price": {
            "input_usd_per_mtok": prompt_usd,
            "output_usd_per_mtok": answer_usd,
            "version": "savings",
            "source": "benchmarks/bed/savings/fleet.py",
        },
    }


class Fleet:
    """A running Headrace. Start its workers at one speed or the other."""

    def __init__(self, bed: Testbed, on: Collection[str]) -> None:
        self.bed, self.on = bed, frozenset(on)

    @property
    def model(self) -> str:
        """What its users ask for."""
        return "auto" if "routing" in self.on else LARGE

    def wait_until_all_ended(self) -> None:
        """Return once no job is open, and none is still to be looked up by its meaning. Raises: ClickException."""
        self.bed.wait_until_all_ended(ENDED_WITHIN_S)
        # A look-up that comes after the end makes its job an entry, or a try. A backlog of them would let no job that
        # comes next be looked up in time.
        waiting = books_key("lookups", "embed")
        wait_until(lambda: not self.bed.redis.zcard(waiting), LOOKED_UP_WITHIN_S, "Look-ups do not end.")

    @contextmanager
    def embedding(self) -> Iterator[None]:
        """Let an embedding model work for the semantic cache, if that is on.

        It is simulated, with MiniLM's tokenizer: on the CPU the real one would take the cores that carry the users.
        """
        if "semantic" not in self.on:
            yield
            return
        env = {"HEADRACE_POOL": "embed", "HEADRACE_ENGINE": "simulator", "HEADRACE_MODEL_DIR": str(minilm.weights())}
        worker = self.bed.start_worker(env=env)
        try:
            yield
        finally:
            worker.stop()

    @contextmanager
    def working(self, speed: float = 1.0) -> Iterator[None]:
        """Let its GPUs work, by this factor faster than real ones."""
        pools = {"chat": LARGE_GPU, **({"fast": SMALL_GPU} if "routing" in self.on else {})}
        workers = [self.bed.start_worker(env=_worker_env(pool, gpu, speed)) for pool, gpu in pools.items()]
        try:
            yield
        finally:
            for worker in workers:
                worker.stop()


def _worker_env(pool: str, gpu: Mapping[str, int], speed: float) -> dict[str, str]:
    return {
        "HEADRACE_POOL": pool,
        "HEADRACE_SIMULATOR__PREFILL_TOKENS_PER_S": str(math.ceil(speed * gpu["prefill"])),
        "HEADRACE_SIMULATOR__DECODE_TOKENS_PER_S": str(math.ceil(speed * gpu["decode"])),
        **patched(KNOWN),
    }


@contextmanager
def fleet(on: Collection[str]) -> Iterator[Fleet]:
    """A Headrace with these mechanisms, and no GPU at work yet."""
    with Testbed(settings_of(on), WITHOUT) as bed:
        made = Fleet(bed, on)
        with made.embedding():
            yield made
