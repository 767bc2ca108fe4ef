"""Measures of surprise that the simulator makes up: the same text always has the same."""

import zlib

from headrace.domain.compression import TokenSurprise
from headrace.policies.tokens import PromptTokenizer


def made_up(text: str, tokenizer: PromptTokenizer) -> list[TokenSurprise]:
    """A number for each token, by its characters."""
    _, ends = tokenizer.encode_ends(text)
    starts = [0, *ends]
    return [
        TokenSurprise(end, zlib.crc32(text[start:end].encode()) % 1000 / 100)
        for start, end in zip(starts, ends, strict=False)
    ]
