"""Prompts that killed an engine are refused, and the app that sent them is confined: its jobs run one at a time.

Both lists are cached for a few seconds. See `headrace.store.jobs.confinements`.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from uuid import UUID

from headrace.cached_value import CachedValue
from headrace.domain.apps import Confinement
from headrace.domain.jobs import JobSpec
from headrace.domain.prompts import prompt_digest
from headrace.errors import AppConfined, PoisonPrompt
from headrace.policies.retries import MOST_HELD

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


#: How old the list may be, in seconds. Workers hold a confined app's jobs back whatever it says.
CONFINED_TTL_S = 5.0
#: The longest Retry-After, in seconds.
RETRY_WITHIN_S = 120


class ConfinedApps:
    """The list, for all threads of one process."""

    def __init__(self, read: Callable[[], Mapping[tuple[UUID, str], Confinement]]) -> None:
        """Read nothing yet. Args: read: the confinements in force, by app and pool."""
        self._confined = CachedValue(read, CONFINED_TTL_S)

    def find(self, app_id: UUID, pool: str) -> Confinement | None:
        """The app's confinement in this pool. Raises: StoreUnavailable."""
        found = self._confined.get().get((app_id, pool))
        return found if found is not None and found.until > datetime.now(UTC) else None


def check_room(confinement: Confinement) -> None:
    """Raises: AppConfined: more jobs of the app wait for their turn than can run before they expire."""
    if confinement.held < MOST_HELD:
        return
    left_s = (confinement.until - datetime.now(UTC)).total_seconds()
    raise AppConfined(
        f"This app is confined ({confinement.reason}): its jobs in pool '{confinement.pool}' run one at a time until "
        f"{confinement.until.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}, and {confinement.held} of them wait.",
        retry_after_s=max(1, min(RETRY_WITHIN_S, int(left_s))),
        until=confinement.until,
    )
