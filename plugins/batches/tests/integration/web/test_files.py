"""Files, by OpenAI's unchanged SDK and by hand."""

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import openai
import pytest
import sqlalchemy as sa
from openai import OpenAI

from headrace.store import Store
from plugins.batches.part import BatchesPart
from plugins.batches.settings import BatchSettings, FileSettings
from plugins.batches.storage.base import StorageUnavailable
from plugins.batches.storage.folder import _FolderWriter as FolderWriter
from plugins.batches.tables import files
from tests.waiting import DEADLINE_S, until
from tests.web import ApiClient, Web

LIMIT = 1024 * 1024
LINES = b'{"custom_id": "1", "method": "POST", "url": "/v1/responses", "body": {}}\n'
BOUNDARY = "b0undary"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "files"


@pytest.fixture
def web(build_web: Callable[..., Web], folder: Path) -> Web:
    return build_web(
        batches=BatchSettings(files=FileSettings(store=str(folder), limit_bytes=LIMIT, app_limit_bytes=2 * LIMIT))
    )


@pytest.fixture
def sdk(base_url: str, key: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{base_url}/v1", api_key=key, max_retries=0) as sdk:
        yield sdk


@pytest.fixture
def states(store: Store) -> Callable[[], list[str]]:
    """The states of all files."""

    def read() -> list[str]:
        with store.begin() as db:
            return list(db.scalars(sa.select(files.c.state).order_by(files.c.id)))

    return read


def upload(client: ApiClient, *parts: tuple[str, bytes], content_type: str | None = None) -> Any:
    """Sends a form of these parts: each the rest of a Content-Disposition, and what follows."""
    body = b"".join(
        b"--%s\r\nContent-Disposition: form-data; %s\r\n\r\n%s\r\n" % (BOUNDARY.encode(), named.encode(), data)
        for named, data in parts
    )
    body += b"--%s--\r\n" % BOUNDARY.encode()
    kind = content_type or f"multipart/form-data; boundary={BOUNDARY}"
    return client.post("/v1/files", data=body, content_type=kind)


PURPOSE = ('name="purpose"', b"batch")
FILE = ('name="file"; filename="lines.jsonl"', LINES)


def test_a_file_is_uploaded_read_listed_and_deleted(sdk: OpenAI) -> None:
    made = sdk.files.create(file=("lines.jsonl", LINES), purpose="batch")
    assert (made.object, made.filename, made.bytes, made.purpose) == ("file", "lines.jsonl", len(LINES), "batch")
    assert made.expires_at == made.created_at + 30 * 86_400
    assert sdk.files.retrieve(made.id) == made
    assert sdk.files.content(made.id).content == LINES
    assert sdk.files.list().data == [made]
    assert sdk.files.delete(made.id).deleted
    for read in (sdk.files.retrieve, sdk.files.content, sdk.files.delete):
        with pytest.raises(openai.NotFoundError):
            read(made.id)
    assert sdk.files.list().data == []


def test_a_large_file_comes_back_as_it_was_sent(sdk: OpenAI) -> None:
    data = bytes(range(256)) * (LIMIT // 256)
    made = sdk.files.create(file=("all.jsonl", data), purpose="batch")
    with sdk.files.with_streaming_response.content(made.id) as reply:
        assert reply.headers["content-length"] == str(LIMIT)
        assert b"".join(reply.iter_bytes()) == data


def test_a_file_expires_when_its_upload_says_so(sdk: OpenAI) -> None:
    after: Any = {"anchor": "created_at", "seconds": 3600}
    made = sdk.files.create(file=("lines.jsonl", LINES), purpose="batch", expires_after=after)
    assert made.expires_at == made.created_at + 3600


def test_an_expired_file_is_not_found(sdk: OpenAI, store: Store) -> None:
    made = sdk.files.create(file=("lines.jsonl", LINES), purpose="batch")
    with store.begin() as db:
        db.execute(sa.update(files).values(expires_at=sa.func.now()))
    assert sdk.files.list().data == []
    with pytest.raises(openai.NotFoundError):
        sdk.files.content(made.id)


def test_pages_follow_each_other_in_both_orders(sdk: OpenAI) -> None:
    ids = [sdk.files.create(file=(f"{number}.jsonl", LINES), purpose="batch").id for number in range(3)]
    assert [each.id for each in sdk.files.list(limit=2)] == ids[::-1]
    assert [each.id for each in sdk.files.list(limit=2, order="asc")] == ids
    assert sdk.files.list(purpose="batch_output").data == []


def test_another_app_sees_nothing_of_it(sdk: OpenAI, base_url: str, make_key: Callable[[str], str]) -> None:
    made = sdk.files.create(file=("lines.jsonl", LINES), purpose="batch")
    with OpenAI(base_url=f"{base_url}/v1", api_key=make_key("other"), max_retries=0) as other:
        assert other.files.list().data == []
        for read in (other.files.retrieve, other.files.content, other.files.delete):
            with pytest.raises(openai.NotFoundError):
                read(made.id)
    assert sdk.files.content(made.id).content == LINES


def test_two_processes_see_the_same_files(sdk: OpenAI, build_web: Callable[..., Web], web: Web, key: str) -> None:
    made = sdk.files.create(file=("lines.jsonl", LINES), purpose="batch")
    other = ApiClient(build_web(batches=web.deps.settings.of(BatchSettings)), key)
    assert other.get(f"/v1/files/{made.id}/content").data == LINES


@pytest.mark.parametrize(
    ("parts", "param", "code"),
    [
        ([FILE], "purpose", "missing_parameter"),
        ([PURPOSE], "file", "missing_parameter"),
        ([PURPOSE, ('name="file"', LINES)], "file", "missing_parameter"),
        ([('name="purpose"', b"assistants"), FILE], "purpose", "invalid_value"),
        ([PURPOSE, PURPOSE, FILE], "purpose", "invalid_value"),
        ([PURPOSE, FILE, FILE], "file", "invalid_value"),
        ([PURPOSE, ('name="other"; filename="x"', b"x"), FILE], "other", "invalid_value"),
        ([PURPOSE, ('name="file"; filename=""', LINES)], "file", "invalid_value"),
        ([PURPOSE, ('name="file"; filename="a\tb"', LINES)], "file", "invalid_value"),
        ([PURPOSE, FILE, ('name="colour"', b"blue")], "colour", "unknown_parameter"),
        ([PURPOSE, FILE, ('name="purpose"', b"x" * 2000)], "purpose", "invalid_value"),
        ([PURPOSE, ('name="expires_after[anchor]"', b"created_at"), FILE], "expires_after", "invalid_value"),
        (
            [PURPOSE, ('name="expires_after[anchor]"', b"created_at"), ('name="expires_after[seconds]"', b"1"), FILE],
            "expires_after[seconds]",
            "invalid_value",
        ),
        ([(f'name="{number}"', b"x") for number in range(12)], None, "invalid_form"),
    ],
)
def test_a_wrong_form_names_what_is_wrong_and_leaves_nothing(
    client: ApiClient, states: Any, folder: Path, parts: list[tuple[str, bytes]], param: str | None, code: str
) -> None:
    reply = upload(client, *parts)
    assert reply.status_code == 400
    error = reply.json["error"]
    assert (error["param"], error["code"]) == (param, code)
    assert set(states()) <= {"deleted"}
    assert not [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "multipart/form-data",
        "multipart/form-data; boundary=other",
        "text/plain",
        "multipart/form-data; boundary*=UTF-8''%e2%82%ac",
    ],
)
def test_a_body_that_is_no_form_is_refused(client: ApiClient, content_type: str) -> None:
    reply = upload(client, PURPOSE, FILE, content_type=content_type)
    assert (reply.status_code, reply.json["error"]["code"]) == (400, "invalid_form")


def test_a_file_beyond_the_limit_is_refused_and_left_nowhere(client: ApiClient, states: Any, folder: Path) -> None:
    reply = upload(client, PURPOSE, ('name="file"; filename="large.jsonl"', bytes(LIMIT + 1)))
    assert (reply.status_code, reply.json["error"]["code"]) == (413, "request_too_large")
    assert set(states()) <= {"deleted"}
    assert not [path for path in folder.rglob("*") if path.is_file()]


def test_an_apps_files_hold_no_more_than_its_quota(sdk: OpenAI) -> None:
    content = bytes(LIMIT * 3 // 4)
    first = sdk.files.create(file=("a.jsonl", content), purpose="batch")
    sdk.files.create(file=("b.jsonl", content), purpose="batch")
    with pytest.raises(openai.BadRequestError) as refused:
        sdk.files.create(file=("c.jsonl", content), purpose="batch")
    assert (refused.value.code, refused.value.param) == ("storage_quota_exceeded", "file")
    sdk.files.delete(first.id)
    sdk.files.create(file=("c.jsonl", content), purpose="batch")


def test_uploads_at_once_share_the_quota(client_of: Callable[..., ApiClient], key: str, states: Any) -> None:
    replies = []

    def send() -> None:
        replies.append(upload(client_of(key), PURPOSE, ('name="file"; filename="x"', bytes(LIMIT * 3 // 5))))

    threads = [threading.Thread(target=send) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(reply.status_code for reply in replies) == [200] * 3 + [400] * 3
    assert states() == ["ready"] * 3


def test_a_storage_that_takes_nothing_leaves_no_file(
    client: ApiClient, states: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise StorageUnavailable("The folder of files does not work: No space left on device")

    monkeypatch.setattr("plugins.batches.storage.folder._FolderWriter.write", full)
    reply = upload(client, PURPOSE, FILE)
    assert (reply.status_code, reply.json["error"]["code"]) == (503, "storage_unavailable")
    assert states() == ["deleted"]


def test_without_a_storage_no_file_is_taken(build_web: Callable[..., Web], key: str) -> None:
    reply = upload(ApiClient(build_web(batches=BatchSettings(files=FileSettings())), key), PURPOSE, FILE)
    assert (reply.status_code, reply.json["error"]["param"]) == (503, None)


def test_what_is_no_id_of_a_file_is_not_found(client: ApiClient) -> None:
    for path in ("/v1/files/file-1", "/v1/files/job_" + "0" * 32, "/v1/files/file-" + "0" * 32 + "/content"):
        assert client.get(path).status_code == 404
    reply = client.get("/v1/files?after=file-1")
    assert (reply.status_code, reply.json["error"]["param"]) == (400, "after")


def test_a_packed_body_is_refused(client: ApiClient) -> None:
    reply = client.post(
        "/v1/files", data=b"x", content_type="multipart/form-data; boundary=b", headers={"Content-Encoding": "gzip"}
    )
    assert (reply.status_code, reply.json["error"]["code"]) == (415, "unsupported_encoding")


def test_an_upload_that_breaks_off_is_left_to_the_sweep(base_url: str, key: str, states: Any, folder: Path) -> None:
    address = urlsplit(base_url)
    with socket.create_connection((address.hostname or "", address.port or 0)) as client:
        head = (
            f"POST /v1/files HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Length: 900000\r\n"
            f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n\r\n--{BOUNDARY}\r\n"
            'Content-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
        )
        client.sendall(head.encode() + bytes(600_000))
        until(lambda: states() == ["uploading"])
    until(lambda: states() == ["deleted"])
    assert not [path for path in folder.rglob("*") if path.is_file()]


def test_each_page_names_its_ends(client: ApiClient) -> None:
    ids = [upload(client, PURPOSE, FILE).json["id"] for _ in range(3)]
    page = client.get("/v1/files?limit=2").json
    assert (page["first_id"], page["last_id"], page["has_more"]) == (ids[2], ids[1], True)
    page = client.get(f"/v1/files?limit=2&after={ids[1]}").json
    assert (page["first_id"], page["last_id"], page["has_more"]) == (ids[0], ids[0], False)


def test_a_download_holds_a_slot_until_its_end(
    web: Web, client: ApiClient, base_url: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, may_end = upload(client, PURPOSE, FILE).json, threading.Event()

    def parts(file: BinaryIO) -> Iterator[bytes]:
        # The server sends a reply's head with its first part.
        yield file.read(1)
        may_end.wait(DEADLINE_S)
        yield file.read()

    monkeypatch.setattr("plugins.batches.storage.folder._parts", parts)
    with OpenAI(base_url=f"{base_url}/v1", api_key=key) as sdk:
        with sdk.files.with_streaming_response.content(made["id"]) as reply:
            assert web.deps.of(BatchesPart).file_slots.held == 1
            may_end.set()
            assert reply.read() == LINES
        until(lambda: web.deps.of(BatchesPart).file_slots.held == 0)


def test_a_file_whose_content_the_storage_lost_is_not_called_deleted(client: ApiClient, folder: Path) -> None:
    made = upload(client, PURPOSE, FILE).json
    folder.rename(folder.with_name("unmounted"))
    reply = client.get(f"/v1/files/{made['id']}/content")
    assert (reply.status_code, reply.json["error"]["code"]) == (503, "storage_unavailable")


def test_an_upload_that_the_sweep_took_for_a_dead_one_leaves_nothing(
    client: ApiClient, monkeypatch: pytest.MonkeyPatch, states: Any, store: Store, folder: Path
) -> None:
    finish = FolderWriter.finish

    def swept(writer: FolderWriter) -> None:
        finish(writer)
        with store.begin() as db:
            db.execute(sa.delete(files))

    monkeypatch.setattr(FolderWriter, "finish", swept)
    assert upload(client, PURPOSE, FILE).status_code == 404
    assert states() == []
    assert not [path for path in folder.rglob("*") if path.is_file()]
