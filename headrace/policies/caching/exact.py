"""The exact cache: which jobs share answers, for how long, and the key that identical jobs have. Pure."""

import hashlib
import json
from collections.abc import Sequence
from typing import Protocol
from uuid import UUID

from headrace.config import PoolSettings, Settings
from headrace.config.rules import RuleSettings
from headrace.domain.apps import App
from headrace.domain.jobs import JobSpec
from headrace.domain.prompts import CacheChoice, Message, Sampling, prompt_digest
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
