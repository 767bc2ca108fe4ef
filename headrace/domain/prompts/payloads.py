"""Payloads: a job's prompt as Postgres stores it, in a version that processes of several releases agree on. Pure.

During a deployment, processes of two releases share the rows. A payload has the lowest version that expresses it, so
that older workers run every job that does not need more. A process ignores fields that it does not know, and leaves
alone payloads of a higher version than it reads.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from types import MappingProxyType
from typing import Any

from headrace.domain.prompts import Message, Sampling
from headrace.domain.prompts.compression import Compression
from headrace.domain.prompts.tools import Tools
from headrace.errors import PayloadTooNew, PayloadUnreadable

#: The highest version that this release reads. A stored payload without a version has 1.
PAYLOAD_VERSION = 1
#: The version of each field of `Message` or `Sampling` that is newer than version 1 and without which a job would get
#: another answer. A field that an older worker may ignore is not listed. CONTRIBUTING.md has the rule.
SINCE: Mapping[str, int] = MappingProxyType({})
#: The key of the version, beside the fields of `Sampling`.
_VERSION = "version"
_SAMPLING_FIELDS = tuple(field.name for field in fields(Sampling))
#: What reading a malformed payload raises.
_MALFORMED = (AttributeError, KeyError, TypeError, ValueError)


def stored_messages(messages: Iterable[Message]) -> list[dict[str, Any]]:
    """The value of `job_texts.messages`."""
    return [message.to_fields() for message in messages]


def stored_sampling(sampling: Sampling, messages: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """The value of `job_texts.sampling`: the values that the caller set. The engine's defaults are not stored.

    Args: messages: as stored beside it; they share its version.
    """
    values = ((name, getattr(sampling, name)) for name in _SAMPLING_FIELDS)
    given = {name: value for name, value in values if value not in (None, ())}
    if sampling.n == 1:
        del given["n"]  # So that older processes can read it.
    given |= {"compression": asdict(sampling.compression)} if sampling.compression else {}
    given |= {"tools": asdict(sampling.tools)} if sampling.tools else {}
    version = _version_of(given, *messages) if SINCE else 1
    return given if version == 1 else {**given, _VERSION: version}


def _version_of(*parts: Mapping[str, Any]) -> int:
    """The lowest version that has all fields of these parts."""
    return max((SINCE.get(name, 1) for part in parts for name in part), default=1)


def read_payload(messages: Any, sampling: Any) -> tuple[tuple[Message, ...], Sampling]:
    """The messages and the sampling of a row of `job_texts`. Raises: PayloadTooNew. PayloadUnreadable."""
    check_version(sampling)
    return read_messages(messages), read_sampling(sampling)


def check_version(sampling: Any) -> None:
    """Raises: PayloadTooNew: a newer release wrote the payload of this `sampling`. PayloadUnreadable."""
    try:
        version = sampling.get(_VERSION, 1)
        is_newer = version > PAYLOAD_VERSION
    except _MALFORMED as error:
        raise _unreadable("sampling", error) from None
    if is_newer:
        raise PayloadTooNew(version, PAYLOAD_VERSION)


def read_messages(stored: Any) -> tuple[Message, ...]:
    """Read a `messages` column, whose version was checked. Raises: PayloadUnreadable."""
    try:
        return tuple(map(Message.of, stored))
    except _MALFORMED as error:
        raise _unreadable("messages", error) from None


def read_sampling(stored: Any) -> Sampling:
    """Read a `sampling` column, whose version was checked. Raises: PayloadUnreadable."""
    try:
        given = {name: stored[name] for name in _SAMPLING_FIELDS if name in stored}
        if not isinstance(given["max_tokens"], int):
            raise TypeError
        given["stop"] = tuple(given.get("stop", ()))
        if compression := given.get("compression"):
            given["compression"] = Compression.of(compression)
        if tools := given.get("tools"):
            given["tools"] = Tools.of(tools)
        return Sampling(**given)
    except _MALFORMED as error:
        raise _unreadable("sampling", error) from None


def _unreadable(column: str, error: Exception) -> PayloadUnreadable:
    """Without the cause: its text may quote the prompt."""
    return PayloadUnreadable(f"The job's stored {column} are malformed ({type(error).__name__}).")
