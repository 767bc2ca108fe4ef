"""Which lines are chosen for the provider's batch tier, and what becomes of those that are not."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from api.door.submit import Submitter
from headrace.config import Price
from headrace.domain.apps import App
from headrace.domain.fleet import WorkerInfo, WorkerReport
from headrace.domain.ids import new_id
from headrace.errors import StoreUnavailable
from headrace.store import Store
from headrace.store.fleet import workers
from headrace.tables import jobs
from plugins.batches.running import gathering
from plugins.batches.running.gathering import Gatherer
from plugins.batches.running.runner import Runner
from plugins.batches.settings import BatchSettings, FileSettings
from plugins.batches.tables import provider_batches
from plugins.batches.tests.integration.web.running.conftest import Desk, line, lines, look
from tests.web import ApiClient, Web

PRICE = Price(
    input_usd_per_mtok=1,
    output_usd_per_mtok=2,
    tiers={"batch": "0.5"},
    source="test",
    version="v1",  # type: ignore[arg-type]
)
ONLY = {"job": {"overflow": "only"}}
ALLOW = {"job": {"overflow": "allow"}}

Begin = Callable[..., UUID]


@pytest.fixture
def web(build_web: Callable[..., Web], folder: Any, monkeypatch: pytest.MonkeyPatch) -> Web:
    """An API with the provider's batch tier."""
    settings = {"prices": {"gpt-4o-mini": PRICE}}
    return build_web(
        batches=BatchSettings(files=FileSettings(store=str(folder)), provider_tier=True),
        openai_api_key="sk-test",
        **settings,
    )


@pytest.fixture
def own_workers(store: Store) -> None:
    """One worker of the pool, and one of the paid API."""
    for pool in ("chat", "overflow"):
        info = WorkerInfo(new_id(), f"{pool}@test", "host", pool, "simulator", "m", 4)
        with store.begin() as db:
            workers.register(db, info, 60)
            workers.renew(db, info.id, 60, WorkerReport(0, ready=True))


@pytest.fixture
def reach(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], None]:
    """Sets how many lines own GPUs are expected to reach."""

    def to(reached: int | None) -> None:
        monkeypatch.setattr(Gatherer, "_reached", lambda *_: reached)

    return to


@pytest.fixture
def left(store: Store) -> Callable[[UUID, float], None]:
    """Sets how many hours of a batch's window are left."""

    def set_left(batch_id: UUID, hours: float) -> None:
        with store.begin() as db:
            db.execute(
                sa.text("UPDATE batches SET expires_at = now() + :left WHERE id = :id"),
                {"left": timedelta(hours=hours), "id": batch_id},
            )

    return set_left


@pytest.fixture
def gathered(store: Store) -> Callable[[UUID], Sequence[sa.Row[Any]]]:
    """The provider's batches of a batch, with their lines."""

    def read(batch_id: UUID) -> Sequence[sa.Row[Any]]:
        with store.begin() as db:
            return db.execute(
                sa.text(
                    "SELECT p.*, (SELECT array_agg(l.custom_id ORDER BY l.number) FROM batch_lines l"
                    " WHERE l.provider_batch_id = p.id) AS of_lines"
                    " FROM provider_batches p WHERE p.batch_id = :id ORDER BY p.id"
                ),
                {"id": batch_id},
            ).all()

    return read


def test_all_lines_that_only_the_paid_api_may_answer_go_at_once(
    desk: Desk, runner: Runner, begun: Begin, gathered: Any
) -> None:
    batch_id = begun(lines(3), window="30h", **ONLY)
    assert runner.feed() == 0, "they do not go to its queue"
    assert runner.gather() == 3
    [made] = gathered(batch_id)
    assert (made.state, made.model) == ("ready", "HuggingFaceTB/SmolLM2-135M-Instruct")
    assert made.of_lines == ["0", "1", "2"]
    for job in desk.jobs(batch_id):
        assert (job.state, job.queue) == ("waiting", "overflow.batch")
        assert timedelta(minutes=59) < job.not_before - datetime.now(UTC) <= timedelta(hours=1)
        assert timedelta(hours=29) < job.start_by - datetime.now(UTC) <= timedelta(hours=30)
    assert look(runner, runner.gather) == 0, "each once"
    assert len(gathered(batch_id)) == 1


@pytest.mark.parametrize(
    ("hours", "reached", "chosen"),
    [
        (30, 0, 0),  # It is decided later: the GPUs may yet be free.
        (23.5, 0, 4),
        (23.5, 1, 3),
        (23.5, 4, 0),
        (23.5, None, 0),  # No rate is known.
        (22.9, 0, 0),  # The provider may need a day.
    ],
    ids=["early", "none_reached", "one_reached", "all_reached", "unknown", "late"],
)
def test_of_lines_that_own_gpus_may_answer_those_go_that_they_will_not_reach(
    hours: float, reached: int | None, chosen: int, runner: Runner, begun: Begin, gathered: Any, reach: Any, left: Any
) -> None:
    reach(reached)
    batch_id = begun(lines(4), window="48h", **ALLOW)
    left(batch_id, hours)
    assert look(runner, runner.gather) == chosen
    assert sum(len(each.of_lines) for each in gathered(batch_id)) == chosen


@pytest.mark.usefixtures("own_workers")
def test_the_rest_goes_to_own_gpus_and_it_is_looked_again_after_a_while(
    desk: Desk, runner: Runner, begun: Begin, gathered: Any, reach: Any, left: Any, store: Store
) -> None:
    reach(3)
    batch_id = begun(lines(4), window="48h", **ALLOW)
    left(batch_id, 23.5)
    assert look(runner, runner.gather) == 1
    assert look(runner, runner.feed) == 3
    reach(1)
    assert look(runner, runner.gather) == 0
    with store.begin() as db:
        db.execute(sa.update(provider_batches).values(created_at=sa.func.now() - gathering.LOOK_EVERY))
    assert look(runner, runner.gather) == 0, "all lines have jobs"
    assert sorted(job.queue for job in desk.jobs(batch_id)) == ["chat.batch"] * 4


def test_batches_of_one_lane_share_what_it_reaches(
    runner: Runner, begun: Begin, gathered: Any, reach: Any, left: Any
) -> None:
    reach(6)
    first, second = begun(lines(4), window="48h", **ALLOW), begun(lines(8), window="48h", **ALLOW)
    for each in (first, second):
        left(each, 23.5)
    # Of the first, 6 * 4 / 12 are reached. Once its others are at the provider, 6 * 8 / 10 of the second are.
    assert look(runner, runner.gather) == 2 + 4


def test_without_a_worker_nothing_is_reached(runner: Runner, begun: Begin, left: Any) -> None:
    batch_id = begun(lines(2), window="48h", **ALLOW)
    left(batch_id, 23.5)
    assert look(runner, runner.gather) == 2


@pytest.mark.usefixtures("own_workers")
def test_workers_that_are_up_reach_what_their_rate_allows(runner: Runner, begun: Begin, left: Any) -> None:
    batch_id = begun(lines(2), window="48h", **ALLOW)
    left(batch_id, 23.5)
    assert look(runner, runner.gather) == 0


@pytest.mark.parametrize(
    ("asked", "window", "more"),
    [
        ([line("a", "x")], "23h", ONLY),
        ([line("a", "x")], "48h", {}),
    ],
    ids=["window_too_short", "never"],
)
def test_lines_without_a_day_or_without_leave_do_not_go(
    asked: Any, window: str, more: Any, runner: Runner, begun: Begin, reach: Any, left: Any
) -> None:
    reach(0)
    batch_id = begun(asked, window=window, **more)
    if window == "48h":
        left(batch_id, 23.5)
    assert look(runner, runner.gather) == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"provider_tier": False},
        {"openai_api_key": None},
        {"prices": {"gpt-4o-mini": PRICE.model_copy(update={"tiers": {}})}},
        {"prices": {}},
    ],
    ids=["off", "no_key", "no_tier", "no_price"],
)
def test_without_the_setting_a_key_or_a_price_of_the_tier_no_line_goes(
    changes: dict[str, Any],
    build_web: Callable[..., Web],
    make_runner: Callable[..., Runner],
    begun: Begin,
    folder: Any,
    web: Web,
) -> None:
    settings = {"openai_api_key": "sk-test", "prices": {"gpt-4o-mini": PRICE}, "provider_tier": True, **changes}
    batches = BatchSettings(files=FileSettings(store=str(folder)), provider_tier=settings.pop("provider_tier"))
    begun(lines(2), window="30h", **ONLY)
    other = make_runner(build_web(batches=batches, **settings))
    assert other.gather() == 0
    with other._web.store.begin() as db:
        db.execute(sa.text("UPDATE batches SET lease_until = now() - interval '1 s'"))
    assert look(other, other.gather) == 0


def test_a_line_that_is_refused_ends_and_the_others_go(desk: Desk, runner: Runner, begun: Begin, gathered: Any) -> None:
    batch_id = begun([line("good"), line("bad", temperature=9), line("streamed", stream=True)], window="30h", **ONLY)
    assert runner.gather() == 3
    assert {row.custom_id: (row.state, row.status_code) for row in desk.lines(batch_id)} == {
        "good": ("submitted", None),
        "bad": ("failed", 400),
        "streamed": ("failed", 400),
    }
    assert [job.custom_id for job in desk.jobs(batch_id)] == ["good"]


@pytest.mark.usefixtures("own_workers")
def test_a_line_that_the_provider_has_no_word_for_goes_to_own_gpus(
    desk: Desk, runner: Runner, begun: Begin, reach: Any, left: Any
) -> None:
    reach(0)
    batch_id = begun([line("plain"), line("own", top_k=3)], window="48h", **ALLOW)
    left(batch_id, 23.5)
    assert look(runner, runner.gather) == 2
    assert {job.custom_id: job.state for job in desk.jobs(batch_id)} == {"plain": "waiting", "own": "queued"}


def test_a_gatherer_that_died_is_followed_by_one_that_goes_on(
    desk: Desk,
    runner: Runner,
    begun: Begin,
    gathered: Any,
    query: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gathering, "AT_ONCE", 2)
    batch_id = begun(lines(5), window="30h", **ONLY)
    submitter = runner._web.submitter
    seen = list[UUID]()

    def dies(_: object, draft: Any, *rest: Any) -> Any:
        """The process dies between two lines: the second pair has ids and no jobs."""
        if len(seen) >= 2:
            raise StoreUnavailable("gone")
        seen.append(draft.job_id)
        return set_aside(submitter, draft, *rest)

    set_aside = type(submitter).set_aside
    with monkeypatch.context() as patch:
        patch.setattr(type(submitter), "set_aside", dies)
        assert runner.gather() == 0
    [before] = gathered(batch_id)
    assert len(desk.jobs(batch_id)) == 2
    query("UPDATE provider_batches SET state = 'gathering'")
    query("UPDATE batch_lines SET submitted_at = submitted_at - interval '11 s'")
    assert look(runner, runner.give_back_lost) == 2
    assert look(runner, runner.gather) == 3
    [after] = gathered(batch_id)
    assert (after.id, after.state) == (before.id, "ready")
    assert sorted(after.of_lines) == [str(each) for each in range(5)]
    assert len(desk.jobs(batch_id)) == 5


def test_a_line_whose_set_aside_takes_long_is_not_given_back(
    desk: Desk, runner: Runner, begun: Begin, gathered: Any, query: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_id = begun(lines(2), window="30h", **ONLY)
    set_aside, has_begun, is_free = Submitter.set_aside, threading.Event(), threading.Event()

    def wait(self: Submitter, *arguments: Any) -> Any:
        has_begun.set()
        is_free.wait()
        return set_aside(self, *arguments)

    monkeypatch.setattr(Submitter, "set_aside", wait)
    with ThreadPoolExecutor(1) as threads:
        gathers = threads.submit(runner.gather)
        try:
            assert has_begun.wait(30)
            query("UPDATE batch_lines SET submitted_at = submitted_at - interval '11 s'")
            assert look(runner, runner.give_back_lost) == 0
        finally:
            is_free.set()
        assert gathers.result(30) == 2
    [made] = gathered(batch_id)
    assert (made.state, made.of_lines) == ("ready", ["0", "1"])
    assert len(desk.jobs(batch_id)) == 2


def test_a_line_that_is_not_sent_within_the_hour_goes_to_its_own_queue(
    desk: Desk, runner: Runner, begun: Begin, reach: Any, left: Any, store: Store
) -> None:
    reach(0)
    batch_id = begun(lines(1), window="48h", **ALLOW)
    left(batch_id, 23.5)
    look(runner, runner.gather)
    with store.begin() as db:
        db.execute(sa.update(jobs).values(not_before=sa.func.now()))
        from headrace.store.jobs import enqueue_due

        [ticket] = enqueue_due(db)
    assert ticket.queue == "chat.batch"


def test_the_lines_of_one_app_do_not_keep_it_from_delaying_jobs(
    client: ApiClient, runner: Runner, begun: Begin, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun(lines(3), window="30h", **ONLY)
    assert runner.gather() == 3
    lane = runner._web.settings.lane
    monkeypatch.setattr(
        type(runner._web.settings), "lane", lambda _, *given: lane(*given).model_copy(update={"depth_cap": 1})
    )
    later = (datetime.now(UTC) + timedelta(minutes=5)).isoformat()
    assert client.post("/v1/jobs", json={"prompt": "later", "not_before": later}).status_code == 202
