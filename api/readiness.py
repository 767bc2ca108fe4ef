"""The use case: can this process serve? Anyone may ask, so all callers share one check a second, at any rate."""

import logging
import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import sqlalchemy as sa
from alembic.runtime.migration import MigrationContext

from api.door.catalogue import Catalogue
from headrace.broker.admission import Admission
from headrace.cached_value import CachedValue
from headrace.config import Settings
from headrace.domain.limits.budgets import SHUT
from headrace.errors import ConfigError, StoreUnavailable, Unavailable
from headrace.policies.pricing import no_price
from headrace.store import Store
from headrace.store.money import budgets, tariffs
from headrace.tables import revisions

log = logging.getLogger(__name__)

#: Seconds for which all callers share a check, from its start.
REPORT_TTL_S = 1.0
#: Callers that wait for a check under way. Each holds a thread, for as long as a server does not answer. Further ones
#: get the report before it.
WAITERS_LIMIT = 32
#: A write: a row lock needs a transaction id and a commit, which a standby, a read-only node and a full disk refuse.
#: Two probes do not wait for each other, and neither waits for a migration, which changes the row.
_WRITE = sa.text("SELECT FROM alembic_version FOR KEY SHARE SKIP LOCKED")


class Report(NamedTuple):
    """What a check found: by part, what fails, and what an operator should know although it serves."""

    failures: Mapping[str, str]
    warnings: Mapping[str, str]


class Readiness:
    """Checks the servers, the schema and the tokenizers. Safe for many threads."""

    def __init__(self, settings: Settings, store: Store, admission: Admission, catalogue: Catalogue) -> None:
        """Check nothing yet."""
        self._settings, self._store, self._catalogue = settings, store, catalogue
        self._checks: Mapping[str, Callable[[], None]] = {
            "postgres": partial(_check_postgres, store),
            "redis": admission.check_writable,
            "tokenizer": catalogue.load,
        }
        self._checked = CachedValue(self.check, REPORT_TTL_S)
        self._waiters = threading.BoundedSemaphore(WAITERS_LIMIT)
        self._last = Report({"readiness": "The first check is under way."}, {})

    def report(self) -> Report:
        """The last second's report. Concurrent callers wait for one check. Raises: StoreUnavailable."""
        if self._waiters.acquire(blocking=False):
            try:
                self._last = self._checked.get()
            finally:
                self._waiters.release()
        return self._last

    def check(self) -> Report:
        """Check every part now. Raises: StoreUnavailable: Postgres failed after it passed its check."""
        failures = {name: failure for name, check in self._checks.items() if (failure := _failure(check))}
        return Report(failures, {} if failures else self._warnings())

    def _warnings(self) -> dict[str, str]:
        """Warns of workers of an older release, and of a key for the paid API without a budget or without a price.

        Neither a deployment nor an unfinished set-up must stop the service.
        """
        warnings = {"workers": too_old} if (too_old := self._catalogue.too_old) else {}
        if self._settings.openai_api_key is None:
            return warnings
        with self._store.begin() as db:
            if not budgets.limits(db, self._settings.budgets).are_set:
                warnings["overflow"] = SHUT
            unpriced = tariffs.in_force(db, self._settings).unpriced
        return {**warnings, **({"prices": " ".join(map(no_price, unpriced))} if unpriced else {})}


def _failure(check: Callable[[], None]) -> str | None:
    try:
        check()
    except (Unavailable, ConfigError) as error:
        log.warning("not_ready", extra={"code": error.code, "error": str(error)})
        return error.public_cause
    return None


def _check_postgres(store: Store) -> None:
    with store.begin() as db:
        applied = MigrationContext.configure(db).get_current_revision()
        if applied:
            db.execute(_WRITE)
    if reason := revisions.lacking(applied):
        raise StoreUnavailable(f"Postgres {reason}")
