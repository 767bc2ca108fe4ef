"""The rules of `headrace.toml` by which a job of the model `auto` gets its pool."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from headrace.config.pools import PoolSettings
from headrace.config.values import PositiveInt, Section
from headrace.errors import ConfigError

#: The `model` of a job whose pool the rules choose.
AUTO = "auto"


class RuleSettings(Section):
    """A rule for jobs whose `model` is `auto`: which pools can answer them. The first rule that matches a job decides.

    Attributes:
        pools: the pools that can answer such a job. The cheapest one does; of equal ones, the first.
        apps: the apps whose jobs match; by default every app's.
        tasks: the values of `task` in the job's `metadata` that match; by default any, and none.
        max_prompt_chars: a prompt of more characters, all messages together, does not match.
        max_output_tokens: a job does not match if its answer is expected to be longer in the first of `pools`.
        wants_json: `true` matches only jobs that ask for JSON by `response_format`, `false` only the others.
    """

    pools: Annotated[tuple[str, ...], Field(min_length=1)]
    apps: frozenset[str] = frozenset()
    tasks: frozenset[str] = frozenset()
    max_prompt_chars: PositiveInt | None = None
    max_output_tokens: PositiveInt | None = None
    wants_json: bool | None = None


def check_rules(rules: Mapping[str, RuleSettings], pools: Mapping[str, PoolSettings]) -> None:
    """Check the names in the rules. Raises: ConfigError: one names no pool, or a pool that no request can name."""
    first = {pool.model: name for name, pool in reversed(list(pools.items()))}
    for rule, settings in rules.items():
        for name in settings.pools:
            where = f"[rules.{rule}] names pool '{name}'"
            if name not in pools:
                message = f"{where}; the pools: {', '.join(pools)}. Add [pools.{name}], or correct the name."
                raise ConfigError(message, param=f"rules.{rule}.pools")
            if (other := first[pools[name].model]) != name:
                message = (
                    f"{where}, whose model is that of pool '{other}': name '{other}', or give '{name}' another model."
                )
                raise ConfigError(message, param=f"rules.{rule}.pools")
    if rules and AUTO in first:
        message = (
            f"The model of pool '{first[AUTO]}' is called '{AUTO}', which [rules] uses: rename it, or remove [rules]."
        )
        raise ConfigError(message, param=f"pools.{first[AUTO]}.model")
