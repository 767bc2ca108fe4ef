"""vLLM's own options, one by one as a pool's `engine_options`: the engine starts with each, and answers.

As in `test_engine.py`: written without a GPU, its code has run on vLLM's CPU build.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from headrace.config import PoolSettings
from headrace.domain.prompts import Message, Sampling
from headrace.domain.shapes import ModelShape
from headrace.policies.sizing import KvPool
from headrace.stack.model import PreparedModel
from tests.contracts.adapter import write_adapter
from tests.contracts.test_engine import answer_of, free, into, own
from tests.gpu.conftest import Started, running
from tests.gpu.machine import devices, needs_fp8, on_a_gpu
from workers.engines.base import GenerationRequest
from workers.engines.vllm.engine import VllmEngine

pytestmark = on_a_gpu

#: Of the cache, so that what an option does to it can be told.
KV_BYTES = 512 * 2**20
#: Without graphs an engine starts in a fraction of the time.
SOON = {"kv_cache_memory_bytes": KV_BYTES, "enforce_eager": True}
NGRAM = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 4}


def repeated(times: int = 40) -> GenerationRequest:
    """A prompt that is longer than a block of the cache."""
    return GenerationRequest("repeated", (Message("user", "one two three " * times),), Sampling(4, temperature=0.0))


def assert_answers(engine: VllmEngine) -> None:
    assert answer_of(1) in engine.generate(own(1)).text


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_weights_type_can_be_chosen(started: Started, dtype: str) -> None:
    with started(**SOON, dtype=dtype) as engine:
        assert_answers(engine)


@pytest.mark.parametrize(("dtype", "on_paper"), [("auto", "bf16"), ("fp8", "fp8")])
def test_a_cache_of_smaller_numbers_holds_the_tokens_of_the_plan(
    started: Started, shape: ModelShape, dtype: str, on_paper: str
) -> None:
    if dtype == "fp8":
        needs_fp8()
    with started(**SOON, kv_cache_dtype=dtype) as engine:
        limits = engine.start()
        assert limits.kv_block_tokens is not None
        pool = KvPool(KV_BYTES, shape.kv_bytes_per_token(on_paper), limits.kv_block_tokens)
        assert limits.kv_tokens == pool.tokens
        assert_answers(engine)


@pytest.mark.parametrize("is_on", [True, False])
def test_a_prompt_that_comes_again_is_read_from_the_cache_unless_that_is_off(started: Started, is_on: bool) -> None:
    with started(**SOON, enable_prefix_caching=is_on) as engine:
        engine.generate(repeated())
        again = engine.generate(repeated())
        assert (again.usage.cached_tokens > 0) is is_on


def test_tokens_that_are_guessed_ahead_are_counted_as_others_are(started: Started) -> None:
    with started(**SOON, speculative_config=NGRAM) as engine:
        pieces: list[str] = []
        heard = engine.generate(free(), into(pieces))
        assert (heard.finish_reason, heard.usage.output_tokens, "".join(pieces)) == ("length", 60, heard.text)
        assert engine.progress() == {}
        assert_answers(engine)


def test_weights_can_be_quantised_while_they_are_loaded(started: Started) -> None:
    needs_fp8()
    with started(**SOON, quantization="fp8") as engine:
        assert_answers(engine)


def test_an_adapter_answers_beside_its_model(model: PreparedModel, pool: PoolSettings, tmp_path: Path) -> None:
    tuned = {"tuned": str(write_adapter(tmp_path / "adapter", model.folder))}
    given = pool.model_copy(update={"adapters": tuned, "engine_options": SOON})
    with running(given) as engine, ThreadPoolExecutor(2) as threads:
        asked = [replace(free(request_id=f"of {name}"), adapter=name) for name in (None, "tuned")]
        alone = [engine.generate(request).text for request in asked]
        assert alone[0] != alone[1]
        together = threads.map(engine.generate, asked)
        assert [answer.model_served for answer in together] == [pool.model, "tuned"]


def test_two_gpus_share_one_engine(started: Started, shape: ModelShape, heads: int) -> None:
    if len(devices()) < 2:
        pytest.skip("needs two GPUs")
    if heads % 2 or shape.kv_heads % 2:
        pytest.skip(f"{heads} and {shape.kv_heads} heads cannot be halved: name another model in HEADRACE_MODEL")
    options: dict[str, Any] = {**SOON, "tensor_parallel_size": 2}
    with started(**options) as engine:
        limits = engine.start()
        assert limits.kv_block_tokens is not None
        pool = KvPool(KV_BYTES, shape.kv_bytes_per_token(tensor_parallel=2), limits.kv_block_tokens)
        assert limits.kv_tokens == pool.tokens
        assert_answers(engine)
