"""Embeds the inputs of one request: each is a request of vLLM's own, so that all share its batches."""

import asyncio
from typing import Any

from headrace.domain.attempts import Usage
from headrace.domain.embeddings.vectors import pack, to_answer
from workers.engines.base import Generation, GenerationRequest


async def embed(llm: Any, request: GenerationRequest, inputs: list[list[int]], model: str) -> Generation:
    """Embed the inputs, given as token ids. Raises: vLLM's errors; then no input is left in the engine."""
    from vllm import PoolingParams

    params = PoolingParams(task="embed", dimensions=request.sampling.dimensions)
    tasks = [asyncio.ensure_future(_embed_one(llm, request, params, each)) for each in inputs]
    try:
        made = await asyncio.gather(*tasks)
    except BaseException:
        # The others would go on, for an answer that cannot be whole any more.
        for task in tasks:
            task.cancel()
        raise
    done = [tokens for tokens, (vector, _) in zip(inputs, made, strict=True) if vector]
    is_whole = len(done) == len(inputs)
    return Generation(
        text=to_answer(pack(vector) for vector, _ in made) if is_whole else "",
        usage=Usage(sum(map(len, done)), cached_tokens=sum(cached for _, cached in made)),
        finish_reason="stop" if is_whole else "abort",
        model_served=model,
    )


async def _embed_one(llm: Any, request: GenerationRequest, params: Any, tokens: list[int]) -> tuple[bytes, int]:
    """The bytes of one input's vector, none if the input was aborted, and how many of its tokens were in the cache.

    All inputs have the request's id: one `abort` ends them all.
    """
    from vllm.inputs.engine import tokens_input

    vector, cached_tokens = b"", 0
    given = tokens_input(tokens, cache_salt=request.cache_salt)
    async for output in llm.encode(given, params, request.request_id, priority=request.priority):
        vector = output.outputs.data.float().numpy().astype("<f4").tobytes()
        cached_tokens = (output.num_cached_tokens or 0) if vector else 0
    return vector, cached_tokens
