"""Where the contents of files are kept. Postgres names each file; a storage holds its bytes and knows nothing else."""

from pathlib import Path
from urllib.parse import urlsplit

from headrace.errors import ConfigError
from plugins.batches.settings import FileSettings
from plugins.batches.storage.base import Storage, Writer
from plugins.batches.storage.folder import FolderStorage

__all__ = ["Storage", "Writer", "open_storage"]


def open_storage(settings: FileSettings) -> Storage | None:
    """The storage of these settings, which asks nothing of it yet; None where none is set.

    Raises: ConfigError: the SDK of S3 is not installed.
    """
    if not settings.store.startswith("s3://"):
        return FolderStorage(Path(settings.store)) if settings.store else None
    try:
        from plugins.batches.storage.s3 import S3Storage
    except ImportError as error:
        message = "batches.files.store names a bucket, and boto3 is not installed: install requirements/aws.txt."
        raise ConfigError(message, param="batches.files.store") from error
    bucket = urlsplit(settings.store)
    prefix = bucket.path.strip("/")
    return S3Storage(bucket.netloc, f"{prefix}/" if prefix else "", settings.endpoint_url)
