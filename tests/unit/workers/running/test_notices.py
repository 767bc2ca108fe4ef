import threading
from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

import pytest

from headrace.batching import CROWD, Gathering
from headrace.domain.ids import new_id
from headrace.errors import BrokerUnavailable, StoreUnavailable
from workers.running.publisher import Notices

DEADLINE_S = 10
FIRST, SECOND, THIRD = new_id(), new_id(), new_id()
Stays = Sequence[tuple[UUID, int]]


class Servers:
    """In place of Redis and Postgres: keeps each call, and refuses those whose names are in `failing`.

    Attributes:
        forgotten: the jobs whose claims Postgres has forgotten.
        entered: set once there was a call.
        open: set while calls go through.
    """

    def __init__(self) -> None:
        self.calls = list[tuple[str, Any]]()
        self.failing: dict[str, Exception] = {}
        self.forgotten = set[UUID]()
        self.entered, self.open = threading.Event(), threading.Event()
        self.open.set()

    def announce_ended(self, job_ids: Sequence[UUID], *, has_webhooks: bool) -> None:
        self._call("ended, webhooks due" if has_webhooks else "ended", list(job_ids))

    def leave(self, stays: Stays) -> None:
        self._call("left", list(stays))

    def over(self, stays: Stays) -> Stays:
        self._call("over", list(stays))
        return [stay for stay in stays if stay[0] not in self.forgotten]

    def told(self, name: str) -> list[Any]:
        return [words for called, words in self.calls if called == name]

    def _call(self, name: str, words: list[Any]) -> None:
        self.calls.append((name, words))
        self.entered.set()
        assert self.open.wait(DEADLINE_S)
        if name in self.failing:
            raise self.failing[name]


@pytest.fixture
def servers() -> Servers:
    return Servers()


@pytest.fixture
def notices(servers: Servers) -> Iterator[Notices]:
    made = Notices(servers, servers.over)  # type: ignore[arg-type]
    yield made
    servers.open.set()
    made.close()


def test_claims_that_come_together_are_passed_on_together_once_they_are_on_disk(
    notices: Notices, servers: Servers
) -> None:
    servers.open.clear()
    notices.claimed(THIRD, 1)
    assert servers.entered.wait(DEADLINE_S)
    notices.claimed(FIRST, 1)
    notices.claimed(SECOND, 3)
    servers.open.set()
    notices.close()
    together = [(FIRST, 1), (SECOND, 3)]
    assert servers.calls == [("over", [(THIRD, 1)]), ("left", [(THIRD, 1)]), ("over", together), ("left", together)]


def test_ends_that_come_together_are_announced_together(notices: Notices, servers: Servers) -> None:
    servers.open.clear()
    notices.ended(THIRD, has_webhook=False)
    assert servers.entered.wait(DEADLINE_S)
    notices.ended(FIRST, has_webhook=True)
    notices.ended(SECOND, has_webhook=False)
    servers.open.set()
    notices.close()
    assert servers.calls == [("ended", [THIRD]), ("ended, webhooks due", [FIRST, SECOND])]


def test_an_end_does_not_wait_for_the_disk_of_a_claim(notices: Notices, servers: Servers) -> None:
    servers.open.clear()
    notices.claimed(FIRST, 1)
    assert servers.entered.wait(DEADLINE_S)
    servers.entered.clear()
    notices.ended(SECOND, has_webhook=False)
    assert servers.entered.wait(DEADLINE_S)


def test_a_job_whose_claim_is_forgotten_keeps_its_place(
    notices: Notices, servers: Servers, caplog: pytest.LogCaptureFixture
) -> None:
    servers.forgotten = {FIRST}
    notices.claimed(FIRST, 1)
    notices.claimed(SECOND, 1)
    notices.close()
    left = {stay for stays in servers.told("left") for stay in stays}
    assert left == {(SECOND, 1)}
    assert "claims_forgotten" in caplog.messages


def test_while_many_jobs_come_claims_wait_for_more(servers: Servers) -> None:
    now = 0.0

    def pause(for_s: float) -> None:
        nonlocal now
        now += for_s
        notices.claimed(SECOND, 1)

    notices = Notices(servers, servers.over, Gathering(1.0, lambda: now, pause))  # type: ignore[arg-type]
    servers.open.clear()
    notices.claimed(THIRD, 1)
    assert servers.entered.wait(DEADLINE_S)
    for _ in range(CROWD):
        notices.claimed(FIRST, 1)
    servers.open.set()
    notices.close()
    assert servers.told("left")[1] == [*[(FIRST, 1)] * CROWD, (SECOND, 1)]


@pytest.mark.parametrize("failing", ["ended", "left", "over"])
def test_a_server_that_does_not_take_one_word_is_given_the_others(
    notices: Notices, servers: Servers, failing: str, caplog: pytest.LogCaptureFixture
) -> None:
    servers.failing[failing] = StoreUnavailable("Away.") if failing == "over" else BrokerUnavailable("Away.")
    notices.claimed(FIRST, 1)
    notices.ended(FIRST, has_webhook=False)
    notices.close()
    expected = ["ended", "over"] if failing == "over" else ["ended", "left", "over"]
    assert sorted(name for name, _ in servers.calls) == expected
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_after_a_fault_later_words_are_passed_on(
    notices: Notices, servers: Servers, caplog: pytest.LogCaptureFixture
) -> None:
    servers.failing["left"] = ValueError("a fault")
    servers.open.clear()
    notices.claimed(FIRST, 1)
    assert servers.entered.wait(DEADLINE_S)
    notices.claimed(SECOND, 1)
    servers.open.set()
    notices.close()
    assert servers.told("left") == [[(FIRST, 1)], [(SECOND, 1)]]
    assert "place_not_freed" in caplog.messages
