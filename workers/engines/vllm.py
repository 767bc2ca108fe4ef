"""vLLM as an engine: its `AsyncLLM` on an event loop in a thread of its own, fed from many threads.

Knows nothing of queues, Postgres or Celery. The only importer of `vllm`.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Mapping
from concurrent.futures import CancelledError, Future
from concurrent.futures import wait as wait_for
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from headrace.config import PoolSettings, Settings
from headrace.errors import ConfigError, EngineCrash, EngineFault, EngineUnavailable, InvalidRequest, PromptRejected
from headrace.jobs import Usage, storable
from headrace.tokens import PromptTokenizer, load_for
from workers.engines.adapters import Adapter, find_adapters, no_such_adapter
from workers.engines.base import EngineLimits, Generation, GenerationRequest, OnDelta, Progress
from workers.engines.scratch import Scratch
from workers.engines.vllm_options import blamed, checked
from workers.engines.vllm_sampling import constraint, decoding
from workers.engines.vllm_settings import arguments, environment

log = logging.getLogger(__name__)

#: How long `stop` lets running requests go on, and a core after a SIGTERM to the whole process group.
_DRAIN_S = 60
#: How long a core gets to exit before it is killed: a healthy one, and one that is believed dead.
_EXIT_S, _DEAD_EXIT_S = 20.0, 2.0
#: A core looks up between two steps only, and a long prefill is one step.
_PROBE_S = 20.0
_ABORT_AGAIN_S = 0.05


def build(settings: Settings, pool: PoolSettings) -> "VllmEngine":
    """Make the engine of a pool, not started. Raises: ConfigError when its tokenizer cannot be had."""
    name = next((name for name, each in settings.pools.items() if each is pool), settings.pool)
    return VllmEngine(pool, load_for(pool), pool_name=name)


class VllmEngine:
    """A resident vLLM engine. After EngineUnavailable, `start` replaces a dead core in place."""

    name = "vllm"
    continues = True

    def __init__(
        self, pool: PoolSettings, tokenizer: PromptTokenizer, probe_s: float = _PROBE_S, pool_name: str = "chat"
    ) -> None:
        """Load nothing yet.

        Args:
            tokenizer: the model's own; what it encodes is what the engine sees.
            probe_s: after so many seconds without an answer the core counts as hung.
            pool_name: by which an error names the pool's settings.
        """
        self._pool, self._tokenizer, self._probe_s = pool, tokenizer, probe_s
        self._where = f"pools.{pool_name}"
        self._scratch = Scratch()
        self._core: _Core | None = None
        self._lifecycle = threading.Lock()

    def start(self) -> EngineLimits:
        """Load the model, unless it is loaded and alive. Raises: EngineUnavailable; ConfigError for a bad option."""
        with self._lifecycle:
            if self._core is not None and self._core.dead:
                self._drop(self._core)
            if self._core is None:
                self._scratch.open()
                began = time.monotonic()
                self._core = self._open()
                log.info("engine_started", extra={"engine": self.name, "load_s": round(time.monotonic() - began, 1)})
            return self._core.limits

    def generate(self, request: GenerationRequest, on_delta: OnDelta | None = None) -> Generation:
        core = self._serving()
        if request.adapter is not None and request.adapter not in self._pool.adapters:
            raise no_such_adapter(request.adapter)
        try:
            prompt = self._tokenizer.encode(request.messages)
        except InvalidRequest as error:
            raise PromptRejected(str(error), param=error.param) from error
        prefix = self._tokenizer.encode_answer(request.prefix) if request.prefix else []
        call = _Call(request, prompt, prefix, on_delta, model=request.adapter or self._pool.model)
        if call.tokens_left < 1:
            usage = Usage(len(prompt), request.sampling.max_tokens)
            return Generation(request.prefix, usage, "length", model_served=call.model)
        future = core.submit(call)
        try:
            return future.result()
        except CancelledError as error:
            if core.has_died:
                raise core.crash_of(call) from error
            raise EngineUnavailable("The engine was stopped while it answered.") from error
        finally:
            future.cancel()  # When this thread was interrupted, the request must not go on.

    def abort(self, request_id: str) -> None:
        if (core := self._core) is not None:
            core.abort(request_id)

    def progress(self) -> dict[str, Progress]:
        return {} if (core := self._core) is None else core.progress()

    def check(self) -> None:
        core = self._serving()
        if not core.dead and core.answers(self._probe_s):
            return
        with self._lifecycle:
            if self._core is core:
                self._drop(core)
        raise EngineUnavailable("vLLM's engine core has died or hangs.")

    def stop(self) -> None:
        with self._lifecycle:
            core, self._core = self._core, None
            if core is not None:
                core.close(drain_s=_DRAIN_S, exit_s=_EXIT_S)
            self._scratch.close()

    def _open(self) -> "_Core":
        adapters = find_adapters(self._pool.adapters, f"{self._where}.adapters")
        core = _Core(_load(self._pool, self._scratch.path, self._where, adapters))
        try:
            core.learn(adapters, f"{self._where}.adapters")
        except (ConfigError, EngineUnavailable):
            core.close(drain_s=0, exit_s=_EXIT_S)
            raise
        return core

    def _serving(self) -> "_Core":
        if (core := self._core) is None:
            raise EngineUnavailable("The vLLM engine is not started.")
        return core

    def _drop(self, core: "_Core") -> None:
        log.error("engine_core_lost", extra={"engine": self.name})
        self._core = None
        core.died()
        core.close(drain_s=0, exit_s=_DEAD_EXIT_S)


@dataclass(eq=False, slots=True)
class _Call:
    request: GenerationRequest
    prompt: list[int]
    prefix: list[int]
    on_delta: OnDelta | None
    model: str
    began: float = field(default_factory=time.monotonic)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    future: "Future[Generation] | None" = None

    @property
    def tokens_left(self) -> int:
        return self.request.sampling.max_tokens - len(self.prefix)


class _Core:
    """One started AsyncLLM and the thread of its event loop; never restarted."""

    def __init__(self, llm: Any) -> None:
        self._llm = llm
        self._defaults: Mapping[str, Any] = llm.model_config.get_diff_sampling_param()
        self._adapters: dict[str, Any] = {}
        self._calls: dict[str, _Call] = {}
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
        return EngineLimits(
            max_model_tokens=self._llm.model_config.max_model_len,
            max_running=self._llm.vllm_config.scheduler_config.max_num_seqs,
            kv_tokens=(cache.num_gpu_blocks - 1) * cache.block_size,  # Block 0 is never handed out.
            kv_block_tokens=cache.block_size,
        )

    def learn(self, adapters: Mapping[str, Adapter], where: str) -> None:
        """Load the adapters: one that fails at its first request would take the core with it.

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
            except Exception as error:  # The core's own words come as nothing more special.
                param = f"{where}.{name}"
                raise ConfigError(f"{param}: vLLM cannot load the adapter: {error}", param=param) from error
            self._adapters[name] = request

    def submit(self, call: _Call) -> "Future[Generation]":
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

    def _progress(self, call: _Call) -> Progress:
        # vLLM's own books of its requests, in this process: an output that says it all comes at the end alone.
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
        """Note how far each request was; vLLM's books are emptied next."""
        if self._left is None:
            self._left = self.progress()

    def crash_of(self, call: _Call) -> EngineCrash:
        self.died()
        made = (self._left or {}).get(call.request.request_id, Progress(0)).tokens - len(call.prefix)
        return EngineCrash("vLLM's engine core died while it answered.", made_tokens=max(0, made))

    def answers(self, patience_s: float) -> bool:
        """Ask the core anything, since a hung process reports no error."""
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
        # First, since vLLM's own tasks would report the end of the core as a failure.
        asyncio.run_coroutine_threadsafe(_cancel_tasks(), self._loop).result()
        self._llm.shutdown(timeout=exit_s)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _paused(self) -> None:
        from vllm.v1.engine.exceptions import EngineDeadError

        try:
            await self._llm.is_paused()
        except EngineDeadError as error:
            raise EngineUnavailable from error

    async def _abort(self, call: _Call) -> None:
        # vLLM forgets an abort that arrives before the request is registered.
        while not call.ended.is_set():
            await self._llm.abort(call.request.request_id)
            with suppress(TimeoutError):
                await asyncio.wait_for(call.ended.wait(), _ABORT_AGAIN_S)

    async def _answer(self, call: _Call) -> Generation:
        from vllm.exceptions import VLLMClientError, VLLMError
        from vllm.v1.engine.exceptions import EngineDeadError

        try:
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

    async def _collect(self, call: _Call) -> Generation:
        from vllm.inputs.engine import tokens_input

        request = call.request
        params = _sampling_params(call, self._defaults)
        pieces = [request.prefix]
        new_tokens, first_token_s = 0, None
        prompt = tokens_input(call.prompt + call.prefix)
        adapter = self._adapters.get(request.adapter or "")
        outputs = self._llm.generate(
            prompt, params, request.request_id, lora_request=adapter, priority=request.priority
        )
        async for output in outputs:
            completion = output.outputs[0]
            new_tokens += len(completion.token_ids)
            if first_token_s is None and new_tokens:
                metrics = None if call.on_delta else output.metrics
                first_token_s = metrics.first_token_latency if metrics else time.monotonic() - call.began
            if piece := storable(completion.text):
                pieces.append(piece)
                if call.on_delta:
                    call.on_delta(piece)
        cached_tokens = min(output.num_cached_tokens or 0, len(call.prompt))  # The rest is of the prefix: output.
        return Generation(
            text="".join(pieces),
            usage=Usage(len(call.prompt), len(call.prefix) + new_tokens, cached_tokens),
            finish_reason=completion.finish_reason,
            model_served=call.model,
            first_token_s=first_token_s,
            preemptions=output.metrics.num_preemptions if output.metrics else 0,
        )


async def _cancel_tasks() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=_DEAD_EXIT_S)


def _sampling_params(call: _Call, defaults: Mapping[str, Any]) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

    sampling = call.request.sampling
    constrained = constraint(sampling.response_format)
    return SamplingParams(
        **{**defaults, **decoding(sampling), "max_tokens": call.tokens_left},
        structured_outputs=StructuredOutputsParams(**constrained) if constrained else None,
        output_kind=RequestOutputKind.DELTA if call.on_delta else RequestOutputKind.FINAL_ONLY,
    )


def _load(pool: PoolSettings, scratch: Path, where: str, adapters: Mapping[str, Adapter]) -> Any:
    """Start an AsyncLLM. Raises: ConfigError that names the setting below `where`; EngineUnavailable."""
    with environment(pool, scratch):
        try:
            from vllm import AsyncEngineArgs
            from vllm.v1.engine.async_llm import AsyncLLM

            # Before anything is loaded: the weights take minutes.
            options = checked(pool.engine_options, fields(AsyncEngineArgs), f"{where}.engine_options")
            given = {"shutdown_timeout": _DRAIN_S, **arguments(pool, adapters.values()), **options}
            return AsyncLLM.from_engine_args(AsyncEngineArgs(**given))
        except ValidationError as error:
            option = blamed(error, pool.engine_options)
            param = f"{where}.engine_options.{option}" if option else where
            raise ConfigError(f"vLLM refuses {param}: {error.errors()[0]['msg']}", param=param) from error
        except (ValueError, TypeError, ImportError) as error:
            raise ConfigError(f"vLLM cannot be started with these settings: {error}", param=where) from error
        except (RuntimeError, OSError) as error:
            raise EngineUnavailable(f"vLLM did not start: {error}") from error
