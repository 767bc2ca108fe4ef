"""Which pools can measure surprise for which, checked over all pools of `headrace.toml`."""

from collections.abc import Mapping

from headrace.config.pools import PoolSettings
from headrace.errors import ConfigError


def check_compression(pools: Mapping[str, PoolSettings]) -> None:
    """Check each pool's `compress_by`. Raises: ConfigError: it names no pool whose own workers answer prompts."""
    for name, pool in pools.items():
        if pool.compress_by is None:
            continue
        param = f"pools.{name}.compress_by"
        by = pools.get(pool.compress_by)
        if by is None:
            message = f"{param} names '{pool.compress_by}'; the pools: {', '.join(pools)}."
            raise ConfigError(message, param=param)
        if by.is_paid or by.is_embedding:
            what = "the paid API answers alone" if by.is_paid else "makes embeddings"
            message = f"{param} names '{pool.compress_by}', which {what}: name a pool with workers that answer prompts."
            raise ConfigError(message, param=param)
