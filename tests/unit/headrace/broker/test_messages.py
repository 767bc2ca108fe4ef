"""Which job a message stands for."""

import json

import pytest

from headrace.broker.messages import named_in
from headrace.domain.ids import new_id, show_id


def test_a_message_names_its_job_and_its_stay() -> None:
    job_id = new_id()
    assert named_in(json.dumps({"properties": {"delivery_tag": f"{show_id(job_id)}.12"}})) == (job_id, 12)


@pytest.mark.parametrize(
    "message",
    [
        "",
        "not json",
        "[]",
        "{}",
        '{"properties":null}',
        '{"properties":{"delivery_tag":7}}',
        '{"properties":{"delivery_tag":"6f9c1e1e-3a0b-4d8f-9d53-8a3d1f4b7a10"}}',
        '{"properties":{"delivery_tag":"job_0123456789abcdef0123456789abcdef.x"}}',
    ],
)
def test_any_other_message_names_nothing(message: str) -> None:
    assert named_in(message) is None
