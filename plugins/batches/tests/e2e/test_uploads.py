"""An upload whose `web` process is killed inside it: the sweep finds what is left, in a folder and in S3."""

import io
import socket
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest

from headrace.broker.messages import make_celery
from headrace.config import PROJECT_ROOT, Settings
from headrace.stack.child import read_procfile
from plugins.batches.control import forget_files
from plugins.batches.storage import open_storage
from plugins.batches.store import files
from plugins.batches.tests.contracts.storages import Folder, Place
from scheduler.app import make_deps
from tests.contracts.providers.aws import Moto
from tests.waiting import until

MIB = 1024 * 1024
#: Of an upload, and how much of it is sent when `web` is killed: more than one part of an upload to S3.
SIZE, SENT = 24 * MIB, 13 * MIB
#: Of an app: one such upload at a time.
QUOTA = 30 * MIB
WITHOUT = [name for name in read_procfile(PROJECT_ROOT / "Procfile") if name not in ("release", "web")]


@pytest.fixture(scope="module")
def moto() -> Iterator[Moto]:
    moto = Moto()
    yield moto
    moto.stop()


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "folder":
        return Folder(tmp_path)
    moto: Moto = request.getfixturevalue("moto")
    return moto.bucket(request.getfixturevalue("monkeypatch"))


@pytest.fixture
def system(start: Callable[..., Any], place: Place) -> Any:
    """Only `web` and the servers run: each test sweeps by itself."""
    without = [word for name in WITHOUT for word in ("--without", name)]
    settings = {"batches__files__store": place.settings.store, "batches__files__app_limit_bytes": str(QUOTA)}
    if place.settings.endpoint_url is not None:
        settings["batches__files__endpoint_url"] = place.settings.endpoint_url
    return start(*without, **settings)


@pytest.fixture
def sweep(system: Any, place: Place, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], int]]:
    """Sweeps as `control` does, once no upload can be alive any more."""
    report = system.stack.report
    settings = Settings.load(database_url=report.database_url, redis_url=report.redis_url)
    with make_celery("test", settings) as celery:
        deps = make_deps(celery, settings)

        def later() -> int:
            monkeypatch.setattr(files, "LONGEST_UPLOAD", timedelta(0))
            return forget_files(deps, open_storage(place.settings))

        yield later
        deps.store.close()


def test_what_a_killed_web_process_leaves_of_an_upload_is_swept_and_counts_no_more(
    system: Any, place: Place, sweep: Callable[[], int]
) -> None:
    report = system.stack.report
    sdk = openai.OpenAI(base_url=f"{report.url}/v1", api_key=report.api_key, max_retries=8)
    with half_an_upload(report.url, report.api_key) as client:
        until(lambda: place.names() and states(system) == ["uploading"], "a part in the storage")
        pid = system.stack.kill("web")
        assert has_broken(client)
    system.restarted("web", pid)
    until(system.api_is_ready, "the API")

    assert place.names()
    assert states(system) == ["uploading"]
    assert sdk.files.list().data == []
    with pytest.raises(openai.BadRequestError) as refused:
        sdk.files.create(file=("again.jsonl", io.BytesIO(bytes(SIZE))), purpose="batch")
    assert refused.value.code == "storage_quota_exceeded"

    assert sweep() == 1
    assert place.names() == []
    assert states(system) == []
    made = sdk.files.create(file=("again.jsonl", io.BytesIO(bytes(SIZE))), purpose="batch")
    assert made.bytes == SIZE


def states(system: Any) -> list[str]:
    """Of all files, as Postgres has them."""
    return [row["state"] for row in system.sql("SELECT state FROM files ORDER BY id")]


def half_an_upload(url: str, api_key: str) -> socket.socket:
    """A connection over which a part of an upload was sent."""
    address, boundary = urlsplit(url), "b0undary"
    client = socket.create_connection((address.hostname or "", address.port or 0))
    head = (
        f"POST /v1/files HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api_key}\r\nContent-Length: {SIZE}\r\n"
        f"Content-Type: multipart/form-data; boundary={boundary}\r\n\r\n--{boundary}\r\n"
        'Content-Disposition: form-data; name="file"; filename="large.jsonl"\r\n\r\n'
    )
    client.sendall(head.encode() + bytes(SENT))
    return client


def has_broken(client: socket.socket) -> bool:
    """Whether the server's side of a connection has gone."""
    client.settimeout(10)
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True
