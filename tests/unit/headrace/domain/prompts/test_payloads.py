"""A job's prompt as it is stored: what another release wrote is read, left to a newer one, or called malformed."""

from typing import Any

import pytest

from headrace.domain.prompts import Message, Sampling, payloads
from headrace.domain.prompts.compression import Compression
from headrace.domain.prompts.payloads import read_payload, stored_messages, stored_sampling
from headrace.domain.prompts.tools import ToolCall, ToolCallPiece, Tools
from headrace.errors import PayloadTooNew, PayloadUnreadable

TALK = (
    Message("system", "Be brief.", name="ann"),
    Message("assistant", "", tool_calls=(ToolCall("c1", "look", "{}"),)),
    Message("tool", "Rain.", tool_call_id="c1"),
)
FULL = Sampling(
    16,
    temperature=0.5,
    stop=("\n",),
    response_format={"type": "json_object"},
    compression=Compression("plain", ("system",)),
    extra={"top_k": 3},
    tools=Tools(({"name": "look"},), "function", "look", parallel=False),
    n=3,
)
ASKED = [{"role": "user", "content": "Why?"}]


@pytest.mark.parametrize("sampling", [Sampling(16), FULL])
def test_it_is_read_as_it_was_written(sampling: Sampling) -> None:
    messages = stored_messages(TALK)
    assert read_payload(messages, stored_sampling(sampling, messages)) == (TALK, sampling)


def test_fields_that_a_newer_release_adds_are_ignored_wherever_they_are() -> None:
    later = {"later": {"x": 1}}
    messages = [{**message, **later} for message in stored_messages(TALK)]
    messages[1]["tool_calls"] = [{**call, **later} for call in messages[1]["tool_calls"]]
    sampling = {**stored_sampling(FULL), **later}
    sampling["tools"] = {**sampling["tools"], **later}
    sampling["compression"] = {**sampling["compression"], **later}

    assert read_payload(messages, sampling) == (TALK, FULL)
    assert ToolCallPiece.of({"index": 1, "arguments": "{", **later}) == ToolCallPiece(1, arguments="{")


def test_a_job_that_asked_for_a_removed_method_is_compressed_plainly() -> None:
    stored = {"max_tokens": 16, "compression": {"method": "surprise", "to": 0.5, "also": ["system"]}}

    assert read_payload(ASKED, stored)[1].compression == Compression("plain", ("system",))


def test_a_payload_has_the_lowest_version_that_expresses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payloads, "SINCE", {"seed": 2, "tool_call_id": 3})
    monkeypatch.setattr(payloads, "PAYLOAD_VERSION", 3)
    plain, talk = stored_messages([Message("user", "Why?")]), stored_messages(TALK)

    assert "version" not in stored_sampling(Sampling(16), plain), "older workers read what they always read"
    assert stored_sampling(Sampling(16, seed=7), plain)["version"] == 2
    assert stored_sampling(Sampling(16, seed=7), talk)["version"] == 3
    assert read_payload(talk, stored_sampling(Sampling(16), talk)) == (TALK, Sampling(16))


def test_a_higher_version_is_left_to_a_newer_release() -> None:
    with pytest.raises(PayloadTooNew, match="version 9; this process reads") as raised:
        read_payload("not even a list", {"version": 9})
    assert raised.value.version == 9


@pytest.mark.parametrize(
    ("messages", "sampling"),
    [
        (ASKED, None),
        (ASKED, []),
        (ASKED, {}),
        (ASKED, {"max_tokens": "16"}),
        (ASKED, {"max_tokens": 16, "version": "two"}),
        (ASKED, {"max_tokens": 16, "stop": 5}),
        (ASKED, {"max_tokens": 16, "tools": {"choice": "auto"}}),
        (ASKED, {"max_tokens": 16, "compression": "plain"}),
        (None, {"max_tokens": 16}),
        ({"role": "user", "content": "Why?"}, {"max_tokens": 16}),
        ([{"role": "user"}], {"max_tokens": 16}),
        ([{"role": "user", "content": 5}], {"max_tokens": 16}),
        ([{"role": "user", "content": "", "tool_calls": [{"id": "secret"}]}], {"max_tokens": 16}),
    ],
)
def test_a_malformed_one_is_called_so_without_a_word_of_it(messages: Any, sampling: Any) -> None:
    with pytest.raises(PayloadUnreadable) as raised:
        read_payload(messages, sampling)
    assert not isinstance(raised.value, PayloadTooNew)
    assert raised.value.__cause__ is None
    assert "secret" not in str(raised.value)
