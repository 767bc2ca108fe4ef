"""The sections `[batches]` and `[batches.files]`."""

from typing import Annotated

from pydantic import Field

from headrace.setting_types import Days, Positive, PositiveInt, Section, Share


class FileSettings(Section):
    """Files that apps upload for batches, and the files that batches make.

    Attributes:
        store: where their contents are: a folder, `/srv/headrace/files`, which all `web`, `plugins` and `control`
            processes share; or a bucket, `s3://bucket/prefix`. Without it no file is taken; `headrace up` sets a folder
            of its own.
        endpoint_url: a server that speaks S3's protocol, instead of AWS.
        limit_bytes: the largest file; 1 GiB at most.
        app_limit_bytes: what the files of one app and the lines of its batches may hold together.
        keep_days: days after which an uploaded file is deleted, unless its upload says otherwise.
    """

    store: Annotated[str, Field(pattern=r"^($|/|s3://[^/]+(/|$))")] = ""
    endpoint_url: Annotated[str, Field(pattern="^https?://")] | None = None
    limit_bytes: Annotated[int, Field(gt=0, le=1024**3)] = 200 * 1024 * 1024
    app_limit_bytes: PositiveInt = 10 * 1024 * 1024 * 1024
    keep_days: Days = 30

    @property
    def keep_s(self) -> float:
        """`keep_days` in seconds."""
        return self.keep_days * 86_400


class BatchSettings(Section):
    """Batches: the lines of a file, which run in the lane `batch` as room appears.

    Attributes:
        lines_limit: the most lines of one batch.
        open_per_app: the most batches of one app that have not ended.
        queue_share: the share of the lane's depth that is filled from batches; the rest is for single jobs.
        lease_s: how long a batch waits for another process once the one that moves it on has died.
        provider_tier: lines that have a day may go to the provider's own batches, at the price of the tier `batch`. The
            model's price needs that tier.
        provider_poll_s: how often the provider is asked about its batches.
        files: the files that apps upload, and those that batches make.
    """

    lines_limit: PositiveInt = 50_000
    open_per_app: PositiveInt = 50
    queue_share: Share = 0.5
    lease_s: Positive = 10.0
    provider_tier: bool = False
    provider_poll_s: Positive = 60.0
    files: FileSettings = FileSettings()
