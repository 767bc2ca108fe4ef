"""Measures how surprising a text is to vLLM's model, by the log probabilities of a prompt.

vLLM computes the logits of a whole chunk of such a prompt at once, and its profile of GPU memory does not count them:
2,048 tokens of a model with a vocabulary of 150,000 take 3 GB. So a text is measured in windows. vLLM does not read its
prefix cache for such a prompt.
"""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

#: Tokens of a window, and those at its begin that the window before has measured: they are context.
WINDOW_TOKENS, CONTEXT_TOKENS = 256, 64

#: The negative log probability of each token of a window; None for its first.
Nats = list[float | None]


def windows(tokens: Sequence[int], most_tokens: int) -> list[list[int]]:
    """Cut a text into windows. Args: most_tokens: of one, by the model's limit."""
    return [list(tokens[start:end]) for start, end in _bounds(len(tokens), most_tokens)]


def joined(measured: Sequence[Nats], tokens: int, most_tokens: int) -> Nats:
    """The measures of a text, from those of its windows."""
    nats: Nats = []
    for each, (start, _) in zip(measured, _bounds(tokens, most_tokens), strict=True):
        nats += each[len(nats) - start :]
    return nats


def _bounds(tokens: int, most_tokens: int) -> Iterator[tuple[int, int]]:
    size = max(2, min(WINDOW_TOKENS, most_tokens))
    step = size - min(CONTEXT_TOKENS, size // 4)
    for start in range(0, tokens, step):
        yield start, min(start + size, tokens)
        if start + size >= tokens:
            return


async def measure(llm: Any, request_id: str, texts: Sequence[list[int]], priority: int) -> list[Nats]:
    """Measure windows, all at once. Raises: vLLM's errors; then none is left in the engine."""
    tasks = [asyncio.ensure_future(_measure_one(llm, request_id, each, priority)) for each in texts]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        raise


async def _measure_one(llm: Any, request_id: str, tokens: list[int], priority: int) -> Nats:
    from vllm import SamplingParams
    from vllm.inputs.engine import tokens_input
    from vllm.sampling_params import RequestOutputKind

    params = SamplingParams(
        # vLLM answers each prompt with one token at least.
        max_tokens=1,
        temperature=0.0,
        prompt_logprobs=0,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )
    measured: Sequence[Any] = ()
    async for output in llm.generate(tokens_input(tokens), params, request_id, priority=priority):
        measured = output.prompt_logprobs or ()
    return [_nats(token, place) for token, place in zip(tokens, measured, strict=True)]


def _nats(token: int, place: Any) -> float | None:
    return None if place is None else -float(place[token].logprob)
