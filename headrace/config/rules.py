"""The rules of `headrace.toml` by which a job of the model `auto` gets its pool."""

import re
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from headrace.config.pools import PoolSettings
from headrace.errors import ConfigError
from headrace.setting_types import Positive, PositiveInt, Section, Share

#: The `model` of a job whose pool the rules choose.
AUTO = "auto"

#: What an answer shows of itself: it was cut off by its length, it declines, or it is not the JSON that was asked for.
VisibleSignal = Literal["length", "refusal", "format"]


class RuleSettings(Section):
    """A rule for jobs whose `model` is `auto`: which pools can answer them. The first rule that matches a job decides.

    Attributes:
        pools: the pools that can answer such a job. The cheapest one does; of equal ones, the first. With `cascade`,
            the first one does. The last one answers jobs of the quality `high`.
        apps: the apps whose jobs match; by default every app's.
        tasks: the values of `task` in the job's `metadata` that match; by default any, and none.
        max_prompt_chars: a prompt of more characters, all messages together, does not match.
        max_output_tokens: a job does not match if its answer is expected to be longer in the first of `pools`.
        wants_json: `true` matches only jobs that ask for JSON by `response_format`, `false` only the others.
        cascade: an answer that a signal calls bad is not given to the caller: the job goes on to the next of `pools`
            ([pools.md](pools.md#the-cascade)).
        signals: what calls an answer bad: `length`, it was cut off; `refusal`, it begins with `refusal_pattern`;
            `format`, it is not the JSON of the job's `response_format`.
        min_logprob: an answer whose tokens have a lower mean log probability is bad too. By default none is computed.
        refusal_pattern: the regular expression of an answer that declines, sought in its first 200 characters, in any
            letter case. By default common phrases in English and German ([pools.md](pools.md#the-cascade)).
        escalation_wait_s: how long a job waits for the next pool. Then the answer that it has is given after all.
        shadow_share: of the rule's jobs, the share that another of its pools answers too, in the background, so that
            both answers can be compared ([pools.md](pools.md#shadows)).
    """

    pools: Annotated[tuple[str, ...], Field(min_length=1)]
    apps: frozenset[str] = frozenset()
    tasks: frozenset[str] = frozenset()
    max_prompt_chars: PositiveInt | None = None
    max_output_tokens: PositiveInt | None = None
    wants_json: bool | None = None
    cascade: bool = False
    signals: tuple[VisibleSignal, ...] = ("length", "refusal", "format")
    min_logprob: Annotated[float, Field(le=0)] | None = None
    refusal_pattern: Annotated[str, Field(min_length=1)] | None = None
    escalation_wait_s: Positive = 60.0
    shadow_share: Share = 0.0

    @field_validator("refusal_pattern")
    @classmethod
    def _the_pattern_is_an_expression(cls, pattern: str | None) -> str | None:
        try:
            re.compile(pattern or "")
        except re.error as error:
            raise ValueError(f"it is no regular expression: {error}") from error
        return pattern

    @model_validator(mode="after")
    def _there_is_a_second_pool_where_one_is_needed(self) -> Self:
        if self.cascade and len(self.pools) < 2:
            raise ValueError("'cascade' needs a second pool: add one to 'pools', the best one last")
        if self.shadow_share and len(self.pools) < 2:
            raise ValueError("'shadow_share' needs a second pool: add one to 'pools', or remove it")
        if self.min_logprob is not None and not self.cascade:
            raise ValueError("'min_logprob' is for a cascade: set 'cascade = true', or remove it")
        return self


def check_rules(rules: Mapping[str, RuleSettings], pools: Mapping[str, PoolSettings]) -> None:
    """Check the names in the rules. Raises: ConfigError: one names no pool, or a pool that cannot answer its jobs."""
    first = {pool.model: name for name, pool in reversed(list(pools.items()))}
    for rule, settings in rules.items():
        for name in settings.pools:
            if (wrong := _wrong(name, pools, first)) is not None:
                raise ConfigError(f"[rules.{rule}] names pool '{name}'{wrong}", param=f"rules.{rule}.pools")
        if settings.cascade:
            _check_cascade(rule, settings, pools)
    if rules and AUTO in first:
        message = (
            f"The model of pool '{first[AUTO]}' is called '{AUTO}', which [rules] uses: rename it, or remove [rules]."
        )
        raise ConfigError(message, param=f"pools.{first[AUTO]}.model")


def _wrong(name: str, pools: Mapping[str, PoolSettings], first: Mapping[str, str]) -> str | None:
    """Why no job of a rule can go to the pool of this name; None if it can. Args: first: the first pool of a model."""
    if name not in pools:
        return f"; the pools: {', '.join(pools)}. Add [pools.{name}], or correct the name."
    if pools[name].is_embedding:
        return f", which serves embeddings; a job of the model '{AUTO}' is a prompt. Name a pool that serves prompts."
    if (other := first[pools[name].model]) != name:
        return f", whose model is that of pool '{other}': name '{other}', or give '{name}' another model."
    return None


def _check_cascade(rule: str, settings: RuleSettings, pools: Mapping[str, PoolSettings]) -> None:
    """Only answers of own pools are judged. Raises: ConfigError."""
    if paid := [name for name in settings.pools[:-1] if pools[name].is_paid]:
        message = (
            f"[rules.{rule}] has a cascade, and pool '{paid[0]}', which the paid API answers, is not its last: "
            "name it last, or remove 'cascade'."
        )
        raise ConfigError(message, param=f"rules.{rule}.pools")
    if len(set(settings.pools)) < len(settings.pools):
        raise ConfigError(f"[rules.{rule}] has a cascade, and names a pool twice.", param=f"rules.{rule}.pools")
