from dataclasses import dataclass, fields
from typing import Any, Literal

import pytest
from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as validated

from headrace.domain.prompts import Sampling
from headrace.errors import ConfigError
from workers.engines.vllm.options import blamed, checked, decoding


@validated
class CompilationConfig:
    """A class of vLLM's own, as it looks at its values."""

    mode: int = 0


@dataclass
class Arguments:
    """Engine arguments, with the kinds of types that vLLM's have."""

    tensor_parallel_size: int = 1
    gpu_memory_utilization: float = 0.92
    enable_prefix_caching: bool | None = None
    kv_cache_dtype: Literal["auto", "fp8"] = "auto"
    max_lora_rank: Literal[8, 16] = 16
    quantization: Literal["awq", "fp8"] | str | None = None
    speculative_config: dict[str, Any] | None = None
    compilation_config: CompilationConfig | None = None
    quantization_config: "dict[str, Any] | None" = None
    _private: int = 0


def check(**options: Any) -> dict[str, Any]:
    return checked(options, fields(Arguments), "pools.chat.engine_options")


NGRAM = {"method": "ngram", "num_speculative_tokens": 3}
OPTIONS = {
    "tensor_parallel_size": 2,
    "gpu_memory_utilization": 0.8,
    "enable_prefix_caching": False,
    "kv_cache_dtype": "fp8",
    "max_lora_rank": 8,
    "quantization": "fp8",
    "speculative_config": NGRAM,
    "compilation_config": {"mode": 3},
    "quantization_config": {"ignore": []},
}


def test_values_as_a_file_has_them_are_left_as_they_are() -> None:
    assert check(**OPTIONS) == OPTIONS


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("tensor_parallel_size", "2", 2),
        ("gpu_memory_utilization", "0.8", 0.8),
        ("enable_prefix_caching", "false", False),
        ("enable_prefix_caching", "null", None),
        ("max_lora_rank", "8", 8),
        ("quantization", "fp8", "fp8"),
        ("speculative_config", '{"method": "ngram", "num_speculative_tokens": 3}', NGRAM),
        ("compilation_config", '{"mode": 3}', {"mode": 3}),
        ("compilation_config", "3", 3),
    ],
)
def test_a_text_becomes_what_vllm_takes(name: str, text: str, value: Any) -> None:
    found = check(**{name: text})[name]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("tensor_parallel", 2, "Did you mean 'tensor_parallel_size'?"),
        ("_private", 2, "no such option"),
        ("kv_cache_dtype", "fp4", "'auto' or 'fp8'. Got 'fp4'"),
        ("tensor_parallel_size", "two", "valid integer"),
        ("gpu_memory_utilization", {"share": 1}, "valid number"),
        ("speculative_config", "ngram", "valid dictionary"),
    ],
)
def test_what_vllm_does_not_take_is_named_with_its_pool(option: str, value: Any, told: str) -> None:
    with pytest.raises(ConfigError) as raised:
        check(**{option: value})
    assert raised.value.param == f"pools.chat.engine_options.{option}"
    assert str(raised.value).startswith(f"{raised.value.param}: ")
    assert told in str(raised.value)


@pytest.mark.parametrize(
    ("kind", "value", "options", "option"),
    [
        (CompilationConfig, {"mode": "fast"}, {"compilation_config": {}}, "compilation_config.mode"),
        (CompilationConfig, {"mode": "fast"}, {"mode": "fast"}, "mode"),
        (CompilationConfig, {"mode": "fast"}, {"dtype": "auto"}, None),
    ],
)
def test_vllm_s_own_complaint_names_the_option_it_is_about(
    kind: Any, value: Any, options: dict[str, Any], option: str | None
) -> None:
    with pytest.raises(ValidationError) as raised:
        TypeAdapter(kind).validate_python(value)
    assert blamed(raised.value, options) == option


# What vLLM is given of a request's sampling: its own names, and nothing that the request does not say.


def test_a_request_that_says_nothing_sets_nothing() -> None:
    assert decoding(Sampling(5)) == {"stop": []}


def test_extra_parameters_go_by_vllms_names() -> None:
    extra = {"top_k": 5, "min_p": 0.1, "logit_bias": {"7": -1.5}, "chat_template_kwargs": {"a": 1}}
    assert decoding(Sampling(5, temperature=0, extra=extra)) == {
        **{"temperature": 0, "stop": [], "top_k": 5, "min_p": 0.1},
        "logit_bias": {7: -1.5},
    }
