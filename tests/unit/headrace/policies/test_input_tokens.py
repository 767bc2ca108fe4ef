"""Inputs of embeddings: each is counted and encoded by itself, as the model reads it."""

from pathlib import Path

import pytest
import tokenizers
from tokenizers import models, pre_tokenizers, processors

from headrace.domain.embeddings.inputs import text_input, token_input
from headrace.domain.prompts import Message
from headrace.errors import ConfigError, InvalidRequest
from headrace.policies.tokens import InputTokenizer

WORDS = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "water": 3, "falls": 4}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder, whose tokenizer marks both ends of a text, cuts it at four tokens, and pads it to eight."""
    words = tokenizers.Tokenizer(models.WordLevel(WORDS, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [("[CLS]", WORDS["[CLS]"]), ("[SEP]", WORDS["[SEP]"])]
    words.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    words.enable_truncation(4)
    words.enable_padding(length=8)
    words.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def test_each_input_has_its_own_special_tokens_and_is_neither_cut_nor_padded(folder: Path) -> None:
    tokenizer = InputTokenizer.of(folder, is_matryoshka=False)
    inputs = [text_input("water falls"), token_input([4, 4]), text_input("water " * 9)]
    assert tokenizer.encode_each(inputs) == [[1, 3, 4, 2], [4, 4], [1, *[3] * 9, 2]]
    assert tokenizer.count_each(inputs) == [4, 2, 11]
    assert not tokenizer.is_matryoshka


def test_an_estimate_has_a_token_for_each_four_bytes() -> None:
    tokenizer = InputTokenizer()
    assert tokenizer.count_each([text_input("é" * 100), token_input([7])]) == [50, 1]
    assert tokenizer.is_matryoshka


def test_a_conversation_is_refused() -> None:
    with pytest.raises(InvalidRequest) as raised:
        InputTokenizer().encode_each([Message("user", "Hi")])
    assert raised.value.param == "messages"


def test_a_folder_without_a_tokenizer_is_a_wrong_setting(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ConfigError, match=str(folder)):
        InputTokenizer.of(folder, is_matryoshka=False)
    (folder / "tokenizer.json").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match=str(folder)):
        InputTokenizer.of(folder, is_matryoshka=False)
