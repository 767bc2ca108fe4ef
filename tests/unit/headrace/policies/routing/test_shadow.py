"""Which jobs have a shadow, and where it runs."""

import pytest

from headrace.config.rules import RuleSettings
from headrace.domain.ids import new_id
from headrace.policies.routing.shadow import is_sampled, shadow_pool


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_about_the_share_of_all_jobs_is_in_the_sample(share: float) -> None:
    ids = [new_id() for _ in range(4000)]
    sampled = [job_id for job_id in ids if is_sampled(job_id, share)]
    assert abs(len(sampled) / len(ids) - share) < 0.04
    assert all(is_sampled(job_id, share) for job_id in sampled), "a job's id decides"


def test_none_and_all_are_shares_too() -> None:
    ids = [new_id() for _ in range(200)]
    assert not any(is_sampled(job_id, 0.0) for job_id in ids)
    assert all(is_sampled(job_id, 1.0) for job_id in ids)


def test_the_next_pool_of_the_rule_answers_too_and_for_the_last_the_one_before() -> None:
    rule = RuleSettings(pools=("small", "middle", "large"))
    assert [shadow_pool(rule, pool) for pool in (*rule.pools, "gone")] == ["middle", "large", "middle", None]
    assert shadow_pool(RuleSettings(pools=("small",)), "small") is None
    assert shadow_pool(RuleSettings(pools=("small", "small")), "small") is None
