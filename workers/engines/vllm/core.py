"""One vLLM core: its `AsyncLLM` on an event loop in a thread of its own, fed from many threads."""

import asyncio
import threading
import time
from collections.abc import Mapping
from concurrent.futures import CancelledError, Future
from concurrent.futures import wait as wait_for
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from headrace.domain.attempts import Usage
from headrace.domain.prompts import is_plain
from headrace.domain.prompts.embeddings import MOST_TOKENS, pack, to_answer
from headrace.errors import ConfigError, EngineCrash, EngineFault, EngineUnavailable, PromptRejected
from workers.engines.base import EngineLimits, Generation, GenerationRequest, OnDelta, Progress
from workers.engines.schemas import check_sampling
from workers.engines.vllm.answer import NO_PARSERS, AnswerReading, GrowingAnswers, Parsers
from workers.engines.vllm.options import constraint, decoding
from workers.engines.vllm.settings import Adapter

#: The ZeroMQ contexts of cores that have ended, so that the garbage collection never gets them. It would end a context,
#: and wait for ever, in whichever thread it runs, if vLLM has left a socket open. Each has three idle threads.
_CONTEXTS: list[Any] = []


@dataclass(eq=False, slots=True)
class CoreCall:
    """One request in the core.

    Attributes:
        inputs: the token ids of each input of an embedding, which has no prompt; None for a prompt.
        answers: as they grow, once the core has it.
    """

    request: GenerationRequest
    prompt: list[int]
    prefix: list[int]
    on_delta: OnDelta | None
    model: str
    inputs: list[list[int]] | None = None
    began: float = field(default_factory=time.monotonic)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    future: "Future[Generation] | None" = None
    answers: GrowingAnswers | None = None

    @property
    def is_live(self) -> bool:
        """True if its tokens are needed as they come: by a listener, or to count those of several answers."""
        return self.on_delta is not None or self.request.sampling.n > 1

    @property
    def tokens_left(self) -> int:
        return self.request.sampling.max_tokens - len(self.prefix)


def sampling_params(call: CoreCall, defaults: Mapping[str, Any], reading: AnswerReading | None) -> Any:
    """The request's `SamplingParams`. Raises: PromptRejected: its grammar would take too much memory, or too long.

    Args: defaults: the model's own, for what the request does not set.
    """
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

    sampling = call.request.sampling
    structure = reading.structure if reading else None
    if reading is None and (constrained := constraint(sampling.response_format)):
        structure = StructuredOutputsParams(**constrained)
    if structure is not None:
        check_sampling(sampling)
    asked = {"skip_special_tokens": True, **defaults, **decoding(sampling), "max_tokens": call.tokens_left}
    if reading is not None and not reading.skips_special_tokens:
        asked["skip_special_tokens"] = False
    # A prefix has some of the tokens that the answer must have.
    asked["min_tokens"] = max(0, asked.get("min_tokens", 0) - len(call.prefix))
    return SamplingParams(
        **asked,
        structured_outputs=structure,
        # A parser must read the text as it grows.
        output_kind=RequestOutputKind.DELTA if call.is_live or reading else RequestOutputKind.FINAL_ONLY,
        skip_clone=True,  # Only this request uses these parameters, so vLLM need not copy them.
    )


# Embeddings: each input is a request of vLLM's own, so that all share its batches.


async def embed(llm: Any, request: GenerationRequest, inputs: list[list[int]], model: str) -> Generation:
    """Embed the inputs, given as token ids. Raises: vLLM's errors; then no input is left in the engine."""
    from vllm import PoolingParams

    params = PoolingParams(task="embed", dimensions=request.sampling.dimensions)
    tasks = [asyncio.ensure_future(_embed_one(llm, request, params, each)) for each in inputs]
    try:
        made = await asyncio.gather(*tasks)
    except BaseException:
        # The others would go on, for an answer that cannot be whole any more.
        for task in tasks:
            task.cancel()
        raise
    done = [tokens for tokens, (vector, _) in zip(inputs, made, strict=True) if vector]
    is_whole = len(done) == len(inputs)
    return Generation(
        text=to_answer(pack(vector) for vector, _ in made) if is_whole else "",
        usage=Usage(sum(map(len, done)), cached_tokens=sum(cached for _, cached in made)),
        finish_reason="stop" if is_whole else "abort",
        model_served=model,
    )


async def _embed_one(llm: Any, request: GenerationRequest, params: Any, tokens: list[int]) -> tuple[bytes, int]:
    """The bytes of one input's vector, none if the input was aborted, and how many of its tokens were in the cache.

    All inputs have the request's id: one `abort` ends them all.
    """
    from vllm.inputs.engine import tokens_input

    vector, cached_tokens = b"", 0
    given = tokens_input(tokens, cache_salt=request.cache_salt)
    async for output in llm.encode(given, params, request.request_id, priority=request.priority):
        vector = output.outputs.data.float().numpy().astype("<f4").tobytes()
        cached_tokens = (output.num_cached_tokens or 0) if vector else 0
    return vector, cached_tokens


#: Seconds that a core gets to exit after it is found dead, before it is killed.
DEAD_EXIT_S = 2.0
_ABORT_AGAIN_S = 0.05


class Core:
    """One started AsyncLLM and the thread of its event loop; never restarted."""

    def __init__(self, llm: Any, parsers: Parsers = NO_PARSERS) -> None:
        self._llm, self._parsers = llm, parsers
        self._defaults: Mapping[str, Any] = llm.model_config.get_diff_sampling_param()
        self._adapters: dict[str, Any] = {}
        self._calls: dict[str, CoreCall] = {}
        self._closed = False
        #: How far each request was when the core died.
        self._left: dict[str, Progress] | None = None
        self._lock = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="vllm-loop", daemon=True)
        self._thread.start()

    @property
    def dead(self) -> bool:
        return bool(self._llm.errored)

    @property
    def limits(self) -> EngineLimits:
        cache = self._llm.vllm_config.cache_config
        max_model_tokens = self._llm.model_config.max_model_len
        max_running = self._llm.vllm_config.scheduler_config.max_num_seqs
        if self._llm.model_config.runner_type == "pooling":
            return EngineLimits(max_model_tokens, max_running, kv_tokens=MOST_TOKENS, kv_block_tokens=1)
        return EngineLimits(
            max_model_tokens,
            max_running,
            kv_tokens=(cache.num_gpu_blocks - 1) * cache.block_size,  # Block 0 is never handed out.
            kv_block_tokens=cache.block_size,
            shares_prompts=bool(cache.enable_prefix_caching),
        )

    def learn(self, adapters: Mapping[str, Adapter], where: str) -> None:
        """Load the adapters now: one that failed at its first request would kill the core.

        Raises: ConfigError that names the adapter below `where`. EngineUnavailable.
        """
        from vllm.lora.request import LoRARequest
        from vllm.v1.engine.exceptions import EngineDeadError

        for name, adapter in adapters.items():
            request = LoRARequest(name, adapter.number, str(adapter.folder))
            try:
                asyncio.run_coroutine_threadsafe(self._llm.add_lora(request), self._loop).result()
            except EngineDeadError as error:
                raise EngineUnavailable("vLLM's engine core died while it loaded an adapter.") from error
            except Exception as error:  # The core raises its error as a plain Exception.
                param = f"{where}.{name}"
                raise ConfigError(f"{param}: vLLM cannot load the adapter: {error}", param=param) from error
            self._adapters[name] = request

    def submit(self, call: CoreCall) -> "Future[Generation]":
        with self._lock:
            if self._closed:
                raise EngineUnavailable("The vLLM engine is stopping.")
            self._calls[call.request.request_id] = call
            call.future = asyncio.run_coroutine_threadsafe(self._answer(call), self._loop)
            return call.future

    def abort(self, request_id: str) -> None:
        with self._lock:
            if not self._closed and (call := self._calls.get(request_id)):
                asyncio.run_coroutine_threadsafe(self._abort(call), self._loop)

    def progress(self) -> dict[str, Progress]:
        with self._lock:
            calls = list(self._calls.items())
        return {request_id: self._progress(call) for request_id, call in calls}

    def _progress(self, call: CoreCall) -> Progress:
        if call.inputs is not None:
            return Progress(0)
        if call.answers is not None and len(call.answers) > 1:
            return Progress(call.answers.tokens)
        # Read vLLM's own records of its requests in this process, because an output may come only at the end.
        processor = self._llm.output_processor
        for internal_id in tuple(processor.external_req_ids.get(call.request.request_id, ())):
            if state := processor.request_states.get(internal_id):
                tokens = len(call.prefix) + state.detokenizer.num_output_tokens()
                return Progress(tokens, state.stats.num_preemptions if state.stats else 0)
        return Progress(len(call.prefix))

    @property
    def has_died(self) -> bool:
        return self._left is not None

    def died(self) -> None:
        """Note how far each request was, before vLLM's records are emptied."""
        if self._left is None:
            self._left = self.progress()

    def crash_of(self, call: CoreCall) -> EngineCrash:
        self.died()
        made = (self._left or {}).get(call.request.request_id, Progress(0)).tokens - len(call.prefix)
        return EngineCrash("vLLM's engine core died while it answered.", made_tokens=max(0, made))

    def answers(self, patience_s: float) -> bool:
        """True if the core answers a request in time: a hung process reports no error."""
        with self._lock:
            if self._closed:
                return False
            probe = asyncio.run_coroutine_threadsafe(self._paused(), self._loop)
        with suppress(TimeoutError, CancelledError, EngineUnavailable):
            probe.result(patience_s)
            return True
        probe.cancel()
        return False

    def close(self, drain_s: float, exit_s: float) -> None:
        """Let running requests end, fail the rest, and end the core's processes and the loop."""
        with self._lock:
            self._closed = True
            running = [call.future for call in self._calls.values() if call.future]
        for future in wait_for(running, timeout=drain_s).not_done:
            future.cancel()
        # Cancel the tasks first: vLLM's own tasks would report the end of the core as a failure.
        asyncio.run_coroutine_threadsafe(_cancel_tasks(), self._loop).result()
        self._llm.shutdown(timeout=exit_s)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        _CONTEXTS.append(self._llm.engine_core.ctx)

    async def _paused(self) -> None:
        from vllm.v1.engine.exceptions import EngineDeadError

        try:
            await self._llm.is_paused()
        except EngineDeadError as error:
            raise EngineUnavailable from error

    async def _abort(self, call: CoreCall) -> None:
        # vLLM forgets an abort that arrives before the request is registered.
        while not call.ended.is_set():
            await self._llm.abort(call.request.request_id)
            with suppress(TimeoutError):
                await asyncio.wait_for(call.ended.wait(), _ABORT_AGAIN_S)

    async def _answer(self, call: CoreCall) -> Generation:
        from vllm.exceptions import VLLMClientError, VLLMError
        from vllm.v1.engine.exceptions import EngineDeadError

        try:
            if call.inputs is not None:
                return await embed(self._llm, call.request, call.inputs, call.model)
            return await self._collect(call)
        except VLLMClientError as error:
            raise PromptRejected(str(error)) from error
        except EngineDeadError as error:
            raise self.crash_of(call) from error
        except VLLMError as error:
            raise EngineFault(f"vLLM could not answer: {error.__cause__ or error}") from error
        finally:
            call.ended.set()
            with self._lock:
                self._calls.pop(call.request.request_id, None)

    def _reading(self, call: CoreCall) -> AnswerReading | None:
        # A prefix is part of the answer, so any reasoning before it is over. A plain prompt's continuation is one text.
        if call.prefix or is_plain(call.request.messages):
            return None
        # Without tools, what looks like a call is text.
        parsers = self._parsers if call.request.sampling.tools else replace(self._parsers, tools=None)
        return None if parsers.is_empty else AnswerReading(parsers, self._llm, call.prompt, call.request)

    async def _collect(self, call: CoreCall) -> Generation:
        from vllm.inputs.engine import tokens_input

        request = call.request
        readings = [self._reading(call) for _ in range(request.sampling.n)]
        reading, first_token_s = readings[0], None
        params = sampling_params(call, self._defaults, reading)
        answers = call.answers = GrowingAnswers(request, call.on_delta, readings, len(call.prompt), len(call.prefix))
        prompt = tokens_input(call.prompt + call.prefix, cache_salt=request.cache_salt)
        adapter = self._adapters.get(request.adapter or "")
        outputs = self._llm.generate(
            *(prompt, params, request.request_id),
            lora_request=adapter,
            priority=request.priority,
            # The response format, or the grammar of calls, constrains the answer, not the reasoning before it.
            reasoning_ended=reading.is_answering if reading else None,
            reasoning_parser_kwargs=reading.parser_arguments if reading else None,
        )
        async for output in outputs:
            answers.add(output)
            if first_token_s is None and answers.tokens:
                metrics = None if call.is_live or reading else output.metrics
                first_token_s = metrics.first_token_latency if metrics else time.monotonic() - call.began
        preemptions = output.metrics.num_preemptions if output.metrics else 0
        made = answers.generation(call.model)
        return replace(made, first_token_s=first_token_s, preemptions=preemptions)


async def _cancel_tasks() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=DEAD_EXIT_S)
