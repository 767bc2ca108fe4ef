"""The routes of files and batches."""

from api.hooks import WebCore, Webhook
from api.slots import Slots
from plugins.batches.part import BatchesPart
from plugins.batches.routes import batches, files
from plugins.batches.schemas.batches import BatchEnded
from plugins.batches.settings import BatchSettings
from plugins.batches.storage import open_storage

#: Files that are taken or sent at once, and the share of them that one app may hold.
FILE_SLOTS, FILE_SHARE = 64, 0.5

WEBHOOKS = (
    Webhook("batch.completed", "All lines of the batch have ended, with or without answers.", BatchEnded),
    Webhook("batch.failed", "The batch's file is no batch; its `errors` say why, and no line has run.", BatchEnded),
    Webhook("batch.expired", "The batch's window ended before all its lines had started.", BatchEnded),
    Webhook("batch.cancelled", "The batch was cancelled, and its last line has ended.", BatchEnded),
)


def make(core: WebCore) -> BatchesPart:
    """Raises: ConfigError: the SDK of the storage is not installed."""
    settings = core.settings.of(BatchSettings)
    return BatchesPart(
        blueprints=(files.ROUTES, batches.ROUTES),
        webhooks=WEBHOOKS,
        settings=settings,
        file_slots=Slots(FILE_SLOTS, FILE_SHARE),
        storage=open_storage(settings.files),
    )
