"""What an engine is: the one seam between Headrace and whatever answers a prompt.

Knows nothing of queues, Postgres or Celery. Every adapter passes `tests/contracts/test_engine.py`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from headrace.domain.attempts import ApiTier, Usage
from headrace.domain.logprobs import TokenLogprob
from headrace.domain.prompts import Message, Sampling
from headrace.domain.rates import ProviderRates

FinishReason = Literal["stop", "length", "abort"]


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One attempt's prompt, as an engine sees it.

    Attributes:
        request_id: unique among the engine's running requests; `abort` names it.
        messages: the conversation, oldest first; never empty.
        sampling: how to decode, `max_tokens` included.
        priority: lower runs first, as in vLLM's priority scheduler.
        model: what the job asked for, by which an engine with several models chooses; None where there is one only.
        adapter: the fine-tuning of the served model that answers; None for the model as it is. An engine with other
            models than ours goes by `model` alone.
        tier: of a paid API's service; None for its only one.
        prefix: the beginning of the answer, when an earlier attempt has made it; the engine goes on behind it. Never
            with a `response_format` that constrains the answer, where log probabilities are asked for, or where it was
            reasoned before.
    """

    request_id: str
    messages: tuple[Message, ...]
    sampling: Sampling
    priority: int = 0
    model: str | None = None
    prefix: str = ""
    adapter: str | None = None
    tier: ApiTier | None = None


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of what a model says; never empty.

    Attributes:
        text: of the answer.
        logprobs: of the tokens that have come since the last piece, where they were asked for. Joined, their texts are
            this piece's, but for what an engine that looks for a stop string still holds back. Never without text.
        reasoning: what the model thinks before it answers.
    """

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()
    reasoning: str = ""


@dataclass(frozen=True, slots=True)
class Generation:
    """What came back.

    Attributes:
        text: the whole answer, the request's prefix included, special tokens removed; may be empty.
        usage: tokens as the engine counted them; those of the prefix are output, as they were when they were made.
        finish_reason: `abort` means the request was stopped by `abort` and `text` is partial: not a success.
        model_served: the model that really answered, in the engine's own words.
        first_token_s: seconds from `generate` to the first token; None when nothing was produced or not measured.
        preemptions: how often the engine took its KV blocks away, to compute them again later.
        rates: what a paid API said of how many more calls it allows; None when it said nothing.
        tier: of the paid API's service that it answered in; None when it did not say.
        logprobs: of each token of the answer, in order; vLLM's end with the one that ends it. None where they were not
            asked for.
        reasoning: what the model thought before it answered; empty when it did not, or does not tell.
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


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a running request is: tokens of its answer so far, its prefix included, and its preemptions."""

    tokens: int
    preemptions: int = 0


@dataclass(frozen=True, slots=True)
class EngineStats:
    """What an engine holds now, and what it has done since it was made. No total ever goes back.

    What an engine does not know of itself it leaves at 0 or None: a remote API knows what runs, and no more.

    Attributes:
        running: requests in its batch now.
        waiting: requests that it has and has not begun, or has preempted.
        kv_use: share (0 to 1) of the KV blocks that are in use now; None without a KV pool of its own.
        steps: of the whole batch, in each of which a running request gets a token; none pass while nothing runs.
        kv_use_sum, running_sum: `kv_use` and `running` at the end of each step, added up: over `steps` a mean.
        prompt_tokens: read, with those that were found in a cache, and with the prefixes of answers.
        output_tokens: made, prefixes not among them.
        preemptions: times that a request's blocks were taken away, to be computed again later.
        first_tokens: requests that have got a first token.
        first_token_s: seconds that these waited for it since they came to the engine, added up.
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


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """What an engine can hold, read from the engine itself after `start`.

    Attributes:
        max_model_tokens: prompt plus output of one request; None where the engine does not say.
        max_running: requests in one batch.
        kv_tokens: size of the KV-cache pool in tokens; None for an engine without one of ours (a remote API).
        kv_block_tokens: tokens in one KV block; None likewise.
    """

    max_model_tokens: int | None
    max_running: int
    kv_tokens: int | None = None
    kv_block_tokens: int | None = None


#: Called with each piece of new text, in order, from a thread of the engine's; must not block. The prefix is not new.
OnDelta = Callable[[Delta], None]


class Engine(Protocol):
    """A resident generator, safe to call from many threads at once.

    `generate` calls that overlap are batched by the engine: that is where a GPU's throughput comes from.

    Attributes:
        continues: True when `generate` goes on behind a request's prefix; others are given none.
    """

    name: str
    continues: bool

    def start(self) -> EngineLimits:
        """Load the model and return once the engine can answer; after EngineUnavailable, replace what is dead.

        Raises:
            EngineUnavailable: it did not come up; it may the next time.
            ConfigError: it never will with these settings.
        """
        ...

    def generate(self, request: GenerationRequest, on_delta: OnDelta | None = None) -> Generation:
        """Answer one request; blocks until it is done or aborted.

        Raises:
            PromptRejected: this request can never succeed here (too long, a bad schema, no such adapter). Not
                retryable.
            EngineFault: this request failed, the engine lives. Retryable.
            EngineUnavailable: the engine is dead or not started; every running request gets it. Retryable.
        """
        ...

    def abort(self, request_id: str) -> None:
        """Stop one request soon; its `generate` returns with `finish_reason="abort"`. Unknown ids are ignored."""
        ...

    def progress(self) -> Mapping[str, Progress]:
        """How far each running request is, by its id, as well as the engine knows now; costs little."""
        ...

    def stats(self) -> EngineStats:
        """What it holds and has done, as well as it knows; costs little, and can be asked at any time."""
        ...

    def check(self) -> None:
        """Return when the engine can take work now. Raises: EngineUnavailable."""
        ...

    def stop(self) -> None:
        """Release everything, child processes included; running requests end first. Safe to call twice."""
        ...
