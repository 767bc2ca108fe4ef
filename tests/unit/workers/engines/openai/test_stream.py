"""What is read of a stream's bytes."""

import json
from typing import Any

from headrace.domain.attempts import Usage
from headrace.domain.prompts import Message, Sampling
from workers.engines.base import GenerationRequest
from workers.engines.openai.stream import ChatCall

REQUEST = GenerationRequest("r1", (Message("user", "hello"),), Sampling(max_tokens=16))


def chunk(*choices: dict[str, Any], usage: dict[str, int] | None = None) -> bytes:
    text = json.dumps({"model": "m", "choices": choices, "usage": usage}, ensure_ascii=False)
    return f"data: {text}\r\n\r\n".encode()


STREAM = (
    b": a comment\r\n\r\n"
    + chunk({"delta": {"content": "gr\u00fc\u00df\u2028"}})
    + chunk({"delta": {"content": "dich"}, "finish_reason": "stop"})
    + chunk(usage={"prompt_tokens": 3, "completion_tokens": 2})
    + b"data: [DONE]"
)


def test_it_does_not_matter_where_the_stream_is_cut() -> None:
    for at in range(1, len(STREAM)):
        call = ChatCall(REQUEST, None)
        for part in (STREAM[:at], STREAM[at:], b"\n"):
            call.read(part)
        generation = call.generation()
        assert (generation.text, generation.usage) == ("gr\u00fc\u00df\u2028dich", Usage(3, 2)), at
