"""Writes a random LoRA adapter of a Llama, as peft stores one."""

import json
from pathlib import Path

import numpy
from safetensors.numpy import save_file


def write_adapter(folder: Path, model: Path, rank: int = 4) -> Path:
    """Write an adapter of the model's queries and values, strong enough to change every answer. Returns: its folder."""
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    head_size = config.get("head_dim") or hidden // heads
    widths = {"q_proj": heads * head_size, "v_proj": config["num_key_value_heads"] * head_size}
    random = numpy.random.default_rng(0)
    weights = {}
    for layer in range(config["num_hidden_layers"]):
        for name, width in widths.items():
            prefix = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            weights[f"{prefix}.lora_A.weight"] = random.standard_normal((rank, hidden), dtype=numpy.float32)
            weights[f"{prefix}.lora_B.weight"] = random.standard_normal((width, rank), dtype=numpy.float32)
    folder.mkdir(parents=True)
    save_file(weights, folder / "adapter_model.safetensors")
    facts = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "bias": "none", "target_modules": sorted(widths)}
    (folder / "adapter_config.json").write_text(json.dumps({**facts, "r": rank, "lora_alpha": 4 * rank}))
    return folder
