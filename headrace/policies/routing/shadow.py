"""The shadow of a rule: which jobs another pool answers too, in the background, and which pool that is. Pure."""

from uuid import UUID

from headrace.config.rules import RuleSettings

#: The random bits at the end of a job's id that decide.
_BITS = 32


def is_sampled(job_id: UUID, share: float) -> bool:
    """Whether this job is one of the share. A job's id decides, so that a repeat decides alike."""
    return (job_id.int & (1 << _BITS) - 1) < share * (1 << _BITS)


def shadow_pool(rule: RuleSettings, pool: str) -> str | None:
    """The pool that answers too: the next one of the rule, or for its last the one before. None without another."""
    pools = list(dict.fromkeys(rule.pools))
    if pool not in pools or len(pools) < 2:
        return None
    at = pools.index(pool)
    return pools[at + 1] if at + 1 < len(pools) else pools[at - 1]
