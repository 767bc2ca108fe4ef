"""The semantic cache of a pool, and the check of its names."""

from collections.abc import Mapping
from typing import Annotated, Protocol

from pydantic import Field

from headrace.config.values import Section
from headrace.errors import ConfigError

#: A look-up that takes longer lags behind its load: no job should wait for it.
MOST_HOLD_S = 2.0


class SemanticCacheSettings(Section):
    """The semantic cache of a pool: a finished answer also serves jobs that ask the same in other words.

    Attributes:
        pool: the pool of an embedding model, whose workers do the look-ups. Without it there is no semantic cache.
        max_error: the share of the answers served by it that may be wrong. `headrace apps limit` sets it for one app.
        record: an app's tries with all its entries count for each, so that an entry needs few of its own. Without
            it each entry counts by itself.
        hold_s: how long a worker of this pool waits for a new job's look-up before it starts the job. 0: a free engine
            starts at once.
        shadow: nothing is served. Each answer that would have been is compared with the job's own, and counted.
    """

    pool: str | None = None
    max_error: Annotated[float, Field(gt=0, lt=1)] = 0.01
    record: bool = True
    hold_s: Annotated[float, Field(ge=0, le=MOST_HOLD_S)] = 0.0
    shadow: bool = False


class _Pool(Protocol):
    @property
    def semantic_cache(self) -> SemanticCacheSettings: ...

    @property
    def is_embedding(self) -> bool: ...


def check_semantic_caches(pools: Mapping[str, _Pool]) -> None:
    """Check the pools that the caches name. Raises: ConfigError: one is no pool of an embedding model."""
    for name, pool in pools.items():
        named, where = pool.semantic_cache.pool, f"pools.{name}.semantic_cache"
        if named is None:
            continue
        if pool.is_embedding:
            message = f"Pool '{name}' serves embeddings, which no semantic cache serves: remove [{where}]."
            raise ConfigError(message, param=where)
        if named not in pools:
            message = f"[{where}] names pool '{named}'; the pools: {', '.join(pools)}. Correct the name."
            raise ConfigError(message, param=f"{where}.pool")
        if not pools[named].is_embedding:
            message = f"[{where}] names pool '{named}', which answers prompts: name one with serves = 'embeddings'."
            raise ConfigError(message, param=f"{where}.pool")
