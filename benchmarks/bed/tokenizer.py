"""A tokenizer like a real model's, so that counting tokens takes a real model's time. Needs no download."""

from pathlib import Path
from pydoc_data.topics import topics

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

#: Large enough for English: a token has about three characters. With 700, it has two.
_VOCABULARY = 8192
#: What the chat template of `headrace.toml` writes around a message.
_SPECIAL = ["<|im_start|>", "<|im_end|>"]


def write_tokenizer(folder: Path) -> None:
    """Train a byte-level BPE on Python's manual, and write it as the files of a model."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=_SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(topics.values(), trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text("{}")
