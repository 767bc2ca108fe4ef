"""The provider's batch tier, in overflow workers."""

from headrace.domain.queues import Route
from plugins.batches.settings import BatchSettings
from workers.hooks import WorkerCore, WorkerPart


def make(core: WorkerCore) -> WorkerPart:
    """Also while the setting is off: what was sent before must be read."""
    if core.route is not Route.OVERFLOW:
        return WorkerPart()
    # Here and not above: the SDK takes half a second of each process that imports it.
    from plugins.batches.batch_tier import BatchTier
    from plugins.batches.provider_api import BatchApi

    settings = core.settings.of(BatchSettings)
    tier = BatchTier(
        store=core.store,
        api=BatchApi(core.settings),
        notices=core.notices,
        bill=core.bill,
        configured=core.settings.budgets,
        paid_pools=core.settings.paid_pools,
        poll_s=settings.provider_poll_s,
        lease_s=settings.lease_s,
    )
    return WorkerPart(sweeps=tuple(tier.sweeps()), end=tier.close)
