import json
import sys
import unicodedata
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import normalizers

from headrace.policies.tokens import byte_bound
from tests.unit.headrace.policies.test_tokens import byte_level

TEXTS = st.text(st.characters(exclude_categories=["Cs"])) | st.text(" \n\te", max_size=300)
FULL = byte_level()
COMPOSING = byte_level(normalizers.NFC())


@pytest.mark.parametrize("tokenizer", [FULL, COMPOSING], ids=["plain", "NFC"])
@given(text=TEXTS)
@settings(deadline=None)
def test_the_bound_is_never_above_the_count(tokenizer: tokenizers.Tokenizer, text: str) -> None:
    bound = byte_bound(json.loads(tokenizer.to_str()))
    assert bound is not None
    assert bound.least(text) <= len(tokenizer.encode(text, add_special_tokens=False).ids)


@given(text=TEXTS)
@settings(deadline=None)
def test_bytes_that_a_vocabulary_cannot_spell_do_not_count(text: str) -> None:
    spec = json.loads(FULL.to_str())
    # No token has these, as in SmolLM2, whose training never met some control characters.
    gone = {"Ċ", "e", "Ã"}
    spec["model"]["vocab"] = {token: i for token, i in spec["model"]["vocab"].items() if not gone & set(token)}
    spec["model"]["merges"] = []
    bound = byte_bound(spec)
    assert bound is not None
    assert bound.least(text) <= len(tokenizers.Tokenizer.from_str(json.dumps(spec)).encode(text).ids)


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("model", {"type": "Unigram", "vocab": []}),
        ("model", {"type": "WordPiece"}),
        ("pre_tokenizer", {"type": "WhitespaceSplit"}),
        ("pre_tokenizer", None),
        ("normalizer", {"type": "NFKC"}),
        ("normalizer", {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Strip"}]}),
        ("normalizer", {"type": "Replace", "pattern": {"Regex": "a+"}, "content": "a"}),
        ("added_tokens", [{"content": "<mask>", "lstrip": True, "rstrip": False}]),
    ],
)
def test_where_text_may_get_lost_there_is_no_bound(part: str, change: Any) -> None:
    spec = json.loads(FULL.to_str())
    spec[part] = {**spec[part], **change} if part == "model" else change
    assert byte_bound(spec) is None


def test_splits_keep_the_bound_unless_they_remove() -> None:
    spec = json.loads(FULL.to_str())
    split = {"type": "Split", "pattern": {"String": " "}, "behavior": "Isolated", "invert": False}
    spec["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, spec["pre_tokenizer"]]}
    assert byte_bound(spec) is not None
    split["behavior"] = "Removed"
    assert byte_bound(spec) is None


def test_composition_shrinks_utf8_by_no_more_than_the_bound_allows() -> None:
    characters = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code <= 0xDFFF]
    parts = {character: unicodedata.normalize("NFD", character) for character in characters}
    # The longest spelling of each part: itself, or a character that is nothing but another name for it.
    longest: dict[str, int] = {}
    for character in characters:
        if len(parts[character]) == 1:
            longest[parts[character]] = max(longest.get(parts[character], 0), len(character.encode()))
    spelled_out = {character: sum(longest[part] for part in parts[character]) for character in characters}
    # No spelling with composed characters is longer than the one in single parts.
    assert all(len(character.encode()) <= spelled_out[character] for character in characters)
    composed = [character for character in characters if unicodedata.normalize("NFC", character) == character]
    assert max(spelled_out[character] / len(character.encode()) for character in composed) == 3.5
    plain, composing = (byte_bound(json.loads(tokenizer.to_str())) for tokenizer in (FULL, COMPOSING))
    assert plain is not None
    assert composing is not None
    assert composing.bytes_per_token == 3.5 * plain.bytes_per_token
