"""What is wrong with batches."""

from collections.abc import Iterator

from sqlalchemy import Connection

from headrace.domain.fleet import ProcessKind
from headrace.policies.health import Problem
from headrace.store.fleet import processes
from plugins.batches import store
from plugins.batches.store import provider_batches

UNSENT_S, AT_PROVIDER_S = 5400.0, 25 * 3600.0


def problems(db: Connection) -> list[Problem]:
    """That no process moves batches on, and what became of those at the provider."""
    return [*_unmoved(db), *_at_provider(db)]


def _unmoved(db: Connection) -> Iterator[Problem]:
    under_way = sum(store.open_batches(db).batches.values())
    if under_way and not any(life.is_alive and life.kind is ProcessKind.PLUGINS for life in processes.lives(db)):
        text = f"{under_way} batches are open, and no process 'plugins' lives: their lines wait."
        remedy = "Start the Procfile's line 'plugins'."
        yield Problem("HeadraceBatchesMissing", "act", text, remedy, "batches.list_newest")


def _at_provider(db: Connection) -> Iterator[Problem]:
    sent = provider_batches.under_way(db)
    if sent.unsent_s > UNSENT_S:
        text = "Lines of batches wait for the provider's batch tier, and are not sent."
        remedy = "No process 'overflow' lives, or it cannot send them: its log has the error."
        yield Problem("HeadraceProviderBatchNotSent", "watch", text, remedy, "batches.list_newest")
    if sent.oldest_s > AT_PROVIDER_S:
        text = f"A provider's batch has not ended for {sent.oldest_s / 3600:,.0f} hours."
        remedy = "26 hours after it was sent it counts as lost, and its money as spent: ask the provider."
        yield Problem("HeadraceProviderBatchStuck", "watch", text, remedy, "batches.list_newest")
