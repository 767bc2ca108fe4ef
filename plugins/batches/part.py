"""What the plugin keeps in the web process."""

from dataclasses import dataclass

from api.deps import WebDeps
from api.hooks import WebPart
from api.slots import Slots
from headrace.errors import ConfigError
from plugins.batches.settings import BatchSettings
from plugins.batches.storage import Storage


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchesPart(WebPart):
    """Attributes: storage: of the contents of files; None where none is set."""

    settings: BatchSettings
    file_slots: Slots
    storage: Storage | None


def storage_of(web: WebDeps) -> Storage:
    """Where the contents are. Raises: ConfigError."""
    storage = web.of(BatchesPart).storage
    if storage is None:
        message = "No storage of files is set: operators set 'batches.files.store'."
        raise ConfigError(message, param="batches.files.store")
    return storage
