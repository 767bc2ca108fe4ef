"""A tokenizer of letters and a few words, for benchmarks that make prompts of tokens and count those of answers."""

import string
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

TEMPLATE = "{% for message in messages %}{{ message['role'] + ' ' + message['content'] + ' ' }}{% endfor %}"


def write_tokenizer(folder: Path) -> Path:
    """Write it as transformers reads it. Any tokens of it spell a text that can be stored. Returns: the folder."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    alphabet = [*string.ascii_letters, *string.digits, *".,;:?!'-"]
    trainer = trainers.BpeTrainer(
        vocab_size=200, special_tokens=["<end>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(["Water falls through the headrace and turns a wheel."] * 20, trainer)
    words = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>", chat_template=TEMPLATE
    )
    words.save_pretrained(folder)
    return folder
