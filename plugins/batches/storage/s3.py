"""Files in a bucket of S3, or of a server that speaks its protocol."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from headrace.errors import NotFound
from plugins.batches.storage.base import READ_BYTES, StorageUnavailable

#: Bytes of one part of an upload, which a writer holds in memory. S3 takes 10,000 parts of 5 MiB at least.
PART_BYTES = 8 * 1024 * 1024
#: Seconds for a connection, and for one answer.
TIMEOUT_S = 10
#: Connections of one process.
CONNECTIONS = 32
MISSING = ("NoSuchKey", "404", "NoSuchUpload")


class S3Storage:
    """Writes each file as an upload by parts, of which S3 shows nothing before its end."""

    def __init__(self, bucket: str, prefix: str, endpoint_url: str | None = None) -> None:
        """Connect to nothing yet. Credentials and region are found as boto3 finds them.

        Args: prefix: stands before each key; empty or with a slash at its end.
        """
        self._bucket, self._prefix = bucket, prefix
        retries: Any = {"mode": "standard", "total_max_attempts": 3}
        config = Config(
            connect_timeout=TIMEOUT_S, read_timeout=TIMEOUT_S, retries=retries, max_pool_connections=CONNECTIONS
        )
        self._client = boto3.session.Session().client("s3", endpoint_url=endpoint_url, config=config)

    def writer(self, key: str) -> "_S3Writer":
        """Begin a file. S3 is told of it once a part is full."""
        return _S3Writer(self._client, {"Bucket": self._bucket, "Key": self._prefix + key})

    @contextmanager
    def read(self, key: str) -> Iterator[Iterator[bytes]]:
        """The file's bytes."""
        with _one_error():
            body = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key)["Body"]
        try:
            yield _parts(body)
        finally:
            body.close()

    def delete(self, key: str) -> None:
        """Delete the object, and the uploads to its key that nothing has ended."""
        target = {"Bucket": self._bucket, "Key": self._prefix + key}
        with _one_error():
            self._client.delete_object(**target)
            listed = self._client.list_multipart_uploads(Bucket=self._bucket, Prefix=target["Key"])
            for upload in listed.get("Uploads", ()):
                self._client.abort_multipart_upload(**target, UploadId=upload["UploadId"])


class _S3Writer:
    def __init__(self, client: Any, target: dict[str, str]) -> None:
        self._client, self._target = client, target
        self._upload_id: str | None = None
        self._part, self._sent = bytearray(), list[dict[str, Any]]()

    def write(self, data: bytes) -> None:
        """Append bytes; send each part that is full."""
        self._part += data
        while len(self._part) >= PART_BYTES:
            self._send(bytes(self._part[:PART_BYTES]))
            del self._part[:PART_BYTES]

    def finish(self) -> None:
        """Send the rest, and let S3 put the parts together."""
        with _one_error():
            if self._upload_id is None:
                self._client.put_object(**self._target, Body=bytes(self._part))
                return
        if self._part:
            self._send(bytes(self._part))
        with _one_error():
            self._client.complete_multipart_upload(
                **self._target, UploadId=self._upload_id, MultipartUpload={"Parts": self._sent}
            )

    def abandon(self) -> None:
        """Drop the parts that S3 has."""
        self._part.clear()
        if self._upload_id is not None:
            with suppress(StorageUnavailable, NotFound), _one_error():
                self._client.abort_multipart_upload(**self._target, UploadId=self._upload_id)

    def _send(self, part: bytes) -> None:
        number = len(self._sent) + 1
        with _one_error():
            if self._upload_id is None:
                self._upload_id = self._client.create_multipart_upload(**self._target)["UploadId"]
            made = self._client.upload_part(**self._target, UploadId=self._upload_id, PartNumber=number, Body=part)
        self._sent.append({"PartNumber": number, "ETag": made["ETag"]})


def _parts(body: Any) -> Iterator[bytes]:
    with _one_error():
        yield from body.iter_chunks(READ_BYTES)


@contextmanager
def _one_error() -> Iterator[None]:
    """Raise NotFound for what is not there, and StorageUnavailable for every other way in which S3 fails."""
    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        if code in MISSING:
            raise NotFound("This file has no content any more.") from error
        raise StorageUnavailable(f"S3 does not take it: {code}: {error}") from error
    except BotoCoreError as error:
        raise StorageUnavailable(f"S3 does not answer: {error}") from error
