"""A tokenizer like a real model's, so that counting tokens takes a real model's time. Needs no download."""

import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

#: The prompts that it is trained on.
_TEXTS = Path(__file__).parent / "workloads" / "mixed.jsonl"
#: An upper limit. These few texts give about 1,800.
_VOCABULARY = 8192
#: What the chat template of `headrace.toml` writes around a message.
_SPECIAL = ["<|im_start|>", "<|im_end|>"]


def write_tokenizer(folder: Path) -> None:
    """Train a byte-level BPE, and write it as the files of a model."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=_SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    prompts = (json.loads(line)["prompt"] for line in _TEXTS.read_text().splitlines())
    tokenizer.train_from_iterator(prompts, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text("{}")
