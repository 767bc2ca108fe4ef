"""What the door checks of an embedding job: its model makes vectors, and its inputs fit. Knows no HTTP."""

from api.door.catalogue import Model
from api.door.drafts import Draft
from headrace.domain.embeddings.inputs import MOST_TOKENS
from headrace.domain.queues import Overflow
from headrace.errors import ContextLengthExceeded, InvalidRequest
from headrace.policies.tokens import InputTokenizer


def check_kind(draft: Draft, model: Model) -> None:
    """Refuse a prompt for a model that makes embeddings, and inputs for a model that answers prompts.

    Raises: InvalidRequest that names the field.
    """
    tokenizer, param = model.tokenizer, draft.spelling.prompt
    if not draft.is_embedding:
        if isinstance(tokenizer, InputTokenizer):
            message = f"The model '{model.name}' makes embeddings, and answers no prompts: name another model."
            raise InvalidRequest(message, param=param)
        return
    if not isinstance(tokenizer, InputTokenizer):
        message = f"The model '{model.name}' answers prompts, and makes no embeddings: name another model."
        raise InvalidRequest(message, param=param)
    if draft.overflow is Overflow.ONLY:
        message = "No paid API makes embeddings here: leave 'overflow' out."
        raise InvalidRequest(message, param=f"{draft.spelling.own_prefix}overflow")
    if draft.dimensions is not None and not tokenizer.is_matryoshka:
        message = f"The vectors of '{model.name}' have one length, which is lost by cutting: leave 'dimensions' out."
        raise InvalidRequest(message, param="dimensions")


def count_inputs(draft: Draft, tokenizer: InputTokenizer, limit: int | None) -> int:
    """The tokens of all inputs together.

    Args: limit: of one input; None where it is unknown, so that the engine decides.
    Raises: ContextLengthExceeded for an input that is too long, and for too many tokens in all.
    """
    param, counts = draft.spelling.prompt, tokenizer.count_each(draft.messages)
    for number, count in enumerate(counts):
        if limit is not None and count > limit:
            where = f"{param}.{number}" if len(counts) > 1 else param
            raise ContextLengthExceeded.beyond(limit, f", and this input has {count}: shorten it.", where)
    if (total := sum(counts)) > MOST_TOKENS:
        message = f"All inputs together have {total} tokens, and may have {MOST_TOKENS}: send several requests."
        raise ContextLengthExceeded(message, param=param)
    return total
