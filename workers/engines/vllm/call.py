"""One request in a vLLM core, and its sampling as vLLM takes it."""

import asyncio
import time
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from workers.engines.base import Generation, GenerationRequest, OnDelta
from workers.engines.schemas import check_sampling
from workers.engines.vllm.answer import GrowingAnswers
from workers.engines.vllm.reading import Reading
from workers.engines.vllm.sampling import constraint, decoding


@dataclass(eq=False, slots=True)
class CoreCall:
    """One request in the core.

    Attributes:
        inputs: the token ids of each input of an embedding, which has no prompt; None for a prompt.
        answers: as they grow, once the core has it.
    """

    request: GenerationRequest
    prompt: list[int]
    prefix: list[int]
    on_delta: OnDelta | None
    model: str
    inputs: list[list[int]] | None = None
    began: float = field(default_factory=time.monotonic)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    future: "Future[Generation] | None" = None
    answers: GrowingAnswers | None = None

    @property
    def is_live(self) -> bool:
        """True if its tokens are needed as they come: by a listener, or to count those of several answers."""
        return self.on_delta is not None or self.request.sampling.n > 1

    @property
    def tokens_left(self) -> int:
        return self.request.sampling.max_tokens - len(self.prefix)


def sampling_params(call: CoreCall, defaults: Mapping[str, Any], reading: Reading | None) -> Any:
    """The request's `SamplingParams`. Raises: PromptRejected: its grammar would take too much memory, or too long.

    Args: defaults: the model's own, for what the request does not set.
    """
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

    sampling = call.request.sampling
    structure = reading.structure if reading else None
    if reading is None and (constrained := constraint(sampling.response_format)):
        structure = StructuredOutputsParams(**constrained)
    if structure is not None:
        check_sampling(sampling)
    asked = {"skip_special_tokens": True, **defaults, **decoding(sampling), "max_tokens": call.tokens_left}
    if reading is not None and not reading.skips_special_tokens:
        asked["skip_special_tokens"] = False
    # A prefix has some of the tokens that the answer must have.
    asked["min_tokens"] = max(0, asked.get("min_tokens", 0) - len(call.prefix))
    return SamplingParams(
        **asked,
        structured_outputs=structure,
        # A parser must read the text as it grows.
        output_kind=RequestOutputKind.DELTA if call.is_live or reading else RequestOutputKind.FINAL_ONLY,
        skip_clone=True,  # Only this request uses these parameters, so vLLM need not copy them.
    )
