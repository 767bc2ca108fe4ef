"""Confined apps, by a list that is cached for a few seconds. See `headrace.store.jobs.confinements`."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from uuid import UUID

from headrace.cached_value import CachedValue
from headrace.domain.apps import Confinement
from headrace.errors import AppConfined
from headrace.policies.confinement import MOST_HELD

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
    """Raises: AppConfined: so many jobs of the app wait for their turn that more would only expire."""
    if confinement.held < MOST_HELD:
        return
    left_s = (confinement.until - datetime.now(UTC)).total_seconds()
    raise AppConfined(
        f"This app is confined ({confinement.reason}): its jobs in pool '{confinement.pool}' run one at a time until "
        f"{confinement.until.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}, and {confinement.held} of them wait.",
        retry_after_s=max(1, min(RETRY_WITHIN_S, int(left_s))),
        until=confinement.until,
    )
