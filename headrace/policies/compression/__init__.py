"""Compresses a conversation: which parts may change, what is cut away, and what is left. Pure."""

from headrace.config import PoolSettings
from headrace.domain.compression import KEPT_SHARE, CompressChoice, Compression
from headrace.errors import InvalidRequest
from headrace.policies.compression.conversation import apply, digest, open_turns
from headrace.policies.compression.repeats import plain
from headrace.policies.compression.surprise import surprising

__all__ = ["apply", "chosen", "digest", "open_turns", "plain", "surprising"]


def chosen(choice: CompressChoice, pool: PoolSettings, name: str) -> Compression | None:
    """How a prompt for this pool is compressed; None for not at all.

    Args: name: the pool's name, for an error.
    Raises: InvalidRequest that names the field: the pool cannot do it, or the field has no effect.
    """
    method = choice.method or pool.compress
    if method == "off":
        for field, value in (("compress_to", choice.to), ("compress_also", choice.also)):
            if value is not None:
                message = "It has no effect, because the prompt is not compressed: set 'compress', or leave it out."
                raise InvalidRequest(message, param=field)
        return None
    if method == "plain" and choice.to is not None:
        message = "It belongs to compress 'surprise': 'plain' drops what is repeated, however much that is."
        raise InvalidRequest(message, param="compress_to")
    if method == "surprise" and pool.compress_by is None:
        message = f"Pool '{name}' names no pool that measures surprise ('compress_by'): use 'plain' or 'off'."
        raise InvalidRequest(message, param="compress")
    # With `plain` nothing depends on the share: identical jobs then have one key of the cache.
    kept = pool.compress_to if choice.to is None else choice.to
    also = pool.compress_also if choice.also is None else choice.also
    return Compression(method, kept if method == "surprise" else KEPT_SHARE, tuple(sorted(set(also))))
