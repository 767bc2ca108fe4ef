"""What the door checks of several answers to one prompt (`n`). Pure."""

from api.door.drafts import Draft
from headrace.errors import InvalidRequest

#: Below it vLLM takes the likeliest token each time. Source: `SamplingParams` of vLLM 0.32.
GREEDY_BELOW = 1e-5


def check_choices(draft: Draft, prompt_tokens: int, max_tokens: int, *, kv_tokens: int | None, is_paid: bool) -> None:
    """Check that all of several answers can be made, and held at once.

    Args:
        kv_tokens: the KV cache of the pool's workers; None while it is unknown, or the paid API answers.
        is_paid: the paid API alone answers for the model.
    Raises: InvalidRequest.
    """
    if not is_paid and draft.temperature is not None and draft.temperature < GREEDY_BELOW:
        message = f"With temperature 0 all {draft.n} answers are the same: leave 'n' out, or give a temperature."
        raise InvalidRequest(f"Invalid 'n': {message}", param="n")
    if kv_tokens is not None and (needed := prompt_tokens + draft.n * max_tokens) > kv_tokens:
        raise InvalidRequest(
            f"Invalid 'n': {draft.n} answers of {max_tokens} tokens and a prompt of {prompt_tokens} take {needed} "
            f"tokens, and a worker holds {kv_tokens} at once: ask for fewer answers, or lower "
            f"{draft.spelling.max_tokens}.",
            param="n",
        )
