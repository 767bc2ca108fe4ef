"""What is checked over several settings of `headrace.toml` together."""

import re
from collections.abc import Iterable, Mapping

from headrace.config.caches import check_semantic_caches
from headrace.config.compression import check_compression
from headrace.config.pools import PoolSettings
from headrace.config.rules import RuleSettings, check_rules
from headrace.config.values import FOREVER
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


def check_retention(keep_texts_days: int | None, keep_jobs_months: int | None) -> None:
    """Raises: ConfigError: no month with texts is ever detached, and these texts never go."""
    if keep_texts_days is None and keep_jobs_months is not None:
        message = (
            f"keep_texts_days = '{FOREVER}' and keep_jobs_months = {keep_jobs_months} exclude each other: the app of a "
            "job in a detached month could not delete the job's texts any more. Set keep_texts_days to a number of "
            "days, or remove keep_jobs_months."
        )
        raise ConfigError(message, param="keep_jobs_months")
