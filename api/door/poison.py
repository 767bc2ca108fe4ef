"""Prompts that killed an engine are refused: by what this process read of them a few seconds ago."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from api.door.cached_value import CachedValue
from headrace.domain.jobs import JobSpec
from headrace.domain.prompts import prompt_digest
from headrace.errors import PoisonPrompt

#: How old the list may be, in seconds: so long such a prompt is still accepted, and runs alone, somewhere else.
REFUSED_TTL_S = 5.0


class Poison:
    """Knows them, for all threads of one process. While there are none it costs a submit nothing."""

    def __init__(self, read: Callable[[], Mapping[bytes, datetime]]) -> None:
        """Know none yet. Args: read: the prompts that are refused, by `prompt_digest`, and until when."""
        self._refused = CachedValue(read, REFUSED_TTL_S)

    def check(self, spec: JobSpec) -> None:
        """Raises: PoisonPrompt: it has killed an engine lately. StoreUnavailable."""
        refused = self._refused.get()
        if not refused:
            return
        until = refused.get(prompt_digest(spec.model, spec.messages, spec.sampling))
        if until is not None and until > datetime.now(UTC):
            raise PoisonPrompt(
                "An engine died under this prompt, also when nothing else ran in it: it is refused until "
                f"{until.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}. Change the prompt, or how it is to be answered."
            )
