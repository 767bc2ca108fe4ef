"""Places for files: a folder, and a bucket of a server that speaks S3's protocol."""

from pathlib import Path
from typing import Any
from uuid import uuid4

from plugins.batches.settings import FileSettings


class Folder:
    """A folder. `names`: of all that is in it."""

    def __init__(self, path: Path) -> None:
        self.path = path / "files"
        self.settings = FileSettings(store=str(self.path))

    def names(self) -> list[str]:
        return sorted(str(path.relative_to(self.path)) for path in self.path.rglob("*") if path.is_file())

    def fail(self) -> None:
        """A file stands where the folder was: as a mount that is gone, it takes nothing."""
        self.path.write_text("no folder")


class Bucket:
    """A bucket, in a folder of it. `names`: of its objects, and of uploads that have not ended."""

    def __init__(self, client: Any, url: str, **configuration: Any) -> None:
        """Make it. Args: client: boto3's, which may make buckets. configuration: of a new bucket."""
        self._bucket, self._client = f"files-{uuid4().hex[:12]}", client
        client.create_bucket(Bucket=self._bucket, **configuration)
        self.settings = FileSettings(store=f"s3://{self._bucket}/deep/er", endpoint_url=url)

    def names(self) -> list[str]:
        objects = self._client.list_objects_v2(Bucket=self._bucket).get("Contents", ())
        uploads = self._client.list_multipart_uploads(Bucket=self._bucket).get("Uploads", ())
        return sorted(each["Key"].removeprefix("deep/er/") for each in (*objects, *uploads))

    def fail(self) -> None:
        """Delete it."""
        for name in self.names():
            self._client.delete_object(Bucket=self._bucket, Key=f"deep/er/{name}")
        self._client.delete_bucket(Bucket=self._bucket)


Place = Folder | Bucket
