"""The interface of an engine: the one seam between Headrace and the program that answers a prompt.

Knows nothing of queues, Postgres or Celery. Every adapter passes `tests/contracts/test_engine.py`.
"""

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from headrace.domain.answers import Choice, TokenLogprob
from headrace.domain.attempts import ApiTier, Usage
from headrace.domain.limits import ProviderRates
from headrace.domain.prompts import Message, Sampling
from headrace.domain.prompts.embeddings import are_inputs
from headrace.domain.prompts.tools import ToolCall, ToolCallPiece
from headrace.errors import PromptRejected

FinishReason = Literal["stop", "length", "tool_calls", "abort"]


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One attempt's prompt, as an engine sees it.

    Attributes:
        request_id: unique among the engine's running requests; `abort` names it.
        messages: the conversation, oldest first, or the inputs of an embedding; never empty.
        sampling: how to decode, `max_tokens` included.
        priority: lower runs first, as in vLLM's priority scheduler.
        model: the model that the job asked for. An engine with several models chooses by it. None for the only model.
        adapter: the fine-tuning of the served model that answers; None for the base model. The paid API uses `model`
            alone.
        tier: the paid API's service tier; None for its only one.
        prefix: the beginning of the answer, made by an earlier attempt. The engine continues it. Always empty with a
            `response_format` that constrains the answer, with tools, with log probabilities, after reasoning, or with
            several answers.
        cache_salt: only requests with the same salt share what a prefix cache keeps of their prompts. None is a salt
            too. An engine without a prefix cache ignores it.
    """

    request_id: str
    messages: tuple[Message, ...]
    sampling: Sampling
    priority: int = 0
    model: str | None = None
    prefix: str = ""
    adapter: str | None = None
    tier: ApiTier | None = None
    cache_salt: str | None = None


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of a model's output; never empty.

    Attributes:
        text: part of the answer.
        logprobs: log probabilities of the tokens since the last piece, if the request asked for them. Their joined
            texts equal `text`, except for text that an engine holds back in search of a stop string, and for the
            markup of calls. Never without text.
        reasoning: the model's reasoning before the answer.
        tool_calls: pieces of the answer's calls of tools, in order.
        choice: the answer that it is of, from 0.
        tokens: of that answer by then, with reasoning and the request's prefix; 0 if they are not counted yet.
    """

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()
    reasoning: str = ""
    tool_calls: tuple[ToolCallPiece, ...] = ()
    choice: int = 0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Generation:
    """An engine's answer to one request.

    Attributes:
        text: the whole answer, the request's prefix included, special tokens removed; may be empty. Of an embedding its
            packed vectors, as `headrace.domain.prompts.embeddings` writes them; empty if it was aborted.
        usage: tokens as the engine counted them. The prefix counts as output.
        finish_reason: `tool_calls` means that the model chose to call tools. If it had to call a named one, the reason
            is `stop`, as in OpenAI's API. `abort` means that `abort` stopped the request: a partial `text`, no success.
        model_served: the model that really answered, as the engine names it.
        first_token_s: seconds from `generate` to the first token; None if no token was produced, or not measured.
        preemptions: how often the engine took the request's KV blocks away, to compute them again later.
        rates: the paid API's report of its remaining rates; None without a report.
        tier: the paid API's service tier that answered; None when it did not say.
        logprobs: one for each token of the answer, in order. vLLM's include the token that ends the answer. None if the
            request did not ask for them.
        reasoning: the model's reasoning before the answer; empty without reasoning, or when it is hidden.
        tool_calls: the answer's calls of tools, in order; the answer may have no text then.
        others: the answers after the first, where the request asks for several. Their tokens are part of the usage.
    """

    text: str
    usage: Usage
    finish_reason: FinishReason
    model_served: str
    first_token_s: float | None = None
    preemptions: int = 0
    rates: ProviderRates | None = None
    tier: str | None = None
    logprobs: tuple[TokenLogprob, ...] | None = None
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    others: tuple[Choice, ...] = ()


@dataclass(frozen=True, slots=True)
class Progress:
    """A running request's progress: tokens of its answers so far, its prefix included, and its preemptions."""

    tokens: int
    preemptions: int = 0


@dataclass(frozen=True, slots=True)
class GpuUse:
    """How the GPUs of an engine are used now. None: there is none, or its driver does not say.

    Attributes:
        busy: share (0 to 1) of the last second or less in which a kernel ran; the mean of the GPUs. NVIDIA's tools call
            it utilization. A kernel may use a small part of a GPU.
        memory: share of the GPUs' memory that is taken, whoever took it.
        watts: of all of them.
    """

    busy: float | None = None
    memory: float | None = None
    watts: float | None = None


@dataclass(frozen=True, slots=True)
class EngineStats:
    """An engine's present load, and its totals since it was made. A total never decreases.

    A value that an engine does not know stays 0 or None. A remote API knows only which requests run.

    Attributes:
        running: requests in its batch now.
        waiting: requests that it has not begun, or has preempted.
        kv_use: share (0 to 1) of the KV blocks in use now; None without its own KV pool.
        steps: steps of the whole batch. In each one a running request gets a token. None pass while nothing runs.
        kv_use_sum, running_sum: `kv_use` and `running` at the end of each step, added up. Divided by `steps`: the mean.
        prompt_tokens: tokens read, cached ones and prefixes of answers included.
        output_tokens: tokens made, without prefixes.
        preemptions: how often a request's blocks were taken away, to be computed again later.
        first_tokens: requests that have got a first token.
        first_token_s: seconds from a request's arrival at the engine to its first token, added up.
        gpus: how its GPUs are used now.
    """

    running: int = 0
    waiting: int = 0
    kv_use: float | None = None
    steps: int = 0
    kv_use_sum: float = 0.0
    running_sum: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    preemptions: int = 0
    first_tokens: int = 0
    first_token_s: float = 0.0
    gpus: GpuUse = GpuUse()


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """What an engine can hold, read from the engine itself after `start`.

    Attributes:
        max_model_tokens: prompt plus output of one request; None if the engine does not say.
        max_running: requests in one batch.
        kv_tokens: size of the KV-cache pool in tokens; None for an engine without a local one (a remote API). Of an
            embedding engine `MOST_TOKENS`, whatever its cache: a step embeds inputs whole and keeps nothing of them, so
            what is bounded is how much the engine has taken and not yet embedded.
        kv_block_tokens: tokens in one KV block; None without a local cache, and 1 for an embedding engine.
        shares_prompts: False if several answers to one prompt hold it once each.
    """

    max_model_tokens: int | None
    max_running: int
    kv_tokens: int | None = None
    kv_block_tokens: int | None = None
    shares_prompts: bool = True


#: Called with each piece of new text, in order, from an engine's thread. Must not block. The prefix is not new text.
OnDelta = Callable[[Delta], None]


class Engine(Protocol):
    """A resident generator, safe to call from many threads at once.

    The engine batches overlapping calls of `generate`: a GPU's throughput comes from this.

    Attributes: continues: True if `generate` continues a request's prefix. Other engines get no prefix.
    """

    name: str
    continues: bool

    def start(self) -> EngineLimits:
        """Load the model and return once the engine can answer. After EngineUnavailable, replace the dead parts.

        Raises:
            EngineUnavailable: the start failed; the next one may succeed.
            ConfigError: a start with these settings can never succeed.
        """
        ...

    def generate(self, request: GenerationRequest, on_delta: OnDelta | None = None) -> Generation:
        """Answer one request; blocks until it is done or aborted.

        An embedding's inputs are in the engine's batches one by one, beside those of other requests.

        Raises:
            PromptRejected: this request can never succeed here (too long, a bad schema or tool, no such adapter, inputs
                for a model that answers prompts). Not retryable.
            EngineFault: this request failed, but the engine lives. Retryable.
            EngineUnavailable: the engine is dead or not started; every running request gets it. Retryable.
        """
        ...

    def abort(self, request_id: str) -> None:
        """Stop one request soon; its `generate` returns with `finish_reason="abort"`. Unknown ids are ignored."""
        ...

    def progress(self) -> Mapping[str, Progress]:
        """The progress of each running request, by its id, as far as the engine knows it now. Costs little."""
        ...

    def stats(self) -> EngineStats:
        """Its load and its totals, as far as it knows them. Costs little, and works at any time."""
        ...

    def check(self) -> None:
        """Return when the engine can take work now. Raises: EngineUnavailable."""
        ...

    def stop(self) -> None:
        """Let running requests end, then release everything, child processes included. Safe to call twice."""
        ...


def check_answerable(request: GenerationRequest, *, adapters: Container[str], is_embedding: bool) -> None:
    """Refuse what this engine does not answer. The door does too, but the pool's settings may have changed since.

    Args:
        adapters: those of the engine's pool.
        is_embedding: True for an engine that makes vectors.

    Raises: PromptRejected.
    """
    if are_inputs(request.messages) != is_embedding:
        if is_embedding:
            raise PromptRejected("This model makes embeddings, and answers no prompts.", param="messages")
        raise PromptRejected("This model answers prompts, and makes no embeddings.", param="input")
    if request.adapter is not None and request.adapter not in adapters:
        raise PromptRejected(f"The adapter '{request.adapter}' is not served here any more.", param="model")
