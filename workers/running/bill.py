"""The bill of an attempt: the record of how it ended, with its price. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Literal

from headrace.domain.attempts import AttemptEnd, Claim, Usage
from headrace.domain.limits import Cost
from headrace.domain.prompts import Message
from headrace.domain.queues import Route
from headrace.errors import EngineCrash, EngineError
from headrace.policies.pricing import Tariff, cost
from workers.engines.base import Generation


@dataclass(frozen=True, slots=True)
class Answered:
    """The engine's answer to a claim, whole or partial, and how long it took, in seconds."""

    claim: Claim
    generation: Generation
    engine_s: float


@dataclass(slots=True)
class Bill:
    """Writes the bills of one worker's attempts.

    Attributes: tariff: the present prices; the worker replaces it when they change. An attempt keeps those of its
        begin, by which its money is reserved: see `of_one_attempt`.
    """

    tariff: Tariff
    route: Route
    host_id: str

    def of_one_attempt(self) -> "Bill":
        """This, with the present prices for good."""
        return replace(self)

    def of(
        self,
        answered: Answered,
        outcome: Literal["succeeded", "aborted"],
        error_code: str | None = None,
        error_message: str | None = None,
    ) -> AttemptEnd:
        """The bill of an attempt that the engine answered, in whole or in part."""
        claim, generation = answered.claim, answered.generation
        return AttemptEnd(
            outcome,
            answered.engine_s,
            self._price(claim, generation.usage, generation.tier),
            "api" if self.route is Route.OVERFLOW else "compute",
            usage=generation.usage,
            text=generation.text,
            finish_reason=generation.finish_reason,
            model_served=generation.model_served,
            first_token_s=generation.first_token_s,
            api_usd=self.tariff.api_usd(claim.model, generation.usage),
            error_code=error_code,
            error_message=error_message,
            host_id=self.host_id,
            preemptions=generation.preemptions,
            logprobs=generation.logprobs,
            reasoning=generation.reasoning,
            tool_calls=generation.tool_calls,
            others=generation.others,
            **self._saved(claim, generation),
        )

    def _saved(self, claim: Claim, generation: Generation) -> Mapping[str, Any]:
        """What compression saved; nothing if the prompt was not compressed."""
        if claim.compressed is None:
            return {}
        sent = generation.usage.prompt_tokens
        if self.route is Route.POOL:
            # Counted by the tokenizer of the model that answers.
            original = max(claim.prompt_tokens, sent)
        else:
            # The paid API's tokenizer is not known: its count of what it got, for all that was there.
            original = math.ceil(sent * _size_bytes(claim.messages) / max(1, _size_bytes(claim.compressed)))
        return {
            "original_tokens": original,
            "saved_usd": self._price(claim, Usage(original - sent), generation.tier).usd,
        }

    def of_failure(self, claim: Claim, error: EngineError, engine_s: float) -> AttemptEnd:
        """The bill of an attempt without an answer. Its cost is waste, because the job got no result."""
        return replace(self._of_failure(claim, error, engine_s), error_cause=error.cause)

    def _of_failure(self, claim: Claim, error: EngineError, engine_s: float) -> AttemptEnd:
        if isinstance(error, EngineCrash):
            usage = Usage(claim.prompt_tokens, error.made_tokens)
            spent = self._price(claim, usage)
            return AttemptEnd("failed", engine_s, spent, "waste", usage=usage, error_code=error.code)
        if error.billed_tokens is not None:
            usage = Usage(*error.billed_tokens)
            spent = self._price(claim, usage, error.billed_tier)
            end = AttemptEnd("failed", engine_s, spent, "waste", usage=usage, error_code=error.code)
            return replace(end, error_message=str(error))
        # Any other call that the paid API may bill counts at its reserved maximum.
        spent = Cost(claim.reserved_usd if error.may_be_billed else Decimal(0), self._price(claim).price_version)
        end = AttemptEnd("failed", engine_s, spent, "waste", error_code=error.code, error_message=str(error))
        return replace(end, estimated=error.may_be_billed)

    def _price(self, claim: Claim, usage: Usage | None = None, tier: str | None = None) -> Cost:
        return cost(self.tariff.price(self.route, claim.pool, claim.model), usage or Usage(), tier)


def _size_bytes(messages: Sequence[Message]) -> int:
    return sum(len(message.content.encode()) for message in messages)
