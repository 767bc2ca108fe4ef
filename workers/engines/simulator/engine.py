"""An engine that computes nothing. It takes as much time and KV cache as a real engine, and fails on demand.

Its answers say that they are simulated. Knows no model, queue or database.
"""

import heapq
import itertools
import math
import threading
import time

from headrace.config import PoolSettings, Settings, SimulatorSettings
from headrace.connections.model_files import tokenizer_for
from headrace.domain.attempts import Usage
from headrace.domain.prompts import is_plain
from headrace.domain.prompts.embeddings import MOST_TOKENS
from headrace.errors import EngineCrash, EngineFault, EngineUnavailable, InvalidRequest, PromptRejected
from headrace.policies.tokens import InputTokenizer, PromptTokenizer
from headrace.policies.tokens.chat_template import template_arguments
from workers.engines.base import (
    EngineLimits,
    EngineStats,
    Generation,
    GenerationRequest,
    OnDelta,
    Progress,
    check_answerable,
)
from workers.engines.simulator.answer import SURE, UNSURE, answer, skip, thoughts, vectors
from workers.engines.simulator.call import Call, Totals


def build(settings: Settings, pool: PoolSettings) -> "SimulatorEngine":
    """Make the simulator of a pool, not started."""
    return SimulatorEngine(settings.simulator, pool, tokenizer_for(pool))


class SimulatorEngine:
    """Runs requests side by side, each at the given rates, within a KV pool and a batch of given sizes."""

    name = "simulator"
    continues = True

    def __init__(
        self, simulator: SimulatorSettings, pool: PoolSettings, tokenizer: PromptTokenizer | InputTokenizer
    ) -> None:
        """Args: tokenizer: an InputTokenizer makes it an engine of embeddings."""
        self._settings, self._pool, self._tokenizer = simulator, pool, tokenizer
        self._changed = threading.Condition()
        self._serving = False
        self._stopping = False
        self._block_tokens, kv_tokens = simulator.kv_block_tokens, simulator.kv_tokens
        if isinstance(tokenizer, InputTokenizer):
            self._block_tokens, kv_tokens = 1, MOST_TOKENS
        self._blocks = self._free_blocks = kv_tokens // self._block_tokens
        self._kv_tokens = self._blocks * self._block_tokens
        self._calls: dict[str, Call] = {}
        self._waiting: list[tuple[int, int, Call]] = []
        self._running = 0
        self._numbers = itertools.count(1)
        self._totals = Totals(step_s=1 / simulator.decode_tokens_per_s)

    def start(self) -> EngineLimits:
        with self._changed:
            self._stopping = False
            if not self._serving and self._changed.wait_for(lambda: self._stopping, self._settings.load_s):
                raise EngineUnavailable("The simulator was stopped while it loaded.")
            self._serving = True
        return EngineLimits(
            max_model_tokens=self._pool.max_model_tokens,
            max_running=self._pool.max_running,
            kv_tokens=self._kv_tokens,
            kv_block_tokens=self._block_tokens,
        )

    def generate(self, request: GenerationRequest, on_delta: OnDelta | None = None) -> Generation:
        call = self._plan(request)
        self._enter(call)
        try:
            return self._run(call, on_delta)
        finally:
            self._leave(call)

    def abort(self, request_id: str) -> None:
        with self._changed:
            if call := self._calls.get(request_id):
                call.aborted = True
                call.woken.set()

    def progress(self) -> dict[str, Progress]:
        with self._changed:
            return {request_id: Progress(call.tokens(self._made(call))) for request_id, call in self._calls.items()}

    def stats(self) -> EngineStats:
        with self._changed:
            self._totals.pass_time(self._running, self._kv_use)
            for call in self._calls.values():
                if not call.over:
                    self._count(call, self._made(call))
            waiting = sum(not call.over for *_, call in self._waiting)
            return self._totals.stats(self._running, waiting, self._kv_use)

    def check(self) -> None:
        if not self._serving:
            raise EngineUnavailable("The simulator is not started, or has died as it was told to.")

    def stop(self) -> None:
        with self._changed:
            self._serving, self._stopping = False, True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._calls)

    def _plan(self, request: GenerationRequest) -> Call:
        """Decide on the whole answer. Raises: PromptRejected for one that can never fit."""
        tokenizer = self._tokenizer
        check_answerable(request, adapters=self._pool.adapters, is_embedding=isinstance(tokenizer, InputTokenizer))
        if isinstance(tokenizer, InputTokenizer):
            return self._plan_embedding(request, tokenizer)
        try:
            how = request.sampling
            prompt_tokens = tokenizer.count(request.messages, how.reasoning_effort, how.template_variables)
        except InvalidRequest as error:
            raise PromptRejected(str(error), param=error.param) from error
        # A prefix is part of the answer, so any reasoning before it is over.
        arguments = template_arguments(how.reasoning_effort, how.template_kwargs)
        is_quick = request.prefix or is_plain(request.messages) or not arguments.get("enable_thinking", True)
        thought = [] if is_quick else thoughts(min(self._settings.reasoning_tokens, request.sampling.max_tokens))
        empty = Call(request, prompt_tokens, [], len(thought), 0, "stop", 0, counted=0)
        call, *call_others = (self._answer(empty, tokenizer, thought, choice) for choice in range(how.n))
        call.others = call_others
        needed, longest = prompt_tokens + call.tokens(how.max_tokens), prompt_tokens + call.longest
        for tokens, limit in ((needed, self._kv_tokens), (longest, self._pool.max_model_tokens or longest)):
            if tokens > limit:
                raise PromptRejected(f"The prompt and its answer take {tokens} tokens; this engine holds {limit}.")
        call.blocks = math.ceil(needed / self._block_tokens)
        if request.prefix:
            call.given, call.pieces = skip(call.pieces, len(request.prefix))
            call.counted = call.given
        return call

    def _answer(self, empty: Call, tokenizer: PromptTokenizer, thought: list[str], choice: int) -> Call:
        """One answer. Args: empty: the call without an answer."""
        request, settings = empty.request, self._settings
        declines = _has(request, settings.declines)
        made = answer(request, settings.output_tokens, tokenizer, declines=declines, choice=choice)
        pieces, reason = [*thought, *made.pieces, *(piece.arguments for piece in made.calls)], made.finish_reason
        if len(pieces) > request.sampling.max_tokens:
            pieces, reason = pieces[: request.sampling.max_tokens], "length"
        call = Call(request, empty.prompt_tokens, pieces, empty.thoughts, 0, reason, 0, counted=0)
        call.calls, call.calls_at = made.calls, len(thought) + len(made.pieces)
        call.best_logprob = UNSURE if _has(request, settings.unsure) else SURE
        return call

    def _plan_embedding(self, request: GenerationRequest, tokenizer: InputTokenizer) -> Call:
        """Decide on all vectors. Raises: PromptRejected for an input that is too long, or too many tokens."""
        inputs = tokenizer.encode_each(request.messages)
        longest, total = max(map(len, inputs)), sum(map(len, inputs))
        limit = self._pool.max_model_tokens or self._kv_tokens
        if longest > limit or total > self._kv_tokens:
            raise PromptRejected(f"An input may have {limit} tokens here, and all together {self._kv_tokens}.")
        made = vectors(inputs, request.sampling.dimensions)
        return Call(request, total, [], 0, 0, "stop", total, counted=0, vectors=made)

    def _enter(self, call: Call) -> None:
        with self._changed:
            self.check()
            self._totals.pass_time(self._running, self._kv_use)
            number = next(self._numbers)
            if self._settings.fault_every and number % self._settings.fault_every == 0:
                self._fail(call)
            if _has(call.request, self._settings.poison):
                self._die(call)
            self._calls[call.request.request_id] = call
            heapq.heappush(self._waiting, (call.request.priority, number, call))
            self._admit()

    def _fail(self, call: Call) -> None:
        """Make the chosen fault happen. The caller holds the lock."""
        match self._settings.fault:
            case "fault":
                call.error = EngineFault("A simulated fault.")
            case "reject":
                call.error = PromptRejected("A simulated rejection.")
            case "die":
                self._die(call)

    def _die(self, call: Call) -> None:
        self._serving = False
        for other in (call, *self._calls.values()):
            made = other.tokens(self._made(other)) - other.given
            other.error = EngineCrash("The simulator died, as it was told to.", made_tokens=made)
            other.woken.set()

    def _admit(self) -> None:
        """Start waiting requests, best first, as long as the first one fits. The caller holds the lock."""
        while self._waiting:
            call = self._waiting[0][-1]
            if not call.over:
                if call.blocks > self._free_blocks or self._running >= self._pool.max_running:
                    return
                self._free_blocks -= call.blocks
                self._running += 1
                self._totals.read(call.prompt_tokens + call.given)
                call.admitted_at = time.monotonic()
            heapq.heappop(self._waiting)
            call.woken.set()

    def _leave(self, call: Call) -> None:
        with self._changed:
            self._totals.pass_time(self._running, self._kv_use)
            self._calls.pop(call.request.request_id, None)
            call.aborted = True  # So that `_admit` skips its place in the queue, if it still has one.
            if call.admitted_at is not None:
                self._free_blocks += call.blocks
                self._running -= 1
            self._admit()
            self._changed.notify_all()

    @property
    def _kv_use(self) -> float:
        return (self._blocks - self._free_blocks) / self._blocks if self._blocks else 0.0

    def _count(self, call: Call, made: int) -> None:
        """Count the tokens that a request has made since it was last counted."""
        with self._changed:
            if call.admitted_at is None or made <= call.counted:
                return
            is_first = call.counted == call.given
            first_token_at = self._prefilled_at(call, call.admitted_at) + 1 / self._settings.decode_tokens_per_s
            since_s = first_token_at - call.began if is_first else None
            self._totals.made(call.tokens(made) - call.tokens(call.counted), since_s)
            call.counted = made

    def _run(self, call: Call, on_delta: OnDelta | None) -> Generation:
        call.woken.wait()
        call.woken.clear()
        done = call.given if call.admitted_at is None else self._decode(call, call.admitted_at, on_delta)
        self._count(call, done)
        if call.error is not None:
            raise call.error
        return Generation(
            text=call.text(done),
            usage=Usage(
                call.prompt_tokens,
                call.tokens(done),
                reasoning_tokens=(1 + len(call.others)) * min(call.thoughts, done),
            ),
            reasoning=call.reasoning(done),
            finish_reason="abort" if call.aborted else call.finish_reason,
            model_served=f"simulator of {call.request.adapter or self._pool.model}",
            logprobs=call.logprobs(call.given, done),
            tool_calls=call.tool_calls(done),
            others=call.choices(done),
        )

    def _decode(self, call: Call, admitted_at: float, on_delta: OnDelta | None) -> int:
        """Wait for the time of prefill and decoding. Returns: the tokens of the answer at its end."""
        prefilled_at = self._prefilled_at(call, admitted_at)
        given, total = call.given, call.longest
        call.delivered = given if on_delta else None
        # Without a listener, single tokens are invisible, and one wait is enough.
        for token in range(given + 1, total + 1) if on_delta else (total,):
            due = prefilled_at + (token - given) / self._settings.decode_tokens_per_s
            if call.over or call.woken.wait(max(0.0, due - time.monotonic())):
                return self._made(call)
            if on_delta:
                for delta in call.deltas(token):
                    on_delta(delta)
                call.delivered = token
        return total

    def _prefilled_at(self, call: Call, admitted_at: float) -> float:
        return admitted_at + (call.prompt_tokens + call.given) / self._settings.prefill_tokens_per_s

    def _made(self, call: Call) -> int:
        if call.admitted_at is None:
            return call.given
        if call.delivered is not None:
            return call.delivered
        decoding_s = time.monotonic() - self._prefilled_at(call, call.admitted_at)
        return max(call.given, min(call.given + int(decoding_s * self._settings.decode_tokens_per_s), call.longest))


def _has(request: GenerationRequest, text: str) -> bool:
    """Whether the prompt contains a text; an empty one is in no prompt."""
    return bool(text) and any(text in each.content for each in request.messages)
