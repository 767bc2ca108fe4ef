"""The heads of the parts of an upload are bounded."""

from collections.abc import Callable

import pytest

from plugins.batches.settings import BatchSettings, FileSettings
from tests.web import ApiClient, Web

PARTS = b'--%s\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n{}\r\n--%s--\r\n'


@pytest.mark.parametrize(("length", "status"), [(70, 200), (71, 400)])
def test_a_boundary_has_at_most_70_characters(
    build_web: Callable[..., Web], key: str, tmp_path, length: int, status: int
) -> None:
    web = build_web(batches=BatchSettings(files=FileSettings(store=str(tmp_path))))
    boundary = b"b" * length
    reply = ApiClient(web, key).post(
        "/v1/files",
        data=b'--%s\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n' % boundary
        + PARTS % (boundary, boundary),
        content_type=f"multipart/form-data; boundary={boundary.decode()}",
    )
    assert reply.status_code == status, reply.json
    assert status == 200 or "70 characters" in reply.json["error"]["message"]


def test_a_parts_head_is_bounded_too(build_web: Callable[..., Web], key: str, tmp_path) -> None:
    web = build_web(batches=BatchSettings(files=FileSettings(store=str(tmp_path))))
    head = b'--b\r\nContent-Disposition: form-data; name="file"%s\r\n\r\n{}\r\n--b--\r\n' % (b";a=b" * 4000)
    reply = ApiClient(web, key).post("/v1/files", data=head, content_type="multipart/form-data; boundary=b")
    assert (reply.status_code, reply.json["error"]["code"]) == (400, "invalid_form")
    assert "head" in reply.json["error"]["message"]
