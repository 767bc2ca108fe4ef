"""Refuses prompts that killed an engine, by a list that is cached for a few seconds."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from headrace.cached_value import CachedValue
from headrace.domain.jobs import JobSpec
from headrace.domain.prompts import prompt_digest
from headrace.errors import PoisonPrompt

#: How old the list may be, in seconds. Until then such a prompt is still accepted, and runs alone after a first crash.
REFUSED_TTL_S = 5.0


class Poison:
    """The list, for all threads of one process. While it is empty, a submit computes no digest."""

    def __init__(self, read: Callable[[], Mapping[bytes, datetime]]) -> None:
        """Read nothing yet. Args: read: the refused prompts by `prompt_digest`, each with the end of its refusal."""
        self._refused = CachedValue(read, REFUSED_TTL_S)

    def check(self, spec: JobSpec) -> None:
        """Raises: PoisonPrompt: the prompt has killed an engine lately. StoreUnavailable."""
        refused = self._refused.get()
        if not refused:
            return
        until = refused.get(prompt_digest(spec.model, spec.messages, spec.sampling))
        if until is not None and until > datetime.now(UTC):
            raise PoisonPrompt(
                "An engine died under this prompt, also when nothing else ran in it: it is refused until "
                f"{until.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}. Change the prompt, or how it is to be answered."
            )
