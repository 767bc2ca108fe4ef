"""Filling a GPU: what is left for the KV cache, and how fast a full batch can go at most."""

import math
from dataclasses import replace
from typing import Any

import pytest

from headrace.config import PoolSettings
from headrace.domain.shapes import ModelShape
from headrace.errors import ConfigError
from headrace.policies.sizing import GIB, GPUS, JobSize, KvPool, Serving, as_served, plan, rate

LLAMA = ModelShape.of(
    {
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "intermediate_size": 14336,
        "vocab_size": 128256,
        "max_position_embeddings": 8192,
    }
)


def test_a_model_is_sized_as_its_pool_serves_it() -> None:
    options = {
        "tensor_parallel_size": "2",
        "gpu_memory_utilization": "0.8",
        "kv_cache_dtype": "fp8_e4m3",
        "quantization": "fp8",
        "block_size": 32,
        "enforce_eager": True,
    }
    pool = PoolSettings(max_running=24, max_model_tokens=4096, engine_options=options)
    shape, serving = as_served(LLAMA, Serving(), pool)

    assert shape == replace(LLAMA, max_model_tokens=4096)
    assert serving == Serving(2, 0.8, "fp8", "fp8", block_tokens=32, max_running=24)


def test_vllms_own_names_win_and_what_a_pool_leaves_open_is_the_models() -> None:
    options = {"max_num_seqs": 5, "max_model_len": "100", "quantization": "awq", "kv_cache_dtype": "auto"}
    shape, serving = as_served(LLAMA, Serving(), PoolSettings(engine_options=options))
    assert (shape.max_model_tokens, serving) == (100, Serving(max_running=5))

    shape, serving = as_served(LLAMA, Serving(block_tokens=128), PoolSettings(max_running=7, max_model_tokens=None))
    assert (shape, serving) == (LLAMA, Serving(block_tokens=128, max_running=7))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("kv_cache_dtype", "nvfp4"),
        ("block_size", "many"),
        ("max_model_len", None),
        ("max_model_len", -1),
        ("tensor_parallel_size", 0),
        ("gpu_memory_utilization", math.nan),
    ],
)
def test_an_option_that_cannot_be_counted_with_is_named(option: str, value: Any) -> None:
    with pytest.raises(ConfigError) as raised:
        as_served(LLAMA, Serving(), PoolSettings(engine_options={option: value}))
    assert raised.value.param == f"engine_options.{option}"


def test_a_cache_of_known_size_has_the_blocks_that_vllm_counts() -> None:
    # Measured on the demo's model: 364, 182 and 91 blocks in 1 GiB, 512 MiB and 256 MiB.
    pools = [KvPool(size, 23_040, 128) for size in (GIB, GIB // 2, GIB // 4)]

    assert [pool.blocks for pool in pools] == [364, 182, 91]
    assert [pool.tokens for pool in pools] == [363 * 128, 181 * 128, 90 * 128]


def test_jobs_take_whole_blocks() -> None:
    pool = KvPool(7 * 128 * 10, 10, 128)

    assert [pool.sequences(tokens) for tokens in (1, 128, 129, 600, 768, 769)] == [6, 6, 3, 1, 1, 0]


def test_everything_of_the_engines_share_is_given_out() -> None:
    planned = plan(LLAMA, GPUS["h100"], Serving(gpu_share=0.9))

    used = planned.weight_bytes + planned.other_bytes + planned.pool.total_bytes
    assert used == int(GPUS["h100"].memory_bytes * 0.9)
    assert planned.weight_bytes == 2 * LLAMA.params
    # What such an engine has been seen to report is between 420,000 and 460,000.
    assert planned.pool.tokens == pytest.approx(440_000, rel=0.05)


def test_gpus_that_share_an_engine_share_its_weights_and_its_heads() -> None:
    one, two = (plan(LLAMA, GPUS["h100"], Serving(gpus=gpus)) for gpus in (1, 2))

    assert two.weight_bytes == one.weight_bytes // 2
    assert two.pool.bytes_per_token == one.pool.bytes_per_token // 2
    assert two.pool.tokens > 2 * one.pool.tokens


def test_a_model_that_is_too_large_says_by_how_much() -> None:
    with pytest.raises(ConfigError, match=r"has 13\.8 GiB of a GPU, its weights take 15\.0") as raised:
        plan(LLAMA, GPUS["t4"], Serving())
    assert raised.value.param == "gpu"
    assert plan(LLAMA, GPUS["t4"], Serving(quantisation="int4")).pool.tokens > 0


def test_a_single_sequence_is_as_fast_as_the_weights_can_be_read() -> None:
    pool = plan(LLAMA, GPUS["h100"], Serving()).pool
    alone = rate(LLAMA, GPUS["h100"], Serving(max_running=1), pool, JobSize(1, 1000))

    assert alone.running == 1
    assert alone.step_s == pytest.approx(2 * LLAMA.params / 3.35e12, rel=0.01)
    assert alone.tokens_per_s == pytest.approx(1 / alone.step_s, rel=0.01)


def test_a_batch_is_as_large_as_the_cache_and_the_engine_let_it_be() -> None:
    pool = KvPool(101 * 16 * 131_072, 131_072, 16)

    assert rate(LLAMA, GPUS["h100"], Serving(), pool, JobSize(100, 60)).running == 10
    assert rate(LLAMA, GPUS["h100"], Serving(max_running=4), pool, JobSize(100, 60)).running == 4


def test_arithmetic_counts_where_it_takes_longer_than_memory() -> None:
    huge = Serving(max_running=100_000)
    pool = KvPool(10**15, 131_072, 16)
    crowded = rate(LLAMA, GPUS["t4"], huge, pool, JobSize(1, 1))

    assert crowded.step_s == pytest.approx(2 * LLAMA.params * 100_000 / 65e12)


def test_rates_belong_together() -> None:
    pool = plan(LLAMA, GPUS["l40s"], Serving()).pool
    reached = rate(LLAMA, GPUS["l40s"], Serving(), pool, JobSize(500, 250))

    assert reached.tokens_per_s == pytest.approx(250 * reached.jobs_per_s)
    assert reached.jobs_per_s < reached.running / (250 * reached.step_s)
    assert math.isclose(reached.first_token_s, max(2 * LLAMA.params * 500 / 362e12, 2 * LLAMA.params / 864e9))


def test_a_job_that_the_cache_cannot_hold_has_no_rate() -> None:
    with pytest.raises(ConfigError, match="the pool has 1600"):
        rate(LLAMA, GPUS["h100"], Serving(), KvPool(101 * 16 * 131_072, 131_072, 16), JobSize(1000, 1000))
