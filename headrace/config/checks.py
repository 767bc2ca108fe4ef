"""What is checked over all pools of `headrace.toml` together."""

from collections.abc import Mapping

from headrace.config.caches import check_semantic_caches
from headrace.config.compression import check_compression
from headrace.config.pools import PoolSettings
from headrace.config.rules import RuleSettings, check_rules


def check_pools(rules: Mapping[str, RuleSettings], pools: Mapping[str, PoolSettings]) -> None:
    """Check what the rules and the pools name. Raises: ConfigError."""
    check_rules(rules, pools)
    check_semantic_caches(pools)
    check_compression(pools)
