"""vLLM as an engine: a core that answers, replaced when it dies.

Knows nothing of queues, Postgres or Celery. Only its neighbours import `vllm`.
"""

import logging
import threading
import time
from concurrent.futures import CancelledError
from dataclasses import replace

from headrace.config import PoolSettings, Settings
from headrace.connections.model_files import tokenizer_for
from headrace.domain.attempts import Usage
from headrace.errors import ConfigError, EngineUnavailable, InvalidRequest, PromptRejected
from headrace.policies.tokens import InputTokenizer, PromptTokenizer
from workers.engines.base import (
    EngineLimits,
    EngineStats,
    Generation,
    GenerationRequest,
    OnDelta,
    Progress,
    check_answerable,
)
from workers.engines.vllm.answer import Parsers
from workers.engines.vllm.core import DEAD_EXIT_S, Core, CoreCall
from workers.engines.vllm.gpus import Gpus
from workers.engines.vllm.load import DRAIN_S, LoadTally, Scratch, import_vllm, load
from workers.engines.vllm.settings import find_adapters, is_cpu_build

log = logging.getLogger(__name__)

#: Seconds that a healthy core gets to exit before it is killed.
_EXIT_S = 20.0
#: Seconds that a probe waits: a core answers only between two steps, and a long prefill is one step.
_PROBE_S = 20.0
#: The most prompts that are encoded at once. The tokenizer releases the GIL for long prompts. Without this bound, many
#: of them would take every CPU from the engine's loop and from the thread that renews the worker's lease.
_ENCODINGS_AT_ONCE = 2


def build(settings: Settings, pool: PoolSettings) -> "VllmEngine":
    """Make the engine of a pool, not started. Raises: ConfigError when its tokenizer cannot be loaded."""
    name = next((name for name, each in settings.pools.items() if each is pool), settings.pool)
    return VllmEngine(pool, tokenizer_for(pool), pool_name=name)


class VllmEngine:
    """A resident vLLM engine. After EngineUnavailable, `start` replaces a dead core in place."""

    name = "vllm"
    continues = True

    def __init__(
        self,
        pool: PoolSettings,
        tokenizer: PromptTokenizer | InputTokenizer,
        probe_s: float = _PROBE_S,
        pool_name: str = "chat",
    ) -> None:
        """Load nothing yet.

        Args:
            tokenizer: the model's own; the engine gets the tokens that it makes. An InputTokenizer makes it an engine
                of embeddings.
            probe_s: seconds without an answer after which the core counts as hung.
            pool_name: names the pool's settings in an error.
        """
        self._pool, self._tokenizer, self._probe_s = pool, tokenizer, probe_s
        self._where = f"pools.{pool_name}"
        self._scratch = Scratch()
        self._tally = LoadTally()
        self._gpus = Gpus()
        self._core: Core | None = None
        self._lifecycle = threading.Lock()
        self._encodings = threading.BoundedSemaphore(_ENCODINGS_AT_ONCE)

    def start(self) -> EngineLimits:
        """Load the model, unless it is loaded and alive. Raises: EngineUnavailable; ConfigError for a bad option."""
        with self._lifecycle:
            if self._core is not None and self._core.dead:
                self._drop(self._core)
            if self._core is None:
                self._scratch.open()
                began = time.monotonic()
                import_vllm(self._pool, self._scratch.path)
                self._core = self._open()
                log.info("engine_started", extra={"engine": self.name, "load_s": round(time.monotonic() - began, 1)})
            return self._core.limits

    def generate(self, request: GenerationRequest, on_delta: OnDelta | None = None) -> Generation:
        core = self._serving()
        call = self._call(request, on_delta)
        if call.inputs is None and call.tokens_left < 1:
            usage = Usage(len(call.prompt), request.sampling.max_tokens)
            return Generation(request.prefix, usage, "length", model_served=call.model)
        future = core.submit(call)
        try:
            return future.result()
        except CancelledError as error:
            if core.has_died:
                raise core.crash_of(call) from error
            raise EngineUnavailable("The engine was stopped while it answered.") from error
        finally:
            future.cancel()  # If this thread is interrupted, the request must end too.

    def _call(self, request: GenerationRequest, on_delta: OnDelta | None) -> CoreCall:
        """Encode the request. Runs in the task's thread to spare the event loop. Raises: PromptRejected."""
        tokenizer, model = self._tokenizer, request.adapter or self._pool.model
        check_answerable(request, adapters=self._pool.adapters, is_embedding=isinstance(tokenizer, InputTokenizer))
        with self._encodings:
            try:
                if isinstance(tokenizer, InputTokenizer):
                    return CoreCall(request, [], [], None, model, tokenizer.encode_each(request.messages))
                how = request.sampling
                prompt = tokenizer.encode(request.messages, how.reasoning_effort, how.template_variables)
            except InvalidRequest as error:
                raise PromptRejected(str(error), param=error.param) from error
            prefix = tokenizer.encode_answer(request.prefix) if request.prefix else []
            return CoreCall(request, prompt, prefix, on_delta, model)

    def abort(self, request_id: str) -> None:
        if (core := self._core) is not None:
            core.abort(request_id)

    def progress(self) -> dict[str, Progress]:
        return {} if (core := self._core) is None else core.progress()

    def stats(self) -> EngineStats:
        return replace(self._tally.stats, gpus=self._gpus.use())

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
                core.close(drain_s=DRAIN_S, exit_s=_EXIT_S)
            self._tally.emptied()
            self._scratch.close()

    def _open(self) -> Core:
        adapters = find_adapters(self._pool.adapters, f"{self._where}.adapters")
        llm = load(self._pool, self._scratch.path, self._where, adapters, self._tally)
        core = Core(llm, Parsers.of(self._pool))
        try:
            core.learn(adapters, f"{self._where}.adapters")
        except (ConfigError, EngineUnavailable):
            core.close(drain_s=0, exit_s=_EXIT_S)
            raise
        if not is_cpu_build():
            self._gpus = Gpus.of(llm.vllm_config.parallel_config.world_size)
        return core

    def _serving(self) -> Core:
        if (core := self._core) is None:
            raise EngineUnavailable("The vLLM engine is not started.")
        return core

    def _drop(self, core: Core) -> None:
        log.error("engine_core_lost", extra={"engine": self.name})
        self._core = None
        core.died()
        core.close(drain_s=0, exit_s=DEAD_EXIT_S)
        self._tally.emptied()
