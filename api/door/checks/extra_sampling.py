"""What the door checks of extra sampling parameters and of plain prompts, for which the paid API has no word. Pure."""

from api.door.drafts import Draft
from headrace.domain.prompts.extra_sampling import ours_alone
from headrace.domain.queues import Overflow
from headrace.errors import InvalidRequest


def must_stay(draft: Draft, *, names_paid_tokens: bool) -> str | None:
    """The field for which the paid API has no word; None if it may answer. Args: as of `ours_alone`."""
    if draft.is_plain:
        return draft.spelling.prompt
    return next(iter(ours_alone(draft.extra_sampling, names_paid_tokens=names_paid_tokens)), None)


def overflow_of(draft: Draft, *, is_paid: bool) -> Overflow:
    """Whether the paid API may answer: never, if the draft asks for what it has no word for.

    Args: is_paid: the paid API alone answers for the model.
    Raises: InvalidRequest that names the field, if the paid API would have to answer.
    """
    field = must_stay(draft, names_paid_tokens=is_paid)
    if field is not None and (is_paid or draft.overflow is Overflow.ONLY):
        if draft.is_plain:
            message = "The paid API, which would answer, continues no plain text: send it to POST /v1/chat/completions."
            raise InvalidRequest(message, code="unsupported_parameter", param=field)
        message = f"Unsupported parameter: '{field}'. The paid API, which would answer, has no such parameter."
        raise InvalidRequest(f"{message} Leave it out.", code="unsupported_parameter", param=field)
    return draft.overflow if field is None else Overflow.NEVER


def check_min_tokens(draft: Draft, max_tokens: int) -> None:
    """Raises: InvalidRequest: the answer would have to be longer than it may be."""
    least = (draft.extra_sampling or {}).get("min_tokens", 0)
    if least > max_tokens:
        message = f"Invalid 'min_tokens': {least} is more than the answer may have, {max_tokens}."
        raise InvalidRequest(message, param="min_tokens")
