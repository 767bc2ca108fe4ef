"""Errors of a request that the client itself can mend."""

from typing import Self

from headrace.errors.base import HeadraceError


class InvalidRequest(HeadraceError):
    """The request cannot be served as it is; `param` names the field."""

    code = "invalid_value"


class ContextLengthExceeded(InvalidRequest):
    """The prompt and the tokens asked for do not fit the model."""

    code = "context_length_exceeded"

    @classmethod
    def beyond(cls, limit: int, rest: str, param: str) -> Self:
        """The error of a prompt that is too long, with the words that LiteLLM and LangChain search its message for.

        Args: rest: follows the limit in the message's first sentence.
        """
        return cls(f"This model's maximum context length is {limit} tokens{rest} ({cls.code})", param=param)


class ModelNotFound(InvalidRequest):
    """No pool serves this model."""

    code = "model_not_found"


class PoisonPrompt(InvalidRequest):
    """The prompt has killed an engine lately."""

    code = "poison_prompt"


class IdempotencyKeyReused(InvalidRequest):
    """The Idempotency-Key was used before with another body or path."""

    code = "idempotency_key_reused"


class IdempotencyInProgress(HeadraceError):
    """The first request with this Idempotency-Key has not been answered yet."""

    code = "idempotency_in_progress"
    retryable = True


class Unauthenticated(HeadraceError):
    """No API key, or one that is not valid."""

    code = "invalid_api_key"


class PermissionDenied(HeadraceError):
    """The API key is valid and may not do this."""

    code = "permission_denied"


class NotFound(HeadraceError):
    """The thing does not exist, or belongs to another app."""

    code = "not_found"


class BodyTimeout(HeadraceError):
    """The client sent its request's body too slowly; nothing was accepted."""

    code = "body_timeout"
    retryable = True


class BodyTooLarge(HeadraceError):
    """The request's body is larger than this server takes."""

    code = "request_too_large"


class UnsupportedEncoding(HeadraceError):
    """The request's body is packed in a way that this server does not read."""

    code = "unsupported_encoding"
