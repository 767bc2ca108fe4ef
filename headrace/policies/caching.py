"""Caching: which jobs may be given the answer of another job, of which one, and for how long. Pure.

The exact cache compares keys. The semantic cache has entries, each the question of an answered job. An entry serves a
job that asks the same in other words, if the guard reads both texts as the same request (`reuse.guard`), and if its
tries so far show that it is right often enough (`reuse.bound`).
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol
from uuid import UUID

from headrace.config import PoolSettings, Settings
from headrace.config.rules import RuleSettings
from headrace.domain.apps import App
from headrace.domain.jobs import JobSpec
from headrace.domain.prompts import CacheChoice, Message, Sampling, prompt_digest
from headrace.policies.reuse import bound, guard
from headrace.policies.reuse.bound import ASSUMED, Prior, Try
from headrace.policies.routing.cascade import next_pool

#: What of a rule decides which pool's answer a job of a cascade is given.
_OF_CASCADE = ("pools", "min_logprob", "refusal_pattern")


class Keyed(Protocol):
    """What a key is made of. See `JobSpec`."""

    @property
    def app_id(self) -> UUID: ...

    @property
    def pool(self) -> str: ...

    @property
    def model(self) -> str: ...

    @property
    def adapter(self) -> str | None: ...

    @property
    def messages(self) -> tuple[Message, ...]: ...

    @property
    def sampling(self) -> Sampling: ...


def keep_s(app: App, pool: PoolSettings) -> float:
    """For how many seconds an answer serves: the app's own setting, else the pool's. 0: not at all."""
    return pool.cache_s if app.cache_s is None else app.cache_s


def may_serve(app: App, pool: PoolSettings) -> bool:
    """False if no job of this app is served, or follows another, in this pool."""
    return bool(keep_s(app, pool)) or pool.single_flight


def is_shared(choice: CacheChoice | None, sampling: Sampling, pool: PoolSettings) -> bool:
    """Whether a job may be given an identical job's answer, and give its own.

    By default only an answer that the request determines is shared: temperature 0, a seed, or vectors of inputs.
    """
    if choice is not None:
        return choice != "never"
    is_embedding = sampling.max_tokens == 0
    return pool.cache_sampled or is_embedding or sampling.temperature == 0 or sampling.seed is not None


def judged_by(spec: JobSpec, rule: RuleSettings | None) -> RuleSettings | None:
    """The job's rule, if its cascade judges the pool's answer.

    Without one, and of a stream or of several answers, what the pool answers is given.
    """
    is_judged = not spec.stream and spec.sampling.n == 1
    return rule if rule is not None and is_judged and next_pool(rule, spec.pool) is not None else None


def key_of(
    spec: Keyed,
    pool: PoolSettings,
    settings: Settings,
    messages: Sequence[Message] | None = None,
    cascade: RuleSettings | None = None,
) -> bytes:
    """The key that jobs share if, and only if, the same app asks the same of the same models.

    A pool's settings are part of it: other weights, engines or engine options may give other answers. So are the paid
    API, where a model of the same name may be another, and a cascade: another pool may answer.
    Args: messages: in place of the job's own. cascade: from `judged_by`.
    """
    served = {
        "app": str(spec.app_id),
        "pool": spec.pool,
        "engine": pool.engine,
        "model": pool.model,
        "model_dir": None if pool.model_dir is None else str(pool.model_dir),
        "adapter": [spec.adapter, pool.adapters.get(spec.adapter or "")],
        "reasoning_parser": pool.reasoning_parser,
        "engine_options": pool.engine_options,
        "paid_model": settings.overflow.paid_model(spec.model),
    }
    # Only where they are set, so that keys stored before these were compared still hold.
    of_tools = ("tool_parser", "tool_strict_level", "chat_template")
    served |= {name: getattr(pool, name) for name in of_tools if getattr(pool, name)}
    if settings.openai_base_url is not None:
        served["paid_api"] = settings.openai_base_url.rstrip("/")
    if cascade is not None:
        of_rule = {name: getattr(cascade, name) for name in _OF_CASCADE}
        served["cascade"] = of_rule | {"signals": sorted(cascade.signals)}
    digest = hashlib.sha256(json.dumps(served, sort_keys=True, default=str).encode())
    digest.update(prompt_digest(spec.model, spec.messages if messages is None else messages, spec.sampling))
    return digest.digest()


# The semantic cache.

#: Entries whose questions are less alike than this, as the cosine of their embeddings, are not looked at.
LEAST_SIMILARITY = 0.5
#: The entries that the guard reads for one job: the most alike ones of those with the job's fingerprint.
CANDIDATES = 20
#: The characters that it reads for one job: fewer entries if they are long.
READ_CHARACTERS = 5 * guard.MAX_CHARACTERS
_FINGERPRINT_BYTES = 16
#: How long the paid API's workers leave a new job alone that is still to be looked up, in seconds.
HELD_S = 0.3

#: What becomes of a job that has an entry. `served`: it ends with its answer. `try`: it runs, since the entry has
#: not earned trust. `recheck`: it runs although the entry may serve it. `shadow`: the same, since nothing is served.
MatchKind = Literal["served", "try", "recheck", "shadow"]


@dataclass(frozen=True, slots=True)
class CachedAnswer:
    """An entry that may match a job.

    Attributes:
        job_id: the job whose answer it is.
        question: that job's last user turn.
        similarity: to the new job's question, a cosine.
        tries: the entry's, oldest first.
    """

    job_id: UUID
    question: str
    similarity: float
    tries: tuple[Try, ...] = ()


@dataclass(frozen=True, slots=True)
class Match:
    """The entry that a job has, and what becomes of the job."""

    kind: MatchKind
    candidate: CachedAnswer
    reason: str


def looked_up_by(spec: JobSpec, app: App, pool: PoolSettings, choice: CacheChoice | None) -> str | None:
    """The pool of the embedding model that looks a job up; None if the semantic cache takes no part in it.

    The job takes part in the exact cache already: `is_shared`. One with tools is not looked up: its answer may be
    a call with arguments from its own words, and a call acts.
    """
    if spec.sampling.tools is not None:
        return None
    if choice == "exact" or app.max_error == 0 or not keep_s(app, pool) or question_of(spec.messages) is None:
        return None
    if spec.max_wait_s <= 2 * max(HELD_S, pool.semantic_cache.hold_s):
        # Held for its look-up, it could miss its start.
        return None
    # Several answers of one job cannot serve as one answer.
    return pool.semantic_cache.pool if spec.sampling.n == 1 else None


def question_of(messages: Sequence[Message]) -> str | None:
    """What a conversation asks: its last turn, if that is the user's. None for a long one, which matches no other."""
    last = messages[-1]
    if last.role != "user" or not last.content.strip() or len(last.content) > guard.MAX_CHARACTERS:
        return None
    return last.content


def scope_of(job: Keyed, pool: PoolSettings, settings: Settings, embedder: str) -> bytes:
    """What is equal of two jobs that may match: all that determines the answer, but for the last turn's words.

    Args: embedder: the embedding model. The vectors of two models cannot be compared.
    """
    *before, last = job.messages
    digest = hashlib.sha256(embedder.encode())
    digest.update(key_of(job, pool, settings, messages=(*before, replace(last, content=""))))
    return digest.digest()


def fingerprints_of(text: str, scope: bytes) -> list[bytes]:
    """What an index finds entries by: no entry without one of these can serve the text in this scope.

    An embedding could not find them as well: to it "how do I open the door" may be more like "how do I paint the door"
    than like "show me how to open the door".
    """
    return [
        hashlib.blake2b(scope + each.encode(), digest_size=_FINGERPRINT_BYTES).digest()
        for each in guard.fingerprints(text)
    ]


@dataclass(frozen=True, slots=True)
class ReuseConditions:
    """On which an app is served.

    Attributes:
        max_error: the probability of a wrong answer to which an entry is held; see `Record.bound`.
        is_shadow: nothing is served.
        prior: what the app's record says of an entry before its own tries.
    """

    max_error: float
    is_shadow: bool = False
    prior: Prior = ASSUMED


def choose(question: str, candidates: Sequence[CachedAnswer], conditions: ReuseConditions, roll: float) -> Match | None:
    """The first entry that may serve; else, as a try, the one that is closest to it; None if the guard lets none pass.

    Of several untrusted entries that ask the same, one gathers the tries. Shared out, they would earn no trust.

    Args:
        candidates: the most alike first.
        roll: a random number from 0 to 1, by which some jobs are run although an entry may serve them.
    """
    closest: tuple[float, Match] | None = None
    read = 0
    for each in candidates:
        # The guard takes a millisecond for a sentence, and longer for a long text: no more of them than are needed.
        read += len(each.question)
        if read > READ_CHARACTERS:
            break
        if not guard.compare(question, each.question).may_serve:
            continue
        trust = bound.trust(each.tries, each.similarity, conditions.max_error, conditions.prior)
        if trust.may_serve:
            kind: MatchKind = "shadow" if conditions.is_shadow else "recheck" if roll < trust.run_share else "served"
            return Match(kind, each, trust.reason)
        if closest is None or trust.error < closest[0]:
            closest = trust.error, Match("try", each, trust.reason)
    return closest and closest[1]


def max_error_of(app_max_error: float | None, pool: PoolSettings) -> float:
    """The share of served answers that may be wrong: the app's own setting, else the pool's."""
    return pool.semantic_cache.max_error if app_max_error is None else app_max_error
