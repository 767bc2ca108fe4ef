"""Reads what a paid API sends: its rates, from headers, and chat completions in chunks. Pure: knows no SDK."""

import json
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import astuple, dataclass, field
from math import isfinite
from typing import Any, cast

from headrace.domain.answers import Alternative, Choice, TokenLogprob, alternative
from headrace.domain.attempts import Usage
from headrace.domain.limits import ProviderRate, ProviderRates
from headrace.domain.prompts import storable
from headrace.domain.prompts.tools import CallPlaces, ToolCallPiece, joined
from headrace.errors import EngineError, EngineFault, PromptRejected, TooFewAnswers
from headrace.policies.retries import asked_wait_s
from workers.engines.base import Delta, FinishReason, Generation, GenerationRequest, OnDelta

#: The longest pause that the API can ask for, in seconds: Headrace's own clients honour as much.
PATIENCE_S = 120.0
#: The longest time until a rate is full again, in seconds, and the largest rate. Rates are by the minute or the day; a
#: longer time is a date, or nonsense.
_LONGEST_S, _MOST = 86_400.0, 10**12
#: As OpenAI writes them, for example `1m26.4s` or `20ms`. Others write seconds alone.
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")
_UNITS_S = (86_400, 3600, 60, 1, 0.001)


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """The pause that the API asks for, in seconds, 0 to `PATIENCE_S`; None when it asks for none.

    Source: RFC 9110, section 10.2.3: seconds or a date; OpenAI's SDK: a value in milliseconds wins.
    """
    with suppress(KeyError, ValueError):
        if isfinite(seconds := float(headers["retry-after-ms"]) / 1000):
            return min(max(0.0, seconds), PATIENCE_S)
    asked_s = asked_wait_s(headers.get("retry-after", ""))
    return None if asked_s is None else min(asked_s, PATIENCE_S)


def rates(headers: Mapping[str, str]) -> ProviderRates | None:
    """The account's remaining rates, as OpenAI's headers report them; None without a report.

    Source: OpenAI's guide "Rate limits", section "Rate limits in headers".
    """
    requests, tokens = _rate(headers, "requests"), _rate(headers, "tokens")
    return None if requests is tokens is None else ProviderRates(time.monotonic(), requests, tokens)


def _rate(headers: Mapping[str, str], kind: str) -> ProviderRate | None:
    try:
        limit, left = (int(headers[f"x-ratelimit-{what}-{kind}"]) for what in ("limit", "remaining"))
        full_in_s = _seconds(headers[f"x-ratelimit-reset-{kind}"])
    except (KeyError, ValueError):
        return None
    return ProviderRate(limit, min(max(left, 0), limit), min(full_in_s, _LONGEST_S)) if 0 < limit <= _MOST else None


def _seconds(text: str) -> float:
    """Raises: ValueError."""
    if text and (found := _DURATION.fullmatch(text)):
        return sum(float(part) * unit for part, unit in zip(found.groups(), _UNITS_S, strict=True) if part)
    seconds = float(text)
    if not isfinite(seconds) or seconds < 0:
        raise ValueError(f"'{text}' is no time to come")
    return seconds


#: The beginning of a stream's line, and the marker that ends the stream in place of a chunk.
_DATA, _DONE = b"data:", b"[DONE]"
#: More than any model reads or writes in one call.
_MOST_TOKENS = 100_000_000


@dataclass(slots=True)
class PaidAnswer:
    """One answer so far. Attributes: told_logprobs: how many of them its listener has."""

    pieces: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    tool_calls: list[ToolCallPiece] = field(default_factory=list)
    places: CallPlaces = field(default_factory=CallPlaces)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    told_logprobs: int = 0
    finish_reason: str | None = None

    @property
    def is_missing(self) -> bool:
        """True if nothing came of it, not even its end."""
        return not (self.pieces or self.reasoning or self.tool_calls or self.finish_reason)

    def as_choice(self) -> Choice:
        """The whole answer. Raises: EngineFault: it is cut off. PromptRejected: it is withheld."""
        match self.finish_reason:
            case "stop" | "length" as finish_reason:
                pass
            case "tool_calls" as finish_reason if self.tool_calls:
                pass
            case "content_filter":
                raise billed(PromptRejected("The paid API's content filter withheld the answer."))
            case _:
                raise billed(EngineFault(f"The paid API's answer is cut off: it ended with {self.finish_reason!r}."))
        # An API may ignore the request for log probabilities.
        logprobs = tuple(self.logprobs) or None
        reasoning, calls = "".join(self.reasoning), joined(self.tool_calls)
        return Choice("".join(self.pieces), finish_reason, logprobs, reasoning, calls)


@dataclass(slots=True)
class ChatCall:
    """A running request, and its answers so far. The chunks are not validated: a chunk may hold anything."""

    request: GenerationRequest
    on_delta: OnDelta | None
    began: float = field(default_factory=time.monotonic)
    is_aborted: bool = False
    answers: list[PaidAnswer] = field(default_factory=list)
    usage: Usage | None = None
    model: str = ""
    first_token_s: float | None = None
    rates: ProviderRates | None = None
    tier: str | None = None
    unread: bytes = b""

    def __post_init__(self) -> None:
        self.answers = [PaidAnswer() for _ in range(self.request.sampling.n)]

    @property
    def made(self) -> int:
        """The pieces so far; a piece is about one token."""
        return sum(len(each.pieces) + len(each.reasoning) + len(each.tool_calls) for each in self.answers)

    def read(self, data: bytes) -> None:
        """Read bytes of the stream, wherever they are cut. An unfinished line waits for its end.

        Raises: as `add`. ValueError: a chunk is not JSON.
        """
        # Split bytes, not text: bytes break only at line feeds and carriage returns, as the format requires. Text would
        # also break at U+2028.
        lines = (self.unread + data).splitlines(keepends=True)
        self.unread = b"" if lines[-1].endswith((b"\n", b"\r")) else lines.pop()
        for line in lines:
            if line.startswith(_DATA) and (chunk := line.removeprefix(_DATA).strip()) != _DONE:
                self.add(json.loads(str(chunk, "utf-8", "replace")))

    def add_whole(self, completion: Mapping[str, Any]) -> None:
        """Read a completion that was not streamed, as one chunk. Raises: as `add`."""
        choices = [{**choice, "delta": _as_delta(choice["message"])} for choice in completion["choices"]]
        self.add({**completion, "choices": choices})

    def add(self, chunk: Mapping[str, Any]) -> None:
        """Read a chunk. Raises: EngineFault: it reports an error. KeyError or a similar error: it is malformed."""
        if chunk.get("error"):
            fault = EngineFault("The paid API reported an error in the middle of its answer.")
            fault.cause = "an error in its answer"
            raise billed(fault)
        self.model = _text(chunk, "model") or self.model
        self.tier = _text(chunk, "service_tier") or self.tier
        if counts := chunk.get("usage"):
            self.usage = usage_of(counts)
        for choice in chunk["choices"]:
            # An API that makes one answer at a time may leave its number out.
            number = int(choice.get("index") or 0)
            if number < 0:
                raise ValueError(f"{number} is no answer's number")
            answer = self.answers[number]
            answer.finish_reason = choice.get("finish_reason") or answer.finish_reason
            if self.request.sampling.top_logprobs is not None and (said := choice.get("logprobs")):
                answer.logprobs += map(_token_logprob, said.get("content") or said.get("refusal") or ())
            self._tell(answer, number, choice["delta"])

    def _tell(self, answer: PaidAnswer, number: int, delta: Mapping[str, Any]) -> None:
        text = storable(delta.get("content") or delta.get("refusal") or "")
        # OpenAI sends no reasoning. Other APIs use one of two names for it.
        reasoning = storable(delta.get("reasoning") or delta.get("reasoning_content") or "")
        calls = tuple(answer.places.placed(_call_piece(each)) for each in delta.get("tool_calls") or ())
        if not (text or reasoning or calls):
            return
        if self.first_token_s is None:
            self.first_token_s = time.monotonic() - self.began
        answer.pieces += [text] if text else []
        answer.reasoning += [reasoning] if reasoning else []
        answer.tool_calls += calls
        logprobs = tuple(answer.logprobs[answer.told_logprobs :]) if text else ()
        answer.told_logprobs += len(logprobs)
        if self.on_delta and not self.is_aborted:
            self.on_delta(Delta(text, logprobs, reasoning, calls, number))

    def generation(self) -> Generation:
        """The whole answers.

        Raises: EngineFault: one is cut off, or no usage came. PromptRejected: one is withheld, or missing.
        """
        try:
            self._check_number()
            first, *others = (each.as_choice() for each in self.answers)
        except EngineError as error:
            if self.usage is not None and all(each.finish_reason or each.is_missing for each in self.answers):
                # The call ran to its end, so it is billed by its usage, whatever came of one of its answers.
                error.billed_tokens, error.billed_tier = astuple(self.usage), self.tier
            raise
        if self.usage is None:
            raise billed(EngineFault("The paid API's answer came without the usage that it is billed by."))
        return Generation(
            text=first.text,
            usage=self.usage,
            finish_reason="abort" if self.is_aborted else cast("FinishReason", first.finish_reason),
            model_served=self.model,
            first_token_s=self.first_token_s,
            rates=self.rates,
            tier=self.tier,
            logprobs=None if first.logprobs is None else tuple(first.logprobs),
            reasoning=first.reasoning,
            tool_calls=first.tool_calls,
            others=tuple(others),
        )

    def _check_number(self) -> None:
        """Raises: TooFewAnswers: the API would make as few at each try, and bill each."""
        made = sum(not each.is_missing for each in self.answers)
        if self.usage is not None and 0 < made < len(self.answers):
            raise billed(TooFewAnswers(f"The paid API made {made} of {len(self.answers)} answers: leave 'n' out."))


def billed(error: EngineError) -> EngineError:
    """Mark the error of a call that was answered, or may have been, as one that may be billed."""
    error.may_be_billed = True
    return error


def _as_delta(message: Mapping[str, Any]) -> dict[str, Any]:
    """A whole message as a piece of a stream, in which each call of a tool has its number."""
    calls = [{**call, "index": number} for number, call in enumerate(message.get("tool_calls") or ())]
    return {**message, "tool_calls": calls}


def _call_piece(said: Mapping[str, Any]) -> ToolCallPiece:
    """Raises: KeyError or a similar error: it is malformed."""
    function = said.get("function") or {}
    return ToolCallPiece(
        int(said.get("index") or 0), _text(said, "id"), _text(function, "name"), _text(function, "arguments") or ""
    )


def _text(chunk: Mapping[str, Any], name: str) -> str | None:
    """A chunk's value under this name, if it is text."""
    found = chunk.get(name)
    return storable(found) if isinstance(found, str) else None


def usage_of(counts: Mapping[str, Any]) -> Usage:
    """What a completion says that it used.

    Raises: ValueError: the numbers are impossible. KeyError or a similar error: the counts are malformed.
    """
    prompt_tokens, output_tokens = int(counts["prompt_tokens"]), int(counts["completion_tokens"])
    if not (0 <= prompt_tokens <= _MOST_TOKENS and 0 <= output_tokens <= _MOST_TOKENS):
        raise ValueError(f"{prompt_tokens} and {output_tokens} tokens are no usage")
    read, made = (counts.get(f"{which}_tokens_details") or {} for which in ("prompt", "completion"))
    cached_tokens, reasoning_tokens = int(read.get("cached_tokens") or 0), int(made.get("reasoning_tokens") or 0)
    return Usage(
        prompt_tokens,
        output_tokens,
        min(max(0, cached_tokens), prompt_tokens),
        min(max(0, reasoning_tokens), output_tokens),
    )


def _token_logprob(said: Mapping[str, Any]) -> TokenLogprob:
    return {**_alternative(said), "top_logprobs": [_alternative(each) for each in said.get("top_logprobs") or ()]}


def _alternative(said: Mapping[str, Any]) -> Alternative:
    found = alternative(str(said["token"]), float(said["logprob"]))
    # The bytes matter for a character that spans several tokens: none of their texts contains it.
    return {**found, "bytes": [int(byte) for byte in said["bytes"]]} if said.get("bytes") else found
