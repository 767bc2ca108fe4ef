"""Which kind of request an engine answers. The door checks it too, but a pool may serve another kind by now."""

from headrace.domain.embeddings.inputs import are_inputs
from headrace.errors import PromptRejected
from workers.engines.base import GenerationRequest


def check_kind(request: GenerationRequest, *, is_embedding: bool) -> None:
    """Args: is_embedding: True for an engine that makes vectors. Raises: PromptRejected."""
    if are_inputs(request.messages) == is_embedding:
        return
    if is_embedding:
        raise PromptRejected("This model makes embeddings, and answers no prompts.", param="messages")
    raise PromptRejected("This model answers prompts, and makes no embeddings.", param="input")
