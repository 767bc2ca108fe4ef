"""The paid API as an engine: streams through the official SDK from OpenAI or any compatible API.

Knows nothing of budgets, prices or queues. The only importer of `openai` among the engines.
"""

import asyncio
import re
import threading
import time
from collections.abc import AsyncIterable, Iterator
from concurrent.futures import Future
from contextlib import aclosing, contextmanager
from dataclasses import replace
from typing import Any

import aiohttp
import httpx2
import openai

from headrace.config import OverflowSettings, PoolSettings, Settings
from headrace.domain.limits import ProviderRates
from headrace.domain.prompts import Message, Sampling, extra_for_paid, storable
from headrace.domain.prompts.tools import Tools
from headrace.errors import (
    ConfigError,
    EngineBusy,
    EngineError,
    EngineFault,
    EngineUnavailable,
    ModelUnavailable,
    PromptRejected,
)
from workers.engines.base import EngineLimits, EngineStats, Generation, GenerationRequest, OnDelta, Progress
from workers.engines.openai.stream import ChatCall, billed, rates, retry_after_s


def decoding(sampling: Sampling) -> dict[str, Any]:
    """How to decode, and the tools, by the API's names. What the request does not set is left out."""
    given = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "stop": list(sampling.stop) or None,
        "seed": sampling.seed,
        "response_format": sampling.response_format,
        "logprobs": None if sampling.top_logprobs is None else True,
        # Some compatible servers refuse a zero.
        "top_logprobs": sampling.top_logprobs or None,
        "reasoning_effort": sampling.reasoning_effort,
        "n": sampling.n if sampling.n > 1 else None,
        **(_tools(sampling.tools) if sampling.tools else {}),
        **extra_for_paid(sampling.extra),
    }
    return {name: value for name, value in given.items() if value is not None}


def message_fields(message: Message) -> dict[str, Any]:
    """A turn as the API reads it: one of calls alone has no text."""
    return message.to_fields() | ({"content": None} if message.tool_calls and not message.content else {})


def _tools(tools: Tools) -> dict[str, Any]:
    """The tools as they were given. Some models refuse `parallel_tool_calls`, so it is sent only where it says no."""
    given: dict[str, Any] = {"tools": tools.specs, "tool_choice": tools.spelled_choice}
    return given | ({} if tools.parallel else {"parallel_tool_calls": False})


#: Statuses by meaning: the request can never succeed; the account or key is refused (402: it is out of money); the
#: model is unknown, or refused to this account; the call comes too early.
_REJECTED = frozenset({400, 413, 422})
_LOCKED_OUT = frozenset({401, 402})
_NOT_THIS_MODEL = frozenset({403, 404})
_TOO_MANY = 429
#: A call may last this many times as long as the API may be silent. Otherwise comments could keep it alive forever.
_LONGEST = 10
#: The longest silence of a call in the `flex` tier, in seconds. Source: OpenAI's guide "Flex processing".
_FLEX_S = 900.0
#: Seconds for which `stop` waits for running calls. A draining worker has waited for them already.
_END_S = 5.0
#: The most characters of an error's code that a message quotes.
_LONGEST_CODE = 64
#: A code that every operator may see: no key and no text looks like it.
_IDENTIFIER = re.compile(r"[a-z][a-z0-9_]{0,63}")
#: Statuses of a gateway: the API behind it may have answered, and billed, the call. The last two are Cloudflare's own,
#: for a malformed and for a late answer. Its other statuses mean that it did not reach the API.
#: Source: Cloudflare's documentation, "5xx errors".
_OF_A_GATEWAY = frozenset({502, 504, 520, 524})
#: Errors before a connection, when nothing was sent. The SDK's own error classes cover more than that.
_UNSENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.ClientHttpProxyError)
#: Error codes and types that refuse the account, whatever the status. Most come with 429 but, unlike a rate limit, do
#: not pass. The first comes with 403.
_OF_THE_ACCOUNT = frozenset(
    {
        "unsupported_country_region_territory",
        "insufficient_quota",
        "billing_hard_limit_reached",
        "credit_balance_exhausted",
        "organization_spend_limit_exceeded",
        "project_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
    }
)


def build(settings: Settings, pool: PoolSettings) -> "OpenAIEngine":
    """Make the engine, not started. It serves every pool."""
    key = settings.openai_api_key.get_secret_value() if settings.openai_api_key else None
    return OpenAIEngine(settings.overflow, key, settings.openai_base_url)


class OpenAIEngine:
    """Chat completions as streams, many at once on one event loop, never retried here.

    The API bills an abandoned call all the same. So `abort` lets a call end, and its usage is reported.
    """

    name = "openai"
    continues = False

    def __init__(self, overflow: OverflowSettings, api_key: str | None, base_url: str | None) -> None:
        self._overflow, self._api_key, self._base_url = overflow, api_key, base_url
        self._client: openai.AsyncOpenAI | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._calls: dict[str, ChatCall] = {}
        self._changed = threading.Condition()
        self._totals = EngineStats()

    def start(self) -> EngineLimits:
        """Open the client, unless it is open. Sends nothing. Raises: ConfigError without a key that can be sent."""
        if not self._api_key:
            raise ConfigError("The paid API needs a key: set OPENAI_API_KEY.", param="OPENAI_API_KEY")
        if not (self._api_key.isascii() and self._api_key.isprintable()):
            message = "OPENAI_API_KEY cannot be sent: it has a line break in it, or a letter that no key has."
            raise ConfigError(message, param="OPENAI_API_KEY")
        with self._changed:
            if self._client is None:
                self._client = self._connect()
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, name="openai-loop", daemon=True)
                self._thread.start()
        return EngineLimits(max_model_tokens=None, max_running=self._overflow.max_running)

    def generate(self, request: GenerationRequest, on_delta: OnDelta | None = None) -> Generation:
        call = ChatCall(request, on_delta)
        with self._running(call) as future:
            try:
                generation = future.result()
            except EngineError as error:
                error.rates = call.rates
                raise
        self._count(generation)
        return generation

    def abort(self, request_id: str) -> None:
        with self._changed:
            if call := self._calls.get(request_id):
                call.is_aborted = True

    def progress(self) -> dict[str, Progress]:
        # A piece is about one token. Only the end of the stream has the exact count.
        with self._changed:
            return {request_id: Progress(call.made) for request_id, call in self._calls.items()}

    def stats(self) -> EngineStats:
        with self._changed:
            return replace(self._totals, running=len(self._calls))

    def check(self) -> None:
        if self._client is None:
            raise EngineUnavailable("The paid API's client is not started.")

    def stop(self) -> None:
        with self._changed:
            client, loop, thread = self._client, self._loop, self._thread
            self._client = None
            has_ended = self._changed.wait_for(lambda: not self._calls, _END_S)
            if not has_ended and loop is not None:
                loop.call_soon_threadsafe(_cut_short, loop)
                self._changed.wait_for(lambda: not self._calls)
        if client is not None and loop is not None and thread is not None:
            asyncio.run_coroutine_threadsafe(client.close(), loop).result()
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    @contextmanager
    def _running(self, call: ChatCall) -> Iterator["Future[Generation]"]:
        with self._changed:
            self.check()
            assert self._client is not None
            assert self._loop is not None
            self._calls[call.request.request_id] = call
            future = asyncio.run_coroutine_threadsafe(self._answer(self._client, call), self._loop)
        try:
            yield future
        finally:
            with self._changed:
                del self._calls[call.request.request_id]
                self._changed.notify_all()

    async def _answer(self, client: openai.AsyncOpenAI, call: ChatCall) -> Generation:
        try:
            silence_s = _FLEX_S if call.request.tier == "flex" else self._overflow.timeout_s
            async with asyncio.timeout(max(silence_s, _LONGEST * self._overflow.timeout_s)):
                await self._read(client, call, silence_s)
        except openai.APIStatusError as error:
            call.rates = rates(error.response.headers) or ProviderRates(time.monotonic())
            raise from_status(error) from error
        except EngineError:
            raise
        except asyncio.CancelledError as error:
            raise billed(EngineFault("This worker left before the paid API had answered.")) from error
        # The SDK passes on errors of broken connections, and errors that its transport does not know.
        except (openai.OpenAIError, httpx2.HTTPError, aiohttp.ClientError, OSError) as error:
            raise from_failure(error) from error
        # A chunk may hold anything: invalid JSON, invalid numbers, endlessly nested lists.
        except Exception as error:
            raise billed(EngineFault("The paid API's answer is malformed.")) from error
        return call.generation()

    async def _read(self, client: openai.AsyncOpenAI, call: ChatCall, silence_s: float) -> None:
        """Send the request, and read the stream. Raises: what the SDK, its transport and `ChatCall.read` raise."""
        # The SDK's own method would copy the body by its types, and parse the stream into typed objects.
        response: httpx2.Response = await client.post(
            "/chat/completions",
            cast_to=httpx2.Response,
            body=self._body(client, call.request),
            options={"timeout": silence_s, "security": {"bearer_auth": True}},
            stream=True,
        )
        # The transport forgets its own timeout, and its reader, where a chunk's size is malformed.
        clock = asyncio.get_running_loop().time
        async with aclosing(response), asyncio.timeout(silence_s) as silence:
            call.rates = rates(response.headers)
            async for data in _pieces(response):
                silence.reschedule(clock() + silence_s)
                call.read(data)
        call.read(b"\n")

    def _count(self, generation: Generation) -> None:
        first_token_s = generation.first_token_s
        with self._changed:
            totals = self._totals
            self._totals = replace(
                totals,
                prompt_tokens=totals.prompt_tokens + generation.usage.prompt_tokens,
                output_tokens=totals.output_tokens + generation.usage.output_tokens,
                first_tokens=totals.first_tokens + (first_token_s is not None),
                first_token_s=totals.first_token_s + (first_token_s or 0.0),
            )

    def _connect(self) -> openai.AsyncOpenAI:
        timeout_s = self._overflow.timeout_s
        # The SDK's default transport takes twice the processor time for a stream.
        limits = httpx2.Limits(max_connections=self._overflow.max_running)
        transport = openai.DefaultAioHttpClient(timeout=timeout_s, limits=limits)
        return openai.AsyncOpenAI(
            api_key=self._api_key, base_url=self._base_url, timeout=timeout_s, max_retries=0, http_client=transport
        )

    def _body(self, client: openai.AsyncOpenAI, request: GenerationRequest) -> dict[str, Any]:
        return {
            **request_body(self._overflow, client.base_url.host, request),
            "stream": True,
            "stream_options": {"include_usage": True},
            **({} if request.tier is None else {"service_tier": request.tier}),
        }


def request_body(overflow: OverflowSettings, host: str, request: GenerationRequest) -> dict[str, Any]:
    """The body of one chat completion. Args: host: the API's."""
    asked, sampling = request.model or "", request.sampling
    if not overflow.has_effort(asked):
        sampling = replace(sampling, reasoning_effort=None)
    # OpenAI's newer models refuse `max_tokens`; many compatible servers know only that name.
    limit = "max_completion_tokens" if host.endswith("openai.com") else "max_tokens"
    return {
        "model": overflow.paid_model(asked),
        "messages": list(map(message_fields, request.messages)),
        **decoding(sampling),
        limit: request.sampling.max_tokens,
    }


def _pieces(response: httpx2.Response) -> AsyncIterable[bytes]:
    """The bytes of an answer as they come. `aiter_bytes` would pass each piece through two more generators."""
    is_plain = "content-encoding" not in response.headers
    return response.stream if is_plain and isinstance(response.stream, AsyncIterable) else response.aiter_bytes()


def _cut_short(loop: asyncio.AbstractEventLoop) -> None:
    for task in asyncio.all_tasks(loop):
        task.cancel()


def from_status(error: openai.APIStatusError) -> EngineError:
    """The error for an answer without success. If the API itself answered, it generated nothing."""
    found = _of_status(error)
    code = next((each for each in (error.code, error.type) if _IDENTIFIER.fullmatch(str(each or ""))), "")
    found.cause = f"{error.status_code} {code}".rstrip()
    return found


def _of_status(error: openai.APIStatusError) -> EngineError:
    status, code = error.status_code, storable(error.code or "")[:_LONGEST_CODE]
    if status in _REJECTED:
        return PromptRejected(f"The paid API rejected the request: {error.message}", param=error.param)
    # The rest of the message is about the operator's account, which the job's owner must not see.
    what = f"The paid API answered {status}{f' ({code})' if code else ''}."
    if status in _LOCKED_OUT or {code, str(error.type)} & _OF_THE_ACCOUNT:
        return EngineUnavailable(what)
    if status in _NOT_THIS_MODEL:
        return ModelUnavailable(what)
    found = EngineBusy(what) if status == _TOO_MANY else EngineFault(what)
    found.may_be_billed = status in _OF_A_GATEWAY
    found.retry_after_s = retry_after_s(error.response.headers)
    return found


def from_failure(error: Exception) -> EngineError:
    found = EngineFault(f"The paid API did not answer: {type(error).__name__}.")
    found.cause = f"no answer: {type(error).__name__}"
    return found if any(isinstance(each, _UNSENT) for each in _causes(error)) else billed(found)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error, its cause, the cause's cause, and so on."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__
