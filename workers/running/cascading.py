"""Judges the answers of one pool's worker, for the rules that have a cascade. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from headrace.config import PoolSettings
from headrace.config.rules import RuleSettings
from headrace.domain.attempts import Claim, Escalation
from headrace.domain.queues import OVERFLOW, Overflow, Route, queue_name
from headrace.policies.routing.cascade import SAID, JudgedAnswer, judge, next_pool
from workers.engines.base import Generation


class Judged(NamedTuple):
    """Where a job goes on because its answer is bad, if it does; and whether its format passed unchecked."""

    to: Escalation | None = None
    is_unchecked: bool = False


@dataclass(frozen=True, slots=True)
class Cascading:
    """The rules and the pools of `headrace.toml`.

    Only answers of own pools are judged. A rule that has gone from the file judges nothing.
    """

    rules: Mapping[str, RuleSettings]
    pools: Mapping[str, PoolSettings]

    def asked(self, claim: Claim) -> Claim:
        """The claim as the engine gets it: with the log probabilities that the judgement needs."""
        found = self._next(claim)
        if found is None or found[0].min_logprob is None or claim.sampling.top_logprobs is not None:
            return claim
        return replace(claim, sampling=replace(claim.sampling, top_logprobs=0))

    def judge(self, claim: Claim, generation: Generation) -> Judged:
        """Judge an answer of a rule with a cascade; no other.

        Args: claim: as it was claimed.
        """
        found = self._next(claim)
        if found is None:
            return Judged()
        rule, pool = found
        logprobs = None if generation.logprobs is None else [each["logprob"] for each in generation.logprobs]
        is_cut = generation.finish_reason == "length"
        has_calls = bool(generation.tool_calls)
        answer = JudgedAnswer(generation.text, is_cut, claim.sampling.response_format, logprobs, has_calls)
        judgement = judge(rule, answer)
        if (bad := judgement.signal) is None:
            return Judged(None, judgement.is_unchecked)
        is_paid = self.pools[pool].is_paid
        to = Escalation(
            bad,
            pool,
            self.pools[pool].model,
            queue_name(OVERFLOW if is_paid else pool, claim.lane),
            Route.OVERFLOW if is_paid else Route.POOL,
            f"rule '{claim.rule}': {pool}, because the answer of {claim.pool} {SAID[bad]}",
            rule.escalation_wait_s,
        )
        return Judged(to, judgement.is_unchecked)

    def _next(self, claim: Claim) -> tuple[RuleSettings, str] | None:
        """The claim's rule, and the pool to which a bad answer sends the job; None if no answer of it is judged.

        A stream is not judged: its caller has read the answer. Neither are several answers of one job.
        """
        rule = self.rules.get(claim.rule or "")
        if rule is None or claim.stream or claim.sampling.n > 1 or claim.route is not Route.POOL:
            return None
        pool = next_pool(rule, claim.pool)
        if pool is None or pool not in self.pools:
            return None
        closed = self.pools[pool].is_paid and claim.overflow is Overflow.NEVER
        return None if closed else (rule, pool)


def without_judged(claim: Claim, generation: Generation) -> Generation:
    """The answer without the log probabilities that only the judgement needed."""
    return generation if claim.sampling.top_logprobs is not None else replace(generation, logprobs=None)
