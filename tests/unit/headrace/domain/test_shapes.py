"""What a model's `config.json` says of its memory: published models, by their published sizes."""

from typing import Any

import pytest

from headrace.domain.shapes import ModelShape
from headrace.errors import ConfigError

#: What these models' own files say. Parameters as their cards give them: 8.03, 46.7 and 12.9 billion, 134.5 million.
LLAMA_3_8B = {
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": False,
}
MIXTRAL_8X7B = LLAMA_3_8B | {
    "vocab_size": 32000,
    "max_position_embeddings": 32768,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
    "sliding_window": None,
}
SMOLLM2 = {
    "hidden_size": 576,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 64,
    "intermediate_size": 1536,
    "vocab_size": 49152,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}


@pytest.mark.parametrize(
    ("config", "params", "active_params", "bytes_per_token"),
    [
        (LLAMA_3_8B, 8_030_261_248, 8_030_261_248, 131_072),
        (MIXTRAL_8X7B, 46_702_792_704, 12_879_925_248, 131_072),
        (SMOLLM2, 134_515_008, 134_515_008, 23_040),
    ],
    ids=["llama", "mixtral", "smollm2"],
)
def test_published_models(config: dict[str, Any], params: int, active_params: int, bytes_per_token: int) -> None:
    shape = ModelShape.of(config)

    assert (shape.params, shape.active_params) == (params, active_params)
    assert shape.kv_bytes_per_token() == bytes_per_token


@pytest.mark.parametrize(
    ("kv_dtype", "gpus", "bytes_per_token"),
    [("fp8", 1, 65_536), ("fp32", 1, 262_144), ("bf16", 2, 65_536), ("bf16", 8, 16_384), ("bf16", 16, 16_384)],
)
def test_a_tokens_bytes_by_type_and_gpus(kv_dtype: str, gpus: int, bytes_per_token: int) -> None:
    assert ModelShape.of(LLAMA_3_8B).kv_bytes_per_token(kv_dtype, gpus) == bytes_per_token


def test_heads_and_their_size_default_to_those_of_the_queries() -> None:
    config = {name: LLAMA_3_8B[name] for name in LLAMA_3_8B if name != "num_key_value_heads"}

    assert ModelShape.of(config).kv_bytes_per_token() == 4 * 131_072


def test_a_model_with_pictures_is_sized_by_its_text_part() -> None:
    assert ModelShape.of({"text_config": LLAMA_3_8B, "vision_config": {"hidden_size": 1}}).params == 8_030_261_248


@pytest.mark.parametrize(
    ("quantised", "kind"),
    [
        ({"quant_method": "awq", "bits": 4}, "int4"),
        ({"quant_method": "awq", "w_bit": 4}, "int4"),
        ({"quant_method": "gptq", "bits": 8}, "int8"),
        ({"quant_method": "fp8"}, "fp8"),
        ({}, "none"),
    ],
)
def test_weights_that_are_published_smaller(quantised: dict[str, Any], kind: str) -> None:
    assert ModelShape.of(LLAMA_3_8B | {"quantization_config": quantised}).quantisation == kind


def test_embeddings_stay_as_they_are_when_layers_are_quantised() -> None:
    shape = ModelShape.of(LLAMA_3_8B)

    assert shape.weight_bytes("fp8") == shape.linear_params + 2 * shape.other_params
    assert 5.4e9 < shape.weight_bytes("int4") < 5.9e9, "the files of its AWQ version have 5.7 GB"


def test_a_small_batch_leaves_experts_unread() -> None:
    shape = ModelShape.of(MIXTRAL_8X7B)

    assert shape.weight_bytes_read(1) == pytest.approx(2 * shape.active_params)
    assert shape.weight_bytes_read(64) == pytest.approx(2 * shape.params, rel=0.001)
    assert ModelShape.of(LLAMA_3_8B).weight_bytes_read(1) == 2 * 8_030_261_248


@pytest.mark.parametrize(
    ("added", "named"),
    [
        ({"kv_lora_rank": 512}, "MLA"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "sliding_attention"),
        ({"layer_types": ["linear_attention", "full_attention"]}, "linear_attention"),
        ({"sliding_window": 4096}, "sliding-window"),
        ({"hidden_size": None}, "'hidden_size'"),
        ({"vocab_size": "many"}, "'vocab_size'"),
    ],
)
def test_a_model_that_the_formula_does_not_hold_for_is_refused(added: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        ModelShape.of(LLAMA_3_8B | added)


def test_a_window_that_is_switched_off_is_none() -> None:
    ModelShape.of(LLAMA_3_8B | {"sliding_window": 32768, "use_sliding_window": False})
