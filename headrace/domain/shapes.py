"""The facts of a model that determine its memory use, read from its `config.json`. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from headrace.errors import ConfigError

#: Bytes per stored weight. Four-bit weights have a 16-bit scale and a four-bit zero point for each group of 128.
WEIGHT_BYTES: Mapping[str, float] = {"none": 2, "fp8": 1, "int8": 1, "int4": (4 + 20 / 128) / 8}
KV_BYTES: Mapping[str, int] = {"bf16": 2, "fp8": 1, "fp32": 4}
#: Quantisation by the `quant_method` of a `quantization_config`; an entry with `bits` is named by those instead.
_QUANTISED: Mapping[str, str] = {"fp8": "fp8", "fbgemm_fp8": "fp8", "awq": "int4", "gptq": "int4"}
_REQUIRED = ("hidden_size", "num_hidden_layers", "num_attention_heads")


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The facts of a decoder that determine its memory use.

    Attributes:
        linear_params: parameters of the layers' matrices, all experts included; quantisation shrinks these.
        other_params: embeddings, output head and norms, which stay in 16 bits.
        active_linear_params: those of `linear_params` that one token passes through.
        expert_params: parameters of one expert, summed over all layers; 0 for a dense model.
        experts, experts_per_token: the number of experts, and how many of them a token passes through.
        intermediate: the widest vector inside a layer.
        quantisation: of the published weights.
    """

    layers: int
    hidden: int
    intermediate: int
    vocabulary: int
    kv_heads: int
    head_size: int
    max_model_tokens: int
    linear_params: int
    other_params: int
    active_linear_params: int
    expert_params: int = 0
    experts: int = 0
    experts_per_token: int = 0
    quantisation: str = "none"

    @property
    def params(self) -> int:
        """All parameters, which memory must hold."""
        return self.linear_params + self.other_params

    @property
    def active_params(self) -> int:
        """The parameters that one token passes through, which determine the arithmetic."""
        return self.active_linear_params + self.other_params

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Self:
        """Read a model's `config.json`. Raises: ConfigError for a model whose cache has no constant size per token."""
        text = config.get("text_config") or config
        _refuse_unknown(text)
        hidden, layers, heads = (_whole(text, name) for name in _REQUIRED)
        kv_heads = text.get("num_key_value_heads") or heads
        head_size = text.get("head_dim") or hidden // heads
        intermediate = _whole(text, "intermediate_size")
        vocabulary = _whole(text, "vocab_size")
        attention = 2 * hidden * head_size * (heads + kv_heads)
        experts = text.get("num_local_experts") or text.get("num_experts") or 0
        per_token = text.get("num_experts_per_tok") or 0
        one_mlp = 3 * hidden * (text.get("moe_intermediate_size") or intermediate)
        router = hidden * experts
        dense = attention + router + 3 * hidden * (text.get("shared_expert_intermediate_size") or 0)
        embeddings = vocabulary * hidden * (1 if text.get("tie_word_embeddings") else 2)
        return cls(
            layers=layers,
            hidden=hidden,
            intermediate=intermediate,
            vocabulary=vocabulary,
            kv_heads=kv_heads,
            head_size=head_size,
            max_model_tokens=_whole(text, "max_position_embeddings"),
            linear_params=layers * (dense + one_mlp * max(1, experts)),
            active_linear_params=layers * (dense + one_mlp * (per_token if experts else 1)),
            other_params=embeddings + hidden * (2 * layers + 1),
            expert_params=layers * one_mlp if experts else 0,
            experts=experts,
            experts_per_token=per_token,
            quantisation=_quantisation(config.get("quantization_config") or {}),
        )

    def kv_bytes_per_token(self, kv_dtype: str = "bf16", tensor_parallel: int = 1) -> int:
        """Bytes of one token's keys and values in all layers, on one GPU. More GPUs than KV heads duplicate heads."""
        heads = max(1, self.kv_heads // tensor_parallel)
        return 2 * self.layers * heads * self.head_size * KV_BYTES[kv_dtype]

    def weight_bytes(self, quantisation: str | None = None) -> int:
        """Bytes of all weights. Args: quantisation: a name in `WEIGHT_BYTES`; None for the published one."""
        return int(self.linear_params * WEIGHT_BYTES[quantisation or self.quantisation] + self.other_params * 2)

    def weight_bytes_read(self, batch: float, quantisation: str | None = None) -> float:
        """Bytes of weights that one step of `batch` sequences reads: unused experts are not read."""
        if not self.experts:
            return self.weight_bytes(quantisation)
        unread: float = self.experts * (1 - self.experts_per_token / self.experts) ** batch
        expert_bytes = self.expert_params * WEIGHT_BYTES[quantisation or self.quantisation]
        return self.weight_bytes(quantisation) - unread * expert_bytes


def _whole(config: Mapping[str, Any], name: str) -> int:
    value = config.get(name)
    if not isinstance(value, int) or value < 1:
        raise ConfigError(f"The model's config.json has no '{name}', so its memory cannot be told.", param="model")
    return value


def _refuse_unknown(config: Mapping[str, Any]) -> None:
    """Raises: ConfigError for a model whose cache grows in another way: for it this formula is wrong."""
    kinds = set(config.get("layer_types") or ())
    if config.get("kv_lora_rank"):
        what = "compressed keys and values (MLA)"
    elif kinds - {"full_attention"}:
        what = f"layers of other kinds than full attention ({', '.join(sorted(kinds - {'full_attention'}))})"
    elif config.get("sliding_window") and config.get("use_sliding_window", True):
        what = "sliding-window attention"
    else:
        return
    raise ConfigError(
        f"This model has {what}: its KV cache has no constant size per token. "
        "Start a worker on it, and read kv_tokens of its row in the table 'workers'.",
        param="model",
    )


def _quantisation(config: Mapping[str, Any]) -> str:
    method, bits = str(config.get("quant_method", "")), config.get("bits") or config.get("w_bit")
    if bits in (4, 8):
        return f"int{bits}"
    return _QUANTISED.get(method, "none")
