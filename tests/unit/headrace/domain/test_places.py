"""Which refusals are demand for a pool."""

from typing import get_args

from headrace.domain.places import ROOM_REASONS, RateReason, Reason


def test_each_reason_is_either_a_lack_of_room_or_the_apps_own_limit() -> None:
    own = {"app_jobs", *get_args(RateReason)}
    every = {*ROOM_REASONS, *own}
    assert set(ROOM_REASONS) == {"depth", "tokens", "wait", "share", "token_share", "no_worker"}
    assert not own & set(ROOM_REASONS)
    assert every == {reason for part in get_args(Reason) for reason in (get_args(part) or (part,))}
