"""The paid API as an engine: one call through the official SDK to OpenAI or any API that speaks its language.

Knows nothing of budgets, prices or queues. The only importer of `openai` among the engines.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import httpx2
import openai
from openai.types import CompletionUsage
from openai.types.chat import ChatCompletion

from headrace.config import OverflowSettings, PoolSettings, Settings
from headrace.errors import ConfigError, EngineError, EngineFault, EngineUnavailable, PromptRejected
from headrace.jobs import Sampling, Usage, storable
from workers.engines.base import (
    EngineLimits,
    EngineStats,
    FinishReason,
    Generation,
    GenerationRequest,
    OnDelta,
    Progress,
)

#: Statuses that say that this request will never do, and that this account or key will not.
_REJECTED = frozenset({400, 404, 413, 422})
_LOCKED_OUT = frozenset({401, 403})
#: Comes with 429, and unlike a rate limit does not pass.
_QUOTA = frozenset({"insufficient_quota", "billing_hard_limit_reached"})


def build(settings: Settings, pool: PoolSettings) -> "OpenAIEngine":
    """Make the engine, not started; it serves every pool."""
    key = settings.openai_api_key.get_secret_value() if settings.openai_api_key else None
    return OpenAIEngine(settings.overflow, key, settings.openai_base_url)


@dataclass(slots=True)
class _Call:
    aborted: bool = False


class OpenAIEngine:
    """Chat completions, not streamed and never retried here.

    A call that is given up is billed all the same, so `abort` lets it end and its usage is reported.
    """

    name = "openai"
    continues = False

    def __init__(self, overflow: OverflowSettings, api_key: str | None, base_url: str | None) -> None:
        self._overflow, self._api_key, self._base_url = overflow, api_key, base_url
        self._client: openai.OpenAI | None = None
        self._calls: dict[str, _Call] = {}
        self._changed = threading.Condition()

    def start(self) -> EngineLimits:
        """Open the client, unless it is open; nothing is sent. Raises: ConfigError without a key."""
        if not self._api_key:
            raise ConfigError("The paid API needs a key: set OPENAI_API_KEY.", param="OPENAI_API_KEY")
        with self._changed:
            self._client = self._client or openai.OpenAI(
                api_key=self._api_key, base_url=self._base_url, timeout=self._overflow.timeout_s, max_retries=0
            )
        return EngineLimits(max_model_tokens=None, max_running=self._overflow.max_running)

    def generate(self, request: GenerationRequest, on_delta: OnDelta | None = None) -> Generation:
        with self._running(request.request_id) as (client, call):
            completion = _complete(client, self._body(client, request))
        text, usage, finish_reason = _read(completion)
        if on_delta and text and not call.aborted:
            on_delta(text)
        return Generation(
            text=text,
            usage=usage,
            finish_reason="abort" if call.aborted else finish_reason,
            model_served=completion.model,
        )

    def abort(self, request_id: str) -> None:
        with self._changed:
            if call := self._calls.get(request_id):
                call.aborted = True

    def progress(self) -> dict[str, Progress]:
        # How far a call is, only its end tells.
        with self._changed:
            return dict.fromkeys(self._calls, Progress(0))

    def stats(self) -> EngineStats:
        with self._changed:
            return EngineStats(running=len(self._calls))

    def check(self) -> None:
        if self._client is None:
            raise EngineUnavailable("The paid API's client is not started.")

    def stop(self) -> None:
        with self._changed:
            client, self._client = self._client, None
            self._changed.wait_for(lambda: not self._calls)
        if client is not None:
            client.close()

    @contextmanager
    def _running(self, request_id: str) -> Iterator[tuple[openai.OpenAI, _Call]]:
        call = _Call()
        with self._changed:
            self.check()
            client = cast(openai.OpenAI, self._client)
            self._calls[request_id] = call
        try:
            yield client, call
        finally:
            with self._changed:
                del self._calls[request_id]
                self._changed.notify_all()

    def _body(self, client: openai.OpenAI, request: GenerationRequest) -> dict[str, Any]:
        return {
            "model": self._overflow.models.get(request.model or "", self._overflow.model),
            "messages": [{"role": message.role, "content": message.content} for message in request.messages],
            **_decoding(request.sampling),
            _limit_name(client): request.sampling.max_tokens,
        }


def _complete(client: openai.OpenAI, body: dict[str, Any]) -> ChatCompletion:
    try:
        return cast(ChatCompletion, client.chat.completions.create(**body))
    except openai.APIStatusError as error:
        raise _from_status(error) from error
    # The SDK lets broken JSON and broken connections through as they are.
    except (openai.OpenAIError, httpx2.HTTPError, ValueError) as error:
        raise EngineFault(f"The paid API did not answer: {type(error).__name__}.") from error


def _from_status(error: openai.APIStatusError) -> EngineError:
    if error.status_code in _REJECTED:
        return PromptRejected(f"The paid API rejected the request: {error.message}", param=error.param)
    # The rest of its words is about our account, which is not the job owner's business.
    what = f"The paid API answered {error.status_code}{f' ({error.code})' if error.code else ''}."
    if error.status_code in _LOCKED_OUT or error.code in _QUOTA:
        return EngineUnavailable(what)
    return EngineFault(what)


def _read(completion: ChatCompletion) -> tuple[str, Usage, FinishReason]:
    """Take the answer apart. The SDK does not validate it, so nothing in it is sure.

    Raises:
        EngineFault: it is cut off, or without the usage that it is billed by.
        PromptRejected: the provider withheld it.
    """
    try:
        choice, counts = completion.choices[0], cast(CompletionUsage, completion.usage)
        details = counts.prompt_tokens_details
        usage = Usage(counts.prompt_tokens, counts.completion_tokens, (details and details.cached_tokens) or 0)
        text = storable(choice.message.content or choice.message.refusal or "")
    except (AttributeError, IndexError, TypeError) as error:
        raise EngineFault("The paid API's answer is malformed.") from error
    match choice.finish_reason:
        case "stop" | "length" as finish_reason:
            return text, usage, finish_reason
        case "content_filter":
            raise PromptRejected("The paid API's content filter withheld the answer.")
    raise EngineFault(f"The paid API's answer is cut off: it ended with {choice.finish_reason!r}.")


def _decoding(sampling: Sampling) -> dict[str, Any]:
    given = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "stop": list(sampling.stop) or None,
        "seed": sampling.seed,
        "response_format": sampling.response_format,
    }
    return {name: value for name, value in given.items() if value is not None}


def _limit_name(client: openai.OpenAI) -> str:
    """OpenAI's newer models refuse `max_tokens`; many compatible servers know nothing else."""
    return "max_completion_tokens" if client.base_url.host.endswith("openai.com") else "max_tokens"
