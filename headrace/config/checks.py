"""What is checked over all pools of `headrace.toml` together."""

import re
from collections.abc import Iterable, Mapping

from headrace.config.caches import check_semantic_caches
from headrace.config.compression import check_compression
from headrace.config.pools import PoolSettings
from headrace.config.rules import RuleSettings, check_rules
from headrace.domain.queues import OVERFLOW
from headrace.errors import ConfigError

#: A pool's name is part of entries in Redis, where a space ends it, of a shell's line, and of a log file's name.
_POOL_NAME = re.compile(r"\w[\w.:-]{0,62}")


def check_pools(rules: Mapping[str, RuleSettings], pools: Mapping[str, PoolSettings]) -> None:
    """Check the pools' own names, and what the rules and the pools name. Raises: ConfigError."""
    _check_pool_names(pools)
    check_rules(rules, pools)
    check_semantic_caches(pools)
    check_compression(pools)


def _check_pool_names(names: Iterable[str]) -> None:
    """Raises: ConfigError."""
    for name in names:
        if name == OVERFLOW:
            message = f"No pool can be named '{name}', as the queues of the paid API are: give it another name."
            raise ConfigError(message, param=f"pools.{name}")
        if not _POOL_NAME.fullmatch(name):
            message = (
                f"No pool can be named '{name}': a name has up to 63 letters, digits and the characters . _ : -, and "
                "begins with a letter or a digit."
            )
            raise ConfigError(message, param=f"pools.{name}")
