"""Which jobs share an answer: everything that determines it is in the key, and nothing else."""

from dataclasses import fields, replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from headrace.config import OverflowSettings, PoolSettings, Settings
from headrace.config.rules import RuleSettings
from headrace.domain.apps import App
from headrace.domain.compression import Compression
from headrace.domain.ids import new_id
from headrace.domain.jobs import Idempotency, JobSpec
from headrace.domain.prompts import Message, Sampling
from headrace.domain.prompts.tools import Tools
from headrace.domain.queues import Lane, Overflow
from headrace.policies.caching import exact

APP = App(new_id(), "test", "whsec_test")
POOL = PoolSettings(model="m", adapters={"a": "acme/one"})
SETTINGS = Settings()
SAMPLING = Sampling(max_tokens=16, temperature=0.0)
SPEC = JobSpec(
    id=new_id(),
    app_id=APP.id,
    model="m",
    pool="chat",
    lane=Lane.NORMAL,
    messages=(Message("user", "Hi"),),
    sampling=SAMPLING,
    prompt_tokens=3,
    max_wait_s=30.0,
)

#: By field of a job: another value, and whether its answer may then be another one.
FIELDS: dict[str, tuple[Any, bool]] = {
    "id": (new_id(), False),
    "app_id": (new_id(), True),
    "model": ("other", True),
    "pool": ("other", True),
    "lane": (Lane.HIGH, False),
    "messages": ((Message("system", "Hi"),), True),
    "sampling": (Sampling(17), True),
    "prompt_tokens": (4, False),
    "max_wait_s": (1.0, False),
    "deadline": (datetime(2100, 1, 1, tzinfo=UTC), False),
    "overflow": (Overflow.NEVER, False),
    "max_cost_usd": (Decimal(1), False),
    "metadata": ({"a": "b"}, False),
    "webhook_url": ("https://example.com/", False),
    "end_user": ("u", False),
    "background": (False, False),
    "stream": (True, False),
    "idempotency": (Idempotency("k", b"h"), False),
    "adapter": ("a", True),
    "is_cache_miss": (True, False),
    "cache_key": (b"k", False),
    "is_stored": (False, False),
    "looked_up_by": ("embed", False),
    "rule": ("short", False),
    "is_shadowed": (True, False),
}
#: By field of the sampling: another value. Each may change the answer.
SAMPLINGS: dict[str, Any] = {
    "max_tokens": 17,
    "temperature": 0.5,
    "top_p": 0.5,
    "stop": ("x",),
    "seed": 7,
    "response_format": {"type": "json_object"},
    "top_logprobs": 0,
    "reasoning_effort": "low",
    "dimensions": 64,
    "extra": {"top_k": 5},
    "compression": Compression("plain"),
    "tools": Tools(({"name": "f"},)),
    "n": 2,
}


def key(spec: JobSpec = SPEC, pool: PoolSettings = POOL, settings: Settings = SETTINGS) -> bytes:
    return exact.key_of(spec, pool, settings)


def test_every_field_of_a_job_is_in_the_key_or_left_out_on_purpose() -> None:
    assert set(FIELDS) == {field.name for field in fields(JobSpec)}
    for name, (value, is_part) in FIELDS.items():
        assert (key(replace(SPEC, **{name: value})) != key()) == is_part, name


def test_a_cascade_is_in_the_key_unless_the_pool_s_own_answer_is_given() -> None:
    rule = RuleSettings(pools=("chat", "large"), cascade=True)

    def of(rule: RuleSettings, spec: JobSpec = SPEC) -> bytes:
        return exact.key_of(spec, POOL, SETTINGS, cascade=exact.judged_by(spec, rule))

    assert of(rule) != key()
    assert of(rule) == of(rule.model_copy(update={"escalation_wait_s": 1.0, "tasks": frozenset({"x"})}))
    changes = ({"pools": ("chat", "other")}, {"min_logprob": -1.0}, {"signals": ()}, {"refusal_pattern": "no"})
    assert len({of(rule), *(of(rule.model_copy(update=each)) for each in changes)}) == 1 + len(changes)
    assert of(rule.model_copy(update={"cascade": False})) == key()
    assert of(rule.model_copy(update={"pools": ("large", "chat")})) == key(), "the last pool's answer is given"
    streamed = replace(SPEC, stream=True)
    assert of(rule, streamed) == key(streamed)
    several = replace(SPEC, sampling=replace(SPEC.sampling, n=2))
    assert of(rule, several) == key(several)


def test_every_field_of_the_sampling_is_in_the_key() -> None:
    assert set(SAMPLINGS) == {field.name for field in fields(Sampling)}
    keys = [key(replace(SPEC, sampling=replace(SAMPLING, **{name: value}))) for name, value in SAMPLINGS.items()]
    assert len({key(), *keys}) == 1 + len(SAMPLINGS)


def test_the_border_between_two_messages_is_in_the_key() -> None:
    split = (Message("user", "a"), Message("user", "b"))
    assert key(replace(SPEC, messages=split)) != key(replace(SPEC, messages=(Message("user", "ab"),)))


@pytest.mark.parametrize(
    "change",
    [
        {"model": "n"},
        {"model_dir": Path("/models/n")},
        {"engine": "simulator"},
        {"engine_options": {"dtype": "float32"}},
        {"reasoning_parser": "qwen3"},
        {"tool_parser": "hermes"},
        {"tool_strict_level": "parameter"},
        {"chat_template": "smollm2"},
    ],
    ids=str,
)
def test_what_the_pool_serves_is_in_the_key(change: dict[str, Any]) -> None:
    assert key(pool=POOL.model_copy(update=change)) != key()


def test_an_adapter_s_weights_and_the_paid_model_are_in_the_key() -> None:
    adapted = replace(SPEC, model="a", adapter="a")
    assert key(adapted, POOL.model_copy(update={"adapters": {"a": "acme/two"}})) != key(adapted)
    other = SETTINGS.model_copy(update={"overflow": OverflowSettings(models={"m": "gpt-x"})})
    assert key(settings=other) != key()


def test_the_paid_api_is_in_the_key() -> None:
    """A model of the same name may be another one there."""
    urls = (None, "https://api.one.example/v1", "https://api.two.example/v1")
    assert len({key(settings=SETTINGS.model_copy(update={"openai_base_url": url})) for url in urls}) == len(urls)
    slash = SETTINGS.model_copy(update={"openai_base_url": f"{urls[1]}/"})
    assert key(settings=slash) == key(settings=SETTINGS.model_copy(update={"openai_base_url": urls[1]}))


@pytest.mark.parametrize("change", [{"max_running": 1}, {"cache_s": 9.0}, {"kv_cache_mib": 64}], ids=str)
def test_what_changes_no_answer_is_not_in_the_key(change: dict[str, Any]) -> None:
    assert key(pool=POOL.model_copy(update=change)) == key()


@pytest.mark.parametrize(
    ("choice", "change", "is_shared"),
    [
        (None, {}, False),
        (None, {"temperature": 0.7}, False),
        (None, {"temperature": 0.0}, True),
        (None, {"temperature": 0.7, "seed": 0}, True),
        ("exact", {"temperature": 0.7}, True),
        ("never", {"temperature": 0.0, "seed": 1}, False),
    ],
)
def test_by_default_only_an_answer_that_the_request_determines_is_shared(
    choice: Any, change: dict[str, Any], is_shared: bool
) -> None:
    sampling = Sampling(16, **change)
    assert exact.is_shared(choice, sampling, POOL) == is_shared
    all_of_it = POOL.model_copy(update={"cache_sampled": True})
    assert exact.is_shared(choice, sampling, all_of_it) == (choice != "never")


@pytest.mark.parametrize(
    ("own", "of_the_pool", "keep_s"), [(None, 0.0, 0), (None, 60.0, 60), (5, 0.0, 5), (5, 60.0, 5), (0, 60.0, 0)]
)
def test_an_app_s_own_time_wins_over_the_pool_s(own: int | None, of_the_pool: float, keep_s: float) -> None:
    assert exact.keep_s(replace(APP, cache_s=own), POOL.model_copy(update={"cache_s": of_the_pool})) == keep_s


def test_the_vectors_of_an_embedding_are_determined_by_its_request() -> None:
    of_embedding = Sampling(0)
    assert exact.is_shared(None, of_embedding, POOL)
    assert not exact.is_shared("never", of_embedding, POOL)
